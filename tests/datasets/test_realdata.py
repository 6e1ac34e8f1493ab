"""The readers on real files, where they are at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.images import available_splits, open_images
from parteq.datasets.splits import check_no_leakage, grouped_split, stratified_subset

pytestmark = pytest.mark.realdata


@pytest.mark.parametrize(
    ("name", "count", "channels", "spatial", "classes", "groups"),
    [
        ("mnist_8k.npz", 8000, 1, (28, 28), 10, None),
        ("histo/malaria_cells.npz", 12000, 3, (40, 40), 2, 140),
        ("histo/chula_rbc.npz", 10000, 3, (36, 36), 13, 471),
        ("histo/idc_14082", 478, 3, (50, 50), 2, 12),
        ("adrenal3d_64.npz", 1188, 1, (64, 64, 64), 2, None),
    ],
)
def test_reads_and_splits(
    shared_data: Path, name: str, count: int, channels: int, spatial: tuple[int, ...], classes: int, groups: int | None
) -> None:
    data = open_images(str(shared_data / name))
    facts = (len(data), data.channels, data.spatial, len(data.classes))
    assert facts == (count, channels, spatial, classes)
    image, label = data[7]
    assert image.shape == (channels, *spatial)
    assert label == data.labels[7]
    assert (None if data.groups is None else len(set(data.groups.tolist()))) == groups
    train, held_out = grouped_split(data.labels, data.groups, 0.2, seed=0)
    shares = np.bincount(data.labels[held_out], minlength=classes) / np.bincount(data.labels)
    assert np.abs(shares - 0.2).max() < 0.05
    if data.groups is not None:
        check_no_leakage(data.groups[train], data.groups[held_out])
    few = data.subset(train).subset(stratified_subset(data.labels[train], 100, seed=0))
    assert len(set(few.labels.tolist())) == classes


def test_medmnist_volumes(shared_data: Path) -> None:
    spec = str(shared_data / "adrenal3d_64.npz")
    assert available_splits(spec) == ("train", "val")
    val = open_images(spec, "val")
    images, labels = val.tensors()
    assert images.shape == (98, 1, 64, 64, 64)
    assert set(images.unique().tolist()) == {0, 255}
    assert set(labels.tolist()) == {0, 1}


def test_class_names(shared_data: Path) -> None:
    assert open_images(str(shared_data / "histo/malaria_cells.npz")).classes == ("uninfected", "parasitized")
