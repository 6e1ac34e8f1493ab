"""Slides: pixels at any place and resolution, whichever way up; resolutions missing or senseless; damaged files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from parteq.datasets import slide as slides
from parteq.datasets.errors import DataError
from parteq.datasets.slide import Slide
from tests.slides import stained, write_slide

PIXELS = stained(141, 190)


def refusal(path: Path) -> str:
    def use() -> None:
        slide = Slide(path)
        assert slide.mpp
        slide.thumbnail(64)

    with pytest.raises(DataError) as caught:
        use()
    assert str(caught.value).isprintable()
    assert caught.value.path == path
    return caught.value.reason


def test_pixels_of_level_0_are_those_of_the_file(tmp_path: Path) -> None:
    slide = Slide(write_slide(tmp_path / "s.tif", PIXELS, levels=2))
    assert slide.size == (190, 141)
    found = slide.read(7, 30, (1, 1), 40, 20)
    assert np.allclose(found, PIXELS[30:50, 7:47].transpose(2, 0, 1) / 255, atol=1e-6)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("step", [(0.7, 0.7), (2.0, 2.0), (4.3, 4.3), (4.0, 5.0)])
def test_pixels_of_any_size(tmp_path: Path, levels: int, step: tuple[float, float]) -> None:
    rows, columns = np.mgrid[:128, :192]
    ramps = np.stack([rows, columns, 0 * rows], axis=-1).astype(np.uint8)
    slide = Slide(write_slide(tmp_path / "s.tif", ramps, levels=levels))
    found = slide.read(40.25, 30.5, step, 12, 9) * 255
    # A pixel at i is i + 0.5 from the border.
    expected_x = 40.25 + (np.arange(12) + 0.5) * step[0] - 0.5
    expected_y = 30.5 + (np.arange(9) + 0.5) * step[1] - 0.5
    # Levels of bytes are rounded.
    tolerance = 0.02 if levels == 1 else 0.8
    assert np.abs(found[1] - expected_x).max() < tolerance
    assert np.abs(found[0] - expected_y[:, None]).max() < tolerance


def test_a_coarse_level_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(write_slide(tmp_path / "s.tif", PIXELS[:128, :128], levels=3))
    monkeypatch.setattr(slides, "_READ_PIXELS", 60 * 60)
    assert slide.read(0, 0, (4, 4), 32, 32).shape == (3, 32, 32)
    with pytest.raises(DataError, match="128 × 128 pixels read at once"):
        slide.read(0, 0, (1, 1), 128, 128)


@pytest.mark.parametrize("step", [0.8, 1.0, 2.0, 3.7])
def test_a_turned_slide_shows_the_same(tmp_path: Path, step: float) -> None:
    slide = Slide(write_slide(tmp_path / "a.tif", PIXELS))
    turned = Slide(write_slide(tmp_path / "b.tif", np.ascontiguousarray(np.rot90(PIXELS))))
    left, top, width, height = 31.2, 22.9, 20, 16
    # A quarter turn anticlockwise takes x to y, counted from the other end.
    found = turned.read(top, slide.size[0] - left - width * step, (step, step), height, width)
    assert np.allclose(found, np.rot90(slide.read(left, top, (step, step), width, height), axes=(1, 2)), atol=1e-6)
    small = slide.thumbnail(50)
    assert small.shape == (37, 50, 3)
    assert np.allclose(turned.thumbnail(50), np.rot90(small), atol=1e-6)


def test_blocks_of_a_thumbnail_join(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slide = Slide(write_slide(tmp_path / "s.tif", PIXELS))
    whole = slide.thumbnail(95)
    monkeypatch.setattr(slides, "_BLOCK", 1)
    assert np.allclose(slide.thumbnail(95), whole, atol=1e-6)


def test_resolution(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", PIXELS, mpp=0.25)
    assert Slide(path).mpp == pytest.approx((0.25, 0.25))
    assert Slide(path, 0.4).mpp == (0.4, 0.4)
    path = write_slide(tmp_path / "without.tif", PIXELS, mpp=None)
    assert refusal(path) == "does not say how many µm a pixel is: give --slide-mpp"
    assert Slide(path, 0.4).mpp == (0.4, 0.4)


@pytest.mark.parametrize("mpp", [25.4e3 / 72, 1e-4, 1e9])
def test_senseless_resolution(tmp_path: Path, mpp: float) -> None:
    path = write_slide(tmp_path / "s.tif", PIXELS, mpp=mpp)
    assert "give --slide-mpp" in refusal(path)
    assert Slide(path, 0.5).mpp == (0.5, 0.5)


@pytest.mark.parametrize("name", ["s.png", "s.bmp", "s.tiff"])
def test_plain_images(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(PIXELS).save(path)
    slide = Slide(path, 0.5)
    assert np.allclose(slide.read(0, 0, (1, 1), *slide.size), PIXELS.transpose(2, 0, 1) / 255, atol=1e-6)
    assert "give --slide-mpp" in refusal(path)


def test_what_was_not_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As MRXS slides are: a part was scanned, the rest is transparent."""
    alpha = np.zeros((141, 190, 1), np.uint8)
    alpha[20:100, 30:150] = 255

    class Scanned(openslide.ImageSlide):
        properties = {"openslide.bounds-x": "30", "openslide.bounds-y": "20"}  # noqa: RUF012

    image = Scanned(Image.fromarray(np.concatenate([PIXELS, alpha], axis=-1)))
    monkeypatch.setattr(slides, "_open", lambda path: image)
    whole = Slide(tmp_path)
    assert whole.size == (190, 141)
    assert np.all(whole.read(0, 0, (1, 1), 10, 10) == 1), "what is transparent is white"
    monkeypatch.setitem(Scanned.properties, "openslide.bounds-width", "120")
    monkeypatch.setitem(Scanned.properties, "openslide.bounds-height", "80")
    monkeypatch.setitem(Scanned.properties, "openslide.background-color", "FF0000")
    part = Slide(tmp_path)
    assert part.size == (120, 80)
    assert np.allclose(part.read(5, 6, (1, 1), 10, 10), PIXELS[26:36, 35:45].transpose(2, 0, 1) / 255, atol=1e-6)
    monkeypatch.setitem(Scanned.properties, "openslide.bounds-width", "1200")
    assert Slide(tmp_path).size == (190, 141), "bounds beyond the slide are not believed"


