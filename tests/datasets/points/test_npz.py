"""NPZ files of clouds and molecules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from parteq.datasets.errors import DataError
from parteq.datasets.points.npz import read_npz_clouds

RNG = np.random.default_rng(0)
POINTS = RNG.standard_normal((4, 6, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])


def save(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, **arrays)
    return path


def test_points(tmp_path: Path) -> None:
    data = read_npz_clouds(save(tmp_path, points=POINTS, label=LABELS, classes=["a", "b"], family=list("wxyz")))
    assert np.array_equal(data.batch(range(4)).positions.numpy(), POINTS.reshape(-1, 3))
    assert (data.classes, data.unit, data.sizes.tolist()) == (("a", "b"), "", [6] * 4)
    assert data.families is not None
    assert data.families.tolist() == list("wxyz")
    alone = read_npz_clouds(save(tmp_path, points=POINTS.astype(float)))
    assert (alone.labels, alone.targets, alone.classes) == (None, None, ())


@pytest.mark.parametrize("scale", [np.float32(0.5), np.array([0.5, 1, 2, 4])])
@pytest.mark.parametrize("kind", ["<i2", ">i2"])
def test_integers_are_scaled_to_millimetres(tmp_path: Path, scale: Any, kind: str) -> None:
    steps = RNG.integers(-9, 9, (4, 6, 3)).astype(kind)
    data = read_npz_clouds(save(tmp_path, points=steps, scale=scale, label=LABELS))
    wanted = steps * np.broadcast_to(scale, 4)[:, None, None]
    assert np.array_equal(data.batch(range(4)).positions.numpy(), wanted.reshape(-1, 3).astype(np.float32))
    assert data.unit == "mm"


def test_mixed_sizes_and_targets(tmp_path: Path) -> None:
    targets = RNG.random((3, 2))
    arrays = {"points": POINTS.reshape(-1, 3), "n_points": [4, 15, 5], "targets": targets, "target_names": ["a", "b"]}
    data = read_npz_clouds(save(tmp_path, **arrays))
    assert data.sizes.tolist() == [4, 15, 5]
    assert data.targets is not None
    assert np.array_equal(data.targets, targets)


def test_molecules(tmp_path: Path) -> None:
    molecules = {
        "z": np.array([8, 1, 1, 6, 9], np.uint8), "pos": POINTS.reshape(-1, 3)[:5], "n_atoms": np.array([3, 2], "u1"),
        "targets": np.ones((2, 1), np.float32), "target_names": ["gap_hartree"], "index": np.array([5, 9], np.int32),
    }  # fmt: skip
    data = read_npz_clouds(save(tmp_path, **molecules))
    features = data.cloud(0)[1]
    assert features is not None
    assert features.tolist() == [[0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert (data.unit, data.names, data.feature_names) == ("Å", ("5", "9"), ("H", "C", "N", "O", "F"))
    with pytest.raises(DataError, match="atomic number 17; known are H, C"):
        read_npz_clouds(save(tmp_path, **(molecules | {"z": np.array([8, 1, 1, 17, 9])})))
    with pytest.raises(DataError, match="no array 'n_atoms'"):
        read_npz_clouds(save(tmp_path, z=molecules["z"], pos=molecules["pos"]))


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"label": LABELS}, "has no array 'points'"),
        ({"points": POINTS[..., :2]}, r"instead of \[N, n, 3\]"),
        ({"points": POINTS[0]}, r"instead of \[N, n, 3\]"),
        ({"points": POINTS, "n_points": [24]}, "as there is 'n_points'"),
        ({"points": POINTS[0], "n_points": [3, 2]}, "how 6 points part into clouds"),
        ({"points": POINTS[0], "n_points": [2**63 - 1, 2**63 - 1, 8]}, "how 6 points part into clouds"),
        ({"z": [1], "pos": 1.0, "n_atoms": [1]}, "'n_atoms' does not tell how 0 points"),
        ({"z": [1, 1], "pos": POINTS[0, :2], "n_atoms": ["2"]}, "'n_atoms' does not tell how 2 points"),
        ({"points": POINTS[0], "n_points": [7, -1]}, "cloud 1 has no points"),
        ({"points": POINTS.astype(np.int16)}, "save float, or int16 and 'scale'"),
        ({"points": POINTS.astype(np.int32), "scale": 1.0}, "save float, or int16 and 'scale'"),
        ({"points": POINTS.astype(np.int16), "scale": [1.0, 2.0]}, "'scale' has the shape"),
        ({"points": POINTS.astype(np.uint16), "scale": 1.0}, "save float, or int16 and 'scale'"),
        ({"points": POINTS * np.nan}, "not finite"),
        ({"points": POINTS * np.float32([[[1]], [[1]], [[1e25]], [[1]]])}, r"cloud 2 has points .* beyond 1e\+15"),
        ({"points": POINTS, "label": LABELS[:3]}, "3 labels for 4 clouds"),
        ({"points": POINTS, "label": LABELS, "classes": ["a"]}, "1 class names"),
        ({"points": POINTS, "family": ["a"]}, "groups have the shape"),
        ({"points": POINTS, "targets": np.ones((4, 1))}, "no array 'target_names'"),
        ({"points": np.array([{}])}, "Python objects, which are never loaded"),
        ({"points": POINTS[:0]}, "holds no clouds"),
    ],
)
def test_refused(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        read_npz_clouds(save(tmp_path, **arrays))
    assert str(caught.value).startswith(str(tmp_path / "x.npz"))
