"""Points on the surfaces of meshes, and points of files that hold nothing else.

Meshes are read by trimesh (PLY and STL, text and binary; OBJ), OFF and PLY with faces of several sizes by
`parteq.datasets.points.polygons`, VRML and XYZ by `vrml` and `xyz` beside it. Of a mesh, points are drawn uniformly by
area.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.points.polygons import read_off, read_polygon_ply
from parteq.datasets.points.positions import as_float32
from parteq.datasets.points.vrml import read_vrml
from parteq.datasets.points.xyz import read_xyz

__all__ = ["SUFFIXES", "load_points", "load_surface", "sample_surface"]

SUFFIXES = frozenset((".off", ".ply", ".obj", ".stl", ".npy", ".xyz", ".wrl"))
"""Of the files that are taken for meshes or points."""

_MAX_BYTES = 2**30

Surface = tuple[NDArray[Any], NDArray[Any] | None]
"""Vertices and triangles, or points and None."""


def load_points(path: str | os.PathLike[str], count: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Points of one file: `count` drawn on its surface, or of the points it holds; all of these if they are fewer.

    Args:
        path: a mesh, or a file of points: `.npy` or `.xyz` of three columns or more, `.ply` or `.obj` without faces.
        count: how many points.
        generator: draws them.

    Returns:
        Positions float32 [n, 3].

    Raises:
        DataError: as `load_surface`; a mesh without area.
    """
    vertices, faces = load_surface(path)
    if faces is not None:
        try:
            return sample_surface(vertices, faces, count, generator)
        except ValueError as error:
            raise DataError(path, str(error)) from error
    if len(vertices) > count:
        vertices = vertices[generator.permutation(len(vertices))[:count]]
    return as_float32(vertices, [len(vertices)])


def load_surface(path: str | os.PathLike[str]) -> tuple[NDArray[np.float64], NDArray[np.int64] | None]:
    """Vertices float64 [V, 3] and triangles int64 [F, 3] of a mesh; of a file of points, these and None.

    Raises:
        DataError: not such a file, or a damaged one; no vertices or faces; vertices that are not finite; faces of
            vertices that are not there.
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
    if faces is not None:
        if len(faces) == 0:
            raise DataError(path, "is empty: it has no faces")
        if faces.min() < 0 or faces.max() >= len(vertices):
            raise DataError(path, f"has a face of vertex {faces.max()}, but {len(vertices)} vertices")
        faces = faces.astype(np.int64)
    return vertices.astype(np.float64), faces


def _read(path: Path) -> Surface:
    """Vertices and triangles, or points and None, whatever they are worth."""
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(path, f"is none of {', '.join(sorted(SUFFIXES))}")
    if suffix == ".wrl":
        return read_vrml(path)
    try:
        content = path.read_bytes()
        return _READERS[suffix](content) if suffix in _READERS else _read_by_trimesh(path, suffix, content)
    except DataError:
        raise
    except Exception as error:
        # Any type: the parsers raise whatever the text leads them into.
        raise DataError(
            path, f"is not a readable {suffix[1:].upper()} file ({type(error).__name__}: {error})"
        ) from error


def _read_npy(content: bytes) -> Surface:
    """The first three columns of a table of points."""
    table = np.load(io.BytesIO(content), allow_pickle=False)
    return table[:, :3] if table.ndim == 2 else table, None


def _read_by_trimesh(path: Path, suffix: str, content: bytes) -> Surface:
    """PLY, OBJ and STL."""
    import trimesh  # Only who reads meshes needs it.

    if suffix in _CLEANERS:
        content = _CLEANERS[suffix](content)
    if not _is_whole(suffix, content):
        raise DataError(path, "is cut off: it holds less than its header says")
    # A stream has no folder, so that a mesh cannot name other files to be read.
    try:
        loaded = trimesh.load(io.BytesIO(content), file_type=suffix[1:], process=False, maintain_order=True)
    except ValueError:
        # Of faces of several sizes; what is damaged is refused there, too.
        if suffix == ".ply" and b"format ascii" not in content.partition(b"end_header")[0]:
            return read_polygon_ply(content)
        raise
    if isinstance(loaded, trimesh.Scene):
        loaded = loaded.to_geometry()
    if isinstance(loaded, trimesh.PointCloud):
        promised = re.search(rb"^element\s+face\s+[1-9]", content.partition(b"end_header")[0], re.MULTILINE)
        if suffix == ".ply" and promised:
            raise DataError(path, "is cut off: it lacks the faces that its header says it has")
        if suffix == ".obj" and re.search(rb"^\s*(l|curv2?|surf)\s", content, re.MULTILINE):
            raise DataError(path, "holds lines or curves, no surface")
        return np.asarray(loaded.vertices), None
    if not isinstance(loaded, trimesh.Trimesh):
        raise DataError(path, "holds lines or curves, no surface")
    return np.asarray(loaded.vertices), np.asarray(loaded.faces).reshape(-1, 3)


def _is_whole(suffix: str, content: bytes) -> bool:
    """Whether a file has as many lines or bytes as its header says, which trimesh does not ask of every format."""
    if suffix == ".stl" and _is_binary_stl(content):
        return len(content) >= _stl_bytes(content)
    head, _, body = content.partition(b"end_header")
    if suffix == ".ply" and b"format ascii" in head:
        counts = [int(count) for count in re.findall(rb"^element\s+\S+\s+(\d+)", head, re.MULTILINE)]
        return len(body.split(b"\n")) - 1 >= sum(counts)
    return True


def _is_binary_stl(content: bytes) -> bool:
    """Whether an STL is not text. Some programs begin the header of binary ones with "solid", too."""
    return len(content) >= 84 and (not content.lstrip().lower().startswith(b"solid") or b"\0" in content[:84])


def _stl_bytes(content: bytes) -> int:
    """How long a binary STL is by the number of triangles in its header."""
    return 84 + 50 * int.from_bytes(content[80:84], "little")


def _bare_stl(content: bytes) -> bytes:
    """An STL without what stands behind its last triangle; trimesh takes a binary one with more for text."""
    return content[: _stl_bytes(content)] if _is_binary_stl(content) else content


def _bare_obj(content: bytes) -> bytes:
    """An OBJ of vertices and faces alone, which count from the start.

    Corners may count back from where the face stands, of which trimesh takes −1 for the last vertex of the file.
    """
    lines, vertices = [], 0
    for line in content.replace(b"\\\n", b" ").splitlines():
        words = line.split()
        if words[:1] == [b"f"]:
            corners = [int(word.partition(b"/")[0]) for word in words[1:]]
            lines.append(b"f " + b" ".join(b"%d" % (n if n > 0 else vertices + 1 + n) for n in corners))
        elif words[:1] not in ([b"vt"], [b"vn"]):
            vertices += words[:1] == [b"v"]
            lines.append(line)
    return b"\n".join(lines) + b"\n"


# What is not read by trimesh, and what it would misread.
_READERS: dict[str, Callable[[bytes], Surface]] = {
    ".npy": _read_npy,
    ".off": read_off,
    ".xyz": lambda content: (read_xyz(content), None),
}
_CLEANERS = {".obj": _bare_obj, ".stl": _bare_stl}


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
