"""Clouds in HDF5: written, streamed, and files that are damaged or hostile."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from parteq.datasets.errors import DataError
from parteq.datasets.points.base import whole
from parteq.datasets.points.clouds import available_splits, open_clouds
from parteq.datasets.points.hdf5 import CloudWriter, HDF5Clouds

RNG = np.random.default_rng(0)
SIZES = [5, 3, 9, 4, 7, 6]
CLOUDS = [RNG.standard_normal((size, 3)).astype(np.float32) for size in SIZES]
FEATURES = [RNG.random((size, 2)).astype(np.float32) for size in SIZES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A divided file with everything in it."""
    file = tmp_path / "clouds.h5"
    with CloudWriter(file, feature_names=("charge", "mass"), unit="mm") as writer:
        for cloud, features in zip(CLOUDS, FEATURES, strict=True):
            writer.append(cloud, features)
        assert len(writer) == 6
        writer.finish(
            labels=[0, 1, 2, 0, 1, 2], classes=["a", "é", "c"], families=["f", "g", "h", "i", "j", "k"],
            names=[f"n{i}" for i in range(6)], splits=["train", "test"] * 3, targets=np.ones((6, 1)),
            target_names=["x"], recipes=list("123456"),
        )  # fmt: skip
    return file


def test_what_was_written_is_read(path: Path) -> None:
    data = HDF5Clouds(path, "test")
    assert (data.classes, data.names, data.unit, len(data)) == (("a", "é", "c"), ("n1", "n3", "n5"), "mm", 3)
    assert data.recipes == ("2", "4", "6")
    batch = data.batch([2, 0])
    assert np.array_equal(batch.positions.numpy(), np.concatenate([CLOUDS[5], CLOUDS[1]]))
    assert batch.features is not None
    assert np.array_equal(batch.features.numpy(), np.concatenate([FEATURES[5], FEATURES[1]]))
    assert batch.labels is not None
    assert batch.labels.tolist() == [2, 1]
    assert available_splits(str(path)) == ("train", "test")
    everything = HDF5Clouds(path, None)
    assert np.array_equal(everything.batch(range(6)).positions.numpy(), np.concatenate(CLOUDS))
    assert everything.fingerprint() == everything.in_memory().fingerprint()
    with pytest.raises(DataError, match="has no 'val' split; it has train, test"):
        open_clouds(str(path), "val")


def test_an_undivided_file_of_points_alone(tmp_path: Path) -> None:
    with CloudWriter(tmp_path / "x.h5") as writer:
        writer.append(CLOUDS[0])
        writer.finish()
    data = open_clouds(str(tmp_path / "x.h5"))
    assert (data.labels, data.families, data.names, data.classes, available_splits(str(tmp_path / "x.h5"))) == (
        None, None, None, (), (),
    )  # fmt: skip
    assert np.array_equal(data.cloud(0)[0].numpy(), CLOUDS[0])


def test_clouds_far_from_the_origin_keep_their_shape(tmp_path: Path) -> None:
    far = [cloud.astype(np.float64) + 1e8 for cloud in CLOUDS]
    with h5py.File(tmp_path / "clouds.h5", "w") as file:
        file["positions"], file["sizes"] = np.concatenate(far), np.array(SIZES)
    positions, _ = HDF5Clouds(tmp_path / "clouds.h5").cloud(2)
    np.testing.assert_allclose(positions.numpy(), CLOUDS[2] - CLOUDS[2].mean(0), atol=1e-6)


def test_each_process_opens_the_file_for_itself(path: Path) -> None:
    data = HDF5Clouds(path, None)
    data.cloud(0)
    copied = pickle.loads(pickle.dumps(data))
    assert torch.equal(copied.cloud(4)[0], data.cloud(4)[0])
    loader = DataLoader(data, batch_size=4, num_workers=2, collate_fn=whole)
    assert torch.cat([batch.positions for batch in loader]).numpy() == pytest.approx(np.concatenate(CLOUDS))


