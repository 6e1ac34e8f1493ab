"""Meshes in PLY, in text and in bytes.

A header names elements, how many rows each has, and its columns: single numbers, or lists that begin with their length.
Read are `x`, `y` and `z` of `vertex` and the `vertex_indices` of `face` and of `tristrips`, in which −1 ends a strip.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.points.polygons import Polygons

__all__ = ["read_ply"]

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
_CUT_OFF = "it is cut off: it holds less than its header says"

_Column = tuple[NDArray, NDArray[np.int64]]
"""The numbers of all rows one behind the other, and how many each row has."""


@dataclass(frozen=True)
class _Property:
    """A column: its name, NumPy's type of its numbers, and of the lengths of its lists (None of single numbers)."""

    name: str
    number: np.dtype
    length: np.dtype | None


def read_ply(content: bytes) -> tuple[NDArray[np.float64], Polygons | None]:
    """Vertices [V, 3] and faces; of a file without faces, its points and None.

    Raises:
        ValueError: this is no PLY, or cut off.
    """
    head = re.match(rb"ply[ \t]*\r?\n.*?^end_header[ \t]*\r?\n", content, re.DOTALL | re.MULTILINE)
    order = head and re.search(rb"^format (ascii|binary_(?:little|big)_endian)", head[0], re.MULTILINE)
    if not head or not order:
        raise ValueError("it does not begin with the header of a PLY")
    body, text = content[head.end() :], order[1] == b"ascii"
    if text:  # is read as if it were written in bytes
        body = np.array([float(token) for token in body.split()]).tobytes()
    place, vertices, faces = 0, np.zeros((0, 3)), list[_Column]()
    for name, count, properties in _elements(head[0].decode("latin-1"), ">" if b"big" in order[1] else "<", text):
        columns, place = _read_element(body, place, count, properties)
        if name == "vertex":
            if not {"x", "y", "z"} <= set(columns):
                raise ValueError("its vertices lack x, y or z")
            vertices = np.stack([columns[axis][0].astype(np.float64) for axis in "xyz"], axis=1)
        elif name in ("face", "tristrips") and count:
            corners = columns.get("vertex_indices") or columns.get("vertex_index")
            if corners is None:
                raise ValueError(f"its {name} name no vertices")
            faces.append(corners if name == "face" else _triangles(*corners))
    if text and place < len(body):
        raise ValueError("it holds more numbers than its header says")
    if not faces:
        return vertices, None
    numbers, sizes = (np.concatenate(parts) for parts in zip(*faces, strict=True))
    return vertices, Polygons.of(numbers, sizes)


def _elements(head: str, end: str, text: bool) -> list[tuple[str, int, list[_Property]]]:
    """The elements of a header: name, number of rows, columns."""

    def dtype(name: str) -> np.dtype:
        return np.dtype("f8" if text else end + _TYPES[name])

    found = list[tuple[str, int, list[_Property]]]()
    for line in head.splitlines():
        match line.split():
            case ["element", name, count]:
                found.append((name, int(count), []))
            case ["property", "list", length, number, name]:
                found[-1][2].append(_Property(name, dtype(number), dtype(length)))
            case ["property", number, name]:
                found[-1][2].append(_Property(name, dtype(number), None))
    return found


def _read_element(body: bytes, place: int, count: int, properties: list[_Property]) -> tuple[dict[str, _Column], int]:
    """The columns of an element by name, and the place behind it."""
    least = sum((p.length or p.number).itemsize for p in properties)
    if count < 0 or place + least * count > len(body):
        raise ValueError(_CUT_OFF)
    if not count or not properties:
        return {p.name: (np.zeros(0), np.zeros(0, np.int64)) for p in properties}, place
    # As a rule, all rows are as long as the first, and can be read together.
    first, _ = _read_row(body, place, properties)
    fields: list[tuple[str, np.dtype, int]] = []
    for k, (p, values) in enumerate(zip(properties, first, strict=True)):
        fields += [(f"length {k}", p.length, 1)] if p.length else []
        fields.append((f"numbers {k}", p.number, len(values)))
    row = np.dtype([(name, kind, (size,)) for name, kind, size in fields])
    if place + row.itemsize * count <= len(body):
        table = np.frombuffer(body, row, count, place)
        if all((table[f"length {k}"] == len(first[k])).all() for k, p in enumerate(properties) if p.length):
            alike = [(table[f"numbers {k}"].ravel(), np.full(count, len(values))) for k, values in enumerate(first)]
            return {p.name: column for p, column in zip(properties, alike, strict=True)}, place + row.itemsize * count
    rows = []
    for _ in range(count):
        found, place = _read_row(body, place, properties)
        rows.append(found)
    columns = [(np.concatenate(parts), np.array([len(part) for part in parts])) for parts in zip(*rows, strict=True)]
    return {p.name: column for p, column in zip(properties, columns, strict=True)}, place


def _read_row(body: bytes, place: int, properties: list[_Property]) -> tuple[list[NDArray], int]:
    """The numbers of one row, column by column, and the place behind it."""
    found = []
    for p in properties:
        length = 1
        if p.length:
            (given,), place = _read_numbers(body, place, p.length, 1)
            length = int(given)
        values, place = _read_numbers(body, place, p.number, length)
        found.append(values)
    return found, place


def _read_numbers(body: bytes, place: int, kind: np.dtype, count: int) -> tuple[NDArray, int]:
    """So many numbers at a place, and the place behind them."""
    behind = place + kind.itemsize * count
    if count < 0 or behind > len(body):
        raise ValueError(_CUT_OFF)
    return np.frombuffer(body, kind, count, place), behind


def _triangles(numbers: NDArray, sizes: NDArray[np.int64]) -> _Column:
    """The triangles of strips: any three vertices in a row, of one strip."""
    strips = np.repeat(np.arange(len(sizes)), sizes)
    rows = np.stack([numbers[:-2], numbers[1:-1], numbers[2:]], axis=1)
    rows = rows[(strips[2:] == strips[:-2]) & (rows != -1).all(1)]
    return rows.ravel(), np.full(len(rows), 3)
