"""Meshes of polygons in OFF, in text, and PLY, in bytes, of which trimesh reads those with faces of one size alone.

OFF is read as Geomview writes it down: numbers apart by blanks, comments after #, the word OFF (in any case) before the
counts or left out, columns behind a vertex or a face (normals, colours) passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_off", "read_polygon_ply"]

_TYPES = {
    **dict.fromkeys(("char", "int8"), "i1"),
    **dict.fromkeys(("uchar", "uint8"), "u1"),
    **dict.fromkeys(("short", "int16"), "i2"),
    **dict.fromkeys(("ushort", "uint16"), "u2"),
    **dict.fromkeys(("int", "int32"), "i4"),
    **dict.fromkeys(("uint", "uint32"), "u4"),
    **dict.fromkeys(("float", "float32"), "f4"),
    **dict.fromkeys(("double", "float64"), "f8"),
}


def read_off(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] and triangles [F, 3], into which larger faces are fanned.

    Raises:
        ValueError: this is no OFF, or cut off.
    """
    rows = [row for row in (line.partition(b"#")[0].split() for line in content.splitlines()) if row]
    keyword = re.fullmatch(rb"(?i)((?:ST)?C?N?OFF)?(\d*)", rows[0][0]) if rows else None
    if keyword is None or rows[0][1:2] == [b"BINARY"]:
        raise ValueError("it does not begin with OFF, or is not text")
    rows[0][:1] = [keyword[2]] if keyword[2] else []
    rows = [row for row in rows if row]
    tokens = [token for row in rows for token in row]
    if len(tokens) < 2:
        raise ValueError("it lacks the counts of vertices and faces")
    vertices, faces = int(tokens[0]), int(tokens[1])
    if min(vertices, faces) < 0:
        raise ValueError("it counts fewer than no vertices or faces")
    lines = rows[1:] if len(rows[0]) <= 3 else []
    if len(lines) >= vertices + faces:
        points = [row[:3] for row in lines[:vertices]]
        corners = _polygons(iter(row) for row in lines[vertices : vertices + faces])
    else:  # several on a line
        flat = iter(tokens[3:])
        points = [[token for _, token in zip(range(3), flat, strict=False)] for _ in range(min(vertices, len(tokens)))]
        corners = _polygons(flat for _ in range(faces))
    if len(points) < vertices or any(len(point) < 3 for point in points):
        raise ValueError("it is cut off: it holds fewer vertices than its header says")
    return np.array(points, dtype=np.bytes_).astype(np.float64).reshape(-1, 3), _fans(corners)


def _polygons(rows: Iterator[Iterator[bytes]]) -> list[list[int]]:
    """The vertices of each face, of which the first token says how many there are."""
    found = []
    for row in rows:
        count = next(row, None)
        corners = [int(token) for _, token in zip(range(int(count or 0)), row, strict=False)]
        if count is None or len(corners) < int(count):
            raise ValueError("it is cut off: it holds fewer faces than its header says")
        found.append(corners)
    return found


def _fans(polygons: Sequence[Sequence[int]]) -> NDArray[np.int64]:
    """Triangles [F, 3] between the first vertex of each polygon and its other edges."""
    triangles = [(corners[0], *edge) for corners in polygons for edge in pairwise(corners[1:])]
    return np.array(triangles, dtype=np.int64).reshape(-1, 3)


def read_polygon_ply(content: bytes) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices [V, 3] and triangles [F, 3] of a binary PLY with faces of any sizes.

    Raises:
        ValueError: this is no such PLY, or cut off.
    """
    head = re.match(rb"ply\r?\n.*?end_header\r?\n", content, re.DOTALL)
    order = head and re.search(rb"^format binary_(little|big)_endian", head[0], re.MULTILINE)
    if not head or not order:
        raise ValueError("it is no binary PLY")
    end, place = "<" if order[1] == b"little" else ">", head.end()
    vertices, polygons = np.zeros((0, 3)), list[list[int]]()
    for element in re.split(rb"^element ", head[0], flags=re.MULTILINE)[1:]:
        name, number = element.split()[:2]
        properties = [line.split()[1:] for line in element.splitlines() if line.startswith(b"property")]
        if any(words[0] == b"list" for words in properties):
            for _ in range(int(number)):
                for words in properties:
                    count = 1
                    if words[0] == b"list":
                        (size,), place = _read(content, place, end + _TYPES[words[1].decode()], 1)
                        count = int(size)
                    values, place = _read(content, place, end + _TYPES[words[-2].decode()], count)
                    if name == b"face" and words[0] == b"list" and words[-1] in (b"vertex_indices", b"vertex_index"):
                        polygons.append([int(value) for value in values])
        else:
            row = np.dtype([(words[1].decode(), end + _TYPES[words[0].decode()]) for words in properties])
            table, place = _read(content, place, row, int(number))
            if name == b"vertex":
                vertices = np.stack([table[axis].astype(np.float64) for axis in "xyz"], axis=1)
    return vertices, _fans(polygons)


def _read(content: bytes, place: int, dtype: str | np.dtype, count: int) -> tuple[NDArray, int]:
    """So many numbers or rows at a place, and the place behind them."""
    behind = place + np.dtype(dtype).itemsize * count
    if count < 0 or behind > len(content):
        raise ValueError("it is cut off: it holds less than its header says")
    return np.frombuffer(content, dtype, count, place), behind
