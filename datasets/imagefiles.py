"""Image files of one size as a data set, wherever the list of them comes from: a folder, or a table.

Headers are read when the set is opened, so that size and colour are known and a wrong file is named at once; pixels are
decoded when asked for. Orientation tags are ignored: pixels are taken as they are stored.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from parteq.datasets.base import ImageDataset
from parteq.datasets.depth import check_range, to_uint8
from parteq.datasets.errors import DataError
from parteq.datasets.regions import spatial_groups
from parteq.datasets.splits import evenly_spread

__all__ = ["SUFFIXES", "ImageFiles", "inside"]

log = logging.getLogger(__name__)

SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"))
"""Of the files that are taken for images."""

# Only these decoders: Pillow knows others that start outside programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_GREY, _DEEP_GREY, _COLOUR = ("1", "L", "LA"), ("I;16", "I;16B", "I;16L"), ("RGB", "RGBA", "P", "PA")
_MAX_PIXELS = 2**26
_BITS = 258  # the tag of a TIFF file that tells the bits of each channel
_LOOKED_AT = 64  # images, to know how many of 16 bits are used


def inside(path: Path, root: Path) -> Path:
    """`path`, unless it is a link to somewhere outside `root`, itself already resolved, or round in a circle.

    Raises:
        DataError: it is.
    """
    if path.is_symlink():
        target = path.resolve()
        if not target.is_relative_to(root):
            raise DataError(path, "is a link that leaves the data folder, which is refused")
        if path.parent.resolve().is_relative_to(target):
            raise DataError(path, "is a link to a folder that it lies in itself")
    return path


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, its header read. Raises DataError for whatever Pillow raises inside the block."""
    if not path.is_file():
        raise DataError(path, "is not a regular file" if os.path.lexists(path) else "no such file")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(path, f"is not a readable image ({', '.join(_FORMATS)})") from error
    except Exception as error:
        # Any type: Pillow's parsers raise OSError, ValueError, SyntaxError, struct.error, DecompressionBombError, …
        raise DataError(path, f"is not a readable image ({type(error).__name__}: {error})") from error


def _inspect(path: Path) -> tuple[tuple[int, int], bool]:
    """Size (height, width) in pixels and whether the image is in colour, from the header."""
    with _opened(path) as image:
        width, height = image.size
        if width * height > _MAX_PIXELS:
            raise DataError(path, f"{width} × {height} pixels: too large for an image of one class; cut it into tiles")
        if image.mode not in _GREY + _DEEP_GREY + _COLOUR:
            raise DataError(path, f"is a {image.mode} image: save grey (8 or 16 bits) or RGB")
        if getattr(image, "n_frames", 1) > 1:
            raise DataError(path, "holds several pages")
        if 16 in getattr(image, "tag_v2", {}).get(_BITS, ()) and not _is_deep(image):
            raise DataError(path, "holds each channel by itself, in 16 bits: save whole pixels, one behind the other")
        return (height, width), image.mode in _COLOUR


def _decode(path: Path, size: tuple[int, int], channels: int) -> NDArray[np.uint8]:
    """Pixels uint8 [H, W, C]. Grey is repeated where C = 3; transparency is dropped where nothing is transparent."""
    with _opened(path) as image:
        if (image.height, image.width) != size:
            raise DataError(path, f"changed its size to {image.width} × {image.height} pixels since it was listed")
        if image.mode in _DEEP_GREY:
            pixels = to_uint8(np.asarray(image).astype(np.uint16), path)
        else:
            if image.has_transparency_data:
                alpha = np.asarray(image.convert("RGBA"))[..., 3]
                if alpha.min() < 255:
                    raise DataError(path, "is partly transparent: save it without an alpha channel")
            pixels = np.asarray(image.convert("L" if channels == 1 else "RGB"))
    return np.repeat(pixels[..., None], channels, axis=2) if pixels.ndim == 2 else pixels


