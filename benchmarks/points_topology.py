"""Annuli against discs, and linked against unlinked rings: topology against a network of points.

    python benchmarks/points_topology.py --out topology.json [--seeds 3] [--tasks "annuli and discs"]

Of each task, 100 clouds to learn from and 200 others to be judged by. Three networks: persistent local homology with a
small classifier; the same with message passing along the sheaf of local homology; a network of the kind of DGCNN
(EdgeConv of PyG on the 12 nearest neighbours, points turned at random in training). Needs gudhi.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch_geometric.nn import EdgeConv
from torch_geometric.utils import scatter
from tqdm import tqdm

from parteq.apps.points.persistence import LocalPersistence
from parteq.apps.points.topology import TopologyData, TopologyNetwork, join, topology_data
from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.graphs import find_graphs
from parteq.datasets.points.neighbours import knn
from parteq.datasets.points.rotations import draw_rotations, rotate
from parteq.datasets.points.shapes import annuli_and_discs, linked_and_unlinked
from parteq.pipelines.benchmarks import run_benchmark

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
TRAIN, TEST, BATCH, NEIGHBOURS = 100, 200, 20, 12


class PointNetwork(nn.Module):
    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            EdgeConv(nn.Sequential(nn.Linear(2 * i, o), nn.BatchNorm1d(o), nn.ReLU(), nn.Linear(o, o)), aggr="max")
            for i, o in ((3, width), (width, width), (width, 2 * width))
        )
        self.classify = nn.Sequential(nn.Linear(4 * width, 64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 2))

    def forward(self, positions: Tensor, edges: Tensor, index: Tensor) -> Tensor:
        for conv in self.convs:
            positions = conv(positions, edges)
        return self.classify(torch.cat([scatter(positions, index, reduce=how) for how in ("mean", "max")], 1))


def fit(network: nn.Module, logits: Callable[[Tensor], Tensor], labels: Tensor, epochs: int) -> None:
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
    with torch.no_grad():
        return (
            torch.cat([logits(r).argmax(1) == labels[r] for r in torch.arange(TEST).split(BATCH)])
            .double()
            .mean()
            .item()
        )


def by_topology(data: list[list[TopologyData]], labels: list[Tensor], layers: int) -> float:
    network = TopologyNetwork(data[0][0].features.shape[1], 2, layers=layers)

    def logits(part: int, rows: Tensor) -> Tensor:
        return network(join([data[part][row] for row in rows.tolist()]))

    fit(network, partial(logits, 0), labels[0], epochs=100)
    return accuracy(partial(logits, 1), labels[1])


def by_points(clouds: list[PointClouds], labels: list[Tensor], seed: int) -> float:
    graphs = [find_graphs(part, lambda positions, index: knn(positions, index, NEIGHBOURS)) for part in clouds]
    network, generator = PointNetwork(), torch.Generator().manual_seed(seed)

    def logits(part: int, rows: Tensor) -> Tensor:
        batch = clouds[part].batch(rows)
        turns = draw_rotations("so3" if network.training else "none", len(rows), generator)
        return network(rotate(batch.positions, turns, batch.index), graphs[part].batch(rows), batch.index)

    fit(network, partial(logits, 0), labels[0], epochs=40)
    return accuracy(partial(logits, 1), labels[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(3)))
    parser.add_argument("--tasks", nargs="+", choices=list(TASKS), default=list(TASKS))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for task in options.tasks:
        make, persistence, nodes = TASKS[task]
        clouds = [make(TRAIN, seed=0), make(TEST, seed=1)]
        labels = [torch.from_numpy(part.labels) for part in clouds]
        data = [
            [topology_data(part[number], persistence, **nodes) for number in tqdm(range(len(part)), task, disable=None)]
            for part in clouds
        ]
        methods: dict[str, Callable[[int], float]] = {
            "persistence": lambda seed, d=data, y=labels: by_topology(d, y, layers=0),
            "persistence and sheaf": lambda seed, d=data, y=labels: by_topology(d, y, layers=4),
            "points": lambda seed, c=clouds, y=labels: by_points(c, y, seed),
        }
        for method, run in methods.items():
            began, found = time.monotonic(), []
            for seed in options.seeds:
                torch.manual_seed(seed)
                found.append(run(seed))
            mean, spread = statistics.mean(found), statistics.pstdev(found)
            seconds = (time.monotonic() - began) / len(options.seeds)
            rows.append({"task": task, "method": method, "accuracy": found, "mean": mean, "seconds": seconds})
            print(f"{task:<22} {method:<24} {100 * mean:5.1f} ± {100 * spread:3.1f} %   {seconds:5.0f} s", flush=True)
    options.out.write_text(json.dumps({"train": TRAIN, "test": TEST, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    run_benchmark(main)
