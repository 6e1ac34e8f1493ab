"""Parts whose normal is known: is the axis found, and what does a learned degree cost or gain in accuracy?

    python benchmarks/points_axis.py --json axis.json [--seeds 0 1 2] [--regimes normal every] [--methods learned so3 …]

28 classes of electronic parts (`kicad_parts.npz`), split by family, each part turned once: about the normal of the
board (``normal``), so and then all tilted by one rotation (``tilted``), in every way (``every``), or not at all
(``upright``). Networks as `parteq points train` makes them, with a learned degree from SO(3), and kept at all of SO(3),
at SO(2) about the true axis, and at none; each also with turns drawn anew in every pass, as the parts are turned
(``augmented``). Two others of about as many weights as the learned network, of layers of PyG, always augmented, with
the processor time that the learned network took: PointNet++ (PointNetConv on 32 and 8 farthest points) and DGCNN
(EdgeConv on the 8 nearest neighbours, of points and then of features). All leave out half of the points, others in
each pass.

Accuracy is on held-out families, in the last epoch; nothing is chosen by it. As in the command, what held-out clouds do
not need broken is undone at the end: the trained network asks one half of the held-out families and is judged on the
other, and so the other way round; told of are both. ``off`` is the angle between the axis that `parteq degree` tells
and the true one, ``σ`` the singular values of ∫ λ(g) g dg.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import roma
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from torch_geometric.nn import MLP, EdgeConv, PointNetConv
from torch_geometric.utils import scatter

from parteq.apps.points import task
from parteq.core.measure import measure_degree, nearest_subgroup
from parteq.core.pruning import prune_breaking
from parteq.core.training import Augment, Batch, Settings, fit
from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.neighbours import farthest_of_clouds
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, mean_and_spread, run_benchmark
from parteq.pipelines.points.train import Train

POINTS = 512
REGIMES = ("normal", "tilted", "every", "upright")
NO_FILES: dict[str, Any] = {"data": "", "out": Path()}
TILT = roma.rotvec_to_rotmat(torch.tensor([0.9, -1.3, 0.4]))


class PointNetPlusPlus(nn.Module):
    """Two levels of PointNetConv on farthest points, then the maximum over what is left."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = ((3, 64, 128), (131, 256, 512))
        self.levels = nn.ModuleList(PointNetConv(MLP(list(w)), add_self_loops=False) for w in widths)
        self.summarise = MLP([515, 512])
        self.classify = MLP([512, 256, classes], dropout=0.3)

    def forward(self, positions: Tensor, *_: Tensor) -> Tensor:
        features = None
        for level, (nodes, neighbours) in zip(self.levels, ((32, 16), (8, 16)), strict=True):
            clouds, points, _ = positions.shape
            everywhere = torch.ones(clouds, points, dtype=torch.bool)
            chosen = farthest_of_clouds(positions, everywhere, torch.zeros(clouds, dtype=torch.long), nodes)
            centres = positions.gather(1, chosen[..., None].expand(-1, -1, 3))
            edges = _edges(_nearest(centres, positions, neighbours), points)
            ends = positions.flatten(0, 1), centres.flatten(0, 1)
            features, positions = level((features, None), ends, edges), centres
        summary = self.summarise(torch.cat([features, positions.flatten(0, 1)], dim=1))
        return self.classify(summary.view(len(positions), -1, summary.shape[1]).amax(1))


class DGCNN(nn.Module):
    """Three EdgeConvs on graphs of nearest neighbours, each in the features of the one before."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = ((3, 64), (64, 64), (64, 64))
        self.layers = nn.ModuleList(EdgeConv(MLP([2 * i, o, o]), aggr="max") for i, o in widths)
        self.summarise = MLP([192, 512])
        self.classify = MLP([1024, 384, classes], dropout=0.3)

    def forward(self, positions: Tensor, *_: Tensor) -> Tensor:
        clouds, points, _ = positions.shape
        features, found = positions.flatten(0, 1), []
        for layer in self.layers:
            dense = features.view(clouds, points, -1)
            features = layer(features, _edges(_nearest(dense, dense, 8), points))
            found.append(features)
        summary = self.summarise(torch.cat(found, dim=1)).view(clouds, points, -1)
        return self.classify(torch.cat([summary.amax(1), summary.mean(1)], dim=1))


class Scaled(nn.Module):
    """Puts clouds about their centroid, in units of their spread, and tells the spread at the end."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = nn.Sequential(nn.Linear(1, 16), nn.ReLU(), nn.Linear(16, 28))

    def forward(self, positions: Tensor, *_: Tensor) -> Tensor:
        positions = positions - positions.mean(1, keepdim=True)
        spread = positions.square().sum(-1).mean(1).sqrt()
        logits: Tensor = self.network(positions / spread[:, None, None]) + self.head(spread.log()[:, None])
        return logits


