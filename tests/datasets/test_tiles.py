"""Names that say where a tile lies."""

from __future__ import annotations

import pytest

from parteq.datasets.tiles import slides_of, tile_places


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


def test_slides() -> None:
    assert slides_of(["b_x1_y2.png", "0/a_x1_y2.png", "b_x3_y2.png"]) == {"a", "b"}
    assert slides_of(["x1_y2.png"]) == slides_of(["image.png"]) == slides_of([]) == set()
