"""Faces cut into triangles: the triangles have the area of the face (shoelace), whatever its shape."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from parteq.datasets.points import polygons as module
from parteq.datasets.points.meshes import load_points
from parteq.datasets.points.polygons import Polygons

L_SHAPE = np.array([(3, 0), (3, 1), (1, 1), (1, 3), (0, 3), (0, 0)], float)
ARROW = np.array([(1, 1), (0, 3), (0, 0), (3, 0)], float)


def shoelace(plane: np.ndarray) -> float:
    x, y = plane.T
    return abs(float((x * np.roll(y, -1) - y * np.roll(x, -1)).sum())) / 2


def area(vertices: np.ndarray, faces: np.ndarray) -> float:
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def triangles(plane: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vertices and triangles of one polygon, somewhere in space."""
    turn = Rotation.random(random_state=seed).as_matrix()
    vertices = np.column_stack([plane, np.zeros(len(plane))]) @ turn.T + [5, -3, 2]
    return vertices, Polygons.of(np.arange(len(plane)), [len(plane)]).triangles(vertices)


def star(rng: np.random.Generator) -> np.ndarray:
    corners = np.arange(rng.integers(4, 40))
    turns = np.exp(2j * np.pi * (corners + 0.8 * rng.random(len(corners))) / len(corners))
    points = (0.02 + rng.random(len(corners)) ** 2) * turns
    return np.column_stack([points.real, points.imag])


def skyline(rng: np.random.Generator) -> np.ndarray:
    """Of many corners in a line, some of which are passed twice in a row."""
    heights = rng.integers(1, 5, rng.integers(2, 12))
    steps = [corner for k, height in enumerate(heights) for corner in ((k, height), (k + 1, height))]
    return np.array([(0, 0), *steps, (len(heights), 0)], float)


def ring(rng: np.random.Generator) -> np.ndarray:
    """A polygon with a hole, into which it runs and back."""
    outer = np.exp(2j * np.pi * (np.arange(corners := rng.integers(4, 12)) / corners + rng.random()))
    inner = 0.3 * np.exp(-2j * np.pi * (np.arange(corners := rng.integers(3, 9)) / corners + rng.random()))
    inner = np.roll(inner, -np.abs(inner - outer[0]).argmin())
    points = np.concatenate([outer, outer[:1], inner, inner[:1]])
    return np.column_stack([points.real, points.imag])


def two_holes(rng: np.random.Generator) -> np.ndarray:
    first, second = [(1, 1), (1, 2), (2, 2), (2, 1), (1, 1)], [(4, 4), (4, 3), (3, 3), (3, 4), (4, 4)]
    return np.array([(0, 0), *first, (0, 0), (5, 0), (5, 5), *second, (5, 5), (0, 5)], float)


@pytest.mark.parametrize("make", [star, skyline, ring, two_holes, lambda rng: L_SHAPE, lambda rng: ARROW])
def test_triangles_cover_the_face_whichever_corner_comes_first(make) -> None:
    for seed in range(40):
        rng = np.random.default_rng(seed)
        plane = make(rng)
        plane = np.roll(plane, rng.integers(len(plane)), axis=0)[:: rng.choice([-1, 1])]
        vertices, faces = triangles(plane, seed)
        assert len(faces) == len(plane) - 2
        assert area(vertices, faces) == pytest.approx(shoelace(plane), rel=1e-5), seed


def test_a_convex_face_is_a_fan_from_its_first_corner() -> None:
    angles = np.arange(6) * np.pi / 3
    assert triangles(np.column_stack([np.cos(angles), np.sin(angles)]))[1].tolist() == [
        [0, 1, 2], [0, 2, 3], [0, 3, 4], [0, 4, 5],
    ]  # fmt: skip


