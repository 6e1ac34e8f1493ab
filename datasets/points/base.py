"""What a set of point clouds is: the interface every reader gives, and the plain in-memory one.

A cloud is n points in space, n its own; a point may bear features, such as the element of an atom. A cloud has a label
(a class number) or targets (real numbers), or neither. Families say which clouds belong together (parts that differ
only in a parameter) and must never be split between training and evaluation.

A batch is the clouds one behind the other, with the number of its cloud for each point. With

    DataLoader(clouds, batch_size=32, shuffle=True, num_workers=4, collate_fn=whole)

each process reads whole batches; a file is opened anew in each.
"""

from __future__ import annotations

import copy
import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from parteq.datasets.base import check_classes, check_groups, check_labels
from parteq.datasets.errors import DataError
from parteq.datasets.points.positions import LARGEST, as_float32
from parteq.datasets.splits import grouped_split

__all__ = ["ArrayClouds", "CloudBatch", "PointClouds", "whole"]

# A fingerprint covers every point up to this many; above, evenly spaced clouds with that many in all.
_FINGERPRINT_POINTS = 2**24
_BATCH_POINTS = 2**20


@dataclass(frozen=True)
class CloudBatch:
    """Clouds one behind the other.

    Attributes:
        positions: float32 [sum n, 3].
        features: float32 [sum n, F], or None where points bear none.
        index: int64 [sum n], ascending: which cloud of the batch, from 0, a point belongs to.
        labels: int64 [B], or None.
        targets: float32 [B, T], or None.
    """

    positions: Tensor
    features: Tensor | None
    index: Tensor
    labels: Tensor | None
    targets: Tensor | None

    def to(self, device: torch.device | str) -> CloudBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {name: part if part is None else part.to(device) for name, part in vars(self).items()}
        return CloudBatch(**moved)


def whole(batch: CloudBatch) -> CloudBatch:
    """The `collate_fn` of a DataLoader of clouds, which come as whole batches."""
    return batch


