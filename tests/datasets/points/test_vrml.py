"""VRML 2.0: placement of shapes, names, and files that are damaged or hostile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.errors import DataError
from parteq.datasets.points.meshes import load_surface
from parteq.datasets.points.vrml import read_vrml

SQUARE = """Shape {
  appearance Appearance { material DEF RED Material { diffuseColor 1 0 0 } }
  geometry IndexedFaceSet {
    creaseAngle 0.5 solid FALSE
    coordIndex [0,1,2,3,-1]
    coord Coordinate { point [ 0 0 0, 1 0 0, 1 1 0, 0 1 0 ] }
  }
}"""


def read(tmp_path: Path, text: str, header: str = "#VRML V2.0 utf8\n") -> tuple[np.ndarray, np.ndarray]:
    (tmp_path / "x.wrl").write_text(header + text)
    vertices, faces = load_surface(tmp_path / "x.wrl")
    assert faces is not None
    return vertices, faces


def test_polygons(tmp_path: Path) -> None:
    vertices, faces = read(tmp_path, f'# a comment with {{ brackets ]\n{SQUARE}\nWorldInfo {{ title "}} x" }}')
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert faces.tolist() == [[0, 1, 2], [0, 2, 3]]


def test_transforms_are_applied_in_the_order_of_the_standard(tmp_path: Path) -> None:
    inner = f"Transform {{ scale 2 3 4 children [ {SQUARE} ] }}"
    text = f"Transform {{ translation 10 0 0 rotation 0 0 1 1.5707963267948966 center 1 0 0 children {inner} }}"
    vertices, _ = read(tmp_path, text)
    # (1, 1, 0) is scaled to (2, 3, 0), turned about (1, 0, 0) to (−2, 1, 0), and moved.
    assert vertices[2] == pytest.approx([8, 1, 0])


def test_scaling_along_turned_axes(tmp_path: Path) -> None:
    quarter = "scaleOrientation 0 0 1 1.5707963267948966"
    vertices, _ = read(tmp_path, f"Transform {{ {quarter} scale 2 1 1 children [ {SQUARE} ] }}")
    assert vertices[2] == pytest.approx([1, 2, 0])


def test_named_nodes_are_used_again(tmp_path: Path) -> None:
    text = f"DEF A {SQUARE} Transform {{ translation 0 0 5 children [ USE A, USE A ] }} Group {{ children [ USE A ] }}"
    vertices, faces = read(tmp_path, text)
    assert (len(vertices), len(faces), faces.max()) == (16, 8, 15)
    assert sorted(set(vertices[:, 2])) == [0, 5]


def test_images_are_passed_over_whatever_the_base_of_their_numbers(tmp_path: Path) -> None:
    image = "texture PixelTexture { image 2 1 3 0xFF00FF 0XdeadBE }"
    text = SQUARE.replace("material DEF", f"{image} material DEF").replace("[0,1,2,3,-1]", "[0x0,1,0x2,3,-1]")
    assert read(tmp_path, text, "\ufeff#VRML V2.0 utf8\n")[1].tolist() == [[0, 1, 2], [0, 2, 3]]


def uses(levels: int) -> str:
    """Nodes within one another by name alone."""
    chain = "".join(f"DEF N{k} Group {{ children USE N{k - 1} }}\n" for k in range(1, levels))
    return f"DEF N0 {SQUARE}\n{chain}"


def test_names_within_names(tmp_path: Path) -> None:
    assert len(read(tmp_path, uses(90))[0]) == 4 * 90


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("Shape { geometry IndexedFaceSet {", "ends within a node"),
        (SQUARE.replace("[0,1,2,3,-1]", "[0,1,9,-1]"), "face of vertex 9, but 4 vertices"),
        (SQUARE.replace("[0,1,2,3,-1]", "[0,1,-7,-1]"), "face of vertex -7, but 4 vertices"),
        (SQUARE.replace("[0,1,2,3,-1]", "[0,1,nan,-1]"), "face of vertex nan"),
        (SQUARE.replace("0 1 0 ]", "0 1 ]"), "fewer than three numbers"),
        ("Shape { geometry Sphere { radius 1 } }", "node Sphere, which has no faces"),
        ('Inline { url "/etc/passwd" }', "which names another file"),
        ("PROTO X [ ] { }", "PROTO, which is not supported"),
        ("Group { children [ USE NOBODY ] }", "uses 'NOBODY' before it is defined"),
        ("Group { children }", "field 'children' without a value"),
        ("3 4 5", "no node where"),
        (f"Transform {{ translation 1 2 children [ {SQUARE} ] }}", "translation of 2 numbers instead of 3"),
        ("Group { children [ " * 200, "more than 100 nodes within"),
        (uses(2000), "more than 100 nodes within"),
        (
            "DEF N0 Group { } "
            + "".join(f"DEF N{i} Group {{ children [{f' USE N{i - 1}' * 9}] }} " for i in range(1, 90)),
            "more than 1,000,000 nodes",
        ),
    ],
)
def test_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read(tmp_path, text)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not begin with #VRML V2\.0"):
        read(tmp_path, SQUARE, "#VRML V1.0 ascii\n")
    (tmp_path / "x.wrl").write_text("#VRML V2.0 utf8\nGroup { }")
    vertices, faces = read_vrml(tmp_path / "x.wrl")
    assert len(vertices) == len(faces.sizes) == 0
