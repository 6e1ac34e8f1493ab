"""ModelNet40 as tables of points."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest

from parteq.datasets.errors import DataError
from parteq.datasets.points.clouds import available_splits, open_clouds

POINTS = np.random.default_rng(0).standard_normal((6, 16, 3)).astype(np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, rows in (("train0", slice(0, 2)), ("train1", slice(2, 4)), ("test0", slice(4, 6))):
        with h5py.File(tmp_path / f"ply_data_{name}.h5", "w") as file:
            file["data"] = POINTS[rows]
            file["label"] = np.array([[0], [1]], np.uint8)
    (tmp_path / "shape_names.txt").write_text("airplane\nbathtub\n")
    return tmp_path


def test_tables(root: Path) -> None:
    assert available_splits(f"modelnet40:{root}") == ("train", "test")
    data = open_clouds(f"modelnet40:{root}")
    assert (data.classes, data.labels is not None and data.labels.tolist()) == (("airplane", "bathtub"), [0, 1, 0, 1])
    assert np.array_equal(data.batch(range(4)).positions.numpy(), POINTS[:4].reshape(-1, 3))


def test_refused(root: Path) -> None:
    with h5py.File(root / "ply_data_train1.h5", "r+") as file:
        del file["data"]
        file["data"] = h5py.ExternalLink("/etc/x.h5", "data")
    with pytest.raises(DataError, match="may lead out of the file"):
        open_clouds(f"modelnet40:{root}")
    with h5py.File(root / "ply_data_test0.h5", "r+") as file:
        del file["data"]
        file["data"] = POINTS[:2, :, :2]
    with pytest.raises(DataError, match="'data' has the shape"):
        open_clouds(f"modelnet40:{root}", "test")
    with pytest.raises(DataError, match="no such folder"):
        open_clouds(f"modelnet40:{root / 'nowhere'}")
