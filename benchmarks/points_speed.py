"""Speed of convolutions of points, paired with escnn and e3nn in one run; what they cost; memory; build time.

    python benchmarks/points_speed.py --json points_speed.json

A cloud of 2,048 points with 16 neighbours each, 72 channels of 8 × (0 ⊕ 1 ⊕ 2), filters of degrees 0, 1, 2 on 3 shells,
from positions to output. Each row pairs our layer, its density learned, with

- ``escnn``: ``R3PointConv`` of the same fields and the same filters;
- ``complete``: the same with filters up to degree 4, all that an equivariant kernel between these fields can have;
- ``e3nn``: ``FullyConnectedTensorProduct``, its weights from a radial network of 3 shells and 16 hidden numbers, as in
  e3nn's own guide to convolution;
- ``depthwise``: e3nn's cheaper form, a product that mixes no channels (``uvu``) and a linear map, as in NequIP.

Contestants take turns within each repeat, and a ratio is the median over repeats of our time over theirs within them,
so that a busy machine slows both alike: 0.05 is 20 times faster. A training step is forward and backward to the
features and every parameter.

The rows of costs compare a training step of our layer with that of 1,024 points, 16 neighbours, degree 2 and an
analytic kernel. Peak memory is what a process of its own took for a training step of a whole network with two local
layers on 32 clouds of 1,024 points, Python and torch included. Build times are of a network of six local layers on
SO(3), in a process of its own with an empty cache (cold) and again with that cache (warm), imports not counted.

A row that the JSON file already has is not measured again.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from parteq.apps.points.models import create_model
from parteq.core.density import make_density
from parteq.core.fields import FieldType, direct_sum
from parteq.core.groups import space_group
from parteq.core.implicit import ImplicitFilters
from parteq.core.pointfilters import RadialHarmonics
from parteq.core.points import PartialPointConv
from parteq.datasets.points.neighbours import knn
from parteq.pipelines.benchmarks import run_benchmark
from parteq.pipelines.timing import paired

FIELDS, BAND, SHELLS, HIDDEN = 8, 2, 3, 16
NODES, NEIGHBOURS = 2048, 16
CLOUDS, POINTS, LOCAL_LAYERS = 32, 1024, 2


@dataclass
class Row:
    """One line of the table; what was not measured is ``None``."""

    case: str
    milliseconds: float | None = None
    ratio_escnn: float | None = None
    ratio_escnn_complete: float | None = None
    ratio_e3nn: float | None = None
    ratio_e3nn_depthwise: float | None = None
    ratio_eager: float | None = None
    ratio_reference: float | None = None
    peak_gib: float | None = None
    build_seconds_cold: float | None = None
    build_seconds_warm: float | None = None


class Cloud:
    """Points drawn in a cube, their nearest neighbours, and the distance by which filters are scaled."""

    def __init__(self, nodes: int = NODES, neighbours: int = NEIGHBOURS) -> None:
        generator = torch.Generator().manual_seed(0)
        self.positions = torch.rand(nodes, 3, generator=generator)
        self.neighbours = neighbours
        self.edges = knn(self.positions, torch.zeros(nodes, dtype=torch.long), neighbours)
        self.cutoff = float(self.vectors().norm(dim=1).view(nodes, -1)[:, -1].mean())
        self.features = torch.randn(nodes, FIELDS * (BAND + 1) ** 2, generator=generator)

    def vectors(self) -> Tensor:
        """Return the vector of each edge, from the target to the source."""
        return self.positions.index_select(0, self.edges[0]) - self.positions.index_select(0, self.edges[1])


class Ours(nn.Module):
    """A layer with a learned density, and its filters."""

    def __init__(self, cloud: Cloud, group: str, frequency: int = BAND, kernel: str = "analytic") -> None:
        super().__init__()
        self.cloud, algebra = cloud, space_group(group)
        density = make_density(algebra, "learned", BAND)
        if kernel == "analytic":
            self.filters = RadialHarmonics(cloud.cutoff, SHELLS, frequency)
        else:
            self.filters = ImplicitFilters(cloud.cutoff, density, shells=SHELLS, frequency=frequency)
        # Of O(3) the irreps of the harmonics themselves: scalars, vectors, …
        irreps = [irrep for irrep in algebra.irreps(BAND) if len(irrep.id) == 1 or irrep.id[0] == irrep.id[1] % 2]
        type_ = FieldType(direct_sum(algebra, dict.fromkeys(irreps, 1)), FIELDS)
        self.convolve = PartialPointConv(type_, type_, self.filters, density)

    def forward(self, features: Tensor) -> Tensor:
        filters = self.filters(self.cloud.vectors())
        return self.convolve(features, self.cloud.edges, filters, neighbours=self.cloud.neighbours)


class E3NN(nn.Module):
    """A convolution of e3nn with a radial network, depthwise or with all pairs of channels."""

    def __init__(self, cloud: Cloud, group: str, depthwise: bool) -> None:
        from e3nn import o3
        from e3nn.math import soft_one_hot_linspace
        from e3nn.nn import FullyConnectedNet

        super().__init__()
        self.cloud = cloud
        odd = "e" if group == "so3" else "o"
        shells = {"start": 0.0, "end": cloud.cutoff, "number": SHELLS}
        self.shells = partial(soft_one_hot_linspace, **shells, basis="gaussian", cutoff=False)
        filters = o3.Irreps(f"0e + 1{odd} + 2e")
        self.harmonics = o3.SphericalHarmonics(filters, normalize=True, normalization="component")
        fields = o3.Irreps([(FIELDS, irrep) for _, irrep in filters])
        if depthwise:
            paths = [
                (i, j, irrep)
                for i, (_, left) in enumerate(fields)
                for j, (_, right) in enumerate(filters)
                for irrep in left * right
                if irrep in fields
            ]
            middle, order, _ = o3.Irreps([(FIELDS, irrep) for _, _, irrep in paths]).sort()
            steps = [(i, j, order[k], "uvu", True) for k, (i, j, _) in enumerate(paths)]
            weightless = {"internal_weights": False, "shared_weights": False}
            self.product = o3.TensorProduct(fields, filters, middle, steps, **weightless)
            self.mix = o3.Linear(middle.simplify(), fields)
        else:
            self.product = o3.FullyConnectedTensorProduct(fields, filters, fields, shared_weights=False)
            self.mix = nn.Identity()
        self.radial = FullyConnectedNet([SHELLS, HIDDEN, self.product.weight_numel], nn.functional.silu)

    def forward(self, features: Tensor) -> Tensor:
        vectors, (source, target) = self.cloud.vectors(), self.cloud.edges
        shells, harmonics = self.shells(vectors.norm(dim=1)), self.harmonics(vectors)
        messages = self.product(features[source], harmonics, self.radial(shells))
        sums = features.new_zeros(len(features), messages.shape[1]).index_add_(0, target, messages)
        return self.mix(sums / self.cloud.neighbours)


def escnn_layer(cloud: Cloud, group: str, degree: int = BAND) -> Callable[[Tensor], Tensor]:
    """Return escnn's layer, with filters up to a degree, as a function of a plain tensor."""
    from escnn import gspaces
    from escnn import nn as enn
    from escnn.group import _numerical

    # escnn hands scikit-learn a matrix type that it refuses where py3nj is not installed.
    reduce = _numerical.randomized_svd
    _numerical.randomized_svd = lambda matrix, **options: reduce(np.asarray(matrix), **options)
    space = (gspaces.rot3dOnR3 if group == "so3" else gspaces.flipRot3dOnR3)(maximum_frequency=2 * BAND)
    numbers = [(l,) if group == "so3" else (l % 2, l) for l in range(BAND + 1)]
    type_ = enn.FieldType(space, [space.irrep(*number) for number in numbers] * FIELDS)
    radii = np.linspace(0, cloud.cutoff, SHELLS).tolist()
    widths = [0.6 * radii[1]] * SHELLS
    layer = enn.R3PointConv(type_, type_, rings=radii, sigma=widths, frequencies_cutoff=lambda radius: degree)
    return lambda features: layer(enn.GeometricTensor(features, type_, cloud.positions), cloud.edges).tensor


