"""Kaggle's PatchCamelyon: recognised by its table, and kept apart from the published one."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from parteq.datasets.errors import DataError
from parteq.datasets.images import available_splits, open_images
from parteq.datasets.kaggle import KagglePCamDataset
from parteq.datasets.splits import check_one_release

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
IDS = ("f38a6374", "c18f2d88", "755db627", "bc3f0c64")


def save(folder: Path) -> Path:
    (folder / "train").mkdir(parents=True)
    for name, pixels in zip(IDS, PIXELS, strict=True):
        Image.fromarray(pixels).save(folder / "train" / f"{name}.tif")
    rows = [f"{name},{number % 2}" for number, name in enumerate(IDS)]
    (folder / "train_labels.csv").write_text("\n".join(["id,label", *rows]) + "\n")
    return folder


@pytest.mark.parametrize("prefix", ["", "pcam:"])
def test_reads(tmp_path: Path, prefix: str) -> None:
    spec = f"{prefix}{save(tmp_path)}"
    data = open_images(spec)
    assert isinstance(data, KagglePCamDataset)
    assert available_splits(spec) == ()
    assert (data.classes, data.labels.tolist(), data.groups) == (("normal", "tumor"), [0, 1, 0, 1], None)
    assert data.names == tuple(f"train/{name}.tif" for name in IDS)
    assert np.array_equal(data.tensors()[0].permute(0, 2, 3, 1), PIXELS)
    with pytest.raises(DataError, match="has no 'test' split"):
        open_images(spec, "test")


def test_refused(tmp_path: Path) -> None:
    table = save(tmp_path) / "train_labels.csv"
    table.write_text("id,label\nf38a6374,2\n")
    with pytest.raises(DataError, match=f"^{table}: line 2: label '2' is neither 0 nor 1"):
        open_images(str(tmp_path))
    table.write_text("id,label\nf38a6374,1\nabsent,0\nc18f2d88,0\n")
    with pytest.raises(DataError, match=r"line 3: no such file: 'train/absent\.tif'"):
        open_images(str(tmp_path))
    data = open_images(str(tmp_path), skip_bad=True)
    assert (data.labels.tolist(), data.skipped) == ([1, 0], (tmp_path / "train" / "absent.tif",))
    # A folder of classes that has a table of another kind beside them is a folder of classes.
    table.write_text("id,label,age\n")
    assert not isinstance(open_images(str(tmp_path)), KagglePCamDataset)


def test_both_releases(tmp_path: Path) -> None:
    for part, array in (("x", PIXELS), ("y", np.zeros((4, 1, 1, 1), np.uint8))):
        (tmp_path / "published").mkdir(exist_ok=True)
        with h5py.File(tmp_path / "published" / f"camelyonpatch_level_2_split_train_{part}.h5", "w") as file:
            file[part] = array
    one, other = open_images(f"pcam:{tmp_path / 'published'}"), open_images(str(save(tmp_path / "kaggle")))
    check_one_release(one.release, one.release, "x")
    check_one_release(one.release, None, "x")
    with pytest.raises(DataError, match=r"x: is PatchCamelyon as on Kaggle; the training images are .* as published"):
        check_one_release(one.subset([0]).release, other.in_memory().release, "x")
    save(tmp_path / "published")
    with pytest.raises(DataError, match="both as published and as on Kaggle"):
        open_images(f"pcam:{tmp_path / 'published'}")