def _common_format(files: Sequence[Path]) -> tuple[tuple[int, int], int]:
    """Height and width of all images, and their channels: 3 if any is in colour."""
    first, any_colour = _inspect(files[0])
    for file in tqdm(files[1:], "reading headers", delay=2, disable=None, leave=False):
        size, colour = _inspect(file)
        if size != first:
            earlier = Path(*files[0].parts[-2:])  # names alone are often the same in all folders
            sizes = f"{first[1]} × {first[0]} pixels ({earlier}) and {size[1]} × {size[0]}"
            raise DataError(file, f"images differ in size: {sizes} here; make them equal, or --skip-bad")
        any_colour |= colour
    return first, 3 if any_colour else 1


def _check_depth(source: str | os.PathLike[str], files: Sequence[Path]) -> None:
    """Refuses 16-bit images that use few of their bits, as far as evenly spaced ones tell. Raises DataError."""
    brightest = []
    for number in evenly_spread(len(files), _LOOKED_AT):
        with _opened(files[number]) as image:
            if image.mode in _DEEP_GREY:
                brightest.append(int(np.asarray(image).astype(np.uint16).max()))
            elif _is_deep(image):
                # Pillow gives the higher byte of each number, and drops the lower one.
                brightest.append(int(np.asarray(image.convert("RGB")).max()) * 256 + 255)
    check_range(np.array(brightest, np.uint16), source)


def _is_deep(image: Image.Image) -> bool:
    """Whether the file of an image has 16 bits a number."""
    return any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))


def _bad_files(files: Sequence[Path]) -> dict[Path, str]:
    """What is wrong with which files, all of them decoded; images not of the commonest size are among them."""
    bad: dict[Path, str] = {}
    sizes: dict[Path, tuple[int, int]] = {}
    for file in tqdm(files, "reading images", delay=2, disable=None, leave=False):
        try:
            size, _ = _inspect(file)
            _decode(file, size, channels=1)
            sizes[file] = size
        except DataError as error:
            bad[file] = error.reason
    for (height, width), _ in Counter(sizes.values()).most_common(1):
        odd = {file: size for file, size in sizes.items() if size != (height, width)}
        bad |= {file: f"{w} × {h} pixels; most are {width} × {height}" for file, (h, w) in odd.items()}
    return bad


class ImageFiles(ImageDataset):
    """Images of one size, a file each. All are read as colour if any is; 16 bits are scaled from 0…65535.

    Args:
        source: the folder or table they are from, named in errors.
        files: at least one.
        labels: of the files, [N].
        classes: class names.
        names: of the images, N of them.
        groups: [N]; None for what the names say of slides and places on them, if anything (see `spatial_groups`).
        skip_bad: decode every image now, list those that cannot be used in the log, and go on without them.

    Raises:
        DataError: images of different sizes; a corrupt, transparent, many-paged or huge image. With `skip_bad`: no
            image, or none of some class, can be used.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        files: Sequence[Path],
        labels: ArrayLike,
        classes: Sequence[str],
        *,
        names: Sequence[str],
        groups: ArrayLike | None = None,
        skip_bad: bool = False,
    ) -> None:
        labels = np.asarray(labels)
        groups = spatial_groups(names, labels) if groups is None else np.asarray(groups)
        if skip_bad and (bad := _bad_files(files)):
            for file, reason in bad.items():
                log.warning("skipped %s", DataError(file, reason))
            good = np.array([file not in bad for file in files])
            lost = np.setdiff1d(labels, labels[good])
            if len(lost):
                raise DataError(source, f"no image of class {classes[lost[0]]!r} can be used")
            log.warning("%s: skipped %d of %d images", os.fspath(source), len(bad), len(files))
            files, names = list(compress(files, good)), list(compress(names, good))
            labels, groups = labels[good], None if groups is None else groups[good]
            self.skipped = tuple(bad)
        self._files = files
        size, channels = _common_format(files)
        _check_depth(source, files)
        super().__init__(source, labels, channels=channels, spatial=size, classes=classes, groups=groups, names=names)

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        height, width = self.spatial
        images = np.empty((len(rows), height, width, self.channels), np.uint8)
        for image, row in zip(images, rows, strict=True):
            image[...] = _decode(self._files[row], (height, width), self.channels)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
