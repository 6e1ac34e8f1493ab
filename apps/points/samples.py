"""Clouds as tensors of one shape, which is how networks and the training loop take them.

A sample is ``positions`` (points, 3), the ``count`` of points that are there, ``features`` (points, F), ``neighbours``
(points, k) with −1 where there are no more, and, of clouds with answers, the label or target. Clouds of more than
``points`` points are thinned out evenly, unless every point counts; smaller ones are filled up with zeros.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset
from tqdm import tqdm

from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.neighbours import knn

__all__ = ["CloudSamples", "samples"]

_IN_MEMORY_BYTES = 2**30


class CloudSamples(Dataset[tuple[Tensor, ...]]):
    """The samples of a set of clouds, read when they are asked for.

    Args:
        clouds: the set.
        points: of each sample.
        neighbours: k.
        answers: label or target of each cloud; None leaves them out.
    """

    def __init__(self, clouds: PointClouds, points: int, neighbours: int, answers: Tensor | None) -> None:
        self.clouds, self.points, self.neighbours, self.answers = clouds, points, neighbours, answers

    def __len__(self) -> int:
        return len(self.clouds)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        """One sample."""
        positions, features = self.clouds.cloud(index)
        if len(positions) > self.points:
            kept = torch.from_numpy(np.linspace(0, len(positions) - 1, self.points).round().astype(np.int64))
            positions, features = positions[kept], None if features is None else features[kept]
        count = len(positions)
        filled = torch.zeros(self.points, 3 + len(self.clouds.feature_names))
        filled[:count, :3] = positions
        if features is not None:
            filled[:count, 3:] = features
        sample = (filled[:, :3], torch.tensor(count), filled[:, 3:], self._neighbours(positions))
        return sample if self.answers is None else (*sample, self.answers[index])

    def _neighbours(self, positions: Tensor) -> Tensor:
        """The nearest other points of each, int32 (points, k)."""
        table = torch.full((self.points, self.neighbours), -1, dtype=torch.int32)
        if self.neighbours and len(positions) > 1:
            source, target = knn(positions, torch.zeros(len(positions), dtype=torch.long), self.neighbours)
            counts = torch.bincount(target)
            rank = torch.arange(len(target)) - (counts.cumsum(0) - counts)[target]
            table[target, rank] = source.int()
        return table


def samples(clouds: PointClouds, points: int | None, neighbours: int, answers: Tensor | None) -> Dataset[Any]:
    """The samples of a set of clouds, of so many points or of all; as tensors where they fit into a gigabyte."""
    largest = int(clouds.sizes.max())
    points = largest if points is None else min(points, largest)
    lazy = CloudSamples(clouds, points, neighbours, answers)
    if len(clouds) * points * 4 * (3 + len(clouds.feature_names) + neighbours) > _IN_MEMORY_BYTES:
        return lazy
    rows = [lazy[i] for i in tqdm(range(len(lazy)), "finding neighbours", delay=2, disable=None, leave=False)]
    return TensorDataset(*(torch.stack(column) for column in zip(*rows, strict=True)))
