"""PatchCamelyon as published: HDF5 files of 96×96 colour patches, read one patch at a time.

A folder holds `camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`, keys `x` uint8 [N, 96, 96, 3] and `y`
[N, 1, 1, 1], and optionally `…_meta.csv`, whose column `wsi` names the slide each patch came from. (Veeling et al.,
"Rotation equivariant CNNs for digital pathology", MICCAI 2018.) The pixels stay on disk; a handle is opened in each
process that reads, since HDF5 handles survive neither pickling nor forking.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parteq.datasets.base import SPLITS, ImageDataset, unlabelled
from parteq.datasets.errors import DataError

__all__ = ["PCamDataset", "splits_in_pcam"]

CLASSES: tuple[str, ...] = ("normal", "tumor")
_FILE_SPLIT = {"train": "train", "val": "valid", "test": "test"}
_PATCH = (96, 96, 3)
# Reading one patch unpacks its whole chunk: a file whose chunks are larger than this is refused.
_MAX_CHUNK_BYTES = 2**28
_MAX_PATCHES = 10_000_000
_MAX_SLIDE_NAME = 256


@contextmanager
def _refusing(path: Path) -> Iterator[None]:
    """Turn whatever h5py raises on a truncated or hostile file into DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # Any type: h5py maps the library's errors to OSError, KeyError, ValueError, RuntimeError, TypeError, …
        raise DataError(path, f"is not an HDF5 file, or is truncated or damaged ({error})") from error


class _Array:
    """One array of one HDF5 file, opened on first use in each process."""

    def __init__(self, path: Path, key: str) -> None:
        self.path = path
        self.key = key
        self._process: int | None = None
        self._file: h5py.File | None = None
        self._dataset: h5py.Dataset | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = self._dataset = self._process = None

    def open(self) -> h5py.Dataset:
        """The array in this process. Raises DataError if it is missing, damaged, or lies outside its own file."""
        if self._dataset is not None and self._process == os.getpid():
            return self._dataset
        self.close()
        with _refusing(self.path):
            self._file = h5py.File(self.path, "r")
            self._process = os.getpid()
            try:
                self._dataset = self._own_array(self._file)
            except BaseException:
                self.close()
                raise
        return self._dataset

    def _own_array(self, file: h5py.File) -> h5py.Dataset:
        link = file.get(self.key, getlink=True)
        if link is None:
            raise DataError(self.path, f"has no array {self.key!r}; it has {sorted(file)[:12]}")
        if not isinstance(link, h5py.HardLink):
            raise DataError(self.path, f"{self.key!r} is a link that may lead out of the file, which is refused")
        array = file[self.key]
        if not isinstance(array, h5py.Dataset) or array.shape is None:
            raise DataError(self.path, f"{self.key!r} is not an array")
        if array.is_virtual or array.external:
            raise DataError(self.path, f"the data of {self.key!r} lie in other files, which is refused")
        if array.dtype.kind not in "iu":
            raise DataError(self.path, f"{self.key!r} is {array.dtype} instead of uint8")
        if array.chunks is not None and int(np.prod(array.chunks)) * array.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise DataError(self.path, f"{self.key!r} is stored in chunks of {array.chunks}: too large to read patches")
        return array


def _find(folder: Path, split: str, part: str) -> Path:
    """The file of a split, part "x" or "y"."""
    path = folder / f"camelyonpatch_level_2_split_{_FILE_SPLIT[split]}_{part}.h5"
    packed = path.with_name(f"{path.name}.gz")
    if not path.is_file():
        if packed.is_file():
            raise DataError(packed, f"is compressed: unpack it with `gunzip {packed.name}`")
        raise DataError(path, "no such file")
    return path


def _read_slides(folder: Path, split: str, count: int) -> NDArray[np.str_] | None:
    """The slide of each patch from the split's `_meta.csv`, or None where there is none."""
    path = folder / f"camelyonpatch_level_2_split_{_FILE_SPLIT[split]}_meta.csv"
    if not path.is_file():
        return None
    slides: list[str] = []
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            if rows.fieldnames is None or "wsi" not in rows.fieldnames:
                raise DataError(path, f"has no column 'wsi'; it has {rows.fieldnames}")
            for row in rows:
                slide = row["wsi"]
                # An array of strings is as wide as its longest: one absurd name must not take all memory.
                if not slide or len(slide) > _MAX_SLIDE_NAME or len(slides) == count:
                    raise DataError(path, f"line {rows.line_num}: no usable slide name, or more lines than patches")
                slides.append(slide)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(path, f"is not a readable CSV file ({error})") from error
    if len(slides) != count:
        raise DataError(path, f"{len(slides)} lines for {count} patches")
    return np.array(slides)


def splits_in_pcam(folder: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits, of "train", "val" and "test", whose pixels the folder holds."""
    pattern = "camelyonpatch_level_2_split_{}_x.h5"
    return tuple(split for split in SPLITS if (Path(folder) / pattern.format(_FILE_SPLIT[split])).is_file())


class PCamDataset(ImageDataset):
    """PatchCamelyon, one split of it.

    Args:
        folder: holds the published files, unpacked.
        split: "train", "val" (the files say `valid`) or "test".
        labelled: False for patches whose labels are not wanted; their file may be missing.

    Raises:
        DataError: a file is missing, compressed, truncated or damaged; an array has another shape or type than
            published, or lies outside its own file (external and soft links, virtual data sets, external storage);
            labels other than 0 and 1; slide names that do not match.
    """

    def __init__(self, folder: str | os.PathLike[str], split: str = "train", *, labelled: bool = True) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(folder, "no such folder")
        pixels = _Array(_find(folder, split, "x"), "x")
        shape, dtype = pixels.open().shape, pixels.open().dtype
        # Closed again, so that worker processes started from here inherit no handle.
        pixels.close()
        if shape[1:] != _PATCH or dtype != np.uint8 or shape[0] > _MAX_PATCHES:
            raise DataError(pixels.path, f"'x' is {dtype} {list(shape)} instead of uint8 [N, 96, 96, 3]")
        if labelled:
            labels, classes = self._read_labels(_Array(_find(folder, split, "y"), "y"), shape[0]), CLASSES
        else:
            labels, classes = unlabelled(shape[0])
        groups = _read_slides(folder, split, shape[0])
        super().__init__(folder, labels, channels=3, spatial=(96, 96), classes=classes, groups=groups)
        self._pixels = pixels

    @staticmethod
    def _read_labels(array: _Array, count: int) -> NDArray[Any]:
        stored = array.open()
        if stored.shape != (count, 1, 1, 1):
            raise DataError(array.path, f"'y' has the shape {list(stored.shape)} instead of [{count}, 1, 1, 1]")
        with _refusing(array.path):
            labels: NDArray[Any] = stored[...].reshape(count)
        array.close()
        if not np.isin(labels, (0, 1)).all():
            raise DataError(array.path, "'y' holds labels other than 0 and 1")
        return labels

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        images = np.empty((len(rows), *_PATCH), np.uint8)
        stored = self._pixels.open()
        with _refusing(self._pixels.path):
            # One read for each run of consecutive rows.
            starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) != 1)
            stops = np.append(starts, len(rows))[1:]
            for start, stop in zip(starts, stops, strict=True):
                stored.read_direct(images, np.s_[rows[start] : rows[stop - 1] + 1], np.s_[start:stop])
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
