"""A whole-slide image, or a plain one: its pixels at any place and resolution.

A slide is a pyramid of images, level 0 the finest. Pixels of any size are had from the coarsest level that is still
fine enough, by Lanczos' filter in floating point, about centres that need not fall on pixels. So nothing depends on
which way up the slide lies: what is read of a turned slide is, to rounding errors, what was read, turned.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from tqdm import tqdm

from parteq.datasets.base import unlabelled
from parteq.datasets.errors import DataError
from parteq.datasets.imagefiles import ImageFiles

__all__ = ["Slide"]

_LOBES = 3  # of Lanczos' filter, each one pixel of the result wide
_READ_PIXELS = 2**26  # of a level, at a time
_BLOCK = 2048  # pixels of level 0 on the edge of what is read at a time for a thumbnail
# Coarser or finer is no microscope's resolution but a scanner's dots per inch, or a blank field.
_FINEST_MPP, _COARSEST_MPP = 0.01, 50.0
_WHITE = "FFFFFF"


class Slide:
    """A slide that openslide reads (SVS, NDPI, MRXS, pyramidal TIFF, …), or a PNG, JPEG, TIFF or BMP in colour.

    Coordinates count pixels of level 0, from the upper left corner of what was scanned (as in QuPath).

    Args:
        path: the file.
        mpp: micrometres per pixel of level 0; None for what the file says.

    Attributes:
        path (Path); size: width and height in pixels of level 0.

    Raises:
        DataError: openslide is not installed; the file is missing, damaged, or no such image.
    """

    def __init__(self, path: str | os.PathLike[str], mpp: float | None = None) -> None:
        self.path = Path(path)
        self._slide = _open(self.path)
        properties = self._slide.properties
        self._background = f"#{properties.get('openslide.background-color', _WHITE)}"
        self._left, self._top, *size = _bounds(properties, self._slide.dimensions)
        self.size: tuple[int, int] = (size[0], size[1])
        self._given_mpp = mpp

    @property
    def mpp(self) -> tuple[float, float]:
        """Micrometres per pixel of level 0, across and down.

        Raises:
            DataError: neither given nor in the file, or nonsense there.
        """
        if self._given_mpp is not None:
            return self._given_mpp, self._given_mpp
        found = [self._slide.properties.get(f"openslide.mpp-{axis}") for axis in "xy"]
        if None in found:
            raise DataError(self.path, "does not say how many µm a pixel is: give --slide-mpp")
        across, down = (_number(text) for text in found)
        if not all(_FINEST_MPP <= value <= _COARSEST_MPP for value in (across, down)):
            raise DataError(self.path, f"says that a pixel is {across:.4g} × {down:.4g} µm: give --slide-mpp")
        return across, down

    def read(
        self, left: float, top: float, step: tuple[float, float], width: int, height: int
    ) -> Float[np.ndarray, "3 height width"]:
        """Pixels in 0…1 of a rectangle in the slide.

        Args:
            left: x of its upper left corner, in pixels of level 0.
            top: y of that corner.
            step: width and height of a pixel of the result, in pixels of level 0.
            width: pixels of the result.
            height: pixels of the result.

        Raises:
            DataError: the file is damaged here, or the pixels are so large that too much had to be read.
        """
        level = self._slide.get_best_level_for_downsample(min(step) * (1 + 1e-6))
        finest, edges = self._slide.dimensions, self._slide.level_dimensions[level]
        across = _window(self._left + left, width, step[0], edges[0], finest[0] / edges[0])
        down = _window(self._top + top, height, step[1], edges[1], finest[1] / edges[1])
        location, window = (across.location, down.location), (across.pixels, down.pixels)
        if math.prod(window) > _READ_PIXELS:
            raise DataError(self.path, f"needs {window[0]} × {window[1]} pixels read at once: ask for finer pixels")
        box = (across.start, down.start, across.end, down.end)
        bands = [
            np.asarray(Image.fromarray(band).resize((width, height), Image.Resampling.LANCZOS, box))
            for band in self._pixels(location, level, window).transpose(2, 0, 1).astype(np.float32)
        ]
        # The filter overshoots at sharp edges.
        return np.clip(np.stack(bands) / 255, 0, 1)

    def _pixels(self, location: tuple[int, int], level: int, size: tuple[int, int]) -> Any:
        """Pixels of a level, uint8 [height, width, 3]; what was not scanned has the colour of the background."""
        try:
            region = self._slide.read_region(location, level, size)
        except Exception as error:
            # Any type: openslide.OpenSlideError where the file is damaged, MemoryError, …
            raise DataError(self.path, f"is damaged: {error}") from error
        image = Image.new("RGBA", size, self._background)
        image.alpha_composite(region)
        return np.asarray(image.convert("RGB"))

    def thumbnail(self, longest: int = 1024, *, progress: bool = False) -> Float[np.ndarray, "height width 3"]:
        """The whole slide in 0…1, made small, its longer edge at most so many pixels; read block by block.

        Raises:
            DataError: the file is damaged.
        """
        scale = max(1.0, max(self.size) / longest)
        width, height = (max(1, round(edge / scale)) for edge in self.size)
        step = (self.size[0] / width, self.size[1] / height)
        block = max(16, int(_BLOCK / scale))
        image = np.empty((3, height, width), np.float32)
        corners = [(left, top) for top in range(0, height, block) for left in range(0, width, block)]
        for left, top in tqdm(corners, "thumbnail", delay=2, disable=None if progress else True, leave=False):
            part = image[:, top : top + block, left : left + block]
            part[...] = self.read(left * step[0], top * step[1], step, part.shape[2], part.shape[1])
        return image.transpose(1, 2, 0)


class _Window(NamedTuple):
    """What to read of a level along one axis.

    Attributes:
        location: of its first pixel, in pixels of level 0.
        pixels: of the level.
        start: of what is wanted within, in pixels of the level.
        end: of that.
    """

    location: int
    pixels: int
    start: float
    end: float


def _window(corner: float, count: int, step: float, edge: int, scale: float) -> _Window:
    """What the filter needs for `count` pixels of width `step` from `corner` on, both in pixels of level 0.

    Args:
        corner: where they begin.
        count: how many.
        step: from one to the next.
        edge: of the level, in its pixels.
        scale: of such a pixel, in pixels of level 0.
    """
    start, end = corner / scale, (corner + count * step) / scale
    reach = _LOBES * max(step / scale, 1.0)
    first, last = max(0, math.floor(start - reach)), min(edge, math.ceil(end + reach))
    location, pixels = round(first * scale), last - first
    origin = location / scale
    return _Window(location, pixels, max(0.0, start - origin), min(float(pixels), end - origin))


def _open(path: Path) -> Any:
    """An `openslide.AbstractSlide`."""
    try:
        import openslide
    except ImportError as error:
        raise DataError(path, "to read slides, install openslide: pip install 'parteq[wsi]'") from error
    if not path.is_file():
        raise DataError(path, "no such file")
    try:
        return openslide.OpenSlide(path)
    except openslide.OpenSlideUnsupportedFormatError:
        try:
            pixels = ImageFiles(path, [path], *unlabelled(1), names=[path.name])[0][0].movedim(0, -1)
        except DataError as error:
            reason = "is no slide that openslide reads (of another format, or damaged), nor a plain image of a slide"
            raise DataError(path, f"{reason}: {error.reason}") from error
        return openslide.ImageSlide(Image.fromarray(pixels.expand(-1, -1, 3).numpy()))
    except openslide.OpenSlideError as error:
        raise DataError(path, f"is damaged: {error}") from error


def _number(text: str) -> float:
    """A number, or NaN."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _bounds(properties: Any, dimensions: tuple[int, int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of what was scanned, where the slide says so and as QuPath takes it, else of all."""
    try:
        left, top, width, height = (
            int(properties[f"openslide.bounds-{name}"]) for name in ("x", "y", "width", "height")
        )
    except (KeyError, ValueError):
        return 0, 0, *dimensions
    inside = left >= 0 and top >= 0 and left + width <= dimensions[0] and top + height <= dimensions[1]
    if not inside or width in (0, dimensions[0]) or height in (0, dimensions[1]):
        return 0, 0, *dimensions
    return left, top, width, height
