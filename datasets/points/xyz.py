"""Points of XYZ files: a line a point, its coordinates first, or behind the element of an atom.

There are two kinds. Those of scanners hold x, y, z and perhaps normals, colours or intensities, apart by blanks, commas
or semicolons, below lines that begin with # or // or name the columns. Those of molecules begin with the number of
atoms and a line of comment; each atom has its symbol, or its atomic number, before x, y, z, and perhaps more behind.
Without that comment, a whole number before three others may be an atomic number or a coordinate, and is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["read_xyz"]

_SYMBOL = re.compile(r"[A-Za-z]{1,3}\d*|[A-Za-z]{1,3}[-_:]\S*")  # also C1 and H_2, as programs number them


def read_xyz(content: bytes) -> NDArray[np.float64]:
    """Points [n, 3] of the text of an XYZ file.

    Raises:
        ValueError: this is no such text; lines of different lengths; another number of points than the first line says.
    """
    lines = content.decode("utf-8-sig").splitlines()
    while lines and not lines[-1].strip():
        lines.pop()
    if lines and re.fullmatch(r"\s*\d+\s*", lines[0]):
        return _molecule(lines)
    rows = [(number, _split(line)) for number, line in enumerate(lines, 1) if not re.match(r"\s*(#|//|$)", line)]
    if rows and [word.lower() for word in rows[0][1][:3]] == ["x", "y", "z"]:
        rows = rows[1:]
    return _points(rows)


def _molecule(lines: Sequence[str]) -> NDArray[np.float64]:
    """Points below a count and, as a rule, a comment."""
    count = int(lines[0])
    commented = len(lines) != count + 1 or len(lines[1].split()) < 3
    rows = [(number, _split(line)) for number, line in enumerate(lines, 1)][1 + commented :]
    if len(rows) < count:
        raise ValueError(f"it is cut off: it holds {len(rows)} points, its first line says {count}")
    if len(rows) > count:
        raise ValueError(f"it holds more lines than the {count} points that its first line says: one cloud a file")
    numbered = all(len(row) > 3 and re.fullmatch(r"\d{1,3}", row[0]) and int(row[0]) <= 118 for _, row in rows)
    if rows and numbered and not (commented and all(int(row[0]) for _, row in rows)):
        raise ValueError("its first column may be of atomic numbers, or of coordinates: write symbols of elements")
    return _points(rows, first=int(numbered))


def _split(line: str) -> list[str]:
    """The columns of a line."""
    for mark in (";", ","):
        if mark in line:
            return [word.strip() for word in line.strip().rstrip(mark).split(mark)]
    return line.split()


def _points(rows: Sequence[tuple[int, list[str]]], first: int = 0) -> NDArray[np.float64]:
    """The coordinates of rows, each with the number of its line.

    Args:
        rows: columns, all as many.
        first: column where the coordinates begin; behind a column of symbols, the second in any case.
    """
    if not rows:
        return np.zeros((0, 3))
    width = len(rows[0][1])
    if all(row and _SYMBOL.fullmatch(row[0]) for _, row in rows):
        first = 1
    if width < first + 3:
        raise ValueError(f"line {rows[0][0]} has {width} columns: a point has x, y and z")
    for number, row in rows:
        if len(row) != width:
            raise ValueError(f"line {number} has {len(row)} columns, those before it {width}")
    try:
        return np.array([row[first : first + 3] for _, row in rows], dtype=np.float64)
    except ValueError:
        number, row = next((number, row) for number, row in rows if not _are_numbers(row[first : first + 3]))
        raise ValueError(f"line {number} is no point: {' '.join(row)[:40]!r}") from None


def _are_numbers(words: Sequence[str]) -> bool:
    try:
        return bool([float(word) for word in words])
    except ValueError:
        return False
