"""What an image data set is: the interface every reader gives, and the plain in-memory one.

Images are uint8 tensors, channels first; labels are class numbers; groups say which images belong together
(one patient, one slide) and must never be split between training and evaluation.
"""

from __future__ import annotations

import copy
import hashlib
import os
import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.utils.data import Dataset

from parteq.datasets.errors import DataError

__all__ = ["SPLITS", "ArrayDataset", "ImageDataset", "check_classes", "check_groups", "check_labels", "unlabelled"]

SPLITS = ("train", "val", "test")

# Without class names there are as many classes as the largest label says; beyond this many it is not a class number.
_MAX_CLASSES = 10_000
# A fingerprint covers every pixel up to this many bytes; above, evenly spaced images of that size in all.
_FINGERPRINT_BYTES = 2**28
_BATCH_BYTES = 2**24
_DIGESTS = 20_000


def check_labels(labels: NDArray[Any], path: str | os.PathLike[str]) -> NDArray[np.int64]:
    """Class numbers as int64 [N].

    Raises:
        DataError: none at all; not one axis; not integers (or bool); negative, or too large to number a class.
    """
    if labels.ndim != 1:
        raise DataError(path, f"labels have the shape {list(labels.shape)} instead of [N]")
    if len(labels) == 0:
        raise DataError(path, "holds no images")
    if labels.dtype.kind not in "biu":
        raise DataError(path, f"labels are {labels.dtype}: save integers")
    if labels.min() < 0:
        raise DataError(path, f"negative label {labels.min()}")
    if labels.max() >= _MAX_CLASSES:
        raise DataError(path, f"label {labels.max()}: at most {_MAX_CLASSES} classes are supported")
    return labels.astype(np.int64)


def check_classes(
    classes: Sequence[str] | None, labels: NDArray[np.int64], path: str | os.PathLike[str]
) -> tuple[str, ...]:
    """Names of the classes that the labels number; "0", "1", … where there are none.

    Raises:
        DataError: too few names; an empty name; one name twice.
    """
    needed = int(labels.max()) + 1
    if classes is None:
        return tuple(str(number) for number in range(needed))
    if len(classes) < needed:
        raise DataError(path, f"{len(classes)} class names, but labels up to {needed - 1}")
    # Classes are known by name wherever two data sets meet.
    if not all(classes):
        raise DataError(path, f"class {list(classes).index('')} has an empty name")
    twice = [name for name, count in Counter(classes).items() if count > 1]
    if twice:
        raise DataError(path, f"two classes are named {twice[0]!r}")
    return tuple(str(name) for name in classes)


def check_groups(groups: NDArray[Any], count: int, path: str | os.PathLike[str]) -> NDArray[Any]:
    """Groups [count], integers or strings, as they are.

    Raises:
        DataError: another shape or type; text that is none.
    """
    if groups.shape != (count,):
        raise DataError(path, f"groups have the shape {list(groups.shape)} for {count} labels")
    if groups.dtype.kind not in "iuUS":
        raise DataError(path, f"groups are {groups.dtype}: save integers or strings")
    if groups.dtype.kind == "U" and groups.dtype.itemsize:
        # A damaged file can hold numbers that are no Unicode characters, which Python answers with SystemError.
        points = np.ascontiguousarray(groups).view(f"{groups.dtype.byteorder}u4")
        if points.max() > sys.maxunicode:
            raise DataError(path, "groups are not text")
    return groups


