"""OBJ as programs write it, and what is none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import trimesh

from parteq.datasets.errors import DataError
from parteq.datasets.points.meshes import load_surface
from parteq.datasets.points.obj import read_obj

SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"
PLAIN = SQUARE + "f 1 2 3 4\n"


@pytest.mark.parametrize(
    "content",
    [
        PLAIN.replace("\n", " # so\n"), PLAIN.replace(" ", "\t"), "\t" + PLAIN.replace("\n", "\n  "),
        "\ufeff" + PLAIN, PLAIN.replace("\n", "\r"),
        PLAIN.replace("f 1 2 3", "f 1 2 \\\n3"), PLAIN.replace("f 1 2 3", "f 1 2 \\\n3").replace("\n", "\r\n"),
        "# made of C:\\parts\\\n" + PLAIN, "mtllib #1\\2.mtl\n" + PLAIN,
        "f 1 2 3 4\n" + SQUARE, PLAIN.replace("f ", "fo "), SQUARE + "f 1/7/7 2//7 3/7 4\n",
        "vn 0 0 1\nvt 0 0\ng a b\nusemtl c\n" + SQUARE + "f -4/-1 -3/-1 -2/-1 -1/-1\nl 1 2\n",
        SQUARE.replace("0\n", "0 1 0.5 0\n", 1) + "f 1 2 3 4",
    ],
)  # fmt: skip
def test_all_that_is_valid_is_read(content: str) -> None:
    vertices, faces = read_obj(content.encode())
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert faces is not None
    assert (faces.corners.tolist(), faces.sizes.tolist()) == ([0, 1, 2, 3], [4])


def test_as_trimesh_reads_it(tmp_path: Path) -> None:
    mesh = trimesh.creation.icosphere(2)
    (tmp_path / "x.obj").write_text(mesh.export(file_type="obj"))
    vertices, faces = load_surface(tmp_path / "x.obj")
    assert faces is not None
    assert vertices[faces] == pytest.approx(np.asarray(mesh.vertices)[mesh.faces], abs=1e-6)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (SQUARE + "f 0 1 2\nv 5 5 5\n", "face of vertex 0 behind 4 vertices, which count from 1"),
        (SQUARE + "f 1 2 5\n", "face of vertex 5, but 4 vertices"),
        (SQUARE + "f -5 -1 -2\nv 5 5 5\n", "face of vertex -5 behind 4 vertices"),
        (SQUARE + "f 1 2 x\n", "not a readable OBJ file"),
        (SQUARE + "f 1 2 99999999999999999999999\n", "face of vertex 99999999999999999999999"),
        ("v 0 0\n", "vertex 1 has 2 coordinates"),
        ("v 0 0 x\n", "not a readable OBJ file"),
        (SQUARE + "f 1 2\n", "is empty: it has no faces"),
    ],
)
def test_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.obj").write_text(text)
    with pytest.raises(DataError, match=reason):
        load_surface(tmp_path / "x.obj")
