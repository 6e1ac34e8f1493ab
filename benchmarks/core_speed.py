"""Speed of partially equivariant convolutions, paired with ``torch.nn`` and escnn in one run.

    python benchmarks/core_speed.py --json speed.json

Each row pairs one training step (kernel expansion, forward, backward, the density's gradient included) of our layer
with the same step of the plain convolution of equal channels, and of escnn's with equal fields. The layers take turns
within each repeat, and a ratio is the median over repeats of the ratios within them, so that a busy machine slows both
alike. ``folded`` rows are inference after ``plain()``; ``compiled``, ``bfloat16`` and ``channels last`` rows are
compared with the plain convolution run the same way. Build times are of six layers, in a process of its own with an
empty cache (cold) and again with that cache (warm), imports not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.density import make_density
from parteq.core.fields import FieldType, direct_sum, regular
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialConv3d
from parteq.pipelines.benchmarks import run_benchmark
from parteq.pipelines.timing import paired


@dataclass
class Row:
    """One line of the table; what was not measured is ``None``."""

    case: str
    ratio_plain: float | None = None
    ratio_escnn: float | None = None
    build_seconds_warm: float | None = None
    build_seconds_cold: float | None = None


@dataclass(frozen=True)
class Case:
    """A layer to time: 48 → 96 channels at 5×5 in the plane, 24 → 48 at 5×5×5 in space."""

    name: str
    group: SymmetryGroup
    band: int

    @property
    def in_space(self) -> bool:
        """Whether the layer is three-dimensional."""
        return self.group.dimension == 3

    def types(self) -> tuple[FieldType, FieldType]:
        """Return input and output types."""
        group = self.group
        if not group.continuous:
            size = int(group.algebra.order())
            return FieldType(regular(group), 48 // size), FieldType(regular(group), 96 // size)
        rho = direct_sum(group, self.multiplicities())
        count = 2 if self.in_space else 4
        return FieldType(rho, count), FieldType(rho, 2 * count)

    def multiplicities(self) -> dict[object, int]:
        """Return how often each irrep of frequency up to the band stands in a field of 12 components."""
        irreps = self.group.irreps(self.band)
        if self.in_space:
            return {irreps[0]: 4, **dict.fromkeys(irreps[1:], 1)}  # 4 + 3 + 5
        scalars = [irrep for irrep in irreps if irrep.size == 1]
        vectors = [irrep for irrep in irreps if irrep.size > 1]
        each = 2 if self.band == 2 else 1
        return {
            **dict.fromkeys(scalars, (12 - 2 * each * len(vectors)) // len(scalars)),
            **dict.fromkeys(vectors, each),
        }

    def ours(self) -> nn.Module:
        """Return our layer, with a learned density."""
        before, after = self.types()
        convolution = PartialConv3d if self.in_space else PartialConv2d
        return convolution(before, after, 5, make_density(self.group, "learned", self.band))

    def plain(self) -> nn.Module:
        """Return the plain convolution."""
        before, after = self.types()
        return (nn.Conv3d if self.in_space else nn.Conv2d)(before.channels, after.channels, 5, padding=2)

    def input(self) -> Tensor:
        """Return a batch: 16 images of 32², or 4 volumes of 28³."""
        channels = self.types()[0].channels
        return torch.randn(4, channels, 28, 28, 28) if self.in_space else torch.randn(16, channels, 32, 32)

    def escnn(self) -> Callable[[Tensor], Tensor]:
        """Return escnn's layer of the plane on the same fields, as a function of a plain tensor.

        Without py3nj its first build takes minutes, which are not counted; escnn keeps what it computed on disk.
        """
        from escnn import gspaces
        from escnn import nn as enn
        from escnn.group import _numerical

        # escnn hands scikit-learn a matrix type that it refuses where py3nj is not installed.
        reduce = _numerical.randomized_svd
        _numerical.randomized_svd = lambda matrix, **options: reduce(np.asarray(matrix), **options)

        make = {"C8": lambda: gspaces.rot2dOnR2(8), "D4": lambda: gspaces.flipRot2dOnR2(4)}
        make |= {"SO(2)": lambda: gspaces.rot2dOnR2(-1, maximum_frequency=2 * self.band)}
        make |= {"O(2)": lambda: gspaces.flipRot2dOnR2(-1, maximum_frequency=2 * self.band)}
        space = make[self.group.name]()
        sides = []
        for type_ in self.types():
            if self.group.continuous:
                fields = [space.irrep(*irrep.id) for irrep in type_.representation.irreps] * type_.count
            else:
                fields = [space.regular_repr] * type_.count
            sides.append(enn.FieldType(space, fields))
        layer = enn.R2Conv(*sides, kernel_size=5, padding=2)
        return lambda images: layer(enn.GeometricTensor(images, sides[0])).tensor


CASES = [
    Case("C8 regular, 48 -> 96, 5x5", plane_group("c8"), 0),
    Case("D4 regular, 48 -> 96, 5x5", plane_group("d4"), 0),
    Case("SO(2) L=2, 48 -> 96, 5x5", plane_group("so2"), 2),
    Case("SO(2) L=4, 48 -> 96, 5x5", plane_group("so2"), 4),
    Case("O(2) L=2, 48 -> 96, 5x5", plane_group("o2"), 2),
    Case("O(2) L=4, 48 -> 96, 5x5", plane_group("o2"), 4),
    Case("SO(3) L=2, 24 -> 48, 5x5x5", space_group("so3"), 2),
]

BUILDS = {"six layers, O(2) L=4": ("o2", 2, 4), "six layers, SO(3) L=3": ("so3", 3, 3)}


def training_step(layer: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], None]:
    """Return one step: forward and backward to the input and every parameter."""
    images = images.clone().requires_grad_()
    gradient = torch.randn_like(layer(images))

    def step() -> None:
        layer(images).backward(gradient)

    return step


def ratios(contestants: list[Callable[[], None]], repeats: int) -> list[float]:
    """Return the ratios of the first to each other one."""
    return paired(contestants, repeats)[1]


def measure(case: Case, repeats: int, variants: bool) -> Iterator[Row]:
    """Yield the rows of one case."""
    images, ours, plain = case.input(), case.ours(), case.plain()
    others = [plain] if case.in_space else [plain, case.escnn()]
    steps = [training_step(layer, images) for layer in (ours, *others)]
    yield Row(f"{case.name}: training step", *ratios(steps, repeats))
    with torch.no_grad():
        folded = ours.plain()
        yield Row(f"{case.name}: folded", *ratios([lambda: folded(images), lambda: plain(images)], repeats))
    if not variants:
        return
    compiled, plain_compiled = torch.compile(ours, fullgraph=True), torch.compile(plain, fullgraph=True)
    steps = [training_step(layer, images) for layer in (compiled, plain_compiled)]
    yield Row(f"{case.name}: compiled training step", *ratios(steps, repeats))
    last = images.contiguous(memory_format=torch.channels_last)
    steps = [training_step(layer, last) for layer in (ours, plain)]
    yield Row(f"{case.name}: channels last training step", *ratios(steps, repeats))
    with torch.autocast("cpu", torch.bfloat16):
        steps = [training_step(layer, images) for layer in (ours, plain)]
        yield Row(f"{case.name}: bfloat16 training step", *ratios(steps, repeats))


def build(name: str, field_band: int, density_band: int) -> float:
    """Return the seconds it takes to build six layers, stem and last layer on other types than the rest."""
    start = time.perf_counter()
    group = plane_group(name) if name == "o2" else space_group(name)
    scalars = FieldType(direct_sum(group, {group.irreps(0)[0]: 1}), 4)
    hidden = FieldType(direct_sum(group, dict.fromkeys(group.irreps(field_band), 1)), 4)
    convolution = PartialConv2d if group.dimension == 2 else PartialConv3d
    for before, after in [(scalars, hidden), *[(hidden, hidden)] * 4, (hidden, scalars)]:
        convolution(before, after, 5, make_density(group, "learned", density_band))
    return time.perf_counter() - start


def build_times(case: str) -> Row:
    """Build in a fresh process with an empty cache, then in another with that cache."""
    seconds = []
    with tempfile.TemporaryDirectory() as cache:
        for _ in range(2):
            command = [sys.executable, __file__, "--build", case]
            environment = {**os.environ, "PARTEQ_CACHE": cache, "PYTHONWARNINGS": "ignore"}
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
            seconds.append(float(result.stdout.split()[-1]))
    return Row(f"build: {case}", build_seconds_cold=seconds[0], build_seconds_warm=seconds[1])


def main() -> None:
    """Print the table and write it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the rows to this file")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--build", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    if options.build:
        print(build(*BUILDS[options.build]))
        return
    rows = []
    print(f"{'case':52} {'plain':>7} {'escnn':>7} {'cold s':>7} {'warm s':>7}")
    for row in _rows(options.repeats):
        rows.append(asdict(row))
        numbers = [row.ratio_plain, row.ratio_escnn, row.build_seconds_cold, row.build_seconds_warm]
        print(f"{row.case:52} " + " ".join(f"{'' if n is None else format(n, '.2f'):>7}" for n in numbers), flush=True)
    if options.json:
        result = {"schema": 1, "threads": options.threads, "repeats": options.repeats, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1))


def _rows(repeats: int) -> Iterator[Row]:
    for case in CASES:
        yield from measure(case, repeats, variants=case.name.startswith(("D4", "SO(2) L=2")))
    for case in BUILDS:
        yield build_times(case)


if __name__ == "__main__":
    run_benchmark(main)
