"""Do networks find the symmetry their data have? Digits under known symmetries, one set of defaults.

    python benchmarks/degree_recovery.py --json recovery.json

Digits are turned (or mirrored) by every element of a set, and networks that start from a larger group learn how much of
it to keep. They are compared with the fixed choices at the same budget: the whole group (``full``), none of it (a plain
network of as many weights), and, as an ``oracle`` that is told the answer, the true subgroup where there is one. For
the task (digit, up | down) turned within ±w (``up:w``) the table gives the turn up to which held-out accuracy holds;
the truth is 90° − w.

Breaking that digits neither trained on nor held out do not need is undone, as by `parteq histo train`.

Sets: ``digits``, scikit-learn's, 600 for training; ``mnist600`` and ``mnist2000``, MNIST, where ``$PARTEQ_DATA`` (or
``../shared/data``) holds ``mnist_8k.npz``. Images are turned at 24×24 and 28×28. Under a known symmetry they are
learned at half of that; (digit, up | down) at the whole of it, since at 12×12 even a network fixed to all of SO(2) does
not know digits again that it has seen upright and that stand aslant: it holds to 19°.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from parteq.apps.histo.models import create_model
from parteq.apps.histo.turning import accuracy_against_turn, holding_turn
from parteq.core.measure import measure_degree, nearest_subgroup
from parteq.core.pruning import ENOUGH
from parteq.core.training import Settings
from parteq.datasets.digits import sklearn_digits
from parteq.datasets.npz import read_npz
from parteq.datasets.symmetry import apply_symmetry, up_or_down
from parteq.pipelines.benchmarks import (
    Rows,
    accuracy,
    benchmark_parser,
    data_folder,
    mean_and_spread,
    run_benchmark,
    train_classifier,
)

# For each symmetry of the data: the group networks start from, the subgroup that is the truth, its name as a group.
SYMMETRIES = {
    "c4": ("d4", "C4", "c4"),
    "half": ("d4", "identity only", None),
    "c2": ("d4", "C2", "c2"),
    "mirror": ("d4", "D1 (mirror line at 90°)", None),
    "none": ("d4", "identity only", None),
    "any": ("so2", "SO(2)", None),
}
TURNS = (0, 30, 60)
METHODS = ("learned", "full", "none", "oracle")
HELD_OUT = 1000
SETTINGS = ("epochs", "width", "settings", "penalty")


@dataclass
class Result:
    """One training."""

    data: str
    symmetry: str
    method: str
    seed: int
    truth: str
    accuracy: float
    broken_energy: list[float] = field(default_factory=list)
    nearest_subgroup: list[str] = field(default_factory=list)
    network_subgroup: str = ""
    holding_turn_deg: float | None = None
    seconds: float = 0.0


def read_digits(name: str) -> tuple[Tensor, Tensor, int]:
    """Return images in 0…1 (n, 1, y, x), labels, and how many are for training."""
    if name == "digits":
        images, labels = sklearn_digits(size=16, margin=4).tensors()
        return images.float() / 255, labels, 600
    folder = data_folder()
    images, labels = read_npz(folder / "mnist_8k.npz").tensors()
    return images.float() / 255, labels, int(name.removeprefix("mnist"))


def shrink(images: Tensor) -> Tensor:
    """Return images at half their size, after turning, so that turns stay sharp."""
    return avg_pool2d(images, 2)


def draw(data: str, seed: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], int]:
    """Return digits with labels, to train on and held out; others to validate on; how many are to train on."""
    images, labels, count = read_digits(data)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    drawn, others = order[: count + HELD_OUT], order[count + HELD_OUT :][:ENOUGH]
    return (images[drawn], labels[drawn]), (images[others], labels[others]), count


def train(
    images: Tensor,
    labels: Tensor,
    validation: tuple[Tensor, Tensor],
    seed: int,
    options: argparse.Namespace,
    **config: Any,
) -> nn.Module:
    """Train a network with the defaults of ``parteq histo train``."""
    torch.manual_seed(seed)
    model: Any = create_model(num_classes=int(labels.max()) + 1, in_chans=1, width=options.width, **config)
    model.set_normalization([float(images.mean())], [float(images.std())])
    settings = Settings(seed=seed, epochs=options.epochs, **options.settings)
    train_classifier(model, (images, labels), validation, settings, **options.penalty)
    return model


def methods(wanted: list[str], group: str, subgroup: str | None = None) -> dict[str, dict[str, str]]:
    """Return what is compared, of the methods wanted."""
    chosen = {
        "learned": {"group": group, "degree": "learned"},
        "full": {"group": group, "degree": "full"},
        "none": {"group": "none", "degree": "full"},
    }
    chosen |= {"oracle": {"group": subgroup, "degree": "full"}} if subgroup else {}
    return {method: config for method, config in chosen.items() if method in wanted}


def recover(data: str, symmetry: str, wanted: list[str], seed: int, options: argparse.Namespace) -> Iterator[Result]:
    """Train methods on digits under one symmetry."""
    group, truth, subgroup = SYMMETRIES[symmetry]
    (images, labels), (others, other_labels), count = draw(data, seed)
    images, others = (shrink(apply_symmetry(part, symmetry, seed).images) for part in (images, others))
    for method, config in methods(wanted, group, subgroup).items():
        start = time.perf_counter()
        model = train(images[:count], labels[:count], (others, other_labels), seed, options, **config)
        degrees = measure_degree(model)
        yield Result(
            data,
            symmetry,
            method,
            seed,
            truth,
            accuracy(model, images[count:], labels[count:]),
            [degree.broken_energy for degree in degrees],
            [degree.nearest_subgroup for degree in degrees],
            nearest_subgroup([degree.broken_under for degree in degrees]),
            seconds=time.perf_counter() - start,
        )


def turn_up_or_down(
    data: str, symmetry: str, wanted: list[str], seed: int, options: argparse.Namespace
) -> Iterator[Result]:
    """Train methods on (digit, up | down) and find the turn up to which accuracy holds."""
    width = int(symmetry.removeprefix("up:"))
    digits, others, count = draw(data, seed)
    turned, validation = (up_or_down(*part, width, seed) for part in (digits, others))
    for method, config in methods(wanted, "so2").items():
        start = time.perf_counter()
        model = train(turned.images[:count], turned.labels[:count], validation[:2], seed, options, **config)
        held_out = zip(turned.images[count:].split(500), turned.labels[count:].split(500), strict=True)
        angles, rates = accuracy_against_turn(model, held_out)
        degrees = measure_degree(model)
        yield Result(
            data,
            symmetry,
            method,
            seed,
            f"{90 - width}°",
            rates[0],
            [degree.broken_energy for degree in degrees],
            [degree.nearest_subgroup for degree in degrees],
            nearest_subgroup([degree.broken_under for degree in degrees]),
            holding_turn(angles, rates),
            time.perf_counter() - start,
        )


def table(results: list[Result]) -> str:
    """Return the results as a table, seeds gathered into mean ± standard deviation."""
    gathered: dict[tuple[str, str, str, str], list[Result]] = defaultdict(list)
    for result in results:
        gathered[result.data, result.symmetry, result.truth, result.method].append(result)
    lines = [f"{'data':10} {'symmetry':13} {'truth':24} {'method':8} {'accuracy':>14}  broken energy, layer by layer"]
    for (data, symmetry, truth, method), group in gathered.items():
        rates = [result.accuracy for result in group]
        line = f"{data:10} {symmetry:13} {truth:24} {method:8} {mean_and_spread(rates)}"
        if method == "learned":
            layers = [statistics.mean(layer) for layer in zip(*(r.broken_energy for r in group), strict=True)]
            line += "  " + " ".join(f"{energy:.2f}" for energy in layers)
            named = sum(result.network_subgroup == truth for result in group)
            line += f"  named {named}/{len(group)}" if symmetry in SYMMETRIES else ""
        turns = [result.holding_turn_deg for result in group if result.holding_turn_deg is not None]
        line += f"  holds to {statistics.mean(turns):.0f}° (each {turns})" if turns else ""
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Run, print the table."""
    parser = benchmark_parser(__doc__, seeds=5, threads=2)
    parser.add_argument("--data", nargs="+", default=["digits", "mnist600", "mnist2000"])
    symmetries = [*SYMMETRIES, *(f"up:{width}" for width in TURNS)]
    parser.add_argument("--symmetry", nargs="+", choices=symmetries, default=symmetries)
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--settings", type=json.loads, default={}, help="other training settings, as JSON")
    parser.add_argument("--penalty", type=json.loads, default={}, help="other prices of the chain, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json, **{name: getattr(options, name) for name in SETTINGS})
    for seed in options.seeds:
        for data in options.data:
            for symmetry in options.symmetry:
                made = {"data": data, "symmetry": symmetry, "seed": seed}
                wanted = [method for method in options.methods if not results.has(method=method, **made)]
                compare = recover if symmetry in SYMMETRIES else turn_up_or_down
                for result in compare(data, symmetry, wanted, seed, options):
                    results.add(result)
    print(table(results))


if __name__ == "__main__":
    run_benchmark(main)
