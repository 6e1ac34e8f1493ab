"""PLY in text and in bytes, held against trimesh and against one another."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from parteq.datasets.errors import DataError
from parteq.datasets.points.meshes import load_surface
from parteq.datasets.points.ply import read_ply

SQUARE = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
POINTS = "".join(f"{x} {y} {z}\n" for x, y, z in SQUARE)


def header(elements: str, order: str = "ascii") -> str:
    axes = "".join(f"property float {axis}\n" for axis in "xyz")
    return f"ply\nformat {order} 1.0\ncomment element face 9\nelement vertex 4\n{axes}{elements}end_header\n"


FACES = "element face 2\nproperty list uchar int vertex_indices\n"
STRIPS = "element tristrips 1\nproperty list int int vertex_indices\n"


def faces_of(content: bytes) -> list[list[int]]:
    vertices, faces = read_ply(content)
    assert vertices.tolist() == [list(point) for point in SQUARE]
    assert faces is not None
    return [part.tolist() for part in np.split(faces.corners, np.cumsum(faces.sizes)[:-1])]


@pytest.mark.parametrize("encoding", ["ascii", "binary"])
def test_as_trimesh_reads_it(tmp_path: Path, encoding: str) -> None:
    mesh = trimesh.creation.icosphere(2)
    (tmp_path / "x.ply").write_bytes(mesh.export(file_type="ply", encoding=encoding, vertex_normal=True))
    vertices, faces = load_surface(tmp_path / "x.ply")
    assert faces is not None
    assert vertices == pytest.approx(mesh.vertices, abs=1e-6)
    assert faces.tolist() == mesh.faces.tolist()


@pytest.mark.parametrize(
    ("elements", "rows"),
    [
        (FACES, "3 0 1 2\n4 0 1 3 2\n"), (FACES, "3\n0 1\n2 4 0 1\n\n3 2"),
        (FACES + "element edge 1\nproperty int vertex1\nproperty int vertex2\n", "3 0 1 2\n4 0 1 3 2\n0 1\n"),
        (
            "element face 2\nproperty list uchar float texcoord\nproperty list uchar int vertex_index\n"
            "property uchar red\n",
            "2 .5 .5 3 0 1 2 9\n0 4 0 1 3 2 9\n",
        ),
    ],
)  # fmt: skip
def test_faces_among_other_columns(elements: str, rows: str) -> None:
    assert faces_of((header(elements) + POINTS + rows).encode()) == [[0, 1, 2], [0, 1, 3, 2]]
    assert faces_of((header(elements) + POINTS + rows).replace("\n", "\r\n").encode()) == [[0, 1, 2], [0, 1, 3, 2]]


@pytest.mark.parametrize(("strip", "wanted"), [
    ([0, 1, 2, 3], [[0, 1, 2], [1, 2, 3]]), ([0, 1, 2, -1, 3, 2, 1], [[0, 1, 2], [3, 2, 1]]),
    ([0, 1, -1, 0, 1, 3, -1], [[0, 1, 3]]),
])  # fmt: skip
def test_strips_of_triangles(strip: list[int], wanted: list[list[int]]) -> None:
    row = " ".join(map(str, [len(strip), *strip]))
    assert faces_of((header(STRIPS) + POINTS + row).encode()) == wanted
    for order, end in (("binary_little_endian", "<"), ("binary_big_endian", ">")):
        body = np.array(SQUARE, f"{end}f4").tobytes() + struct.pack(f"{end}{len(strip) + 1}i", len(strip), *strip)
        assert faces_of(header(STRIPS, order).encode() + body) == wanted
    # No triangle spans two strips.
    several = header(STRIPS.replace("1\n", "3\n", 1)) + POINTS + f"2 3 3\n{row}\n2 0 1\n"
    assert faces_of(several.encode()) == wanted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (header(FACES) + POINTS + "3 0 1 2\n4 0 1 3", "cut off"),
        (header(FACES) + POINTS + "3 0 1 2\n", "cut off"),
        (header(FACES) + POINTS + "3 0 1 2\n-3 0 1 3\n", "cut off"),
        (header(FACES) + POINTS.replace("1 1 0", "1 1 0 7") + "3 0 1 2\n3 0 1 3\n", "cut off|more numbers"),
        (header(FACES) + POINTS + "3 0 1 2\n3 0 1 3 7\n", "more numbers than its header says"),
        (header(FACES) + POINTS + "3 0 1 2\n3 -1 1 3\n", "face of vertex -1, but 4 vertices"),
        (header(FACES) + POINTS + "3 0 1 2\n3 0.5 1 3\n", "face of vertex 0.5"),
        (header(STRIPS) + POINTS + "4 0 1 2 -2\n", "face of vertex -2, but 4 vertices"),
        (header(FACES.replace("vertex_indices", "corners")) + POINTS + "3 0 1 2\n3 0 1 3\n", "name no vertices"),
        (header("element face 99999999999\n"), "cut off"),
        (header("element void 99999999999\n") + POINTS + "1", "more numbers"),
        (header("").replace(" z", " height") + POINTS, "lack x, y or z"),
        (header("").replace("vertex 4", "vertex -4") + POINTS, "cut off"),
        (header("")[:-5], "does not begin with the header"),
    ],
)
def test_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.ply").write_text(text)
    with pytest.raises(DataError, match=reason):
        load_surface(tmp_path / "x.ply")
