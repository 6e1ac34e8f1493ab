"""PatchCamelyon as Kaggle's Histopathologic Cancer Detection gave it out: `train_labels.csv` and `train/ID.tif`.

220,025 labelled patches of PatchCamelyon, its duplicates removed and its splits done away with, so that patches of the
published training, validation and test sets are all among them. No slides are known.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from parteq.datasets.base import unlabelled
from parteq.datasets.errors import DataError
from parteq.datasets.imagefiles import ImageFiles
from parteq.datasets.pcam import CLASSES
from parteq.datasets.table import Table, files_of

__all__ = ["KagglePCamDataset", "is_kaggle_pcam"]

_TABLE = "train_labels.csv"


def is_kaggle_pcam(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder holds the labelled patches of the competition."""
    table = Path(folder) / _TABLE
    if not table.is_file() or not (Path(folder) / "train").is_dir():
        return False
    with table.open("rb") as stream:
        return stream.readline(100).strip() == b"id,label"


class KagglePCamDataset(ImageFiles):
    """The labelled patches, one undivided set; see the head of this module.

    Args:
        folder: holds `train_labels.csv`, columns `id` and `label` (0 or 1), and the folder `train`.
        split: "train".
        labelled: False for patches whose labels are not wanted.
        skip_bad: go on without the patches that are missing or cannot be used, see `ImageFiles`.

    Raises:
        DataError: another split; a label other than 0 and 1; whatever `Table`, `files_of` and `ImageFiles` refuse.
    """

    release = "PatchCamelyon as on Kaggle"

    def __init__(
        self, folder: str | os.PathLike[str], split: str = "train", *, labelled: bool = True, skip_bad: bool = False
    ) -> None:
        if split != "train":
            raise DataError(folder, f"has no {split!r} split; it has one undivided set")
        table = Table(Path(folder) / _TABLE)
        names = [f"train/{name}.tif" for name in table.column("id")]
        files = files_of(table, names, needed=() if skip_bad else range(len(names)))
        labels, classes = unlabelled(len(names))
        if labelled:
            column = table.column("label")
            for row, label in enumerate(column):
                if label not in ("0", "1"):
                    table.refuse(row, f"label {label!r} is neither 0 nor 1")
            labels, classes = np.array(column, np.int64), CLASSES
        super().__init__(folder, files, labels, classes, names=names, skip_bad=skip_bad)
