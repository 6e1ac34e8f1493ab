"""Meshes of VRML 2.0 (`.wrl`, ISO/IEC 14772-1), as mechanical programs export them.

A file is a forest of nodes `Type { field value … }`. Read are the nodes that place and carry surfaces: `Group`,
`Transform`, `Shape` and what lies in them; an `IndexedFaceSet` has `coord Coordinate { point [x y z, …] }` and
`coordIndex [a b c -1 …]`, polygons ended by −1. `DEF NAME node` names a node, `USE NAME` stands for it again. All other
nodes are passed over; solids without faces (`Box`, `Sphere`, …), alternatives and other files are refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from parteq.datasets.errors import DataError
from parteq.datasets.points.polygons import Polygons

__all__ = ["read_vrml"]

# Text, comment, bracket, or word; commas are blanks.
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|#[^\r\n]*|[{}\[\]]|[^\s,{}\[\]"#]+')
_NUMBER = re.compile(
    r"[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?$|[+-]?(?:nan|inf)\w*$|[+-]?0x[\da-f]{1,8}$", re.IGNORECASE
)
_REFUSED = {
    **dict.fromkeys(("Box", "Cone", "Cylinder", "Sphere", "ElevationGrid", "Extrusion"), "which has no faces"),
    **dict.fromkeys(("LOD", "Switch"), "which offers several shapes to choose from"),
    "Inline": "which names another file",
}
# Nodes within one another; nodes, and vertices with corners of faces, in all; always as if every USE were written out.
_MAX_DEPTH, _MAX_NODES, _MAX_CORNERS = 100, 1_000_000, 30_000_000


@dataclass
class _Node:
    """A node: its type, its numbers by field, the nodes in it, and how many these are with all in them and itself."""

    kind: str
    numbers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    children: list[_Node] = field(default_factory=list)
    total: int = 1


class _Parser:
    """Nodes from tokens."""

    def __init__(self, text: str) -> None:
        self._tokens: list[str] = [token for token in _TOKEN.findall(text) if not token.startswith("#")]
        self._next = 0
        self._named: dict[str, _Node] = {}

    def _take(self) -> str:
        if self._next >= len(self._tokens):
            raise ValueError("ends within a node")
        self._next += 1
        return self._tokens[self._next - 1]

    def _peek(self, ahead: int = 0) -> str:
        place = self._next + ahead
        return self._tokens[place] if place < len(self._tokens) else ""

    def nodes(self) -> list[_Node]:
        """The nodes of the file."""
        found = []
        while self._peek():
            if self._peek() in ("ROUTE", "PROTO", "EXTERNPROTO"):
                raise ValueError(f"has a {self._peek()}, which is not supported: export plain shapes")
            found.append(self._node(0))
        return found

    def _node(self, depth: int) -> _Node:
        _check_depth(depth)
        word = self._take()
        if word == "USE":
            name = self._take()
            if name not in self._named:
                raise ValueError(f"uses {name!r} before it is defined")
            return self._named[name]
        label = self._take() if word == "DEF" else None
        node = _Node(self._take() if word == "DEF" else word)
        if self._take() != "{":
            raise ValueError(f"has no node where {node.kind!r} stands")
        while self._peek() != "}":
            self._field(node, depth)
        self._take()
        node.total += sum(child.total for child in node.children)
        if node.total > _MAX_NODES:
            raise ValueError(f"has more than {_MAX_NODES:,} nodes")
        if label is not None:
            self._named[label] = node
        return node

    def _field(self, node: _Node, depth: int) -> None:
        """A field and its value: nodes, numbers, or words that nobody asks for."""
        name = self._take()
        if self._peek() == "[":
            self._take()
            if _NUMBER.match(self._peek()):
                node.numbers[name] = self._run_of_numbers()
            while self._peek() != "]":
                if self._is_node():
                    node.children.append(self._node(depth + 1))
                else:
                    self._take()
            self._take()
        elif _NUMBER.match(self._peek()):
            node.numbers[name] = self._run_of_numbers()
        elif self._is_node():
            node.children.append(self._node(depth + 1))
        elif self._take() in "]}":
            raise ValueError(f"has a field {name!r} without a value")

    def _is_node(self) -> bool:
        return self._peek() in ("DEF", "USE") or self._peek(1) == "{"

    def _run_of_numbers(self) -> NDArray[np.float64]:
        start = self._next
        while _NUMBER.match(self._peek()):
            self._next += 1
        return np.array([_number(token) for token in self._tokens[start : self._next]])


def _number(token: str) -> float:
    """A number, of base 16 where it begins with 0x, as those of images may."""
    return float(int(token, 16)) if "x" in token.lower() else float(token)


def _check_depth(depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"has more than {_MAX_DEPTH} nodes within one another")


def _placement(node: _Node) -> NDArray[np.float64]:
    """The 4×4 matrix of a Transform: T C R S' S S'⁻¹ C⁻¹ in the names of the standard."""

    def given(name: str, default: tuple[float, ...]) -> NDArray[np.float64]:
        values = node.numbers.get(name, np.array(default))
        if values.shape != (len(default),):
            raise ValueError(f"has a {name} of {len(values)} numbers instead of {len(default)}")
        return values

    def shift(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        matrix = np.eye(4)
        matrix[:3, 3] = vector
        return matrix

    def turn(name: str) -> NDArray[np.float64]:
        *axis, angle = given(name, (0, 0, 1, 0))
        length = np.linalg.norm(axis)
        matrix = np.eye(4)
        if length > 0:
            matrix[:3, :3] = Rotation.from_rotvec(np.array(axis) * angle / length).as_matrix()
        return matrix

    centre, oriented = shift(given("center", (0, 0, 0))), turn("scaleOrientation")
    scaled = np.diag([*given("scale", (1, 1, 1)), 1.0])
    return (
        shift(given("translation", (0, 0, 0)))
        @ centre
        @ turn("rotation")
        @ oriented
        @ scaled
        @ oriented.T
        @ np.linalg.inv(centre)
    )


def _faces(node: _Node) -> tuple[NDArray[np.float64], Polygons]:
    """Vertices and faces of an IndexedFaceSet."""
    points = next((child.numbers.get("point") for child in node.children if child.kind == "Coordinate"), None)
    index = node.numbers.get("coordIndex")
    if points is None or index is None:
        return np.empty((0, 3)), Polygons.of([], [])
    if len(points) % 3:
        raise ValueError("has a coordinate of fewer than three numbers")
    ends = np.flatnonzero(index == -1)
    sizes = np.diff(np.concatenate([[-1], ends, [len(index)]])) - 1
    polygons = Polygons.of(index[index != -1], sizes)
    polygons.check(len(points) // 3)
    return points.reshape(-1, 3), polygons


def _surfaces(
    node: _Node, placed: NDArray[np.float64], depth: int = 0
) -> Iterator[tuple[NDArray[np.float64], Polygons]]:
    """The surfaces in a node, where they stand."""
    _check_depth(depth)
    if node.kind in _REFUSED:
        raise ValueError(f"has a node {node.kind}, {_REFUSED[node.kind]}: export a plain mesh")
    if node.kind == "Transform":
        placed = placed @ _placement(node)
    if node.kind == "IndexedFaceSet":
        vertices, faces = _faces(node)
        yield vertices @ placed[:3, :3].T + placed[:3, 3], faces
    for child in node.children:
        yield from _surfaces(child, placed, depth + 1)


def read_vrml(path: Path) -> tuple[NDArray[np.float64], Polygons]:
    """Vertices float64 [V, 3] and faces of a VRML 2.0 file, in the units of the file.

    Raises:
        DataError: not VRML 2.0; damaged; it has prototypes, solids without faces, or parts elsewhere.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="replace")
        if not text.startswith("#VRML V2.0"):
            raise ValueError("does not begin with #VRML V2.0")
        vertices, corners, sizes = [np.empty((0, 3))], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        offset, total = 0, 0
        for node in _Parser(text).nodes():
            for points, faces in _surfaces(node, np.eye(4)):
                total += len(points) + len(faces.corners)
                if total > _MAX_CORNERS:
                    raise ValueError(f"has more than {_MAX_CORNERS:,} vertices and corners of faces")
                vertices.append(points)
                corners.append(faces.corners + offset)
                sizes.append(faces.sizes)
                offset += len(points)
    except (OSError, ValueError, np.linalg.LinAlgError) as error:
        raise DataError(path, f"is not readable VRML: it {error}") from error
    return np.concatenate(vertices), Polygons(np.concatenate(corners), np.concatenate(sizes))
