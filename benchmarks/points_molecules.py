"""Molecules: what kernels should look at to predict the properties of QM9, and how a network of e3nn does.

    python benchmarks/points_molecules.py --json molecules.json [--epochs 4 | --minutes 1.5] [--targets homo gap]

10,000 molecules to learn from and 2,000 others to be judged by, the same whatever is compared. Compared are networks of
points that are exactly O(3)-invariant and alike but for their kernels, after arXiv 2212.06096:

- ``analytic``: harmonics times a learned radial profile. Atoms bear their element, as they do in all others;
- ``implicit``: a network of the relative position;
- ``bonds``: which also sees whether two atoms are bonded, that is, closer than 1.25 times the sum of their covalent
  radii (the data hold no bonds);
- ``atoms``: which sees the elements of both atoms as well;

and ``e3nn``: message passing as in its ``gate_points_2106``, with a network of the distance, as many layers, and
elements as attributes of the nodes. It asks for the extra ``compare`` (``pip install e3nn``); the others do not.

With ``--epochs`` all are trained for as many passes over the molecules; with ``--minutes`` each for as many as it can
make in that time, which a short training measures beforehand. All share loss, optimiser, schedule and batches; the
learning rate of e3nn's network is its own, the better of two at two passes (5e-3, and 1.5e-3, that of the others).
Molecules: ``qm9_12k.npz`` in ``$PARTEQ_DATA`` (or ``../shared/data``).
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from torch.utils.data import TensorDataset

from parteq.apps.points import task
from parteq.apps.points.models import PointNetwork, create_model
from parteq.core.training import Settings, fit
from parteq.datasets.points.clouds import open_clouds
from parteq.datasets.points.elements import COVALENT_RADII_IN_ANGSTROMS, ELEMENTS
from parteq.datasets.points.targets import Target
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, mean_and_spread, run_benchmark

VARIANTS: dict[str, dict[str, Any]] = {
    "analytic": {"kernel": "analytic"},
    "implicit": {"kernel": "implicit", "attributes": ()},
    "bonds": {"kernel": "implicit", "attributes": ("bonds",)},
    "atoms": {"kernel": "implicit", "attributes": ("bonds", "features")},
    "e3nn": {},
}
TARGETS = ("homo", "gap", "alpha", "mu")
TRAIN, LAYERS, NEIGHBOURS = 10_000, 3, 12
SETTINGS = Settings(batch_size=48, learning_rate=1.5e-3, weight_decay=0.6)
E3NN_LEARNING_RATE = 5e-3
TRIAL = 480
Answers = dict[str, tuple[Tensor, Target]]


@dataclass(frozen=True)
class Result:
    """One training; ``passes`` over the molecules, ``seconds`` of processor time."""

    target: str
    variant: str
    seed: int
    passes: float
    seconds: float
    parameters: int
    mae: float
    mae_of_mean: float
    mae_unit: str


class E3nnNetwork(nn.Module):
    """Message passing of e3nn on molecules, called as a network of points is; fields are those of that network."""

    IRREPS, HIGHEST_DEGREE, CUTOFF_IN_ANGSTROMS, RADIAL, HIDDEN, SUMS = "32x0e + 8x1o", 1, 4.0, 12, 64, 64

    def __init__(self, elements: int, mean: Tensor, std: Tensor) -> None:
        from e3nn.math import soft_one_hot_linspace
        from e3nn.nn.models.v2106.gate_points_message_passing import MessagePassing
        from e3nn.o3 import Irreps, SphericalHarmonics

        super().__init__()
        self.register_buffer("target_mean", mean)
        self.register_buffer("target_std", std)
        shells = {"start": 0.0, "end": self.CUTOFF_IN_ANGSTROMS, "number": self.RADIAL}
        self.radial = partial(soft_one_hot_linspace, **shells, basis="smooth_finite", cutoff=True)
        irreps = Irreps.spherical_harmonics(self.HIGHEST_DEGREE)
        self.harmonics = SphericalHarmonics(irreps, normalize=True, normalization="component")
        self.passing = MessagePassing(
            irreps_node_sequence=[f"{elements}x0e", *[self.IRREPS] * LAYERS, f"{self.SUMS}x0e"],
            irreps_node_attr=f"{elements}x0e",
            irreps_edge_attr=irreps,
            fc_neurons=[self.RADIAL, self.HIDDEN],
            num_neighbors=float(NEIGHBOURS),
        )
        self.head = nn.Linear(self.SUMS, 1)

    def forward(self, positions: Tensor, counts: Tensor, features: Tensor, neighbours: Tensor) -> Tensor:
        clouds, points, _ = positions.shape
        present = torch.arange(points) < counts[:, None]
        number = (present.flatten().cumsum(0) - 1).view(clouds, points)
        near = (torch.cdist(positions, positions) < self.CUTOFF_IN_ANGSTROMS) & present[:, :, None] & present[:, None]
        cloud, target, source = (near & ~torch.eye(points, dtype=torch.bool)).nonzero(as_tuple=True)
        vectors = positions[cloud, source] - positions[cloud, target]
        radial, angular = self.radial(vectors.norm(dim=1)), self.harmonics(vectors)
        atoms, edges = features[present], (number[cloud, source], number[cloud, target])
        found = silu(self.passing(atoms, atoms, *edges, angular, radial * self.RADIAL**0.5))
        sums = torch.zeros(clouds, self.SUMS).index_add(0, present.nonzero()[:, 0], found)
        output: Tensor = self.head(sums / float(NEIGHBOURS)) * self.target_std + self.target_mean
        return output


def build(variant: str, wanted: Tensor, seed: int) -> PointNetwork | E3nnNetwork:
    """Return an untrained network."""
    torch.manual_seed(seed)
    mean, std = wanted.mean(0), wanted.std(0)
    if variant == "e3nn":
        return E3nnNetwork(len(ELEMENTS), mean, std)
    shape = {"num_targets": 1, "in_features": len(ELEMENTS), "group": "o3", "degree": "full"}
    local = {"layers": LAYERS, "neighbours": NEIGHBOURS, "radii": COVALENT_RADII_IN_ANGSTROMS}
    model = create_model(**shape, **local, **VARIANTS[variant], absolute=True)
    model.set_target_scale(mean.tolist(), std.tolist())
    return model


def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Return the mean absolute error in standard deviations."""
    *molecules, wanted = batch
    return ((model(*molecules) - wanted) / model.target_std).abs().mean()


