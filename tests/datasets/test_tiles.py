"""Names that say where a tile lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.base import ArrayDataset
from parteq.datasets.errors import DataError
from parteq.datasets.images import open_images
from parteq.datasets.tiles import half_of, tile_places


@pytest.mark.parametrize(
    ("name", "slide", "place"),
    [
        ("0/14082_idx5_x1001_y1051_class0.png", "14082_idx5", (1001, 1051)),
        ("x0_y12.tif", "", (0, 12)),
        ("TCGA-A1-A0SB.x100-y200.png", "TCGA-A1-A0SB", (100, 200)),
        ("a b X=5 Y=7.jpg", "a b", (5, 7)),
        ("x9_y9/slide_x1_y2.png", "slide", (1, 2)),
        ("slide_x100y200_x5_y6.png", "slide", (100, 200)),
    ],
)
def test_places(name: str, slide: str, place: tuple[int, int]) -> None:
    found = tile_places([name, name])
    assert found is not None
    assert found[0] == [slide, slide]
    assert found[1].tolist() == [list(place)] * 2


@pytest.mark.parametrize("name", ["box12_y3.png", "x12.png", "x1_y.png", "y1_x2.png", "x-1_y2.png", "image.png", ""])
def test_names_without_places(name: str) -> None:
    assert tile_places(["x1_y2.png", name]) is None
    assert tile_places([]) is None


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


@pytest.mark.realdata
def test_a_real_slide_in_halves(shared_data: Path) -> None:
    tiles = open_images(str(shared_data / "histo" / "idc_14082"))
    left, right = half_of(tiles, "left"), open_images(f"right:{shared_data / 'histo' / 'idc_14082'}")
    assert (len(left), len(right)) == (227, 251)
    assert set(left.labels) == set(right.labels) == {0, 1}