BASELINES: dict[str, Callable[[int], nn.Module]] = {"pointnet++": PointNetPlusPlus, "dgcnn": DGCNN}
METHODS = ("learned", "so3", "so2", "none", *BASELINES)


def _nearest(centres: Tensor, points: Tensor, count: int) -> Tensor:
    with torch.no_grad():
        return torch.cdist(centres, points).topk(count, largest=False).indices


def _edges(found: Tensor, points: Tensor | int) -> Tensor:
    clouds, nodes, count = found.shape
    sources = found + points * torch.arange(clouds)[:, None, None]
    return torch.stack([sources.flatten(), torch.arange(clouds * nodes).repeat_interleave(count)])


@dataclass
class Result:
    """One training; of a learned degree lists have an entry for each half that was asked."""

    regime: str
    method: str
    augmented: bool
    seed: int
    accuracy: float
    class_accuracy: float
    parameters: int
    epochs: int
    processor_seconds: float
    singular_values: list[list[float]] = field(default_factory=list)
    axis_off_deg: list[float] = field(default_factory=list)
    nearest_subgroup: list[str] = field(default_factory=list)


@dataclass
class Parts:
    """Parts, turned, their axis, and which of two halves of the families each of the held-out ones is of."""

    clouds: PointClouds
    training: TensorDataset
    held_out: TensorDataset
    halves: Tensor
    axis: Tensor


def parts(regime: str, seed: int) -> Parts:
    """Return the parts of a regime."""
    folder = data_folder()
    axis = torch.tensor([0.0, 0.0, 1.0])
    turned, generator = [], torch.Generator().manual_seed(1000 + seed)
    opened = task.open_for_training(str(folder / "kicad_parts.npz"), None, seed)
    for clouds in opened:
        positions, *rest = task.samples(clouds, POINTS, 0, task.answers(clouds, None)[0]).tensors  # type: ignore[attr-defined]
        if regime == "every":
            turns = roma.random_rotmat(len(positions), generator=generator)
        elif regime == "upright":
            turns = torch.eye(3).expand(len(positions), 3, 3)
        else:
            angles = 2 * torch.pi * torch.rand(len(positions), 1, generator=generator)
            turns = roma.rotvec_to_rotmat(angles * axis)
            turns = TILT @ turns if regime == "tilted" else turns
        turned.append(TensorDataset(positions @ turns.mT, *rest))
    families, family = np.unique(opened[1].families, return_inverse=True)
    halves = torch.randperm(len(families), generator=generator)[torch.from_numpy(family)] % 2
    return Parts(opened[0], *turned, halves, TILT @ axis if regime == "tilted" else axis)


def augmentation(regime: str, augmented: bool) -> Augment | None:
    """Return the turns of a regime, drawn anew, if wanted, and half of the points."""
    kind = {"normal": "z", "tilted": "z", "every": "so3", "upright": "none"}[regime] if augmented else "none"
    alter = task.augmentation(kind, POINTS)
    if regime != "tilted" or alter is None:
        return alter

    def tilted(batch: Batch, keys: Tensor) -> Batch:
        positions, *rest = alter((batch[0] @ TILT, *batch[1:]), keys)
        return (positions @ TILT.mT, *rest)

    return tilted