def train(model: nn.Module, data: TensorDataset, samples: int, seed: int) -> float:
    """Train on that many samples, drawn in one go, pass after pass; return the seconds of processor time it took."""
    generator = torch.Generator().manual_seed(seed)
    passes = [torch.randperm(len(data), generator=generator) for _ in range(math.ceil(samples / len(data)))]
    drawn = torch.cat(passes)[:samples]
    start = time.process_time()
    rate = SETTINGS.learning_rate if isinstance(model, PointNetwork) else E3NN_LEARNING_RATE
    settings = dataclasses.replace(SETTINGS, epochs=1, seed=seed, learning_rate=rate)
    fit(model, loss, TensorDataset(*(tensor[drawn] for tensor in data.tensors)), settings, progress=False)
    return (time.process_time() - start) / torch.get_num_threads()


def molecules() -> tuple[TensorDataset, Answers]:
    """Return samples of all molecules, in an order drawn once and for all, and what is to be said of them."""
    folder = data_folder()
    clouds = open_clouds(f"qm9:{folder / 'qm9_12k.npz'}", "train")
    clouds = clouds.subset(np.random.default_rng(0).permutation(len(clouds)))
    data = task.samples(clouds, int(clouds.sizes.max()), NEIGHBOURS, None)
    return data, {name: task.answers(clouds, name) for name in TARGETS}


def run(
    name: str, variant: str, seed: int, data: TensorDataset, answers: Answers, options: argparse.Namespace
) -> Result:
    """Train one network for so many epochs or, where they are given, minutes, and test it."""
    wanted, target = answers[name]
    parts = slice(TRAIN), slice(TRAIN, None)
    known, test = (TensorDataset(*(tensor[part] for tensor in (*data.tensors, wanted))) for part in parts)
    lengths = task.lengths(known)

    def fresh() -> PointNetwork | E3nnNetwork:
        model = build(variant, wanted[:TRAIN], seed)
        if isinstance(model, PointNetwork):
            model.set_lengths(*lengths)
        return model

    if options.minutes is None:
        samples = round(options.epochs * TRAIN)
    else:
        # Of two trials the first compiles what e3nn compiles.
        seconds = [train(fresh(), known, TRIAL, seed) for _ in range(2)][1]
        samples = round(60 * options.minutes / seconds * TRIAL)
    model = fresh()
    seconds = train(model, known, samples, seed)
    scores = task.evaluate(model, test, wanted[TRAIN:], torch.device("cpu"), factor=target.factor)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    errors = scores["mae"], scores["mae_of_mean"]
    return Result(name, variant, seed, samples / TRAIN, seconds, parameters, *errors, target.unit)


def line(results: list[Result]) -> str:
    """Return a line of the table."""
    first, errors = results[0], [result.mae for result in results]
    passes, seconds = (statistics.mean(getattr(result, name) for result in results) for name in ("passes", "seconds"))
    return (
        f"{first.target:6} {first.variant:9} {mean_and_spread(errors, '.4g')} "
        f"{first.mae_unit:6} of {first.mae_of_mean:.4g} for the mean; {passes:5.1f} passes, "
        f"{seconds:4.0f} s, {first.parameters:,} parameters"
    )


def main() -> None:
    """Run, print the table."""
    parser = benchmark_parser(__doc__, seeds=3, threads=2)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=["homo"])
    parser.add_argument("--epochs", type=float, default=4.0)
    parser.add_argument("--minutes", type=float, help="of processor time, in place of --epochs")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json, epochs=options.epochs, minutes=options.minutes)
    data, answers = molecules()
    # Seed by seed, so that what is there when time is up compares.
    for seed, target, variant in itertools.product(options.seeds, options.targets, options.variants):
        if not results.has(target=target, variant=variant, seed=seed):
            results.add(run(target, variant, seed, data, answers, options))
    for target, variant in itertools.product(options.targets, options.variants):
        print(line([result for result in results if (result.target, result.variant) == (target, variant)]))


if __name__ == "__main__":
    run_benchmark(main)
