"""Meshes in OFF, in text, as Geomview writes it down.

Numbers are apart by blanks, comments follow #, the word OFF (in any case) stands before the counts or is left out, and
columns behind a vertex or a face (normals, colours) are passed over.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.points.polygons import Polygons

__all__ = ["read_off"]


def read_off(content: bytes) -> tuple[NDArray[np.float64], Polygons]:
    """Vertices [V, 3] and faces.

    Raises:
        ValueError: this is no OFF, or cut off.
    """
    text = content.removeprefix(codecs.BOM_UTF8)
    rows = [row for row in (line.partition(b"#")[0].split() for line in text.splitlines()) if row]
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
        polygons = _polygons(iter(row) for row in lines[vertices : vertices + faces])
    else:  # several on a line
        flat = iter(tokens[3:])
        points = [[token for _, token in zip(range(3), flat, strict=False)] for _ in range(min(vertices, len(tokens)))]
        polygons = _polygons(flat for _ in range(faces))
        # Lines that are cut off are no such file either: what was read of it were their further columns.
        if next(flat, None) is not None:
            raise ValueError("it is cut off, or holds more than its header says")
    if len(points) < vertices or any(len(point) < 3 for point in points):
        raise ValueError("it is cut off: it holds fewer vertices than its header says")
    return np.array([[float(token) for token in point] for point in points]).reshape(-1, 3), polygons


def _polygons(rows: Iterator[Iterator[bytes]]) -> Polygons:
    """Faces, of which the first token says how many vertices follow."""
    corners, sizes = list[int](), list[int]()
    for row in rows:
        size = int(next(row, -1))
        found = [int(token) for _, token in zip(range(size), row, strict=False)]
        if len(found) != size:
            raise ValueError("it is cut off: it holds fewer faces than its header says")
        corners += found
        sizes.append(size)
    return Polygons.of(corners, sizes)