def inference(layer: Callable[[Tensor], Tensor], features: Tensor) -> Callable[[], None]:
    """Return one forward pass."""

    def run() -> None:
        with torch.no_grad():
            layer(features)

    return run


def training_step(layer: Callable[[Tensor], Tensor], features: Tensor) -> Callable[[], None]:
    """Return one step: forward and backward to the features and every parameter."""
    features = features.clone().requires_grad_()
    gradient = torch.randn_like(features)

    def step() -> None:
        layer(features).backward(gradient)

    return step


PASSES = {"forward": inference, "training step": training_step}


def against_others(group: str, name: str, repeats: int) -> dict[str, float]:
    """Our layer, and those of escnn and, where it is installed, e3nn."""
    cloud = Cloud()
    layers: dict[str, Callable[[Tensor], Tensor]] = {
        "ratio_escnn": escnn_layer(cloud, group),
        "ratio_escnn_complete": escnn_layer(cloud, group, 2 * BAND),
    }
    if importlib.util.find_spec("e3nn") is not None:
        layers["ratio_e3nn"] = E3NN(cloud, group, depthwise=False)
        layers["ratio_e3nn_depthwise"] = E3NN(cloud, group, depthwise=True)
    runs = [PASSES[name](layer, cloud.features) for layer in (Ours(cloud, group), *layers.values())]
    milliseconds, ratios = paired(runs, repeats)
    return {"milliseconds": milliseconds, **dict(zip(layers, ratios, strict=True))}


