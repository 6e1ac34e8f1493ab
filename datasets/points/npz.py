"""NumPy's NPZ as point clouds, or as molecules. Files are not trusted: see `parteq.datasets.npz`."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.npz import NpzFile, read_names
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.elements import ELEMENTS, element_features

__all__ = ["read_npz_clouds"]


def read_npz_clouds(path: str | os.PathLike[str]) -> ArrayClouds:
    """Read an NPZ file of point clouds or molecules.

    Args:
        path: a file with either

            - `points`, float [N, n, 3], or [sum n, 3] beside `n_points` [N]; int16 instead of float needs `scale`, one
              number or [N], which turns it into mm. Optional: `label` (integers [N]), `classes`, `family` (integers or
              strings [N]);
            - or `z` (atomic numbers [sum n]), `pos` ([sum n, 3], Å) and `n_atoms` [N]; atoms bear one-hot elements.
              Optional: `index` (integers [N]), which tells molecules apart across files: their names and families.

            Either may have `targets` [N, T] and `target_names` [T].

    Raises:
        DataError: the file is damaged, hostile, lacks an array, or its arrays do not make clouds.
    """
    with NpzFile(path) as file:
        facts = _read_facts(file)
        if "z" in file.names and "points" not in file.names:
            features = element_features(file.read("z"), file.path)
            facts |= {"features": features, "feature_names": ELEMENTS, "unit": "Å"}
            if "index" in file.names:
                index = file.read("index")
                facts |= {"families": index, "names": [str(number) for number in index.ravel()]}
            positions = _real(file, "pos")
            return ArrayClouds(positions, _read_sizes(file, "n_atoms", positions.size // 3), source=file.path, **facts)
        points, sizes = _read_points(file)
        unit = "mm" if "scale" in file.names else ""
        return ArrayClouds(points, sizes, source=file.path, unit=unit, **facts)


def _read_facts(file: NpzFile) -> dict[str, Any]:
    """What is known of the clouds beside their points."""
    facts: dict[str, Any] = {}
    if "label" in file.names:
        facts["labels"] = file.read("label")
        facts["classes"] = read_names(file, "classes") if "classes" in file.names else None
    if "family" in file.names:
        facts["families"] = file.read("family")
    if "targets" in file.names:
        facts |= {"targets": file.read("targets"), "target_names": read_names(file, "target_names")}
    return facts


def _real(file: NpzFile, name: str) -> NDArray[Any]:
    """An array that has to be of real numbers."""
    header = file.header(name)
    if header.dtype.kind != "f":
        raise DataError(file.path, f"{name!r} is {header.dtype} instead of float")
    return file.read(name)


def _read_points(file: NpzFile) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Positions [sum n, 3] and sizes [N]."""
    header = file.header("points")
    shape = header.shape
    stacked = "n_points" not in file.names
    if len(shape) != (3 if stacked else 2) or shape[-1] != 3:
        wanted = "[N, n, 3]" if stacked else "[sum n, 3], as there is 'n_points'"
        raise DataError(file.path, f"'points' has the shape {list(shape)} instead of {wanted}")
    sizes = np.full(shape[0], shape[1]) if stacked else _read_sizes(file, "n_points", shape[0])
    scaled = "scale" in file.names
    if header.dtype.kind == "f" and not scaled:
        return file.read("points").reshape(-1, 3), sizes
    if (header.dtype.kind, header.dtype.itemsize) != ("i", 2) or not scaled:
        beside = " beside 'scale'" if scaled else ""
        raise DataError(file.path, f"'points' is {header.dtype}{beside}: save float, or int16 and 'scale'")
    scale = _real(file, "scale")
    if scale.shape not in ((), (len(sizes),)):
        raise DataError(file.path, f"'scale' has the shape {list(scale.shape)} for {len(sizes)} clouds")
    per_point = np.repeat(np.broadcast_to(scale, sizes.shape).astype(np.float32), sizes)
    return file.read("points").reshape(-1, 3) * per_point[:, None], sizes


def _read_sizes(file: NpzFile, name: str, total: int) -> NDArray[np.int64]:
    """Points in each cloud, which have to add up."""
    sizes = file.read(name)
    # As Python's integers, which cannot overflow.
    if sizes.ndim != 1 or sizes.dtype.kind not in "iu" or sum(sizes.tolist()) != total:
        raise DataError(file.path, f"{name!r} does not tell how {total} points part into clouds")
    return sizes.astype(np.int64)
