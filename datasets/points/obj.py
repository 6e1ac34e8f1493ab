"""Meshes in Wavefront's OBJ: vertices `v x y z`, and faces `f a b c …` that count them from 1, or back from −1.

Of a corner `a/t/n`, the texture and the normal are passed over, as are groups, materials and all else; a file of
vertices and neither faces nor curves is one of points. A backslash at its end carries a line on.
"""

from __future__ import annotations

import codecs
import re

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.points.polygons import Polygons

__all__ = ["read_obj"]


def read_obj(content: bytes) -> tuple[NDArray[np.float64], Polygons | None]:
    """Vertices [V, 3] and faces; of a file of points, these and None.

    Raises:
        ValueError: what stands for a number is none; a face of a vertex that is not there; lines or curves alone.
    """
    # Comments first: a path in one may end in a backslash.
    text = re.sub(rb"#[^\r\n]*", b"", content.removeprefix(codecs.BOM_UTF8))
    points, corners, sizes, curves = list[list[float]](), list[int](), list[int](), False
    for line in re.sub(rb"\\(\r\n?|\n)", b" ", text).splitlines():
        word, *rest = line.split() or [b""]
        if word == b"v":
            if len(rest) < 3:
                raise ValueError(f"vertex {len(points) + 1} has {len(rest)} coordinates")
            points.append([float(number) for number in rest[:3]])
        elif word in (b"f", b"fo"):
            corners += [_corner(token, len(points)) for token in rest]
            sizes.append(len(rest))
        curves = curves or word in (b"l", b"curv", b"curv2", b"surf")
    if corners and max(corners) >= len(points):
        raise ValueError(f"it has a face of vertex {max(corners) + 1}, but {len(points)} vertices")
    if curves and not sizes:
        raise ValueError("it holds lines or curves, no surface")
    return np.array(points).reshape(-1, 3), Polygons.of(corners, sizes) if sizes else None


def _corner(token: bytes, vertices: int) -> int:
    """The vertex of a corner, from 0, where so many vertices stand before it."""
    number = int(token.partition(b"/")[0])
    if not number or number < -vertices:
        raise ValueError(f"it has a face of vertex {number} behind {vertices} vertices, which count from 1")
    return number - 1 if number > 0 else vertices + number
