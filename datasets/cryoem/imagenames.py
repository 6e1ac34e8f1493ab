"""RELION's names of images: `000001@Extract/particles.mrcs`, the place in a stack, from 1, and the stack's path."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from parteq.datasets.errors import DataError

__all__ = ["ImagePlaces", "image_keys", "image_name", "image_places"]

# A file of a single image may stand without a number.
_IMAGE_NAME = re.compile(r"^(?:0*([1-9]\d{0,11})@|(?!.*@))(.+)$")


class ImagePlaces(NamedTuple):
    """Where N images are."""

    paths: list[Path]
    """The files, each once."""
    file_numbers: NDArray[np.int64]
    """[N], which of the files."""
    image_numbers: NDArray[np.int64]
    """[N], the place in the file, from 0."""


def image_name(place: int, path: str) -> str:
    """The name of an image: `place` is counted from 0."""
    return f"{place + 1:06d}@{path}"


def image_keys(names: pd.Series) -> pd.DataFrame:
    """What is the same where names mean the same image: the texts `number` and `path`, in rows from 0.

    A text that is no image name is a path.
    """
    names = names.astype(str).reset_index(drop=True)
    parts = names.str.extract(_IMAGE_NAME)
    return pd.DataFrame({"number": parts[0].fillna("1"), "path": parts[1].fillna(names)})


def image_places(source: Path, names: pd.Series, folder: Path, advice: str = "see --datadir") -> ImagePlaces:
    """Where images are.

    Args:
        source: the file that names them, for errors.
        names: of images.
        folder: what paths are relative to, and must not lead out of.
        advice: for the error where one does.

    Raises:
        DataError: a text is no image name, or its path leads out of the folder.
    """
    parts = names.astype(str).str.extract(_IMAGE_NAME)
    wrong = parts[1].isna().to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(source, f"{str(names.iloc[row])!r} in row {row + 1} is no image name")
    files, unique = pd.factorize(parts[1])
    places = parts[0].fillna("1").to_numpy().astype(np.int64) - 1
    return ImagePlaces([_resolved(source, name, folder, advice) for name in unique], files.astype(np.int64), places)


def _resolved(source: Path, name: str, folder: Path, advice: str) -> Path:
    """The path of an image file. Links inside the folder may lead anywhere, for the user has made them."""
    root = os.path.abspath(folder)
    path = os.path.normpath(os.path.join(root, name))
    if os.path.commonpath([root, path]) != root:
        raise DataError(source, f"the image path {name!r} leads out of {root} ({advice})")
    return Path(path)
