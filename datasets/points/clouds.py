"""Open point clouds wherever they are: an HDF5 file, an NPZ file, ModelNet40, QM9, or the surfaces of volumes."""

from __future__ import annotations

from pathlib import Path

from parteq.datasets.base import SPLITS
from parteq.datasets.errors import DataError
from parteq.datasets.npz import read_npz, splits_in_npz
from parteq.datasets.points.base import ArrayClouds, CloudBatch, PointClouds, whole
from parteq.datasets.points.hdf5 import HDF5Clouds, splits_in_hdf5
from parteq.datasets.points.modelnet import read_modelnet, splits_in_modelnet
from parteq.datasets.points.npz import read_npz_clouds
from parteq.datasets.points.qm9 import read_qm9
from parteq.datasets.points.volumes import surface_clouds

__all__ = ["ArrayClouds", "CloudBatch", "PointClouds", "available_splits", "open_clouds", "whole"]


def _kind(spec: str) -> tuple[str, Path]:
    """What `spec` names, "modelnet40", "qm9", "surfaces", "npz" or "hdf5", and where."""
    prefix, _, rest = spec.partition(":")
    if prefix in ("modelnet40", "qm9", "surfaces"):
        if not rest:
            raise DataError(spec, "names no file or folder behind the colon")
        return prefix, Path(rest)
    path = Path(spec)
    if path.is_dir():
        raise DataError(path, f"is a folder: parteq points prepare --data {path} --out clouds.h5 makes clouds of it")
    if not path.exists():
        raise DataError(path, "no such file")
    kinds = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5"}
    if path.suffix.lower() in kinds:
        return kinds[path.suffix.lower()], path
    raise DataError(path, "is not an .h5 or .npz file, modelnet40:FOLDER, qm9:FILE or surfaces:FILE")


def available_splits(spec: str) -> tuple[str, ...]:
    """The splits that `spec` is divided into, of "train", "val" and "test"; () for one undivided set.

    Raises:
        DataError: there is no such data set.
    """
    kind, path = _kind(spec)
    finders = {"hdf5": splits_in_hdf5, "modelnet40": splits_in_modelnet, "surfaces": splits_in_npz}
    return finders[kind](path) if kind in finders else ()


def open_clouds(spec: str, split: str = "train") -> PointClouds:
    """Open a set of point clouds.

    Args:
        spec: X.h5 (as `parteq points prepare` writes it), X.npz (see `read_npz_clouds`), modelnet40:FOLDER (see
            `read_modelnet`), qm9:FILE (see `read_qm9`), or surfaces:X.npz for 1,024 points on the surface of each
            volume of an image set (see `surface_clouds`).
        split: "train", "val" or "test". A set that is not divided (`available_splits` is empty) has only "train",
            which is all of it.

    Raises:
        DataError: whatever is wrong with the data, in one line.
        ValueError: no such name of a split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    kind, path = _kind(spec)
    found = available_splits(spec)
    if split not in (found or ("train",)):
        raise DataError(path, f"has no {split!r} split; it has {', '.join(found) or 'one undivided set'}")
    if kind == "hdf5":
        return HDF5Clouds(path, split)
    if kind == "modelnet40":
        return read_modelnet(path, split)
    if kind == "surfaces":
        return surface_clouds(read_npz(path, split))
    return read_qm9(path) if kind == "qm9" else read_npz_clouds(path)