def test_a_file_larger_than_memory(tmp_path: Path) -> None:
    """Eleven terabytes of points, of which the file holds none: what is not written reads as zero."""
    count, size = 100_000, 10_000_000
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_dataset("positions", (count * size, 3), np.float32, chunks=(4096, 3))
        file["positions"][-3:] = 1
        file["sizes"] = np.full(count, size)
    data = open_clouds(str(tmp_path / "x.h5")).subset([count - 1])
    assert data.cloud(0)[0].sum() == 9


def test_writing_other_shapes_is_refused(tmp_path: Path) -> None:
    with CloudWriter(tmp_path / "x.h5") as writer:
        with pytest.raises(ValueError, match="positions must be"):
            writer.append(CLOUDS[0][:, :2])
        with pytest.raises(ValueError, match="positions must be"):
            writer.append(CLOUDS[0], FEATURES[0])


def external(file: h5py.File) -> None:
    del file["positions"]
    file["positions"] = h5py.ExternalLink("/etc/other.h5", "positions")


def external_storage(file: h5py.File) -> None:
    del file["positions"]
    file.create_dataset("positions", (34, 3), "f4", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def replace(name: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (external, "'positions' is a link that may lead out"),
        (external_storage, "lie in other files"),
        (replace("sizes", None), "has no array 'sizes'"),
        (replace("positions", None), "has no array 'positions'"),
        (replace("sizes", np.array([5, 3, 9, 4, 7, 7])), r"\[34, 3\] instead of \[35, 3\]"),
        (replace("sizes", np.array([2**62, 2**62, 2**62, 2**62, 17, 17])), "instead of"),
        (replace("sizes", np.array([5, 3, 9, 4, 14, -1])), "has no points"),
        (replace("sizes", np.ones((2, 3), int)), r"instead of \[N\]"),
        (replace("sizes", np.ones(6)), "float64 instead of integers"),
        (replace("labels", np.zeros(4, int)), r"'labels' has the shape \[4\] for 6 clouds"),
        (replace("labels", 5), r"'labels' has the shape \[\] for 6 clouds"),
        (replace("targets", 5.0), r"'targets' has the shape \[\] for 6 clouds"),
        (replace("splits", np.array([b"train"] * 4)), r"'splits' has the shape \[4\] for 6 clouds"),
        (replace("splits", np.array([b"train"] * 9)), r"'splits' has the shape \[9\] for 6 clouds"),
        (replace("splits", np.array([], "S5")), r"'splits' has the shape \[0\] for 6 clouds"),
        (replace("labels", np.full(6, 7)), "3 class names, but labels up to 7"),
        (replace("names", np.array([b"\xff"] * 6)), "is not text"),
        (replace("splits", np.array([b"train", b"other"] * 3)), "has a split 'other'"),
        (replace("feature_names", np.array([b"one"])), "'features' has the shape"),
        (replace("target_names", np.array([b"a", b"b"])), "targets have the shape"),
        (replace("unit", np.array(3)), "integers|instead of bytes"),
        (replace("positions", np.full((34, 3), np.nan, np.float32)), "not finite"),
    ],
)
def test_damaged_or_hostile(path: Path, change: Callable[[h5py.File], None], reason: str) -> None:
    with h5py.File(path, "r+") as file:
        change(file)
    for split in (None, "train"):
        with pytest.raises(DataError, match=reason) as caught:
            HDF5Clouds(path, split).batch([0])
        assert str(path) in str(caught.value)


@pytest.mark.parametrize(("name", "value"), [("positions", 1e25), ("positions", np.inf), ("features", np.nan)])
def test_a_bad_cloud_is_named_as_it_stands_in_the_file(path: Path, name: str, value: float) -> None:
    with h5py.File(path, "r+") as file:
        file[name][sum(SIZES[:4]) - 1] = value
    data = HDF5Clouds(path, "test")
    data.batch([0, 2])
    with pytest.raises(DataError, match=r"cloud 3 has points that are not finite .* or beyond 1e\+15"):
        data.batch([2, 1])


def test_no_hdf5_file(tmp_path: Path) -> None:
    for content in (b"", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        (tmp_path / "x.h5").write_bytes(content)
        with pytest.raises(DataError, match="is not an HDF5 file, or is truncated"):
            open_clouds(str(tmp_path / "x.h5"))
