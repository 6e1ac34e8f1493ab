"""PatchCamelyon as published: HDF5 files of 96×96 colour patches, read one patch at a time.

A folder holds `camelyonpatch_level_2_split_{train,valid,test}_{x,y}.h5`, keys `x` uint8 [N, 96, 96, 3] and `y`
[N, 1, 1, 1], as they are or packed (`.gz`), and optionally `…_meta.csv`, whose column `wsi` names the slide each patch
came from. (Veeling et al., "Rotation equivariant CNNs for digital pathology", MICCAI 2018.) The pixels stay on disk.
"""

from __future__ import annotations

import csv
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from parteq.datasets.base import SPLITS, ImageDataset, unlabelled
from parteq.datasets.errors import DataError
from parteq.datasets.gzipped import unpack
from parteq.datasets.hdf5 import StoredArray, refusing
from parteq.datasets.pcam_files import pcam_file, published_as

__all__ = ["CLASSES", "PATCHES", "PCamDataset", "splits_in_pcam"]

log = logging.getLogger(__name__)

CLASSES: tuple[str, ...] = ("normal", "tumor")
PATCHES = {"train": 262_144, "val": 32_768, "test": 32_768}
"""How many patches each split has as published, half of them positive."""

_PATCH = (96, 96, 3)
_IMBALANCE = 0.01
_MAX_PATCHES = 10_000_000
_MAX_SLIDE_NAME = 256
_HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# What an HDF5 file may take beside the patches: its directory of chunks.
_OVERHEAD_BYTES = 2**27


def _find(folder: Path, split: str, part: str) -> Path:
    """The file of a split, part "x" or "y"; if only the packed one is there, unpacked now."""
    path, packed = pcam_file(folder, split, f"{part}.h5"), pcam_file(folder, split, f"{part}.h5.gz")
    if path.is_file():
        return path
    if not packed.is_file():
        raise DataError(path, "no such file")
    patch_bytes = int(np.prod(_PATCH)) if part == "x" else 8
    md5 = unpack(packed, PATCHES[split] * patch_bytes + _OVERHEAD_BYTES, _HDF5_SIGNATURE)
    if md5 is not None:
        known = "published" if published_as(md5, f"{part}.h5.gz") else "not one of those published"
        log.info("unpacked %s; its MD5 sum %s is %s", packed, md5, known)
    return path


def _read_slides(folder: Path, split: str, count: int) -> NDArray[np.str_] | None:
    """The slide of each patch from the split's `_meta.csv`, or None where there is none."""
    path = pcam_file(folder, split, "meta.csv")
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
    """The splits, of "train", "val" and "test", whose pixels the folder holds, packed or not."""
    parts = ("x.h5", "x.h5.gz")
    return tuple(split for split in SPLITS if any(pcam_file(Path(folder), split, part).is_file() for part in parts))


class PCamDataset(ImageDataset):
    """PatchCamelyon, one split of it.

    Args:
        folder: holds the published files. Packed ones are unpacked beside themselves, once.
        split: "train", "val" (the files say `valid`) or "test".
        labelled: False for patches whose labels are not wanted; their file may be missing.

    Raises:
        DataError: a file is missing, truncated or damaged, or cannot be unpacked; an array has another shape or type
            than published, or lies outside its own file (external and soft links, virtual data sets, external storage);
            labels other than 0 and 1; as many patches as published, but not half of them positive; slide names that do
            not match.
    """

    release = "PatchCamelyon as published"

    def __init__(self, folder: str | os.PathLike[str], split: str = "train", *, labelled: bool = True) -> None:
        folder = Path(folder)
        if not folder.is_dir():
            raise DataError(folder, "no such folder")
        pixels = StoredArray(_find(folder, split, "x"), "x")
        shape, dtype = pixels.open().shape, pixels.open().dtype
        # Closed again, so that worker processes started from here inherit no handle.
        pixels.close()
        if shape[1:] != _PATCH or dtype != np.uint8 or shape[0] > _MAX_PATCHES:
            raise DataError(pixels.path, f"'x' is {dtype} {list(shape)} instead of uint8 [N, 96, 96, 3]")
        if labelled:
            labels, classes = self._read_labels(StoredArray(_find(folder, split, "y"), "y"), shape[0], split), CLASSES
        else:
            labels, classes = unlabelled(shape[0])
        groups = _read_slides(folder, split, shape[0])
        super().__init__(folder, labels, channels=3, spatial=(96, 96), classes=classes, groups=groups)
        self._pixels = pixels

    @staticmethod
    def _read_labels(array: StoredArray, count: int, split: str) -> NDArray[Any]:
        stored = array.open()
        if stored.shape != (count, 1, 1, 1):
            raise DataError(array.path, f"'y' has the shape {list(stored.shape)} instead of [{count}, 1, 1, 1]")
        with refusing(array.path):
            labels: NDArray[Any] = stored[...].reshape(count)
        array.close()
        if not np.isin(labels, (0, 1)).all():
            raise DataError(array.path, "'y' holds labels other than 0 and 1")
        if count != PATCHES[split]:
            log.info("%s: %s patches, where %s were published", array.path, f"{count:,}", f"{PATCHES[split]:,}")
        elif abs(labels.mean() - 0.5) > _IMBALANCE:
            positive = int(labels.sum())
            raise DataError(array.path, f"{positive:,} of {count:,} labels are positive; of those published half are")
        return labels

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        images = np.empty((len(rows), *_PATCH), np.uint8)
        stored = self._pixels.open()
        with refusing(self._pixels.path):
            # One read for each run of consecutive rows.
            starts = np.flatnonzero(np.diff(rows, prepend=rows[:1] - 2) != 1)
            stops = np.append(starts, len(rows))[1:]
            for start, stop in zip(starts, stops, strict=True):
                images[start:stop] = stored[int(rows[start]) : int(rows[stop - 1]) + 1]
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
