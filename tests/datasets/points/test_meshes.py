"""Meshes in every format, the points drawn on them, and files that are damaged."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import trimesh

from parteq.datasets.errors import DataError
from parteq.datasets.points.meshes import load_points, load_surface, sample_surface

BOX = trimesh.creation.box((1.0, 2.0, 3.0))
SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float)
TRIANGLE = "0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def area(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("x.off", {}), ("x.OFF", {}), ("x.obj", {}), ("x.stl", {}), ("x.stl", {"file_type": "stl_ascii"}),
        ("x.ply", {"encoding": "ascii"}), ("x.ply", {"encoding": "binary"}),
    ],
)  # fmt: skip
def test_formats(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    content = BOX.export(**({"file_type": name[2:].lower()} | options))
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    vertices, faces = load_surface(tmp_path / name)
    assert faces is not None
    assert area(vertices, faces) == pytest.approx(22)
    points = load_points(tmp_path / name, 500, rng())
    assert (points.shape, points.dtype) == ((500, 3), np.float32)
    assert np.isclose(np.abs(points) / [0.5, 1, 1.5], 1, atol=1e-5).any(1).all()


POLYGONS = [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11], *([i, (i + 1) % 6, 6 + (i + 1) % 6, 6 + i] for i in range(6))]
"""Of a prism over a hexagon of radius 1, of height 1."""


def prism() -> np.ndarray:
    turns = np.exp(1j * np.pi / 3 * np.arange(6))
    return np.array([(z.real, z.imag, height) for height in (0, 1) for z in turns])


def prism_as_off(row: str = "{}\n", keyword: str = "OFF\n") -> bytes:
    rows = [f"{x} {y} {z}" for x, y, z in prism()]
    rows += [f"{len(face)} " + " ".join(map(str, face)) for face in POLYGONS]
    return (f"{keyword}12 8 0" + ("\n" if "\n" in row else " ") + "".join(map(row.format, rows))).encode()


def prism_as_ply(order: str, end: str) -> bytes:
    header = f"ply\nformat {order} 1.0\nelement vertex 12\n" + "".join(f"property double {axis}\n" for axis in "xyz")
    header += "element face 8\nproperty uchar red\nproperty list uchar int vertex_indices\nend_header\n"
    faces = b"".join(struct.pack(f"{end}BB{len(face)}i", 9, len(face), *face) for face in POLYGONS)
    return header.encode() + prism().astype(f"{end}f8").tobytes() + faces


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.off", prism_as_off()), ("x.off", prism_as_off("{} # 1\n")), ("x.off", prism_as_off(keyword="coff ")),
        ("x.off", prism_as_off("{} ")), ("x.off", prism_as_off("{} .5 .5\n", keyword="")),
        ("x.ply", prism_as_ply("binary_little_endian", "<")), ("x.ply", prism_as_ply("binary_big_endian", ">")),
    ],
)  # fmt: skip
def test_faces_of_several_sizes(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    vertices, faces = load_surface(tmp_path / name)
    assert faces is not None
    assert area(vertices, faces) == pytest.approx(6 + 3 * np.sqrt(3))
    (tmp_path / name).write_bytes(content[: 2 * len(content) // 3])
    with pytest.raises(DataError, match=r"cut off|not a readable OFF"):
        load_surface(tmp_path / name)


def test_faces_of_obj_count_back_from_where_they_stand(tmp_path: Path) -> None:
    corners = ["".join(f"v {x} {y} {z}\nvt {x} {y}\n" for x, y in SQUARE[:, :2]) for z in (0, 1)]
    (tmp_path / "x.obj").write_text("f -4/-4 -3/-3 -2/-2 -1/-1\n".join([*corners, ""]))
    vertices, faces = load_surface(tmp_path / "x.obj")
    assert faces is not None
    assert area(vertices, faces) == pytest.approx(2)


@pytest.mark.parametrize(
    "text",
    [
        f"OFF3 1 0\n{TRIANGLE}", f"OFF\n3 1 0\n{TRIANGLE}", f"OFF 3 1 0\n{TRIANGLE}", f"# made\nOFF\n\n3 1\n{TRIANGLE}",
        "OFF\r\n3 1 0\r\n" + TRIANGLE.replace("\n", "\r\n"), f"\ufeffOFF\n3 1 0\n{TRIANGLE}",
    ],
)  # fmt: skip
def test_headers_of_off(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.off").write_bytes(text.encode())
    vertices, faces = load_surface(tmp_path / "x.off")
    assert faces is not None
    assert area(vertices, faces) == pytest.approx(0.5)


def test_colours_and_comments(tmp_path: Path) -> None:
    (tmp_path / "x.off").write_text("COFF\n# 7 faces\n3 1 0\n0 0 0 9 9 9\n1 0 0 9 9 9\n\n0 1 0 9 9 9\n3 0 1 2 255 0 0")
    vertices, faces = load_surface(tmp_path / "x.off")
    assert (len(vertices), faces is not None and faces.tolist()) == (3, [[0, 1, 2]])


@pytest.mark.parametrize("corners", [4, 5, 6])
def test_polygons_are_cut_into_triangles(tmp_path: Path, corners: int) -> None:
    angles = 2 * np.pi * np.arange(corners) / corners
    rows = "".join(f"{np.cos(a)} {np.sin(a)} 0\n" for a in angles)
    (tmp_path / "x.off").write_text(f"OFF\n{corners} 1 0\n{rows}{corners} {' '.join(map(str, range(corners)))}\n")
    vertices, faces = load_surface(tmp_path / "x.off")
    assert faces is not None
    assert area(vertices, faces) == pytest.approx(corners * np.sin(2 * np.pi / corners) / 2)


@pytest.mark.parametrize("name", ["x.npy", "x.xyz", "x.ply"])
def test_files_of_points(tmp_path: Path, name: str) -> None:
    """They are drawn from without repetition; all of them are taken where they are too few."""
    points = rng().random((50, 3)).round(4)
    if name == "x.npy":
        np.save(tmp_path / name, points)
    elif name == "x.xyz":
        np.savetxt(tmp_path / name, np.column_stack([points, points]), fmt="%.4f")
    else:
        (tmp_path / name).write_bytes(trimesh.PointCloud(points).export(file_type="ply"))
    assert load_points(tmp_path / name, 80, rng()) == pytest.approx(points.astype(np.float32))
    fewer = load_points(tmp_path / name, 20, rng())
    assert fewer.shape == (20, 3)
    assert len(np.unique(fewer, axis=0)) == 20
    assert (np.abs(fewer[:, None] - points).max(-1).min(1) < 1e-6).all()


@pytest.mark.parametrize("behind", [b"\r\n", b"\0" * 7, b"\0" * 60])
@pytest.mark.parametrize("header", [b"made by a program", b"solid part"])
def test_what_stands_behind_the_triangles_of_an_stl_is_passed_over(
    tmp_path: Path, header: bytes, behind: bytes
) -> None:
    content = BOX.export(file_type="stl")
    (tmp_path / "x.stl").write_bytes(header.ljust(80) + content[80:] + behind)
    vertices, faces = load_surface(tmp_path / "x.stl")
    assert vertices[faces] == pytest.approx(BOX.vertices[BOX.faces])


@pytest.mark.parametrize("elements", ["", "p 1\np 2 3\n"])
def test_an_obj_without_lines_or_faces_is_a_cloud(tmp_path: Path, elements: str) -> None:
    (tmp_path / "x.obj").write_text("v 0 0 0 1 0 0\nv 1 0 0 1 0 0\nv 0 1 0 1 0 0\n" + elements)
    vertices, faces = load_surface(tmp_path / "x.obj")
    assert (vertices.tolist(), faces) == ([[0, 0, 0], [1, 0, 0], [0, 1, 0]], None)


def test_points_are_uniform_by_area() -> None:
    """Two triangles of areas 1/2 and 3/2, and one of none: a quarter of the points lies on the first."""
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [5, 0, 0], [8, 0, 0], [5, 1, 0]], float)
    faces = np.array([[0, 1, 2], [3, 4, 5], [0, 1, 1]])
    points = sample_surface(vertices, faces, 40_000, rng())
    first = points[:, 0] < 2
    assert first.mean() == pytest.approx(0.25, abs=0.01)
    assert points[first].mean(0) == pytest.approx([1 / 3, 1 / 3, 0], abs=0.01)
    # The variance of a coordinate that is uniform on such a triangle.
    assert points[first][:, 0].var() == pytest.approx(1 / 18, abs=0.003)
    assert (points[first][:, :2].sum(1) <= 1).all()


def test_equal_seeds_draw_equally() -> None:
    one, same, other = (sample_surface(BOX.vertices, BOX.faces, 9, rng(seed)) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    # Arrays of objects as well, with a pickle inside: they have to be refused.
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("x.off", b"OFF\n0 0 0\n", "is empty: it has no vertices"),
        ("x.off", b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "is empty: it has no faces"),
        ("x.off", b"OFF\n3 1 0\n0 0 nan\n1 0 0\n0 1 0\n3 0 1 2\n", "not finite"),
        ("x.off", b"OFF\n3 1 0\n0 0 1e300\n1 0 0\n0 1 0\n3 0 1 2\n", "not finite"),
        ("x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n2 0 0\n3 0 1 2\n", "has no area: all its faces are degenerate"),
        ("x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 7\n", "face of vertex 7"),
        ("x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 -1\n", "face of vertex -1, but 3 vertices"),
        ("x.off", b"OFF\n3 1 0\n0 0 0\n1e25 0 0\n0 1e25 0\n3 0 1 2\n", r"has points beyond 1e\+15"),
        ("x.npy", npy(np.full((2, 3), 1e25)), r"has points beyond 1e\+15"),
        ("x.off", b"OFF\n3 1 0\n0 0 0\n1 0 0\n", "is cut off"),
        # Of the lines that are left, the normals would make vertices and faces.
        ("x.off", b"NOFF\n3 2 0\n0 0 0 1 0 0\n1 0 0 1 2 3\n0 1 0 3 0 1\n3 0 1 2\n", "is cut off"),
        ("x.off", b"OFF\n99999999999 1 0\n0 0 0\n", "is cut off"),
        ("x.off", b"", "not a readable OFF file"),
        ("x.off", bytes(range(256)), "not a readable OFF file"),
        (
            "x.ply",
            b"ply\nformat binary_little_endian 1.0\nelement vertex 99999\nproperty float x\nend_header\n",
            "PLY",
        ),
        ("x.ply", BOX.export(file_type="ply")[:-40], "PLY"),
        # Twelve faces of thirteen bytes: what is left are sound vertices.
        ("x.ply", BOX.export(file_type="ply")[:-156], "is cut off"),
        ("x.stl", BOX.export(file_type="stl")[:-1], "is cut off"),
        ("x.ply", BOX.export(file_type="ply", encoding="ascii")[:-80], "is cut off"),
        ("x.off", BOX.export(file_type="off")[:-40].encode(), "is cut off"),
        ("x.stl", b"solid a\nfacet normal 0 0 1\nouter loop\nvertex 0 0 0\n", "is empty"),
        ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "OBJ|face of vertex"),
        ("x.obj", b"o nothing\n", "is empty|OBJ"),
        ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nl 1 2 3\n", "holds lines or curves"),
        ("x.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\ncstype bezier\ncurv 0 1 1 2 3\nend\n", "holds lines or curves"),
        ("x.stl", b"solid a".ljust(80) + BOX.export(file_type="stl")[80:-1], "is cut off"),
        ("x.npy", npy(np.array([{}])), "not a readable NPY"),
        ("x.npy", npy(np.zeros((3, 2))), r"instead of numbers \[n, 3\]"),
        ("x.npy", npy(np.zeros((3, 3), complex)), "instead of numbers"),
        ("x.npy", npy(np.zeros((0, 3))), "is empty"),
        ("x.npy", npy(np.zeros((3, 3)))[:-8], "not a readable NPY"),
        ("x.xyz", b"0 0\n1 1\n", "not a readable XYZ"),
        ("x.glb", b"", "is none of .npy, .obj, .off"),
    ],
)
def test_refused(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        load_points(tmp_path / name, 10, rng())
    assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_a_mesh_names_no_other_files(tmp_path: Path) -> None:
    """Materials are not looked for."""
    (tmp_path / "x.mtl").symlink_to("/dev/zero")
    (tmp_path / "x.obj").write_text("mtllib x.mtl\nv 0 0 0\nv 1 0 0\nv 0 1 0\nusemtl a\nf 1 2 3\n")
    assert load_points(tmp_path / "x.obj", 5, rng()).shape == (5, 3)
    with pytest.raises(DataError, match="not a regular file"):
        load_points(tmp_path, 5, rng())