def unlabelled(count: int) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels and classes of this many images whose classes are not known: zeros [count], and the one class."""
    return np.zeros(count, np.int64), ("unlabelled",)


class ImageDataset(Dataset[tuple[Tensor, int]], ABC):
    """Labelled images of one size. A reader gives the facts below and `_read`; the rest follows.

    Args:
        source: the file or folder, named in errors.
        labels: class numbers, integers [N], in 0 … len(classes) − 1.
        channels: number of channels C.
        spatial: (H, W) or (D, H, W), pixels.
        classes: class names; None for "0", "1", … up to the largest label.
        groups: which images belong together, integers or strings [N]; None if unknown.
        names: of the images, N of them; None where they have none but their positions.

    Attributes:
        labels (int64 [N]), groups ([N] or None), names (N or None), classes, channels, spatial, source.
        skipped: the files that were left out because they could not be read, where that was asked for.
        release: which of several releases of the same collection of images this is, by name; None where there is one.

    Raises:
        DataError: no images; labels not integers, negative, or beyond the classes; a class named twice; lengths that
            differ.
    """

    skipped: tuple[Path, ...] = ()
    release: str | None = None

    def __init__(
        self,
        source: str | os.PathLike[str],
        labels: ArrayLike,
        *,
        channels: int,
        spatial: Sequence[int],
        classes: Sequence[str] | None = None,
        groups: ArrayLike | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        self.source = Path(source)
        self.labels = check_labels(np.asarray(labels), self.source)
        self.groups = None if groups is None else check_groups(np.asarray(groups), len(self.labels), self.source)
        self.names = None if names is None else self._check_names(names)
        self.classes = check_classes(classes, self.labels, self.source)
        self.channels = int(channels)
        self.spatial = tuple(int(size) for size in spatial)
        # Position in this set → row in the store, so that a subset shares the store.
        self._rows: NDArray[np.int64] = np.arange(len(self.labels))

    def _check_names(self, names: Sequence[str]) -> tuple[str, ...]:
        if len(names) != len(self.labels):
            raise DataError(self.source, f"{len(names)} names for {len(self.labels)} images")
        return tuple(names)

    @abstractmethod
    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        """Images of the store: uint8 [len(rows), C, …spatial]. Raises DataError where they cannot be read."""

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """One image, uint8 [C, …spatial], and its label."""
        row = self._rows[index]
        return self._read(np.array([row]))[0], int(self.labels[index])

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[Tensor, int]]:
        """Several images and their labels, read together; `torch.utils.data.DataLoader` asks so for a batch."""
        images = self._read(self._rows[np.asarray(indices)])
        return list(zip(images, self.labels[np.asarray(indices)].tolist(), strict=True))

    def subset(self, indices: ArrayLike) -> ImageDataset:
        """The images at these positions (integers, or a mask [N]), in this order. Pixels are shared, not copied."""
        chosen = np.asarray(indices)
        if chosen.size == 0:
            chosen = chosen.astype(np.int64)
        part = copy.copy(self)
        part._rows = self._rows[chosen]
        part.labels = self.labels[chosen]
        part.groups = None if self.groups is None else self.groups[chosen]
        part.names = None if self.names is None else tuple(self.names[i] for i in np.arange(len(self))[chosen])
        return part

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Everything in memory at once: images uint8 [N, C, …spatial], labels int64 [N]. For sets that fit."""
        return self._read(self._rows), torch.from_numpy(self.labels.copy())

    def in_memory(self) -> ArrayDataset:
        """The same set, its pixels decoded once and for all. For sets that fit."""
        images, labels = self.tensors()
        copied = ArrayDataset(
            images, labels, source=self.source, classes=self.classes, groups=self.groups, names=self.names
        )
        copied.skipped, copied.release = self.skipped, self.release
        return copied

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what the set holds, whatever file it came from: shape, classes, labels, groups and pixels.

        Above 256 MiB of pixels, that many bytes of evenly spaced images stand for all.
        """
        digest = hashlib.sha256()
        groups = None if self.groups is None else self.groups.tolist()
        digest.update(repr((len(self), self.channels, self.spatial, self.classes, groups)).encode())
        digest.update(self.labels.astype("<i8").tobytes())
        for part in self._spread():
            digest.update(part.tobytes())
        return digest.hexdigest()

    def digests(self) -> set[str]:
        """What tells images from one another, to find those that another set holds as well: of each the first 12
        characters of SHA-256 (hex) over its pixels.

        Images of one colour all over are left out, for such are in many sets. Of more than 20,000 images, or more than
        256 MiB of pixels, so many that are evenly spaced.
        """
        parts = self._spread(_DIGESTS)
        images = (image for part in parts for image in part if image.min() < image.max())
        return {hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in images}

    def _spread(self, most: int | None = None) -> Iterator[NDArray[Any]]:
        """Evenly spaced images, as many as a fingerprint covers and at most so many, some at a time."""
        image_bytes = self.channels * int(np.prod(self.spatial))
        count = min(len(self), most or len(self), max(1, _FINGERPRINT_BYTES // image_bytes))
        rows = self._rows[np.linspace(0, len(self) - 1, count).round().astype(np.int64)]
        step = max(1, _BATCH_BYTES // image_bytes)
        for start in range(0, count, step):
            yield self._read(rows[start : start + step]).numpy()


class ArrayDataset(ImageDataset):
    """Images held in memory.

    Args:
        images: uint8 [N, C, H, W] or [N, C, D, H, W]; a view of another layout is kept as a view.
        labels: integers [N].
        source: where they came from, named in errors.
        classes, groups, names: as in `ImageDataset`.

    Raises:
        DataError: as `ImageDataset`, or images and labels that differ in number.
        ValueError: images not uint8, or not of four or five axes.
    """

    def __init__(
        self,
        images: NDArray[np.uint8] | Tensor,
        labels: ArrayLike,
        *,
        source: str | os.PathLike[str] = "memory",
        classes: Sequence[str] | None = None,
        groups: ArrayLike | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        array = np.asarray(images)
        if array.dtype != np.uint8 or array.ndim not in (4, 5):
            raise ValueError(f"images must be uint8 N×C×H×W or N×C×D×H×W, not {array.dtype} {list(array.shape)}")
        if len(array) != len(np.asarray(labels)):
            raise DataError(source, f"{len(array)} images, but {len(np.asarray(labels))} labels")
        super().__init__(
            source,
            labels,
            channels=array.shape[1],
            spatial=array.shape[2:],
            classes=classes,
            groups=groups,
            names=names,
        )
        self._array = array

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(self._array[rows]))
