"""Does a network say which part of a symmetry its data have? Pairs of cells, each turned by its own element of D4.

    python benchmarks/histo_pairs.py --json pairs.json

Two malaria cells stand side by side; the label is the ordered pair of their classes (``parteq histo make-pairs``). What
is local has all of D4; as a whole the task has exactly the identity and the top-bottom flip. Cells of held-out patients
are held out. Compared, with the defaults of ``parteq histo train``:

- ``invariant``: all of D4 in every layer;
- ``trunk``: all of D4 but in the last convolution, which is free: what one would build by hand who knows the answer;
- ``unconstrained``: a plain network of as many weights;
- ``learned``: D4 with a degree learned in every layer, from uniform densities.

What learned degrees break and further pairs (a quarter as many, of other patients again) do not need broken is undone,
as there. For the learned ones the table says how often the last convolution and the network as a whole are
named as the flip, and the largest broken energy of the first three convolutions. Cells: ``histo/malaria_cells.npz`` in
``$PARTEQ_DATA`` (or ``../shared/data``).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from parteq.apps.histo import task
from parteq.apps.histo.models import Classifier, create_model
from parteq.core.density import make_density
from parteq.core.layers import PartialConv2d
from parteq.core.measure import measure_degree, nearest_subgroup
from parteq.core.training import Settings
from parteq.datasets.npz import read_npz
from parteq.datasets.pairs import make_pairs
from parteq.datasets.splits import grouped_split
from parteq.pipelines.benchmarks import (
    Rows,
    accuracy,
    benchmark_parser,
    data_folder,
    mean_and_spread,
    run_benchmark,
    train_classifier,
)

METHODS = ("invariant", "trunk", "unconstrained", "learned")
FLIP = "D1 (mirror line at 0°)"
HELD_OUT = 2000
FIRST_LAYERS = 3


@dataclass
class Result:
    """One training."""

    n: int
    method: str
    seed: int
    accuracy: float
    seconds: float
    last_subgroup: str = ""
    network_subgroup: str = ""
    broken_energy: list[float] = field(default_factory=list)
    last_density: list[float] = field(default_factory=list)


def pairs(count: int, seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return images in 0…1 and labels: as many pairs to train on, others to validate on, of held-out patients."""
    cells = read_npz(data_folder() / "histo" / "malaria_cells.npz")
    train, test = grouped_split(cells.labels, cells.groups, 0.3, seed)
    known = cells.subset(train)
    train, validation = grouped_split(known.labels, known.groups, 0.2, seed)
    parts = [(known.subset(train), count), (known.subset(validation), count // 4), (cells.subset(test), HELD_OUT)]
    drawn = (make_pairs(part, number, seed).tensors() for part, number in parts)
    return [(task.as_unit(images), labels) for images, labels in drawn]


def build(method: str, seed: int) -> Classifier:
    """Return an untrained network."""
    torch.manual_seed(seed)
    degree = "learned" if method == "learned" else "full"
    model = create_model("resnet", num_classes=4, group="none" if method == "unconstrained" else "d4", degree=degree)
    if method == "trunk":
        last = model.head[0]
        density = make_density(last.density.group, "none", 0)
        model.head[0] = PartialConv2d(last.in_type, last.out_type, last.kernel_size, density, bias=False)
    return model


def run(count: int, method: str, seed: int, epochs: int) -> Result:
    """Train one network."""
    start = time.perf_counter()
    (images, labels), validation, test = pairs(count, seed)
    model = build(method, seed)
    model.set_normalization(images.mean((0, 2, 3)).tolist(), images.std((0, 2, 3)).tolist())
    train_classifier(model, (images, labels), validation, Settings(seed=seed, epochs=epochs))
    result = Result(count, method, seed, accuracy(model, *test), time.perf_counter() - start)
    if method == "learned":
        degrees = measure_degree(model)
        result.last_subgroup = degrees[-1].nearest_subgroup
        result.network_subgroup = nearest_subgroup([degree.broken_under for degree in degrees])
        result.broken_energy = [degree.broken_energy for degree in degrees]
        result.last_density = degrees[-1].density + degrees[-1].density_flipped
    return result


def row(results: list[Result]) -> str:
    """Return a line of the table."""
    rates = [result.accuracy for result in results]
    line = f"{results[0].n:5} {results[0].method:14} {mean_and_spread(rates)}"
    if results[0].method == "learned":
        last = sum(result.last_subgroup == FLIP for result in results)
        whole = sum(result.network_subgroup == FLIP for result in results)
        first = max(max(result.broken_energy[:FIRST_LAYERS]) for result in results)
        line += f"  flip named: last layer {last}, network {whole}; first layers break at most {first:.3f}"
    return line


def main() -> None:
    """Run, print the table."""
    parser = benchmark_parser(__doc__, seeds=5, threads=2)
    parser.add_argument("--n", type=int, nargs="+", default=[400, 1200])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--epochs", type=int, default=Settings.epochs)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json, epochs=options.epochs)
    for seed in options.seeds:
        for count in options.n:
            for method in options.methods:
                if not results.has(n=count, method=method, seed=seed):
                    results.add(run(count, method, seed, options.epochs))
    for count, method in sorted({(result.n, result.method) for result in results}):
        print(row([result for result in results if (result.n, result.method) == (count, method)]))


if __name__ == "__main__":
    run_benchmark(main)