def compiled(group: str, name: str, repeats: int) -> dict[str, float]:
    """Our layer as one graph of torch.compile, against the same layer without."""
    cloud = Cloud()
    ours = Ours(cloud, group)
    layers = (torch.compile(ours, fullgraph=True), ours)
    milliseconds, (ratio,) = paired([PASSES[name](layer, cloud.features) for layer in layers], repeats)
    return {"milliseconds": milliseconds, "ratio_eager": ratio}


def cost(
    repeats: int, points: int = 1024, neighbours: int = NEIGHBOURS, degree: int = BAND, kernel: str = "analytic"
) -> dict[str, float]:
    """A training step, against the one with the numbers above."""
    runs = []
    for cloud, options in ((Cloud(points, neighbours), (degree, kernel)), (Cloud(1024), ())):
        runs.append(training_step(Ours(cloud, "so3", *options), cloud.features))
    milliseconds, (ratio,) = paired(runs, repeats)
    return {"milliseconds": milliseconds, "ratio_reference": ratio}


def peak_memory() -> float:
    """Make a training step of a whole network, and return the most memory this process ever had, in GiB."""
    model = create_model(num_classes=40, layers=LOCAL_LAYERS)
    optimizer = torch.optim.AdamW(model.parameters())
    labels = torch.randint(0, 40, (CLOUDS,))
    nn.functional.cross_entropy(model(torch.randn(CLOUDS, POINTS, 3)), labels).backward()
    optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 2**30


def build() -> float:
    """Return the seconds it takes to build a network of six local layers on SO(3)."""
    start = time.perf_counter()
    create_model(num_classes=40, layers=6)
    return time.perf_counter() - start


ALONE = {"memory": peak_memory, "build": build}


def alone(name: str, cache: str | None = None) -> float:
    """Return what one of these functions gives in a process of its own."""
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", **({} if cache is None else {"PARTEQ_CACHE": cache})}
    command = [sys.executable, __file__, "--alone", name, "--threads", str(torch.get_num_threads())]
    return float(
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()[-1]
    )


def build_times() -> dict[str, float]:
    """Build with an empty cache, then with that cache."""
    with tempfile.TemporaryDirectory() as cache:
        return {f"build_seconds_{when}": alone("build", cache) for when in ("cold", "warm")}


def measurements(repeats: int) -> dict[str, Callable[[], dict[str, float]]]:
    """Return the rows by name, and what measures them."""
    rows: dict[str, Callable[[], dict[str, float]]] = {}
    for group, title in (("so3", "SO(3)"), ("o3", "O(3)")):
        rows |= {f"{title}: {name}": partial(against_others, group, name, repeats) for name in PASSES}
    rows |= {f"SO(3), compiled: {name}": partial(compiled, "so3", name, repeats) for name in PASSES}
    for points in (512, 1024, 2048):
        rows[f"{points:,} points"] = partial(cost, repeats, points=points)
    for neighbours in (8, 16, 32):
        rows[f"{neighbours} neighbours"] = partial(cost, repeats, neighbours=neighbours)
    for kernel in ("analytic", "implicit"):
        for degree in (1, 2, 3):
            rows[f"{kernel} kernel of degree {degree}"] = partial(cost, repeats, degree=degree, kernel=kernel)
    rows[f"memory: training step, {CLOUDS} clouds of {POINTS:,} points"] = lambda: {"peak_gib": alone("memory")}
    rows["build: six layers, SO(3)"] = build_times
    return rows


COLUMNS = {
    "milliseconds": "ms",
    "ratio_escnn": "escnn",
    "ratio_escnn_complete": "complete",
    "ratio_e3nn": "e3nn",
    "ratio_e3nn_depthwise": "depthwise",
    "ratio_eager": "eager",
    "ratio_reference": "cost",
    "peak_gib": "GiB",
    "build_seconds_cold": "cold s",
    "build_seconds_warm": "warm s",
}


def main() -> None:
    """Print the table as it grows, write JSON after every row."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file; those it has are kept")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--alone", choices=list(ALONE), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.alone:
        print(ALONE[options.alone]())
        return
    content = {"schema": 1, "threads": options.threads, "repeats": options.repeats, "rows": []}
    if options.json and options.json.exists():
        content = json.loads(options.json.read_text())
    rows = {row["case"]: Row(**row) for row in content["rows"]}
    if importlib.util.find_spec("e3nn") is None:
        print("e3nn is not installed: its columns stay empty (pip install e3nn)")
    print(f"{'':46}" + "".join(f"{title:>10}" for title in COLUMNS.values()), flush=True)
    for case, measure in measurements(options.repeats).items():
        if case not in rows:
            rows[case] = Row(case, **measure())
            content["rows"] = [asdict(row) for row in rows.values()]
            if options.json:
                options.json.write_text(json.dumps(content, indent=1))
        numbers = [getattr(rows[case], name) for name in COLUMNS]
        print(f"{case:46}" + "".join(f"{'' if n is None else format(n, '.3g'):>10}" for n in numbers), flush=True)


if __name__ == "__main__":
    run_benchmark(main)
