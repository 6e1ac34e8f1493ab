"""Which images train and which are held out: by class shares, and never two images of one group on both sides."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from parteq.datasets.errors import DataError

__all__ = [
    "check_apart",
    "check_no_leakage",
    "check_one_release",
    "evenly_spread",
    "group_names",
    "grouped_split",
    "stratified_subset",
]

# Group splits are tried in this many random orders, fewer where there are many groups: then any order does well.
_ORDERS, _GROUP_BUDGET = 16, 20_000
_COUNT = re.compile(r"-?[0-9]{1,4}")  # a group named so was counted rather than named


def evenly_spread(count: int, most: int) -> NDArray[np.int64]:
    """Numbers of at most ``most`` of ``count`` items, in order, the first and the last among them.

    >>> evenly_spread(10, 4)
    array([0, 3, 6, 9])
    """
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


def _quotas(counts: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    """How many of each class to take: at least one each, n in all, else proportional (largest remainders)."""
    share = n * counts / counts.sum()
    quotas: NDArray[np.int64] = np.clip(np.floor(share), 1, counts).astype(np.int64)
    while quotas.sum() != n:
        # The class furthest below its share gains one, or the one furthest above it loses one.
        step = 1 if quotas.sum() < n else -1
        movable = quotas < counts if step == 1 else quotas > 1
        lack = np.where(movable, step * (share - quotas), -np.inf)
        quotas[lack.argmax()] += step
    return quotas


def stratified_subset(labels: ArrayLike, n: int, seed: int) -> NDArray[np.int64]:
    """Draw n images, each class in proportion to its size and at least once.

    Args:
        labels: class numbers [N].
        n: how many to draw, at least the number of classes that occur.
        seed: equal seeds draw equally.

    Returns:
        Positions [n], ascending.

    Raises:
        ValueError: n below the number of classes, or above N.

    >>> labels = np.array([0, 0, 0, 0, 1, 1])
    >>> labels[stratified_subset(labels, 3, seed=0)].tolist()
    [0, 0, 1]
    """
    _, kind, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    if not len(counts) <= n <= len(kind):
        raise ValueError(f"cannot draw {n} of {len(kind)} samples in {len(counts)} classes, one of each class at least")
    order = np.random.default_rng(seed).permutation(len(kind))
    chosen = [order[kind[order] == number][:quota] for number, quota in enumerate(_quotas(counts, n))]
    return np.sort(np.concatenate(chosen))


def _add_groups(
    table: NDArray[np.int64], target: NDArray[np.float64], order: NDArray[np.int64]
) -> tuple[float, list[int]]:
    """Hold out groups, taken in `order`, while the held-out class counts come closer to `target`.

    A group that has the last training images of a class stays. Returns the remaining distance and the groups.
    """
    scale = 1 / np.maximum(table.sum(0), 1)
    held, left = np.zeros_like(target), table.sum(0)
    chosen: list[int] = []

    def distance(counts: NDArray[Any]) -> float:
        # In units of class sizes, so that rare classes count.
        return float((((counts - target) ** 2) * scale).sum())

    best, fallback = np.inf, None
    for group in order:
        if not np.all(left - table[group] > 0):
            continue
        now = distance(held + table[group])
        if now < (best if chosen else distance(held)):
            held, left, best = held + table[group], left - table[group], now
            chosen.append(int(group))
        elif not chosen and (fallback is None or now < fallback[0]):
            # Should every group be too large, the least bad one is held out.
            fallback = (now, [int(group)])
    return (best, chosen) if chosen else fallback or (np.inf, [])


def grouped_split(
    labels: ArrayLike, groups: ArrayLike | None, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out about a fraction of the images, whole groups at a time, classes in proportion as far as groups allow.

    Every class stays in the training part. (scikit-learn's `StratifiedGroupKFold` offers only fractions 1/k, and may
    leave a class out of training.)

    Args:
        labels: class numbers [N].
        groups: [N], which images belong together; None splits image by image.
        fraction: share to hold out, strictly between 0 and 1.
        seed: equal seeds split equally.

    Returns:
        Positions of the training and of the held-out images, each ascending; together all of them, neither empty.

    Raises:
        ValueError: fraction out of range, or no such split exists: one group only, or every group has the last images
            of some class.
    """
    labels = np.asarray(labels)
    if not 0 < fraction < 1:
        raise ValueError(f"the held-out fraction must lie between 0 and 1, not be {fraction}")
    if groups is None:
        # Image by image, the training part is the one that must have every class.
        needed = len(np.unique(labels))
        if needed >= len(labels):
            raise ValueError(f"cannot split {len(labels)} samples in {needed} classes: no class has one to spare")
        wanted = len(labels) - round(fraction * len(labels))
        train = stratified_subset(labels, min(max(wanted, needed), len(labels) - 1), seed)
        return train, np.setdiff1d(np.arange(len(labels)), train)
    if len(np.asarray(groups)) != len(labels):
        raise ValueError(f"{len(np.asarray(groups))} groups for {len(labels)} labels")
    classes, kind = np.unique(labels, return_inverse=True)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    table = np.zeros((len(names), len(classes)), np.int64)
    np.add.at(table, (group, kind), 1)
    rng = np.random.default_rng(seed)
    tries = max(1, min(_ORDERS, _GROUP_BUDGET // len(names)))
    results = [_add_groups(table, fraction * table.sum(0), rng.permutation(len(names))) for _ in range(tries)]
    chosen = min(results, key=lambda result: result[0])[1]
    if not chosen:
        raise ValueError(f"{len(names)} groups cannot be split: each has the last images of some class")
    held_out = np.isin(group, chosen)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def check_apart(data: str, val: str) -> None:
    """Refuses to validate on the file or folder that is trained on. Raises DataError."""
    if Path(data).resolve() == Path(val).resolve():
        raise DataError(val, "is what is trained on: leave --val out, and a part is held out")


def group_names(groups: ArrayLike, *, alike: bool) -> set[str]:
    """The names by which groups are found again in another set.

    Two sets that each count their patients from 1 share numbers and no patient. So a number of up to four digits is a
    name only where the two sets are alike: of one file, or of the same classes and size, as parts of one set are.

    Args:
        groups: integers or strings, any number of them.
        alike: whether the two sets are.
    """
    names = {str(name) for name in np.unique(np.asarray(groups)).tolist()}
    return {name for name in names if alike or not _COUNT.fullmatch(name)}


def check_no_leakage(
    groups_a: ArrayLike | None,
    groups_b: ArrayLike | None,
    source: str | os.PathLike[str] = "groups",
    *,
    alike: bool = True,
) -> None:
    """Make sure that no group is in both sets. Nothing can be said, and nothing is, where either is None.

    Args:
        groups_a: groups of the training images, any number.
        groups_b: groups of the held-out images.
        source: the file named in the error.
        alike: whether the two sets are, see `group_names`.

    Raises:
        DataError: groups that are in both, a few of them by name.
    """
    if groups_a is None or groups_b is None:
        return
    shared = sorted(group_names(groups_a, alike=alike) & group_names(groups_b, alike=alike), key=_numbers_first)
    if shared:
        names = ", ".join(shared[:5]) + (", …" if len(shared) > 5 else "")
        reason = f"{len(shared)} groups are in both training and held-out images: {names}"
        raise DataError(source, f"{reason}; if they are not the same, give them names that differ")


def _numbers_first(name: str) -> tuple[bool, int, str]:
    """To sort names by, numbers by size."""
    return not name.isdecimal(), int(name) if name.isdecimal() else 0, name


def check_one_release(trained_on: str | None, held_out: str | None, source: str | os.PathLike[str]) -> None:
    """Make sure that training and held-out images are not of two releases of one collection.

    Args:
        trained_on: `release` of the training images.
        held_out: that of the held-out images.
        source: the file named in the error.

    Raises:
        DataError: they are of two releases: the same images may be in both, under other names.
    """
    if None not in (trained_on, held_out) and trained_on != held_out:
        reason = "which shares patches with it and divides them otherwise: training patches would be held out"
        raise DataError(source, f"is {held_out}; the training images are {trained_on}, {reason}")