class PointClouds(Dataset[CloudBatch], ABC):
    """Point clouds. A reader gives the facts below and `_read`; the rest follows.

    Args:
        source: the file or folder, named in errors.
        sizes: points in each cloud, integers [N], at least 1.
        labels: class numbers, integers [N], in 0 … len(classes) − 1; None if there are none.
        targets: real numbers [N, T]; None if there are none.
        target_names: of the T targets, "quantity_unit" where there is a unit.
        classes: class names; None for "0", "1", … up to the largest label. Only with labels.
        families: which clouds belong together, integers or strings [N]; None if unknown.
        names: of the clouds, N of them; None where they have none but their positions.
        feature_names: of the F features of a point; empty where there are none.
        unit: of the positions ("mm", "Å"); empty if unknown.

    Attributes:
        sizes (int64 [N]), labels (int64 [N] or None), targets (float64 [N, T] or None), target_names, classes (empty
        without labels), families ([N] or None), names (N or None), feature_names, unit, source.

    Raises:
        DataError: no clouds; an empty cloud; labels not integers, negative, or beyond the classes; targets that are not
            finite in 32 bits; lengths that differ.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        sizes: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        targets: ArrayLike | None = None,
        target_names: Sequence[str] = (),
        classes: Sequence[str] | None = None,
        families: ArrayLike | None = None,
        names: Sequence[str] | None = None,
        feature_names: Sequence[str] = (),
        unit: str = "",
    ) -> None:
        self.source = Path(source)
        self.sizes: NDArray[np.int64] = np.asarray(sizes).astype(np.int64)
        if self.sizes.ndim != 1 or len(self.sizes) == 0:
            raise DataError(self.source, "holds no clouds")
        if self.sizes.min() < 1:
            raise DataError(self.source, f"cloud {int(self.sizes.argmin())} has no points")
        self.labels = None if labels is None else check_labels(np.asarray(labels), self.source)
        self.classes = () if self.labels is None else check_classes(classes, self.labels, self.source)
        self.targets = None if targets is None else self._check_targets(np.asarray(targets), target_names)
        self.target_names = tuple(target_names)
        self.families = None if families is None else check_groups(np.asarray(families), len(self), self.source)
        self.names = None if names is None else tuple(names)
        for name, values in (("labels", self.labels), ("names", self.names)):
            if values is not None and len(values) != len(self):
                raise DataError(self.source, f"{len(values)} {name} for {len(self)} clouds")
        self.feature_names = tuple(feature_names)
        self.unit = unit
        # Position in this set → cloud in the store, so that a subset shares the store.
        self._rows: NDArray[np.int64] = np.arange(len(self))

    def _check_targets(self, targets: NDArray[Any], names: Sequence[str]) -> NDArray[np.float64]:
        if targets.shape != (len(self), len(names)) or not names:
            raise DataError(
                self.source, f"targets have the shape {list(targets.shape)} for {len(self)} clouds, {len(names)} names"
            )
        # Batches hold them in 32 bits.
        if targets.dtype.kind not in "iuf" or not (np.abs(targets) <= np.finfo(np.float32).max).all():
            raise DataError(self.source, "targets are not finite numbers, or too large for 32 bits")
        if len(set(names)) != len(names):
            raise DataError(self.source, "two targets have the same name")
        return targets.astype(np.float64)

    @abstractmethod
    def _read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """Clouds of the store one behind the other: positions [sum n, 3], features [sum n, F] or None.

        Raises:
            DataError: they cannot be read, or as `_check_points`.
        """

    def _check_points(
        self,
        rows: NDArray[np.int64],
        sizes: NDArray[np.int64],
        positions: NDArray[np.float32],
        features: NDArray[np.float32] | None,
    ) -> None:
        """What `_read` gives of clouds with so many points.

        Raises:
            DataError: positions or features are not finite, or beyond `LARGEST`.
        """
        for values in (positions, features):
            if values is not None and not (sound := (np.abs(values) <= LARGEST).all(1)).all():
                bad = rows[np.searchsorted(np.cumsum(sizes), sound.argmin(), side="right")]
                reason = f"has points that are not finite (NaN or infinity), or beyond {LARGEST:g}"
                raise DataError(self.source, f"cloud {bad} {reason}")

    def __len__(self) -> int:
        return len(self.sizes)

    def cloud(self, index: int) -> tuple[Tensor, Tensor | None]:
        """One cloud: positions float32 [n, 3], features float32 [n, F] or None."""
        batch = self.batch([index])
        return batch.positions, batch.features

    def __getitem__(self, index: int) -> CloudBatch:
        """A batch of one cloud."""
        return self.batch([index])

    def __getitems__(self, indices: Sequence[int]) -> CloudBatch:
        """A batch; `torch.utils.data.DataLoader` asks so for one."""
        return self.batch(indices)

    def batch(self, indices: ArrayLike) -> CloudBatch:
        """The clouds at these positions (integers), in this order."""
        chosen = np.asarray(indices, np.int64)
        positions, features = self._read(self._rows[chosen])
        return CloudBatch(
            positions=torch.from_numpy(positions),
            features=None if features is None else torch.from_numpy(features),
            index=torch.from_numpy(np.repeat(np.arange(len(chosen)), self.sizes[chosen])),
            labels=None if self.labels is None else torch.from_numpy(self.labels[chosen]),
            targets=None if self.targets is None else torch.from_numpy(self.targets[chosen].astype(np.float32)),
        )

    def subset(self, indices: ArrayLike) -> PointClouds:
        """The clouds at these positions (integers, or a mask [N]), in this order. Points are shared, not copied."""
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        part = copy.copy(self)
        part._rows, part.sizes = self._rows[chosen], self.sizes[chosen]
        part.labels = None if self.labels is None else self.labels[chosen]
        part.targets = None if self.targets is None else self.targets[chosen]
        part.families = None if self.families is None else self.families[chosen]
        part.names = None if self.names is None else tuple(self.names[i] for i in np.arange(len(self))[chosen])
        return part

    def split(self, fraction: float, seed: int) -> tuple[PointClouds, PointClouds]:
        """Training clouds and about this fraction held out: whole families, classes in proportion (`grouped_split`).

        Raises:
            DataError: no such split exists.
        """
        labels = np.zeros(len(self), np.int64) if self.labels is None else self.labels
        try:
            train, held_out = grouped_split(labels, self.families, fraction, seed)
        except ValueError as error:
            raise DataError(self.source, str(error)) from error
        return self.subset(train), self.subset(held_out)

    def numbered_as(self, classes: Sequence[str]) -> PointClouds:
        """The same clouds, their labels numbered by these classes, such as those a network was trained on.

        Raises:
            DataError: there are no labels, or a class that occurs is not among them.
        """
        if self.labels is None:
            raise DataError(self.source, "has no labels")
        occurring = [self.classes[number] for number in np.unique(self.labels)]
        unknown = [name for name in occurring if name not in classes]
        if unknown:
            raise DataError(self.source, f"has the class {unknown[0]!r}; known are {', '.join(classes)}")
        number = np.array([classes.index(name) if name in classes else -1 for name in self.classes])
        same = self.subset(np.arange(len(self)))
        same.labels, same.classes = number[self.labels], tuple(classes)
        return same

    def in_memory(self) -> ArrayClouds:
        """The same set, its points read once and for all. For sets that fit."""
        positions, features = self._read(self._rows)
        return ArrayClouds(
            positions,
            self.sizes,
            features=features,
            source=self.source,
            labels=self.labels,
            targets=self.targets,
            target_names=self.target_names,
            classes=self.classes or None,
            families=self.families,
            names=self.names,
            feature_names=self.feature_names,
            unit=self.unit,
        )

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the set holds, whatever file it came from: sizes, labels, targets, families, points.

        Above 16.8 million points, that many in evenly spaced clouds stand for all.
        """
        digest = hashlib.sha256()
        families = None if self.families is None else self.families.tolist()
        facts = (len(self), self.classes, self.target_names, self.feature_names, self.unit, families)
        digest.update(repr(facts).encode())
        for array, kind in ((self.sizes, "<i8"), (self.labels, "<i8"), (self.targets, "<f8")):
            if array is not None:
                digest.update(array.astype(kind).tobytes())
        mean = self.sizes.mean()
        count = min(len(self), max(1, int(_FINGERPRINT_POINTS // mean)))
        rows = self._rows[np.linspace(0, len(self) - 1, count).round().astype(np.int64)]
        step = max(1, int(_BATCH_POINTS // mean))
        for start in range(0, count, step):
            for values in self._read(rows[start : start + step]):
                if values is not None:
                    digest.update(values.astype("<f4").tobytes())
        return digest.hexdigest()


class ArrayClouds(PointClouds):
    """Point clouds held in memory.

    Args:
        positions: [sum n, 3], the clouds one behind the other; or [N, n, 3] where all have n points. See `as_float32`.
        sizes: points in each cloud [N]; may be left out for positions [N, n, 3].
        features: float32 [sum n, F]; None where points bear none.
        source: where they came from, named in errors.
        facts: the other arguments of `PointClouds`.

    Raises:
        DataError: as `PointClouds`; arrays of other shapes; positions or features that are not finite, or beyond
            `LARGEST`.
    """

    def __init__(
        self,
        positions: NDArray[Any] | Tensor,
        sizes: ArrayLike | None = None,
        *,
        features: NDArray[Any] | Tensor | None = None,
        source: str | os.PathLike[str] = "memory",
        **facts: Any,
    ) -> None:
        points = np.asarray(positions)
        if points.ndim == 3 and sizes is None:
            sizes, points = np.full(len(points), points.shape[1]), points.reshape(-1, points.shape[2])
        super().__init__(source, [] if sizes is None else sizes, **facts)
        width = len(self.feature_names)
        with np.errstate(over="ignore"):  # what becomes infinite is refused below
            values = None if features is None else np.asarray(features, np.float32)
        total = int(self.sizes.sum())
        if points.shape != (total, 3):
            raise DataError(source, f"positions have the shape {list(points.shape)} instead of [{total}, 3]")
        if values is not None and (values.shape != (total, width) or width == 0):
            raise DataError(source, f"features have the shape {list(values.shape)} instead of [{total}, {width}]")
        if values is None and width:
            raise DataError(source, f"names {width} features of points, but there are none")
        points = as_float32(points, self.sizes)
        self._check_points(self._rows, self.sizes, points, values)
        self._starts = np.concatenate([[0], np.cumsum(self.sizes)])
        self._positions, self._features = points, values

    def _read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        sizes = np.diff(self._starts)[rows]
        # Of every point asked for, where it stands in the store.
        offsets = np.repeat(self._starts[rows] - np.concatenate([[0], np.cumsum(sizes)[:-1]]), sizes)
        points = offsets + np.arange(len(offsets))
        return self._positions[points], None if self._features is None else self._features[points]
