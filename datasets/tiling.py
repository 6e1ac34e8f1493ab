"""A slide in tiles: the tiles as a set of images, where each lies, and a small picture to lay a map over.

The tiles of a slide are cut on a grid that is centred, so that a turned slide has the same tiles, turned; what is left
over at the borders is less than a tile, half of it on either side. A folder of tiles is put together again by the
places that the names of the files bear.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from parteq.datasets.base import ImageDataset, unlabelled
from parteq.datasets.errors import DataError
from parteq.datasets.slide import Slide
from parteq.datasets.tiles import tile_places
from parteq.datasets.tissue import covered_share, tissue_mask

__all__ = ["Tiling", "tile_folder", "tile_slide"]

_LEAST_TISSUE = 0.1
_FINEST_STEP = 0.8  # pixels of the slide in a pixel of a tile; below it tiles are blurred ones
_PICTURE_PIXELS = 1024  # on the longer edge


@dataclass(frozen=True, eq=False)
class Tiling:
    """Tiles of a slide. Places count pixels of the slide at its finest, from its upper left corner.

    Attributes:
        tiles: N images.
        corners: x and y of their upper left corners [N, 2].
        size: width and height of a tile.
        origin: x and y of the upper left corner of the picture.
        extent: width and height of the picture.
        picture: colours in 0…1, made small.
        mpp: width and height of a pixel in µm, None if unknown.
    """

    tiles: ImageDataset
    corners: Float[np.ndarray, "tiles 2"]
    size: tuple[float, float]
    origin: tuple[float, float]
    extent: tuple[float, float]
    picture: Float[np.ndarray, "height width 3"]
    mpp: tuple[float, float] | None = None

    def in_picture(self) -> Int[np.ndarray, "tiles 4"]:
        """Left, top, right and bottom of each tile in pixels of the picture; neighbours share an edge."""
        height, width = self.picture.shape[:2]
        scale = np.array([width / self.extent[0], height / self.extent[1]])
        first = np.rint((self.corners - self.origin) * scale).astype(np.int64)
        last = np.rint((self.corners - self.origin + self.size) * scale).astype(np.int64)
        return np.concatenate([first, np.maximum(last, first + 1)], axis=1)


class _SlideTiles(ImageDataset):
    """Tiles of a slide, read when asked for: float32 in 0…1, since rounding to bytes would depend on which way up."""

    def __init__(
        self, slide: Slide, corners: NDArray[np.float64], step: tuple[float, float], spatial: tuple[int, int]
    ) -> None:
        labels, classes = unlabelled(len(corners))
        super().__init__(slide.path, labels, channels=3, spatial=spatial, classes=classes)
        self._slide, self._corners, self._step = slide, corners, step

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        height, width = self.spatial
        tiles = [self._slide.read(left, top, self._step, width, height) for left, top in self._corners[rows]]
        return torch.from_numpy(np.stack(tiles))


def tile_slide(
    slide: Slide,
    spatial: tuple[int, int],
    mpp: float,
    *,
    stride: int | None = None,
    everywhere: bool = False,
    progress: bool = False,
) -> Tiling:
    """Cuts a slide into tiles.

    Args:
        slide: in colour.
        spatial: height and width of a tile in pixels.
        mpp: width of such a pixel in µm.
        stride: from tile to tile, in such pixels; None for tiles side by side.
        everywhere: keep tiles of glass, too.
        progress: show a bar for what takes long.

    Raises:
        DataError: the resolution of the slide is not known, it is smaller than a tile, shows no tissue, or is damaged.
    """
    step = (mpp / slide.mpp[0], mpp / slide.mpp[1])
    if min(step) < _FINEST_STEP:
        reason = f"{slide.path}: has {max(slide.mpp):.3g} µm/px; at {mpp:.3g} there is nothing more to see"
        warnings.warn(reason, stacklevel=2)
    axes = []
    for edge, pixel, tile in zip(slide.size, step, reversed(spatial), strict=True):
        starts = _centred(edge / pixel, tile, stride or tile)
        if not len(starts):
            whole = " × ".join(f"{length / width:.0f}" for length, width in zip(slide.size, step, strict=True))
            one = f"{spatial[1]} × {spatial[0]}"
            raise DataError(slide.path, f"is {whole} pixels at {mpp:g} µm/px: smaller than a tile of {one}")
        axes.append(starts * pixel)
    corners = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2)
    size = (spatial[1] * step[0], spatial[0] * step[1])
    picture = slide.thumbnail(_PICTURE_PIXELS, progress=progress)
    if not everywhere:
        scale = np.array([picture.shape[1] / slide.size[0], picture.shape[0] / slide.size[1]])
        share = covered_share(tissue_mask(picture), corners * scale, (size[0] * scale[0], size[1] * scale[1]))
        # Rounded, so that a tile at the very limit is in or out whichever way up the slide lies.
        corners = corners[share.round(9) >= _LEAST_TISSUE]
        if not len(corners):
            raise DataError(slide.path, "shows no tissue: add --all-tiles to map all of it")
    tiles = _SlideTiles(slide, corners, step, spatial)
    return Tiling(tiles, corners, size, (0.0, 0.0), (float(slide.size[0]), float(slide.size[1])), picture, slide.mpp)


def _centred(length: float, tile: int, stride: int) -> NDArray[np.float64]:
    """Where tiles start so that as many as possible lie within a length, as far from its start as from its end."""
    # What is missing by rounding errors alone is not missing.
    count = math.floor((length - tile) / stride + 1e-6) + 1
    if count < 1:
        return np.empty(0)
    return (length - tile - (count - 1) * stride) / 2 + stride * np.arange(count, dtype=np.float64)


def tile_folder(tiles: ImageDataset) -> Tiling:
    """Puts tiles together by the places in their names, see `tile_places`.

    Where no two tiles of a row or column touch, places are taken to count the finer pixels of the slide that the tiles
    were made smaller from, and the closest tiles to touch.

    Raises:
        DataError: a name bears no place, two tiles have the same, or they are of several slides.
    """
    names = tiles.names or ()
    places = tile_places(names)
    if places is None:
        without = [name for name in names if tile_places([name]) is None]
        example = f": {without[0]!r} does not" if without else ""
        raise DataError(tiles.source, f"is to be mapped: its files must bear x and y, as in S1_x1001_y51.png{example}")
    slides, corners = sorted(set(places[0])), places[1]
    if len(slides) > 1:
        raise DataError(tiles.source, f"has tiles of {len(slides)} slides, {slides[0]} and others: map each by itself")
    place, count = Counter(map(tuple, corners.tolist())).most_common(1)[0]
    if count > 1:
        raise DataError(tiles.source, f"has {count} tiles at x {place[0]}, y {place[1]}")
    height, width = tiles.spatial
    scale = max(1.0, _closest(corners) / min(width, height))
    size = (width * scale, height * scale)
    origin, end = corners.min(0), corners.max(0) + size
    extent = (float(end[0] - origin[0]), float(end[1] - origin[1]))
    shrink = max(1.0, max(extent) / _PICTURE_PIXELS)
    picture = np.ones((max(1, round(extent[1] / shrink)), max(1, round(extent[0] / shrink)), 3), np.float32)
    tiling = Tiling(tiles, corners.astype(np.float64), size, (float(origin[0]), float(origin[1])), extent, picture)
    for index, (left, top, right, bottom) in enumerate(tiling.in_picture()):
        pixels = tiles[index][0].movedim(0, -1).expand(-1, -1, 3).numpy()
        small = Image.fromarray(pixels).resize((int(right - left), int(bottom - top)), Image.Resampling.BOX)
        picture[top:bottom, left:right] = (np.asarray(small) / 255)[: picture.shape[0] - top, : picture.shape[1] - left]
    return tiling


def _closest(corners: NDArray[np.int64]) -> float:
    """The smallest distance of two tiles in a row or a column; 0 if there are none."""
    distances = []
    for axis in (0, 1):
        along, across = corners[:, axis], corners[:, 1 - axis]
        order = np.lexsort((along, across))
        same = np.diff(across[order]) == 0
        distances += np.diff(along[order])[same].tolist()
    return float(min(distances, default=0))
