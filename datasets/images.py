"""Open images wherever they are: an NPZ file, a table, a folder of image files, or PatchCamelyon."""

from __future__ import annotations

from pathlib import Path

from parteq.datasets.base import SPLITS, ArrayDataset, ImageDataset
from parteq.datasets.errors import DataError
from parteq.datasets.folder import FolderDataset, splits_in_folder
from parteq.datasets.kaggle import KagglePCamDataset, is_kaggle_pcam
from parteq.datasets.npz import read_npz, splits_in_npz
from parteq.datasets.pcam import PCamDataset, splits_in_pcam
from parteq.datasets.regions import HALVES, half_of
from parteq.datasets.table import TableDataset, splits_in_table

__all__ = ["ArrayDataset", "ImageDataset", "available_splits", "open_images"]

_PCAM = "pcam:"


def _kind(spec: str) -> tuple[str, Path]:
    """What `spec` names, "pcam", "kaggle", "npz", "table" or "folder", and where."""
    if not spec.removeprefix(_PCAM):
        raise DataError(repr(spec), "no such file or folder")  # and not the current folder, which an empty path is
    path = Path(spec.removeprefix(_PCAM))
    if is_kaggle_pcam(path):
        if splits_in_pcam(path):
            raise DataError(path, "holds PatchCamelyon both as published and as on Kaggle: part them")
        return "kaggle", path
    if spec.startswith(_PCAM):
        return "pcam", path
    if path.is_dir():
        if splits_in_pcam(path):
            raise DataError(path, f"looks like PatchCamelyon: write {_PCAM}{path}")
        return "folder", path
    if not path.exists():
        raise DataError(path, "no such file or folder")
    kinds = {".npz": "npz", ".csv": "table", ".tsv": "table"}
    if path.suffix.lower() in kinds:
        return kinds[path.suffix.lower()], path
    raise DataError(path, f"is not an .npz file, a .csv table, {_PCAM}FOLDER, or a folder of images by class")


def _half(spec: str) -> tuple[str | None, str]:
    """Which half of a slide `left:FOLDER` asks for, and of what; None where it asks for all."""
    half, _, rest = spec.partition(":")
    return (half, rest) if half in HALVES and rest else (None, spec)


def available_splits(spec: str) -> tuple[str, ...]:
    """The splits that `spec` is divided into, of "train", "val" and "test"; () for one undivided set.

    Raises:
        DataError: there is no such data set.
    """
    kind, path = _kind(_half(spec)[1])
    if kind == "kaggle":
        return ()
    finders = {"pcam": splits_in_pcam, "npz": splits_in_npz, "table": splits_in_table, "folder": splits_in_folder}
    return finders[kind](path)


def open_images(spec: str, split: str = "train", *, labelled: bool = True, skip_bad: bool = False) -> ImageDataset:
    """Open an image set.

    Args:
        spec: X.npz (see `read_npz`), X.csv (see `TableDataset`), a folder of class folders (see `FolderDataset`),
            pcam:FOLDER (see `PCamDataset`), or a folder as Kaggle gives it out (see `KagglePCamDataset`); left:X,
            right:X, top:X or bottom:X for the tiles of X in that half of their slide (see `half_of`).
        split: "train", "val" or "test". A set that is not divided (`available_splits` is empty) has only "train",
            which is all of it.
        labelled: False for the pixels alone: labels may be missing and are not read, all images are of the one class
            "unlabelled", and the images of a folder need no class folders.
        skip_bad: of image files, go on without those that cannot be used, see `ImageFiles`.

    Raises:
        DataError: whatever is wrong with the data, in one line.
        ValueError: no such name of a split.
    """
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, not {split!r}")
    half, spec = _half(spec)
    if half is not None:
        return half_of(open_images(spec, split, labelled=labelled, skip_bad=skip_bad), half)
    kind, path = _kind(spec)
    if kind == "pcam":
        return PCamDataset(path, split, labelled=labelled)
    if kind == "npz":
        return read_npz(path, split, labelled=labelled)
    readers = {"kaggle": KagglePCamDataset, "table": TableDataset, "folder": FolderDataset}
    return readers[kind](path, split, labelled=labelled, skip_bad=skip_bad)
