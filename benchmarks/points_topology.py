"""Annuli against discs, and linked against unlinked rings: topology against a network of points.

    python benchmarks/points_topology.py --json topology.json [--seeds 0 1] [--tasks "annuli and discs"]

Of each task, 100 clouds to learn from and 200 others to be judged by. Three networks: persistent local homology with a
small classifier; the same with message passing along the sheaf of local homology; a network of the kind of DGCNN
(EdgeConv of PyG on the 12 nearest neighbours, points turned at random in training). Needs gudhi.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv
from torch_geometric.utils import scatter
from tqdm import tqdm, trange

from parteq.apps.points.persistence import LocalPersistence
from parteq.apps.points.topology import TopologyData, TopologyNetwork, join, topology_data
from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.graphs import find_graphs
from parteq.datasets.points.neighbours import knn
from parteq.datasets.points.rotations import draw_rotations, rotate
from parteq.datasets.points.shapes import annuli_and_discs, linked_and_unlinked
from parteq.pipelines.benchmarks import Rows, benchmark_parser, mean_and_spread, run_benchmark

TASKS: dict[str, tuple[Callable[..., PointClouds], LocalPersistence, dict[str, float]]] = {
    "annuli and discs": (
        annuli_and_discs,
        LocalPersistence([(0.5, math.inf), (0.7, math.inf)], components=3, loops=0, landmarks=256),
        {"ratio": 16 / 256, "scale": 0.6},
    ),
    "linked and unlinked": (
        linked_and_unlinked,
        LocalPersistence([(0.3, math.inf)], components=2, loops=3, landmarks=64),
        {"ratio": 16 / 128, "scale": 0.7},
    ),
}
METHODS = ("persistence", "persistence and sheaf", "points")
TRAIN, TEST, BATCH, NEIGHBOURS = 100, 200, 20, 12


@dataclass(frozen=True)
class Result:
    """One training; ``accuracy`` on other clouds, ``seconds`` without the features."""

    task: str
    method: str
    seed: int
    accuracy: float
    seconds: float


class PointNetwork(nn.Module):
    """EdgeConv layers on neighbours, and a classifier of what is found at all points."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            EdgeConv(nn.Sequential(nn.Linear(2 * i, o), nn.BatchNorm1d(o), nn.ReLU(), nn.Linear(o, o)), aggr="max")
            for i, o in ((3, width), (width, width), (width, 2 * width))
        )
        self.classify = nn.Sequential(nn.Linear(4 * width, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 2))

    def forward(self, positions: Tensor, edges: Tensor, index: Tensor) -> Tensor:
        """Map positions of a batch of clouds to logits."""
        for conv in self.convs:
            positions = conv(positions, edges)
        return self.classify(torch.cat([scatter(positions, index, reduce=how) for how in ("mean", "max")], 1))


def fit(network: nn.Module, logits: Callable[[Tensor], Tensor], labels: Tensor, epochs: int) -> None:
    """Train."""
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3, weight_decay=1e-3)
    steps = epochs * len(labels.split(BATCH))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    network.train()
    for _ in tqdm(range(epochs), "training", leave=False, disable=None):
        for rows in torch.randperm(len(labels)).split(BATCH):
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits(rows), labels[rows]).backward()
            optimizer.step()
            schedule.step()
    network.eval()


def accuracy(logits: Callable[[Tensor], Tensor], labels: Tensor) -> float:
    """Return the share of the test clouds told right."""
    with torch.no_grad():
        return (
            torch.cat([logits(r).argmax(1) == labels[r] for r in torch.arange(TEST).split(BATCH)])
            .double()
            .mean()
            .item()
        )


def by_topology(data: list[list[TopologyData]], labels: list[Tensor], layers: int) -> float:
    """Return the accuracy of a network of topological features with so many layers of the sheaf."""
    network = TopologyNetwork(data[0][0].features.shape[1], 2, layers=layers)

    def logits(part: int, rows: Tensor) -> Tensor:
        return network(join([data[part][row] for row in rows.tolist()]))

    fit(network, partial(logits, 0), labels[0], epochs=100)
    return accuracy(partial(logits, 1), labels[1])


def by_points(clouds: list[PointClouds], labels: list[Tensor], seed: int) -> float:
    """Return the accuracy of a network of points."""
    graphs = [find_graphs(part, lambda positions, index: knn(positions, index, NEIGHBOURS)) for part in clouds]
    network, generator = PointNetwork(), torch.Generator().manual_seed(seed)

    def logits(part: int, rows: Tensor) -> Tensor:
        batch = clouds[part].batch(rows)
        turns = draw_rotations("so3" if network.training else "none", len(rows), generator)
        return network(rotate(batch.positions, turns, batch.index), graphs[part].batch(rows), batch.index)

    fit(network, partial(logits, 0), labels[0], epochs=40)
    return accuracy(partial(logits, 1), labels[1])


def main() -> None:
    """Run, print the table."""
    parser = benchmark_parser(__doc__, seeds=3, threads=2)
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    results = Rows(Result, options.json, train=TRAIN, test=TEST)
    for task in options.tasks:
        make, persistence, nodes = TASKS[task]
        clouds = [make(TRAIN, seed=0), make(TEST, seed=1)]
        labels = [torch.from_numpy(part.labels) for part in clouds]
        data: list[list[TopologyData]] = []
        for method, seed in itertools.product(options.methods, options.seeds):
            if results.has(task=task, method=method, seed=seed):
                continue
            if method != "points" and not data:
                data = [
                    [topology_data(part[i], persistence, **nodes) for i in trange(len(part), disable=None)]
                    for part in clouds
                ]
            torch.manual_seed(seed)
            began = time.monotonic()
            if method == "points":
                found = by_points(clouds, labels, seed)
            else:
                found = by_topology(data, labels, layers=0 if method == "persistence" else 4)
            results.add(Result(task, method, seed, found, time.monotonic() - began))
    for task, method in itertools.product(options.tasks, options.methods):
        found = [result.accuracy for result in results if (result.task, result.method) == (task, method)]
        print(f"{task:22} {method:24} {mean_and_spread(found)}")


if __name__ == "__main__":
    run_benchmark(main)