def run(regime: str, method: str, augmented: bool, seed: int, epochs: int, budget: float) -> Result:
    """Train one network and judge it; those of PyG for so many seconds of processor time."""
    given, alter = parts(regime, seed), augmentation(regime, augmented)
    positions, classes = given.held_out.tensors[0], given.held_out.tensors[-1]
    if method in BASELINES:
        start = time.process_time()
        train(new_model(method, given, seed), given.training, Train(**NO_FILES, epochs=1).settings(), alter)
        epochs = max(1, round(budget / (time.process_time() - start)))
    model = new_model(method, given, seed)
    start = time.process_time()
    train(model, given.training, Train(**NO_FILES, epochs=epochs, seed=seed).settings(), alter)
    seconds = time.process_time() - start
    parameters = sum(parameter.numel() for parameter in model.parameters())
    result = Result(regime, method, augmented, seed, math.nan, math.nan, parameters, epochs, seconds)
    if method != "learned":
        found = labels(model, positions)
    else:
        found = torch.empty_like(classes)
        for judged in (given.halves == 0, given.halves == 1):
            asked = TensorDataset(*(tensor[~judged] for tensor in given.held_out.tensors))
            pruned = copy.deepcopy(model)
            prune_breaking(pruned, partial(task.losses, pruned, asked, classes[~judged], torch.device("cpu")))
            found[judged] = labels(pruned, positions[judged])
            layers = measure_degree(pruned)
            result.singular_values.append(layers[0].singular_values)
            cosine = min(1.0, abs(float(torch.tensor(layers[0].axis) @ given.axis)))
            result.axis_off_deg.append(math.degrees(math.acos(cosine)))
            result.nearest_subgroup.append(nearest_subgroup([layer.broken_under for layer in layers]))
    right = (found == classes).double()
    result.accuracy = float(right.mean())
    result.class_accuracy = float(scatter(right, classes, reduce="mean")[classes.unique()].mean())
    return result


def new_model(method: str, given: Parts, seed: int) -> nn.Module:
    """Return an untrained network."""
    torch.manual_seed(seed)
    if method in BASELINES:
        return Scaled(BASELINES[method](28))
    group, degree = ("so3", "learned") if method == "learned" else (method, "full")
    command = Train(**NO_FILES, group=group, degree=degree, axis=",".join(f"{x:.9f}" for x in given.axis.tolist()))
    model = command.new_model(given.clouds, given.training.tensors[-1])
    model.set_lengths(*task.lengths(given.training))
    return model


def train(model: nn.Module, data: TensorDataset, settings: Settings, alter: Augment | None) -> None:
    """Train as the command does."""
    fit(model, _loss, data, settings, penalty=task.penalty(len(data)), augment=alter, progress=False)


@torch.inference_mode()
def labels(model: nn.Module, positions: Tensor) -> Tensor:
    """Return what the network takes parts for."""
    model.eval()
    return torch.cat([model(part) for part in positions.split(96)]).argmax(1)


def _loss(model: nn.Module, batch: Batch) -> Tensor:
    return nn.functional.cross_entropy(model(batch[0]), batch[-1])


def table(rows: list[Result]) -> str:
    """Return the rows of the seeds side by side."""
    lines = []
    for key in dict.fromkeys((row.regime, row.method, row.augmented) for row in rows):
        group = [row for row in rows if (row.regime, row.method, row.augmented) == key]
        rates = [row.accuracy for row in group]
        seconds = statistics.mean(row.processor_seconds for row in group)
        line = f"{key[0]:8} {key[1]:10} {'augmented' if key[2] else '':9} {mean_and_spread(rates)}"
        line += f"  {group[0].parameters:7} weights  {seconds:4.0f} s"
        if key[1] == "learned":
            values = ("/".join(f"{value:.3f}" for value in each) for row in group for each in row.singular_values)
            off = (f"{each:.1f}°" for row in group for each in row.axis_off_deg)
            named = (each for row in group for each in row.nearest_subgroup)
            line += f"  σ {', '.join(values)}  off {', '.join(off)}  {', '.join(named)}"
        lines.append(line)
    return "\n".join(lines)


def main() -> None:
    """Run what is not in the file yet, and print the table."""
    parser = benchmark_parser(__doc__, seeds=3, threads=2)
    parser.add_argument("--regimes", nargs="+", default=["normal", "every"], choices=REGIMES)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--augmented", nargs="+", type=int, default=[0, 1], choices=[0, 1], help="of our networks")
    parser.add_argument("--epochs", type=int, default=Train.epochs)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = Rows(Result, options.json, epochs=options.epochs)
    for seed, regime, method, kind in product(options.seeds, options.regimes, options.methods, options.augmented):
        augmented = bool(kind)
        if rows.has(regime=regime, method=method, augmented=augmented, seed=seed):
            continue
        if method in BASELINES and not augmented and regime != "upright":
            continue
        took = [row.processor_seconds for row in rows if (row.regime, row.method) == (regime, "learned")]
        if method in BASELINES and not took:
            parser.error(f"{method} is given the time of the learned network: run that as well")
        rows.add(run(regime, method, augmented, seed, options.epochs, statistics.mean(took or [0.0])))
    print(table(rows))


if __name__ == "__main__":
    run_benchmark(main)
