"""Slides in tiles: on a centred grid, with tissue only; and tiles in a folder put together again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parteq.datasets.errors import DataError
from parteq.datasets.images import open_images
from parteq.datasets.slide import Slide
from parteq.datasets.tiling import Tiling, tile_folder, tile_slide
from tests.slides import GLASS, stained, write_slide

PIXELS = stained(141, 190)


def tiling(folder: Path, pixels: np.ndarray = PIXELS, **options: object) -> Tiling:
    slide = Slide(write_slide(folder / "s.tif", np.ascontiguousarray(pixels)))
    return tile_slide(slide, (16, 16), **{"mpp": 0.65, **options})  # type: ignore[arg-type]


def write_tiles(folder: Path, pixels: np.ndarray, size: int, scale: int = 1) -> Path:
    folder.mkdir()
    for top in range(0, pixels.shape[0] - size + 1, size):
        for left in range(0, pixels.shape[1] - size + 1, size):
            tile = Image.fromarray(pixels[top : top + size, left : left + size])
            tile.save(folder / f"s_x{left * scale + 5}_y{top * scale + 9}.png")
    return folder


def test_the_grid_is_centred(tmp_path: Path) -> None:
    found = tiling(tmp_path, everywhere=True)
    # 190 and 141 pixels of 0.5 µm are 146.15 and 108.46 of 0.65 µm: 9 and 6 tiles.
    assert len(found.tiles) == len(found.corners) == 54
    assert found.size == pytest.approx((20.8, 20.8))
    low, high = found.corners.min(0), found.corners.max(0) + found.size
    assert np.allclose(low, np.array([190, 141]) - high)
    assert np.all((low >= 0) & (low < 10.4))
    assert found.tiles[0][0].shape == (3, 16, 16)
    assert (found.extent, found.mpp) == ((190, 141), pytest.approx((0.5, 0.5)))


def test_stride(tmp_path: Path) -> None:
    found = tiling(tmp_path, everywhere=True, stride=8)
    assert len(found.tiles) == 17 * 12
    steps = np.unique(np.diff(np.unique(found.corners[:, 0])).round(6))
    assert steps == pytest.approx([10.4])


def test_no_tile_is_lost_to_rounding(tmp_path: Path) -> None:
    for mpp in (0.1, 0.3, 0.7):
        pixels = stained(48, 64)
        slide = Slide(write_slide(tmp_path / "s.tif", pixels), mpp / 3)
        # 64 and 48 pixels are 21 and 16 of three times their width.
        assert len(tile_slide(slide, (4, 4), mpp, everywhere=True).tiles) == 20


def test_tiles_of_glass_are_left_out(tmp_path: Path) -> None:
    everywhere, found = tiling(tmp_path, everywhere=True), tiling(tmp_path)
    assert 0.4 * len(everywhere.tiles) < len(found.tiles) < 0.8 * len(everywhere.tiles)
    kept = {tuple(corner) for corner in found.corners}
    for (image, _), corner in zip(everywhere.tiles, everywhere.corners, strict=True):
        share = float((image.amax(0) - image.amin(0) > 0.1).float().mean())
        if share > 0.2:
            assert tuple(corner) in kept
        if share < 0.05:
            assert tuple(corner) not in kept


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_turned_slide_has_the_turned_tiles(tmp_path: Path, quarters: int) -> None:
    straight = tiling(tmp_path)
    # As points about the middle of the slide: a quarter turn anticlockwise on the screen takes (x, y) to (y, -x).
    middle = straight.corners + np.array(straight.size) / 2 - np.array(straight.extent) / 2
    for _ in range(quarters):
        middle = np.stack([middle[:, 1], -middle[:, 0]], axis=1)
    turned = tiling(tmp_path, np.rot90(PIXELS, quarters))
    found = turned.corners + np.array(turned.size) / 2 - np.array(turned.extent) / 2
    distance = np.abs(found[:, None] - middle).sum(-1)
    match = distance.argmin(0)
    assert sorted(match) == list(range(len(found)))
    assert distance.min(0).max() < 1e-9
    for one, other in enumerate(match):
        expected = straight.tiles[one][0].rot90(quarters, (1, 2))
        assert np.allclose(turned.tiles[int(other)][0], expected, atol=1e-6)


def test_what_cannot_be_tiled(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"is 24 × 18 pixels at 4 µm/px: smaller than a tile of 16 × 16|shows no tissue"
    ):
        tiling(tmp_path, np.full_like(PIXELS, GLASS), mpp=4.0)
    with pytest.raises(DataError, match="is 10 × 7 pixels at 10 µm/px: smaller than a tile of 16 × 16"):
        tiling(tmp_path, mpp=10.0)
    with pytest.raises(DataError, match="shows no tissue: add --all-tiles"):
        tiling(tmp_path, np.full_like(PIXELS, GLASS))
    assert len(tiling(tmp_path, np.full_like(PIXELS, GLASS), everywhere=True).tiles) == 54


def test_a_slide_coarser_than_the_model(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match=r"s\.tif: has 0\.5 µm/px; at 0\.25 there is nothing more to see"):
        assert len(tiling(tmp_path, mpp=0.25).tiles) > 100


@pytest.mark.parametrize("scale", [1, 4])
def test_tiles_in_a_folder(tmp_path: Path, scale: int) -> None:
    pixels = PIXELS[:120, :180]
    found = tile_folder(open_images(str(write_tiles(tmp_path / "t", pixels, 12, scale)), labelled=False))
    assert len(found.tiles) == 150
    assert found.size == (12 * scale, 12 * scale)
    assert (found.origin, found.extent) == ((5, 9), (180 * scale, 120 * scale))
    assert found.mpp is None
    if scale == 1:
        assert np.allclose(found.picture, pixels / 255)
    for (image, _), (left, top) in zip(found.tiles, ((found.corners - (5, 9)) / scale).astype(int), strict=True):
        assert np.array_equal(image.movedim(0, -1), pixels[top : top + 12, left : left + 12])


def test_large_and_grey_pictures_are_made_small(tmp_path: Path) -> None:
    pixels = np.arange(256, dtype=np.uint8).repeat(8)[None].repeat(64, axis=0)
    found = tile_folder(open_images(str(write_tiles(tmp_path / "t", pixels, 64)), labelled=False))
    assert found.picture.shape == (32, 1024, 3)
    assert np.allclose(found.picture[:, :, 0], np.arange(1024) // 4 / 255, atol=1 / 255)


def test_folders_that_cannot_be_put_together(tmp_path: Path) -> None:
    folder = write_tiles(tmp_path / "t", PIXELS, 40)

    def refusal() -> str:
        with pytest.raises(DataError) as caught:
            tile_folder(open_images(str(folder), labelled=False))
        return caught.value.reason

    tile = folder / "s_x5_y9.png"
    copy = tile.with_name("s_x5_y9_again.png")
    copy.write_bytes(tile.read_bytes())
    assert refusal() == "has 2 tiles at x 5, y 9"
    copy = copy.rename(folder / "z_x5_y9.png")
    assert refusal() == "has tiles of 2 slides, s and others: map each by itself"
    copy.rename(folder / "again.png")
    assert "must bear x and y" in refusal()
    assert "'again.png' does not" in refusal()


@pytest.mark.realdata
def test_real_tiles(shared_data: Path) -> None:
    found = tile_folder(open_images(str(shared_data / "histo" / "idc_14082"), labelled=False))
    assert len(found.tiles) == 478
    assert found.size == (50, 50)
    assert found.extent == (2800, 2350)
