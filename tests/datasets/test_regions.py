"""Groups and halves from file names that bear x and y: slides where there are several, else regions of the one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parteq.datasets.base import ArrayDataset
from parteq.datasets.errors import DataError
from parteq.datasets.images import open_images
from parteq.datasets.regions import HALVES, half_of, spatial_groups
from parteq.datasets.splits import check_no_leakage, grouped_split
from parteq.datasets.tiles import tile_places


def grid(side: int, slide: str = "s1", suffix: str = "") -> list[str]:
    return [f"{slide}_x{50 * x}_y{50 * y}{suffix}.png" for y in range(side) for x in range(side)]


def test_regions_of_one_slide() -> None:
    names = grid(12, suffix="_class0")
    groups = spatial_groups(names, np.arange(144) % 2)
    assert groups is not None
    regions, counts = np.unique(groups, return_counts=True)
    assert (len(regions), counts.min(), counts.max()) == (12, 12, 12)
    assert groups[0] == "s1 x 0 to 100, y 0 to 150"
    # Regions are rectangles that do not meet: between two of them lies a line along x or y.
    boxes = [[int(word.rstrip(",")) for word in name.split() if word.rstrip(",").isdigit()] for name in regions]
    for number, (left, right, top, bottom) in enumerate(boxes):
        for other in boxes[:number]:
            assert right < other[0] or other[1] < left or bottom < other[2] or other[3] < top


def test_slides() -> None:
    names = grid(3, "a") + grid(3, "b")
    labels = np.arange(18) % 2
    assert spatial_groups(names, labels).tolist() == ["a"] * 9 + ["b"] * 9  # type: ignore[union-attr]
    # What stands before x and y is the class here, and no slide: to part by it would leave no class to train on.
    regions = spatial_groups(names, np.arange(18) // 9)
    assert regions is not None
    assert len(set(regions[:9]) & set(regions[9:])) > 0


@pytest.mark.parametrize("names", [["a.png", "s_x1_y2.png"], ["max1_y2.png"], ["s_x1.png"], ["0a1f.tif"]])
def test_other_names(names: list[str]) -> None:
    assert spatial_groups(names, [0] * len(names)) is None


def test_folders_of_tiles(tmp_path: Path) -> None:
    for number, name in enumerate(grid(6)):
        path = tmp_path / "ab"[number % 2] / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 4), number, np.uint8)).save(path)
    data = open_images(str(tmp_path))
    assert data.groups is not None
    train, held_out = grouped_split(data.labels, data.groups, 0.25, seed=0)
    assert not set(data.groups[train]) & set(data.groups[held_out])
    assert len(set(data.labels[held_out])) == 2
    assert open_images(str(tmp_path), labelled=False).groups is not None


def test_halves() -> None:
    names = [f"s_x{10 * x}_y{7 * y}.png" for x in range(5) for y in range(4)]
    tiles = ArrayDataset(np.zeros((20, 1, 2, 2), np.uint8), np.zeros(20, int), names=names)
    for one, other, axis in (("left", "right", 0), ("top", "bottom", 1)):
        parts = [half_of(tiles, half) for half in (one, other)]
        assert sorted([*(parts[0].names or ()), *(parts[1].names or ())]) == sorted(names)
        places = [tile_places(part.names or ()) for part in parts]
        assert max(places[0][1][:, axis]) < min(places[1][1][:, axis])  # type: ignore[index]
    with pytest.raises(DataError, match="no left half: all tiles lie in a line"):
        half_of(tiles.subset(range(4)), "left")
    bare = ArrayDataset(np.zeros((2, 1, 2, 2), np.uint8), [0, 1])
    with pytest.raises(DataError, match="not all names of its images bear x and y"):
        half_of(bare, "top")


def test_halves_share_no_region() -> None:
    names = grid(9)
    labels = np.arange(81) % 2
    tiles = ArrayDataset(np.zeros((81, 1, 2, 2), np.uint8), labels, names=names, groups=spatial_groups(names, labels))
    parts = {half: half_of(tiles, half) for half in HALVES}
    check_no_leakage(parts["left"].groups, parts["right"].groups)
    check_no_leakage(parts["top"].groups, parts["bottom"].groups)
    # What a table says of patients is not touched.
    patients = ArrayDataset(np.zeros((81, 1, 2, 2), np.uint8), labels, names=names, groups=np.arange(81))
    assert set(half_of(patients, "top").groups.tolist()) <= set(range(81))  # type: ignore[union-attr]


def test_overlapping_tiles_at_the_border_are_in_neither_half() -> None:
    names = [f"s_x{25 * x}_y0.png" for x in range(8)]
    tiles = ArrayDataset(np.zeros((8, 1, 50, 50), np.uint8), np.zeros(8, int), names=names)
    left, right = half_of(tiles, "left"), half_of(tiles, "right")
    assert left.names == tuple(names[:3])
    assert right.names == tuple(names[4:])


@pytest.mark.realdata
def test_a_real_slide_in_halves(shared_data: Path) -> None:
    tiles = open_images(str(shared_data / "histo" / "idc_14082"))
    left, right = half_of(tiles, "left"), open_images(f"right:{shared_data / 'histo' / 'idc_14082'}")
    assert (len(left), len(right)) == (227, 251)
    assert set(left.labels) == set(right.labels) == {0, 1}
    for one, other in (("left", "right"), ("top", "bottom")):
        check_no_leakage(half_of(tiles, one).groups, half_of(tiles, other).groups)
