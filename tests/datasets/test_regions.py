"""Groups from file names that bear x and y: slides where there are several, else regions of the one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parteq.datasets.images import open_images
from parteq.datasets.regions import spatial_groups
from parteq.datasets.splits import grouped_split


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
