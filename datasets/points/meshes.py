"""Points on the surfaces of meshes, and points of files that hold nothing else.

OBJ, OFF, PLY, VRML and XYZ are read by the modules beside this one, STL by trimesh. Faces are cut into triangles
(`polygons`), on which points are drawn uniformly by area.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.points.obj import read_obj
from parteq.datasets.points.off import read_off
from parteq.datasets.points.ply import read_ply
from parteq.datasets.points.polygons import Polygons
from parteq.datasets.points.positions import LARGEST, as_float32
from parteq.datasets.points.vrml import read_vrml
from parteq.datasets.points.xyz import read_xyz

__all__ = ["SUFFIXES", "load_points", "load_surface", "sample_surface"]

SUFFIXES = frozenset((".off", ".ply", ".obj", ".stl", ".npy", ".xyz", ".wrl"))
"""Of the files that are taken for meshes or points."""

_MAX_BYTES = 2**30

Surface = tuple[NDArray[Any], Polygons | None]
"""Vertices and faces, or points and None."""


def load_points(path: str | os.PathLike[str], count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Points of one file: `count` drawn on its surface, or of the points it holds; all of these if they are fewer.

    Args:
        path: a mesh, or a file of points: `.npy` or `.xyz` of three columns or more, `.ply` or `.obj` without faces.
        count: how many points.
        generator: draws them.

    Returns:
        Positions float32 [n, 3].

    Raises:
        DataError: as `load_surface`; a mesh without area; points too far apart for 32 bits.
    """
    vertices, faces = load_surface(path)
    if faces is None:
        if len(vertices) > count:
            vertices = vertices[generator.permutation(len(vertices))[:count]]
        points = as_float32(vertices, [len(vertices)])
    else:
        try:
            points = sample_surface(vertices, faces, count, generator)
        except ValueError as error:
            raise DataError(path, str(error)) from error
    if np.abs(points).max() > LARGEST:
        raise DataError(path, f"has points beyond {LARGEST:g}, whose squares are too large for 32 bits")
    return points


def load_surface(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Vertices float64 [V, 3] and triangles int64 [F, 3] of a mesh; of a file of points, these and None.

    Raises:
        DataError: not such a file, or a damaged one; no vertices or faces; vertices that are not finite; faces of
            vertices that are not there, or too many that are concave.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "is not a regular file")
    if path.stat().st_size > _MAX_BYTES:
        raise DataError(path, "is larger than 1 GiB, which is refused")
    vertices, faces = _read(path)
    if vertices.ndim != 2 or vertices.shape[1] != 3 or vertices.dtype.kind not in "fiu":
        raise DataError(path, f"points are {vertices.dtype} {list(vertices.shape)} instead of numbers [n, 3]")
    if len(vertices) == 0:
        raise DataError(path, "is empty: it has no vertices")
    # Also what is beyond float32, in which clouds are kept, is not finite.
    if not (np.abs(vertices) <= np.finfo(np.float32).max).all():
        raise DataError(path, "has vertices that are not finite (NaN or infinity)")
    vertices = vertices.astype(np.float64)
    if faces is None:
        return vertices, None
    try:
        faces.check(len(vertices))
        triangles = faces.triangles(vertices)
    except ValueError as error:
        raise DataError(path, str(error)) from error
    if len(triangles) == 0:
        raise DataError(path, "is empty: it has no faces")
    return vertices, triangles


def _read(path: Path) -> Surface:
    """Vertices and faces, or points and None, whatever they are worth."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(path, f"is none of {', '.join(sorted(SUFFIXES))}")
    if suffix == ".wrl":
        return read_vrml(path)
    try:
        return _READERS[suffix](path.read_bytes())
    except Exception as error:
        # Any type: the parsers raise whatever the text leads them into.
        raise DataError(
            path, f"is not a readable {suffix[1:].upper()} file ({type(error).__name__}: {error})"
        ) from error


def _read_npy(content: bytes) -> Surface:
    """The first three columns of a table of points."""
    table = np.load(io.BytesIO(content), allow_pickle=False)
    return table[:, :3] if table.ndim == 2 else table, None


def _read_stl(content: bytes) -> Surface:
    """An STL, in text or in bytes."""
    import trimesh  # Only who reads meshes needs it.

    # Some programs begin the header of one in bytes with "solid", too.
    text = len(content) < 84 or (content.lstrip().lower().startswith(b"solid") and b"\0" not in content[:84])
    if not text:
        # How long it is by the number of triangles in its header; trimesh takes one with more behind them for text.
        length = 84 + 50 * int.from_bytes(content[80:84], "little")
        if len(content) < length:
            raise ValueError("it is cut off: it holds less than its header says")
        content = content[:length]
    loaded = trimesh.load(io.BytesIO(content), file_type="stl", process=False, maintain_order=True)
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_geometry()
    if not isinstance(loaded, trimesh.Trimesh):
        raise ValueError("it holds no triangles")
    faces = np.asarray(loaded.faces).reshape(-1, 3)
    return np.asarray(loaded.vertices), Polygons.of(faces.ravel(), np.full(len(faces), 3))


_READERS: dict[str, Callable[[bytes], Surface]] = {
    ".npy": _read_npy,
    ".obj": read_obj,
    ".off": read_off,
    ".ply": read_ply,
    ".stl": _read_stl,
    ".xyz": lambda content: (read_xyz(content), None),
}


def sample_surface(
    vertices: NDArray[np.floating], faces: NDArray[np.integer], count: int, generator: np.random.Generator
) -> NDArray[np.float32]:
    """Draw points uniformly on the surface of a mesh; triangles without area get none.

    A triangle is drawn with a probability in proportion to its area; in it, a + u (b − a) + v (c − a) is uniform where
    (u, v) is uniform on the unit square and folded onto its lower triangle.

    Args:
        vertices: [V, 3].
        faces: vertices of the triangles, [F, 3].
        count: how many points.
        generator: draws them.

    Returns:
        float32 [count, 3].

    Raises:
        ValueError: no triangle has an area.
    """
    corner, first, second = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    first, second = first - corner, second - corner
    areas = np.linalg.norm(np.cross(first, second), axis=1)
    total = areas.sum()
    if not total > 0 or not np.isfinite(total):
        raise ValueError("has no area: all its faces are degenerate")
    chosen = generator.choice(len(faces), count, p=areas / total)
    weights = generator.random((count, 2))
    weights = np.where(weights.sum(1, keepdims=True) > 1, 1 - weights, weights)
    points = corner[chosen] + weights[:, :1] * first[chosen] + weights[:, 1:] * second[chosen]
    return as_float32(points, [count])
