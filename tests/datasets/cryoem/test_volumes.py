"""The grid that a map or a model is put on."""

from __future__ import annotations

from pathlib import Path

import mrcfile
import numpy as np
import pytest

from parteq.datasets.cryoem.mrc import write_volume
from parteq.datasets.cryoem.volumes import open_volume
from parteq.datasets.errors import DataError


@pytest.fixture
def map_of_64_angstroms(tmp_path: Path) -> Path:
    write_volume(tmp_path / "map.mrc", np.random.default_rng(0).normal(size=(16, 16, 16)).astype(np.float32), 4.0)
    return tmp_path / "map.mrc"


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, (16, 4.0)),
        ({"box": 8}, (8, 8.0)),
        ({"pixel_size_in_angstroms": 3.0}, (22, 3.0)),
        ({"box": 12, "pixel_size_in_angstroms": 4.5}, (12, 4.5)),
    ],
)
def test_the_field_of_view_stays_unless_both_are_given(map_of_64_angstroms, asked, found):
    volume, pixel_size = open_volume(map_of_64_angstroms, **asked)
    assert (*volume.shape, pixel_size) == (found[0],) * 3 + (found[1],)


def test_a_map_without_voxel_size_fills_the_box(tmp_path):
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(np.random.default_rng(0).normal(size=(10, 10, 10)).astype(np.float32))
    with pytest.warns(UserWarning, match=r"fill the box, with voxels of 6 Å"):
        volume, pixel_size = open_volume(tmp_path / "map.mrc", 20, 3.0)
    assert (*volume.shape, pixel_size) == (20, 20, 20, 3.0)
    assert volume.std(axis=(1, 2)).min() > 0
    with pytest.warns(UserWarning, match=r"nor does --pixel-size: 1 Å is assumed"):
        assert open_volume(tmp_path / "map.mrc")[1] == 1.0


def test_a_model_needs_a_grid(tmp_path):
    path = tmp_path / "one.pdb"
    path.write_text("ATOM      1  C   ALA A   1       0.000   0.000   0.000  1.00 20.00           C\nEND\n")
    with pytest.raises(DataError, match="--box and --pixel-size"):
        open_volume(path, 16)
    volume, pixel_size = open_volume(path, 16, 2.0)
    assert (*volume.shape, pixel_size) == (16, 16, 16, 2.0)
    assert np.unravel_index(volume.argmax(), volume.shape) == (8, 8, 8)