def test_what_is_no_slide(tmp_path: Path) -> None:
    assert refusal(tmp_path / "missing.svs") == "no such file"
    (tmp_path / "text.svs").write_text("not a slide")
    assert refusal(tmp_path / "text.svs").startswith("is no slide that openslide reads")
    (tmp_path / "empty.tif").touch()
    assert refusal(tmp_path / "empty.tif").startswith("is no slide that openslide reads")


def test_damaged_slides(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "s.tif", PIXELS)
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[-1]  # type: ignore[union-attr]
    content = path.read_bytes()
    # The last tile points behind the end of the file, which openslide does not notice when it opens it.
    path.write_bytes(content.replace(int(offset).to_bytes(4, "little"), (2**31).to_bytes(4, "little")))
    assert refusal(path).startswith("is damaged")
    path.write_bytes(content[: len(content) // 2])
    assert refusal(path)


def test_without_openslide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openslide", None)
    assert (
        refusal(write_slide(tmp_path / "s.tif", PIXELS))
        == "to read slides, install openslide: pip install 'parteq[wsi]'"
    )


@pytest.mark.realdata
def test_a_real_slide(shared_data: Path) -> None:
    slide = Slide(shared_data / "histo" / "cmu_small_region.svs")
    assert slide.size == (2220, 2967)
    assert slide.mpp == (0.499, 0.499)
    thumbnail = slide.thumbnail(256)
    assert thumbnail.shape == (256, 192, 3)
    assert 0.7 < thumbnail.mean() < 0.95