def test_faces_keep_their_order_and_those_of_two_corners_fall_out() -> None:
    vertices = np.column_stack([np.concatenate([L_SHAPE, ARROW]), np.zeros(10)])
    corners = [*range(6), 0, 1, *range(6, 10), 0, 1, 2, 6]
    faces = Polygons.of(corners, [6, 2, 4, 3, 1]).triangles(vertices)
    assert (len(faces), faces[-1].tolist()) == (7, [0, 1, 2])
    assert area(vertices, faces[:4]) == pytest.approx(5)
    assert area(vertices, faces[4:6]) == pytest.approx(shoelace(ARROW))
    assert Polygons.of([], []).triangles(vertices).shape == (0, 3)


@pytest.mark.parametrize(
    "plane",
    [
        [(0, 0), (1, 1), (1, 0), (0, 1)], [(0, 0)] * 5, [(0, 0), (1, 0), (2, 0), (3, 0), (4, 0)],
        [(np.cos(t), np.sin(t)) for t in 4 * np.pi / 5 * np.arange(5)], [(0, 0), (3, 3), (3, 0), (0, 2), (5, 1)],
    ],
)  # fmt: skip
def test_faces_that_cut_themselves_or_have_no_area_are_fanned(plane: list[tuple[float, float]]) -> None:
    vertices = np.column_stack([np.array(plane, float), np.zeros(len(plane))])
    faces = Polygons.of(np.arange(len(plane)), [len(plane)]).triangles(vertices)
    assert faces.tolist() == [[0, k, k + 1] for k in range(1, len(plane) - 1)]
    # Rounding leaves such a face some area, by which it may be cut otherwise.
    assert triangles(np.array(plane, float))[1].shape == faces.shape


def test_thousands_of_corners(monkeypatch: pytest.MonkeyPatch) -> None:
    angles = 2 * np.pi * np.arange(3000) / 3000
    radii = np.where(np.arange(3000) % 2, 0.5, 1.5)
    gear = np.column_stack([radii * np.cos(angles), radii * np.sin(angles)])
    vertices, faces = triangles(gear)
    assert area(vertices, faces) == pytest.approx(shoelace(gear))
    monkeypatch.setattr(module, "_MAX_WORK", 1_000_000)
    with pytest.raises(ValueError, match="too many corners in concave faces, here 3000"):
        triangles(gear)


@pytest.mark.parametrize(
    ("corner", "reason"),
    [(-1, "vertex -1, but 3"), (3, "vertex 3, but 3"), (0.5, "vertex 0.5"), (np.nan, "vertex nan"), (1e30, "1e\\+30")],
)
def test_corners_that_are_no_vertices(corner: float, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        Polygons.of([0, 1, corner], [3]).check(3)


def as_text(name: str) -> str:
    rows = [f"{x} {y} 0" for x, y in L_SHAPE]
    head = "ply\nformat ascii 1.0\nelement vertex 6\nproperty float x\nproperty float y\nproperty float z\n"
    shape = "Shape { geometry IndexedFaceSet { convex FALSE coordIndex [0,1,2,3,4,5,-1] coord Coordinate { point ["
    return {
        "x.off": "OFF\n6 1 0\n" + "\n".join(rows) + "\n6 0 1 2 3 4 5\n",
        "x.obj": "".join(f"v {row}\n" for row in rows) + "f 1 2 3 4 5 6\n",
        "x.ply": f"{head}element face 1\nproperty list uchar int vertex_indices\nend_header\n"
        + "\n".join(rows) + "\n6 0 1 2 3 4 5\n",
        "x.wrl": f"#VRML V2.0 utf8\n{shape} {', '.join(rows)} ] }} }} }}",
    }[name]  # fmt: skip


@pytest.mark.parametrize("name", ["x.off", "x.obj", "x.ply", "x.wrl"])
def test_points_are_drawn_within_concave_faces_of_every_format(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(as_text(name))
    points = load_points(tmp_path / name, 2000, np.random.default_rng(0))
    assert not ((points[:, 0] > 1) & (points[:, 1] > 1)).any()
    assert (points[:, 1] > 1).mean() == pytest.approx(0.4, abs=0.05)
