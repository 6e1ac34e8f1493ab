"""Does a network find the direction in which a system of particles is bound? Springs, and a plane that pulls.

    python benchmarks/points_dynamics.py --json dynamics.json --plot docs/points_dynamics.png

Five particles joined by springs of stiffness 1/4, so that all others together pull one as hard as a spring of stiffness
1, move for one unit of time. Springs of stiffness k pull each towards the plane through the origin with the normal
(1, 2, 2) / 3: for k = 0 the motion turns with the system, for k > 0 only about the normal and if the system is turned
over. The network is given positions and velocities and tells each particle's displacement from its free motion. In a
second experiment gravity g pulls against the normal instead; then turning over is no symmetry either.

The network (:mod:`parteq.apps.points.dynamics`) has one density for all layers, which starts uniform on SO(3). It is
trained on 15 log(mean |error|): the negative log-likelihood of a system, in nats, of 15 numbers under Laplace noise of
unknown size. Of what it learned the table says

- of ∫ λ(g) D(g) dg, D the matrices of degree 1 (these are the g) and of degree 2, the singular values: 0 for uniform λ,
  (1, 0, …) for λ uniform on the turns about an axis. Where these may be followed by turning over, as about a plane,
  degree 1 averages to 0, and degree 2 alone tells the axis;
- the angle between the axis, from the first left singular vector, and the normal;
- the share of the energy of all kernels that is broken, and how much of it is left unexplained by O(2) (turns about the
  normal, and turning over) and by SO(2) (turns alone).

``error`` is the root mean square of the error on 1,000 held-out systems over that of the displacements. Compared with
fixed groups: ``so3``, ``so2`` about the true normal, and ``none``, a plain network; ``wide`` ones have as many weights
as the learned network, which has one for every kernel, also for those that uniform λ silences.

A row is written when it is done; with the same ``--json`` those that are there are not trained again.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from parteq.apps.points import task
from parteq.apps.points.dynamics import VectorNetwork, create_vector_network
from parteq.core.density import Density
from parteq.core.groups import Element, FloatArray, SymmetryGroup
from parteq.core.intertwiners import copies_of_irrep
from parteq.core.measure import broken_energy, partial_layers
from parteq.core.subgroups import Subgroup, axial_subgroup
from parteq.core.training import Batch, Settings, fit
from parteq.datasets.points.dynamics import Surroundings, simulate
from parteq.pipelines import figures
from parteq.pipelines.benchmarks import Rows, benchmark_parser, mean_and_spread, run_benchmark
from parteq.pipelines.files import replacing

METHODS = {
    "learned": ("so3", "learned", 1.0),
    "so3": ("so3", "full", 1.0),
    "so2": ("so2", "full", 1.0),
    "none": ("none", "none", 1.0),
    "so2 wide": ("so2", "full", 2.75),
    "none wide": ("none", "none", 3.85),
}
FORCES = {"plane": ("plane_stiffness", "stiffness k"), "gravity": ("gravity", "gravity g")}
NORMAL = (1 / 3, 2 / 3, 2 / 3)
SPRINGS, TRAIN, TEST = 0.25, 1000, 1000
SETTINGS = Settings(
    epochs=25,
    batch_size=50,
    weight_decay=0.01,
    density_learning_rate=15.0,
    density_threshold=task.DENSITY_THRESHOLD,
    breaking=1.0,
)


@dataclass
class Result:
    """One training; angles in degrees, lists by degree 1 and 2."""

    force: str
    strength: float
    method: str
    seed: int
    error: float
    parameters: int
    seconds: float
    singular_values: list[list[float]] = field(default_factory=list)
    angles_deg: list[float] = field(default_factory=list)
    broken: float = 0.0
    left_by_o2: float = 0.0
    left_by_so2: float = 0.0


def negative_log_likelihood(model: nn.Module, batch: Batch) -> Tensor:
    """Return nats a system, up to a constant."""
    positions, velocities, displacements = batch
    errors = model(positions, velocities) - displacements
    return displacements[0].numel() * errors.abs().mean().log()


def run(force: str, strength: float, method: str, seed: int) -> Result:
    """Train one network."""
    surroundings = Surroundings(spring_stiffness=SPRINGS, axis=NORMAL, **{FORCES[force][0]: strength})
    training, held_out = simulate(surroundings, TRAIN, seed), simulate(surroundings, TEST, 1_000_000 + seed)
    group, degree, width = METHODS[method]
    torch.manual_seed(seed)
    model = create_vector_network(group=group, degree=degree, axis=NORMAL, width=width)
    model.scale.copy_(training.displacements.square().mean().sqrt())
    data = TensorDataset(training.positions, training.velocities, training.displacements)
    penalty = task.penalty(TRAIN)
    settings = replace(SETTINGS, seed=seed)
    began = time.perf_counter()
    fit(model, negative_log_likelihood, data, settings, penalty=penalty, progress=False)
    seconds = time.perf_counter() - began
    model.eval()
    with torch.inference_mode():
        errors = model(held_out.positions, held_out.velocities) - held_out.displacements
    error = float(errors.square().mean().sqrt() / held_out.displacements.square().mean().sqrt())
    weights = sum(parameter.numel() for parameter in model.parameters())
    result = Result(force, strength, method, seed, error, weights, seconds)
    if degree == "learned":
        for order in (1, 2):
            values, axis = moment(model.density, order)
            result.singular_values.append(values)
            result.angles_deg.append(float(np.degrees(np.arccos(min(1.0, abs(axis @ np.array(NORMAL)))))))
        result.broken = broken_share(model)
        o2, so2 = (axial_subgroup(model.density.group, NORMAL, kind) for kind in ("o2", "so2"))
        result.left_by_o2, result.left_by_so2 = broken_share(model, o2), broken_share(model, so2)
    return result


@torch.no_grad()
def moment(density: Density, degree: int) -> tuple[list[float], FloatArray]:
    """Return the singular values of ∫ λ(g) D(g) dg of degree 1 or 2, and the axis of its first left singular vector.

    In degree 2 that is a symmetric matrix without trace, and the axis its eigenvector of the largest eigenvalue.
    """
    group = density.group
    left, values, _ = torch.linalg.svd(density.coefficients()[degree].double())
    power = partial(tensor_power, group, degree)
    (embedding,) = copies_of_irrep(group, power, 3**degree, degree, group.irreps(degree)[degree])
    found = embedding @ left[:, 0].numpy()
    if degree == 2:
        eigenvalues, vectors = np.linalg.eigh(found.reshape(3, 3))
        found = vectors[:, np.abs(eigenvalues).argmax()]
    return values.tolist(), found


def tensor_power(group: SymmetryGroup, degree: int, element: Element) -> FloatArray:
    """Return how an element acts on vectors (degree 1) or on 3×3 matrices (degree 2)."""
    matrix = group.matrix(element)
    return matrix if degree == 1 else np.kron(matrix, matrix)


def broken_share(model: VectorNetwork, subgroup: Subgroup | None = None) -> float:
    """Return the share of the energy of all kernels that a subgroup, by default the group, does not leave alone."""
    layers = partial_layers(model).values()
    energies = [float(layer.kernel.coefficients().detach().square().sum()) for layer in layers]
    return float(np.average([broken_energy(layer, subgroup) for layer in layers], weights=energies))


def lines(results: list[Result]) -> Iterator[str]:
    """Return the lines of the two tables: the errors, and what was learned."""
    runs = list(dict.fromkeys((result.force, result.strength) for result in results))
    methods = [method for method in METHODS if any(result.method == method for result in results)]
    weights = {result.method: result.parameters for result in results}
    yield "| force | strength | " + " | ".join(f"{m} ({weights[m]:,} weights)" for m in methods) + " |"
    yield "|" + " --- |" * (2 + len(methods))
    for run in runs:
        cells = [run[0], f"{run[1]:g}"]
        for method in methods:
            errors = [r.error for r in results if (r.force, r.strength, r.method) == (*run, method)]
            cells.append(mean_and_spread(errors) if errors else "")
        yield "| " + " | ".join(cells) + " |"
    yield ""
    yield "| force | strength | σ of M | axis off by | σ of degree 2 | axis off by | broken | left by O(2), SO(2) |"
    yield "|" + " --- |" * 8
    for run in runs:
        rows = [r for r in results if (r.force, r.strength, r.method) == (*run, "learned")]
        if not rows:
            continue
        cells = [run[0], f"{run[1]:g}"]
        for degree in (0, 1):
            mean = np.mean([row.singular_values[degree] for row in rows], axis=0)
            cells.append(", ".join(f"{value:.3f}" for value in mean[:3]))
            cells.append(", ".join(f"{row.angles_deg[degree]:.1f}°" for row in rows))
        broken = sum(row.broken for row in rows)
        cells.append(f"{broken / len(rows):.2%}")
        left = (sum(row.left_by_o2 for row in rows), sum(row.left_by_so2 for row in rows))
        cells.append(", ".join(f"{value / broken:.0%}" for value in left))
        yield "| " + " | ".join(cells) + " |"


def picture(results: list[Result]) -> Figure:
    """Draw the first singular values of either degree, of either force, and the errors with a plane."""
    learned = {force: [r for r in results if (r.force, r.method) == (force, "learned")] for force in FORCES}
    with matplotlib.rc_context(figures.STYLE):
        figure = Figure(figsize=(figures.WIDTH, 2.5), layout="constrained")
        *panels, errors = figure.subplots(1, len(FORCES) + 1)
        for axes, force in zip(panels, FORCES, strict=True):
            for degree in (1, 2):
                values = [(r.strength, r.singular_values[degree - 1][0]) for r in learned[force]]
                draw(axes, values, f"degree {degree}")
            axes.set(xlabel=FORCES[force][1], ylabel="first singular value", title=f"λ, {force}")
        for method in [name for name in METHODS if any((r.force, r.method) == ("plane", name) for r in results)]:
            draw(errors, [(r.strength, r.error) for r in results if (r.force, r.method) == ("plane", method)], method)
        errors.set(xlabel=FORCES["plane"][1], ylabel="held-out error", title="plane")
        for axes in (*panels, errors):
            axes.set_ylim(0, None)
            axes.grid(True)
            axes.legend(fontsize=7)
    return figure


def draw(axes: Axes, values: list[tuple[float, float]], label: str) -> None:
    """Draw the mean over the seeds as a line, each seed as a dot."""
    strengths = sorted({strength for strength, _ in values})
    means = [statistics.mean(value for at, value in values if at == strength) for strength in strengths]
    (line,) = axes.plot(strengths, means, label=label)
    axes.scatter([at for at, _ in values], [value for _, value in values], s=8, color=line.get_color(), clip_on=False)


def main() -> None:
    """Train what is not in the file yet; print the tables."""
    parser = benchmark_parser(__doc__, seeds=3, threads=1)
    parser.add_argument("--plot", type=Path, help="draw λ and the errors against the strength into this PNG file")
    parser.add_argument("--plane", type=float, nargs="*", default=[0, 0.05, 0.1, 0.2, 0.5, 1, 2], help="k")
    parser.add_argument("--gravity", type=float, nargs="*", default=[0.05, 0.2, 1], help="g")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json)
    for seed, method, force in itertools.product(options.seeds, options.methods, FORCES):
        for strength in getattr(options, force):
            if not results.has(force=force, strength=strength, method=method, seed=seed):
                results.add(run(force, strength, method, seed))
    order = list(METHODS)
    results.sort(key=lambda r: (r.force != "plane", r.strength, order.index(r.method), r.seed))
    print("\n".join(lines(results)))
    if options.plot:
        with replacing(options.plot) as temporary:
            colours = Image.open(BytesIO(figures.png(picture(results)))).quantize(64)
            colours.save(temporary, "PNG", optimize=True)


if __name__ == "__main__":
    run_benchmark(main)
