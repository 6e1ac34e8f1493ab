"""Open images wherever they are: an NPZ file, PatchCamelyon, or a folder of image files."""

from __future__ import annotations

from pathlib import Path

from parteq.datasets.base import SPLITS, ArrayDataset, ImageDataset
from parteq.datasets.errors import DataError
from parteq.datasets.folder import FolderDataset, splits_in_folder
from parteq.datasets.npz import read_npz, splits_in_npz
from parteq.datasets.pcam import PCamDataset, splits_in_pcam

__all__ = ["ArrayDataset", "ImageDataset", "available_splits", "open_images"]

_PCAM = "pcam:"


def _kind(spec: str) -> tuple[str, Path]:
    """What `spec` names, "pcam", "npz" or "folder", and where."""
    if spec.startswith(_PCAM):
        return "pcam", Path(spec.removeprefix(_PCAM))
    path = Path(spec)
    if path.is_dir():
        if splits_in_pcam(path):
            raise DataError(path, f"looks like PatchCamelyon: write {_PCAM}{path}")
        return "folder", path
    if not path.exists():
        raise DataError(path, "no such file or folder")
    if path.suffix.lower() == ".npz":
        return "npz", path
    raise DataError(path, f"is not an .npz file, {_PCAM}FOLDER, or a folder of images by class")


def available_splits(spec: str) -> tuple[str, ...]:
    """The splits that `spec` is divided into, of "train", "val" and "test"; () for one undivided set.

    Raises:
        DataError: there is no such data set.
    """
    kind, path = _kind(spec)
    if kind == "pcam":
        return splits_in_pcam(path)
    return splits_in_npz(path) if kind == "npz" else splits_in_folder(path)


def open_images(spec: str, split: str = "train", *, labelled: bool = True) -> ImageDataset:
    """Open an image set.

    Args:
        spec: X.npz (see `read_npz`), pcam:FOLDER (see `PCamDataset`), or a folder of class folders (see
            `FolderDataset`).
        split: "train", "val" or "test". A set that is not divided (`available_splits` is empty) has only "train",
            which is all of it.
        labelled: False for the pixels alone: labels may be missing and are not read, all images are of the one class
            "unlabelled", and the images of a folder need no class folders.

    Raises:
        DataError: whatever is wrong with the data, in one line.
        ValueError: no such name of a split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    kind, path = _kind(spec)
    if kind == "pcam":
        return PCamDataset(path, split, labelled=labelled)
    read = read_npz if kind == "npz" else FolderDataset
    return read(path, split, labelled=labelled)
