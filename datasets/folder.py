"""A folder of image files by class: ROOT/CLASS/*.png, or ROOT/{train,val,test}/CLASS/*.png; or without classes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from numpy.typing import ArrayLike

from parteq.datasets.base import SPLITS, unlabelled
from parteq.datasets.errors import DataError
from parteq.datasets.imagefiles import SUFFIXES, ImageFiles, inside

__all__ = ["FolderDataset", "split_of_name", "splits_in_folder"]

log = logging.getLogger(__name__)

_SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}

_OTHER_FORMATS = frozenset((".webp", ".gif", ".jp2", ".j2k", ".heic", ".avif", ".dcm", ".czi", ".nd2"))


def split_of_name(name: str) -> str | None:
    """The split that a folder or a table means by a name, in any case; None for a name of none."""
    return _SPLIT_NAMES.get(name.casefold())


def _folders(path: Path, root: Path) -> list[Path]:
    """Visible folders in `path`, sorted by name. Raises DataError for a link that leaves `root`."""
    try:
        found = sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(path, f"cannot be listed ({error.strerror})") from error
    return [inside(entry, root) for entry in found]


def _images(path: Path, root: Path) -> list[Path]:
    """Image files directly in `path`, sorted by name; those of other formats are told of.

    Raises:
        DataError: a link that leaves `root`.
    """
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    others = [entry for entry in entries if entry.suffix.lower() in _OTHER_FORMATS]
    if others:
        log.warning("%s: left out %d files such as %s: save PNG, JPEG, TIFF or BMP", path, len(others), others[0].name)
    return [inside(entry, root) for entry in entries if entry.suffix.lower() in SUFFIXES]


def _split_folders(root: Path) -> dict[str, Path]:
    """The split folders of ROOT by split; {} where the folders of ROOT are the classes themselves."""
    folders = _folders(root, root.resolve())
    named = [(folder, split) for folder in folders if (split := split_of_name(folder.name))]
    if len(named) < len(folders):
        return {}
    if not any(_folders(folder, root.resolve()) for folder in folders):
        return {}
    splits: dict[str, Path] = {}
    for folder, split in named:
        if split in splits:
            raise DataError(root, f"both {splits[split].name!r} and {folder.name!r} hold the {split!r} split")
        splits[split] = folder
    return splits


def _class_names(homes: Iterable[Path], root: Path, *, skip_bad: bool) -> list[str]:
    """Names of the class folders of all `homes`, sorted; with `skip_bad` of those that hold images in any of them."""
    folders = (folder for home in homes for folder in _folders(home, root))
    return sorted({folder.name for folder in folders if not skip_bad or _images(folder, root)})


def _images_by_class(home: Path, classes: Sequence[str], root: Path, *, skip_bad: bool) -> tuple[list[Path], list[int]]:
    """Image files in the class folders of `home`, and for each the number of its class.

    Raises:
        DataError: none at all, images deeper down, or, unless `skip_bad`, a folder without images.
    """
    files: list[Path] = []
    labels: list[int] = []
    for folder in _folders(home, root):
        found = _images(folder, root)
        if deeper := _images_below(folder, root):
            raise DataError(deeper[0].parent, f"holds images, but {folder} is the folder of a class: put them there")
        if not found:
            reason = f"class folder without images ({', '.join(sorted(SUFFIXES))})"
            if not skip_bad:
                raise DataError(folder, f"{reason}: remove it, or --skip-bad")
            log.warning("skipped %s", DataError(folder, reason))
            continue
        files += found
        labels += [classes.index(folder.name)] * len(found)
    if not files:
        raise DataError(home, "has no class folders with images in them (expected ROOT/CLASS/IMAGE.png)")
    return files, labels


def _images_below(home: Path, root: Path) -> list[Path]:
    """Image files in the folders in `home`, however deep."""
    return [file for folder in _folders(home, root) for file in (*_images(folder, root), *_images_below(folder, root))]


def _images_of_any_class(home: Path, root: Path) -> list[Path]:
    """Image files in `home` and in the folders there, however deep."""
    files = [*_images(home, root), *_images_below(home, root)]
    if not files:
        raise DataError(home, f"has no images in it or in its folders ({', '.join(sorted(SUFFIXES))})")
    return files


def splits_in_folder(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that ROOT holds, of "train", "val" and "test"; () for one undivided set. Raises DataError."""
    found = _split_folders(Path(root))
    return tuple(split for split in SPLITS if split in found)


class FolderDataset(ImageFiles):
    """Images of one size in a folder for each class; classes are sorted by name. Images are named by path below ROOT.

    Args:
        root: ROOT/CLASS/FILE or ROOT/SPLIT/CLASS/FILE, files `.png`, `.jpg`, `.jpeg`, `.tif`, `.tiff` or `.bmp`. File
            names that bear x and y give groups, see `spatial_groups`.
        split: "train", "val" or "test"; a folder without splits has only "train".
        labelled: False for images whose class is not wanted: class folders mean nothing, and images beside them count.
        skip_bad: go on without class folders that hold no images, and without images that cannot be used, see
            `ImageFiles`.

    Raises:
        DataError: no class folders; a class folder without images; a link that leaves ROOT; whatever `ImageFiles`
            refuses.
    """

    def __init__(
        self, root: str | os.PathLike[str], split: str = "train", *, labelled: bool = True, skip_bad: bool = False
    ) -> None:
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
            classes = _class_names(splits.values() or (root,), anchor, skip_bad=skip_bad)
            files, labels = _images_by_class(home, classes, anchor, skip_bad=skip_bad)
        else:
            files = _images_of_any_class(home, anchor)
            labels, classes = unlabelled(len(files))
        names = [file.relative_to(root).as_posix() for file in files]
        super().__init__(root, files, labels, classes, names=names, skip_bad=skip_bad)
