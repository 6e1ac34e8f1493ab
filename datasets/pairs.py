"""Pairs of cells side by side: images whose parts have a symmetry that the whole has not.

Each cell is turned by an element of D4 of its own, so that what is local looks the same from all eight sides. The label
is the ordered pair of the two classes. Of the elements of D4 that map such pictures onto such pictures, the top-bottom
flip keeps it, and the other two exchange left and right. So the symmetry of the task as a whole is exactly {identity,
top-bottom flip}: a network has to stay symmetric in its first layers and break symmetry in its last.
"""

from __future__ import annotations

import logging
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parteq.datasets.base import ArrayDataset, ImageDataset
from parteq.datasets.errors import DataError
from parteq.datasets.npz import byte_limit
from parteq.datasets.symmetry import apply_symmetry

__all__ = ["make_pairs"]

log = logging.getLogger(__name__)

# Cells of one group, of two classes.
Pools = tuple[NDArray[np.int64], NDArray[np.int64]]
# Cells without groups are dealt out to at most so many, each with two of each class where there are as many.
_MAX_PORTIONS = 50


def make_pairs(cells: ImageDataset, count: int, seed: int) -> ArrayDataset:
    """Draw pairs of cells, as many of each ordered pair of classes.

    Both cells of a pair are of one group, drawn by how many cells of the scarcer class it has, and are two different
    cells; so a split of the pairs by group shares no cell. Cells without groups are dealt out to groups at random. What
    is not square is centred in a square of its own background, the median of its border.

    Args:
        cells: images of C channels, H × W pixels.
        count: how many pairs, at least one of each ordered pair of classes.
        seed: equal seeds draw equally.

    Returns:
        Images uint8 [count, C, S, 2 S], S the longer of H and W, in random order; classes "a|b", by number of a, then
        of b; groups. Ordered pairs of classes that no group has are left out, with a line in the log.

    Raises:
        DataError: volumes, or fewer than two classes with images; a `count` below the number of ordered pairs, or more
            pixels than can be read again; no group with both cells of a pair.
    """
    if len(cells.spatial) != 2:
        raise DataError(cells.source, "holds volumes: pairs are made of images")
    present = np.unique(cells.labels)
    if len(present) < 2:
        raise DataError(cells.source, f"has images of {len(present)} class: pairs take at least two classes")
    side = max(cells.spatial)
    if 2 * count * cells.channels * side**2 > byte_limit():
        raise DataError(cells.source, f"{count:,} pairs take more memory than is accepted: make fewer")
    rng = np.random.default_rng(seed)
    groups = _portions(cells.labels, rng) if cells.groups is None else cells.groups
    homes = _homes(cells.labels, groups)
    possible = sorted(homes)
    if len(possible) < len(present) ** 2:
        what = f"{len(present) ** 2 - len(possible)} of {len(present) ** 2} ordered pairs of classes"
        log.warning("%s: left out %s, since no group has both cells", cells.source, what)
    if not 0 < len(possible) <= count:
        raise DataError(cells.source, f"{count} pairs are too few: there are {len(possible)} ordered pairs of classes")
    labels = rng.permutation(np.arange(count) % len(possible))
    chosen = np.empty((count, 2), np.int64)
    for number, pair in enumerate(possible):
        rows, there = np.flatnonzero(labels == number), homes[pair]
        # By the scarcer class, so that no cell of a small group is seen again and again.
        weights = np.array([min(len(first), len(second)) for first, second in there])
        for row, home in zip(rows, rng.choice(len(there), len(rows), p=weights / weights.sum()), strict=True):
            first, second = there[home]
            same = first is second
            chosen[row] = rng.choice(first, 2, replace=False) if same else (rng.choice(first), rng.choice(second))
    halves = [_turned(cells.subset(chosen[:, half]), int(rng.integers(2**31))) for half in (0, 1)]
    return ArrayDataset(
        torch.cat(halves, dim=-1),
        labels,
        source=cells.source,
        classes=[f"{cells.classes[first]}|{cells.classes[second]}" for first, second in possible],
        groups=groups[chosen[:, 0]],
    )


def _homes(labels: NDArray[np.int64], groups: NDArray[Any]) -> dict[tuple[int, int], list[Pools]]:
    """For each ordered pair of classes the cells of each class, in every group with cells enough for a pair."""
    homes: dict[tuple[int, int], list[Pools]] = {}
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        pools = {int(label): members[labels[members] == label] for label in np.unique(labels[members])}
        for first, second in product(pools, repeat=2):
            if first != second or len(pools[first]) > 1:
                homes.setdefault((first, second), []).append((pools[first], pools[second]))
    return homes


def _portions(labels: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Groups for cells without: each class dealt out evenly, at random."""
    count = int(np.clip(np.bincount(labels)[np.unique(labels)].min() // 2, 1, _MAX_PORTIONS))
    groups = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        groups[members] = np.arange(len(members)) % count
    return groups


def _turned(cells: ImageDataset, seed: int) -> Tensor:
    """The cells, made square, each turned by an element of D4 of its own."""
    images = cells.tensors()[0]
    height, width = images.shape[-2:]
    side = max(height, width)
    edges = (images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1])
    frame = torch.cat(edges, dim=-1).median(-1).values[..., None, None].repeat(1, 1, side, side)
    top, left = (side - height) // 2, (side - width) // 2
    frame[..., top : top + height, left : left + width] = images
    return apply_symmetry(frame, "d4", seed).images
