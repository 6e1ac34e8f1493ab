"""A folder of image files by class: ROOT/CLASS/*.png, or ROOT/{train,val,test}/CLASS/*.png; or without classes.

Headers are read when the folder is opened, so that size and colour are known and a wrong file is named at once; pixels
are decoded when asked for. Orientation tags are ignored: pixels are taken as they are stored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from parteq.datasets.base import SPLITS, ImageDataset, unlabelled
from parteq.datasets.depth import to_uint8
from parteq.datasets.errors import DataError

__all__ = ["FolderDataset", "splits_in_folder"]

_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp"))
# Only these decoders: Pillow knows others that start outside programs.
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_GREY, _DEEP_GREY, _COLOUR = ("1", "L", "LA"), ("I;16", "I;16B", "I;16L"), ("RGB", "RGBA", "P", "PA")
_MAX_PIXELS = 2**26
_SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file, its header read. Raises DataError for whatever Pillow raises inside the block."""
    if not path.is_file():
        raise DataError(path, "is not a regular file")
    try:
        with Image.open(path, formats=_FORMATS) as image:
            yield image
    except DataError:
        raise
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


def _folders(path: Path, root: Path) -> list[Path]:
    """Visible folders in `path`, sorted by name. Raises DataError for a link that leaves `root`."""
    try:
        found = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(path, f"cannot be listed ({error.strerror})") from error
    return [_inside(entry, root) for entry in found]


def _inside(path: Path, root: Path) -> Path:
    """`path`, unless it is a link to somewhere outside `root`, itself already resolved."""
    if path.is_symlink() and not path.resolve().is_relative_to(root):
        raise DataError(path, "is a link that leaves the data folder, which is refused")
    return path


def _images(path: Path, root: Path) -> list[Path]:
    """Image files directly in `path`, sorted by name. Raises DataError for a link that leaves `root`."""
    files = sorted(entry for entry in path.iterdir() if entry.suffix.lower() in _SUFFIXES and entry.name[0] != ".")
    return [_inside(file, root) for file in files]


def _split_folders(root: Path) -> dict[str, Path]:
    """The split folders of ROOT by split; {} where the folders of ROOT are the classes themselves."""
    folders = _folders(root, root.resolve())
    if any(folder.name not in _SPLIT_FOLDERS for folder in folders):
        return {}
    if not any(_folders(folder, root.resolve()) for folder in folders):
        return {}
    splits: dict[str, Path] = {}
    for folder in folders:
        split = _SPLIT_FOLDERS[folder.name]
        if split in splits:
            raise DataError(root, f"both {splits[split].name!r} and {folder.name!r} hold the {split!r} split")
        splits[split] = folder
    return splits


def _images_by_class(home: Path, classes: Sequence[str], root: Path) -> tuple[list[Path], list[int]]:
    """Image files in the class folders of `home`, and for each the number of its class."""
    files: list[Path] = []
    labels: list[int] = []
    for folder in _folders(home, root):
        found = _images(folder, root)
        if not found:
            raise DataError(folder, f"class folder without images ({', '.join(sorted(_SUFFIXES))})")
        files += found
        labels += [classes.index(folder.name)] * len(found)
    if not files:
        raise DataError(home, "has no class folders with images in them (expected ROOT/CLASS/IMAGE.png)")
    return files, labels


def _images_of_any_class(home: Path, root: Path) -> list[Path]:
    """Image files in `home` and in the folders there."""
    files = [file for folder in (home, *_folders(home, root)) for file in _images(folder, root)]
    if not files:
        raise DataError(home, f"has no images in it or in its folders ({', '.join(sorted(_SUFFIXES))})")
    return files


def splits_in_folder(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that ROOT holds, of "train", "val" and "test"; () for one undivided set. Raises DataError."""
    found = _split_folders(Path(root))
    return tuple(split for split in SPLITS if split in found)


class FolderDataset(ImageDataset):
    """Images of one size in a folder for each class; classes are sorted by name. Images are named by path below ROOT.

    Args:
        root: ROOT/CLASS/FILE or ROOT/SPLIT/CLASS/FILE, files `.png`, `.jpg`, `.jpeg`, `.tif`, `.tiff` or `.bmp`. All
            are read as colour if any is; 16-bit grey is scaled from 0…65535.
        split: "train", "val" or "test"; a folder without splits has only "train".
        labelled: False for images whose class is not wanted: class folders mean nothing, and images beside them count.

    Raises:
        DataError: no class folders; a class without images; images of different sizes; a corrupt, transparent,
            many-paged or huge image; a link that leaves ROOT.
    """

    def __init__(self, root: str | os.PathLike[str], split: str = "train", *, labelled: bool = True) -> None:
        root = Path(root)
        if not root.is_dir():
            raise DataError(root, "no such folder")
        splits = _split_folders(root)
        if split not in (splits or ("train",)):
            raise DataError(root, f"has no {split!r} split; it has {list(splits) or 'one undivided set'}")
        home, anchor = splits.get(split, root), root.resolve()
        labels: ArrayLike
        classes: Sequence[str]
        if labelled:
            # A split may lack a class: the names are those of all splits.
            classes = sorted({folder.name for part in splits.values() or (root,) for folder in _folders(part, anchor)})
            self._files, labels = _images_by_class(home, classes, anchor)
        else:
            self._files = _images_of_any_class(home, anchor)
            labels, classes = unlabelled(len(self._files))
        size, channels = self._common_format()
        names = [file.relative_to(root).as_posix() for file in self._files]
        super().__init__(root, labels, channels=channels, spatial=size, classes=classes, names=names)

    def _common_format(self) -> tuple[tuple[int, int], int]:
        """Height and width of all images, and their channels: 3 if any is in colour."""
        first, any_colour = _inspect(self._files[0])
        for file in tqdm(self._files[1:], "reading headers", delay=2, disable=None, leave=False):
            size, colour = _inspect(file)
            if size != first:
                sizes = f"{first[1]} × {first[0]} pixels ({self._files[0].name}) and {size[1]} × {size[0]}"
                raise DataError(file, f"images differ in size: {sizes} here; make them equal")
            any_colour |= colour
        return first, 3 if any_colour else 1

    def _read(self, rows: NDArray[np.int64]) -> Tensor:
        height, width = self.spatial
        images = np.empty((len(rows), height, width, self.channels), np.uint8)
        for image, row in zip(images, rows, strict=True):
            image[...] = _decode(self._files[row], (height, width), self.channels)
        return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
