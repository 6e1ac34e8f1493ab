"""ModelNet40 (Wu et al. 2015), in the layout of its publication or resampled to 2,048 points as PointNet++ used it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from parteq.datasets.errors import DataError
from parteq.datasets.hdf5 import StoredArray
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.folder import read_folder, splits_in_folder

__all__ = ["read_modelnet", "splits_in_modelnet"]

_POINTS = 1024


def _tables(root: Path, split: str) -> list[Path]:
    """The files of a split, where points come in tables."""
    return sorted(root.glob(f"ply_data_{split}*.h5"))


def splits_in_modelnet(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that the folder holds; () for one undivided set. Raises DataError."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(root, "no such folder")
    found = tuple(split for split in ("train", "test") if _tables(root, split))
    return found or splits_in_folder(root)


def read_modelnet(root: str | os.PathLike[str], split: str = "train") -> ArrayClouds:
    """Read ModelNet40, or any set in one of its two layouts.

    Args:
        root: a folder with CLASS/train/*.off and CLASS/test/*.off, from each of which 1,024 points are drawn anew at
            every call (`parteq points prepare` draws them once), or with `ply_data_train0.h5`, … and `shape_names.txt`.
        split: "train" or "test".

    Raises:
        DataError: the folder has neither; a table is damaged or keeps its data elsewhere.
    """
    root = Path(root)
    files = _tables(root, split)
    if not files:
        return read_folder(root, split, points=_POINTS, seed=0)
    clouds = [StoredArray(file, "data", "real numbers").read() for file in files]
    labels = [StoredArray(file, "label").read().reshape(-1) for file in files]
    for file, points, numbers in zip(files, clouds, labels, strict=True):
        if points.ndim != 3 or points.shape[::2] != (len(numbers), 3) or points.shape[1:] != clouds[0].shape[1:]:
            raise DataError(file, f"'data' has the shape {list(points.shape)} for {len(numbers)} labels")
    names = root / "shape_names.txt"
    classes = names.read_text(encoding="utf-8").split() if names.is_file() else None
    return ArrayClouds(np.concatenate(clouds), labels=np.concatenate(labels), classes=classes, source=root)
