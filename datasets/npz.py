"""NumPy's NPZ as an image data set: `images` and `labels` (optional `groups`, `classes`), or MedMNIST's layout.

MedMNIST keeps its splits in one file, as `train_images`, `train_labels` [N, 1], `val_images`, … Files are not
trusted: every array's header is read and checked before any of its data, so that a small file which claims to hold
terabytes costs nothing, and Python objects (pickles) are never loaded.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from parteq.datasets.base import SPLITS, ArrayDataset, check_labels, unlabelled
from parteq.datasets.depth import check_range, to_uint8
from parteq.datasets.errors import DataError

__all__ = ["NpzFile", "byte_limit", "read_names", "read_npz", "splits_in_npz"]

# More than this a file may not unpack to, nor more than half the machine's memory.
_MAX_BYTES = 2**33
_MAX_NAMES_BYTES = 2**24
# A last axis up to this long holds channels; longer, it is the width of a grey volume.
_MAX_CHANNELS = 4


def byte_limit() -> int:
    """Bytes that the arrays of one data set may take once unpacked."""
    if not hasattr(os, "sysconf"):
        return _MAX_BYTES
    return min(_MAX_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)


@dataclass(frozen=True)
class _Header:
    """What an array says of itself: `shape`, `dtype`, and the bytes its data take."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


class NpzFile:
    """The arrays of an NPZ file, by name, read with care. Use as a context manager.

    Raises:
        DataError: not a zip archive, or damaged; whatever the methods refuse.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # A pipe or a device in place of the file would be read for ever.
        if not self.path.is_file():
            raise DataError(path, "no such file")
        with self.refusing("is not an NPZ file or is truncated"):
            self._zip = zipfile.ZipFile(self.path)
        entries = [name.removesuffix(".npy") for name in self._zip.namelist() if name.endswith(".npy")]
        if len(set(entries)) != len(entries):
            self._zip.close()
            raise DataError(path, "holds two arrays of the same name")
        self.names = tuple(entries)

    def __enter__(self) -> NpzFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._zip.close()

    @contextmanager
    def refusing(self, reason: str) -> Iterator[None]:
        """Turn whatever zipfile, its decompressors and numpy raise on hostile bytes into DataError."""
        try:
            yield
        except DataError:
            raise
        except Exception as error:
            # Any type: zlib, lzma and bz2 have their own, and numpy parses headers with the Python tokeniser.
            raise DataError(self.path, f"{reason} ({type(error).__name__}: {error})") from error

    def header(self, name: str) -> _Header:
        """Shape and dtype of an array, its data unread.

        Raises:
            DataError: no such array; not a NumPy array; Python objects; a size that the archive's directory denies.
        """
        if name not in self.names:
            raise DataError(self.path, f"has no array {name!r}; it has {_listed(self.names)}")
        entry = self._zip.getinfo(f"{name}.npy")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            # NumPy writes no other, and other methods let the file choose how much memory unpacking takes.
            raise DataError(self.path, f"array {name!r} is packed with a method other than deflate")
        with self.refusing(f"array {name!r} is damaged"), self._zip.open(entry) as stream:
            version = npy.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                raise DataError(self.path, f"array {name!r} has the unsupported NPY version {version}")
            read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, _, dtype = read(stream)
            start = stream.tell()
        if dtype.hasobject:
            raise DataError(self.path, f"array {name!r} holds Python objects, which are never loaded")
        if any(size < 0 for size in shape):
            raise DataError(self.path, f"array {name!r} has the impossible shape {list(shape)}")
        header = _Header(tuple(shape), dtype)
        stored = entry.file_size - start
        if header.nbytes != stored:
            raise DataError(
                self.path,
                f"array {name!r} is damaged: {dtype} {list(shape)} takes {header.nbytes} bytes, {stored} are stored",
            )
        return header

    def read(self, name: str) -> NDArray[Any]:
        """An array, whole.

        Raises:
            DataError: as `header`; damaged data; more bytes than this machine should unpack.
        """
        needed = self.header(name).nbytes
        if needed > byte_limit():
            raise DataError(self.path, f"array {name!r} unpacks to {needed / 2**30:.1f} GiB, more than is accepted")
        with self.refusing(f"array {name!r} is damaged"), self._zip.open(f"{name}.npy") as stream:
            array: NDArray[Any] = npy.read_array(stream, allow_pickle=False)
            # The archive's checksum is compared only once the end has been read.
            stream.read(1)
        return array


def _listed(names: tuple[str, ...]) -> str:
    """Names for an error message, not more than a line of them."""
    shown = ", ".join(repr(name) for name in sorted(names)[:12]) or "none"
    return shown + (", …" if len(names) > 12 else "")


def _splits(file: NpzFile) -> tuple[str, ...]:
    """Splits of a file in MedMNIST's layout; () for one undivided set."""
    if "images" in file.names:
        return ()
    found = tuple(name for name in SPLITS if f"{name}_images" in file.names)
    if not found:
        raise DataError(file.path, f"has neither 'images' nor MedMNIST's 'train_images'; it has {_listed(file.names)}")
    return found


def splits_in_npz(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that a file in MedMNIST's layout holds; () for one undivided set. Raises DataError."""
    with NpzFile(path) as file:
        return _splits(file)


def _prefix(file: NpzFile, split: str) -> str:
    """What precedes `images` in the names of this split: "" in a file of one set, else "train_", …"""
    found = _splits(file)
    if not found and split != "train":
        raise DataError(file.path, f"holds one undivided set and no {split!r} split")
    if found and split not in found:
        raise DataError(file.path, f"has no {split!r} split; it has {_listed(found)}")
    return f"{split}_" if found else ""


def _has_channels(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether the last axis of an image array [N, …] holds channels."""
    if len(shape) not in (3, 4, 5) or 0 in shape[1:]:
        raise DataError(path, f"images have the shape {list(shape)}: save N×H×W, N×H×W×C, N×D×H×W or N×D×H×W×C")
    if len(shape) == 3:
        return False
    if shape[-1] <= _MAX_CHANNELS:
        return True
    # Some channels too many rather than a volume that is hardly wide.
    thin = shape[-1] <= 2 * _MAX_CHANNELS and 4 * shape[-1] <= min(shape[1:3])
    if len(shape) == 5 or shape[1] in (1, 3) or thin:
        raise DataError(path, f"images have the shape {list(shape)}: channels belong last, and are at most 4")
    return False


def _one_column(array: NDArray[Any]) -> NDArray[Any]:
    """[N] from MedMNIST's [N, 1]; any other shape as it is."""
    return array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array


def _read_labels(file: NpzFile, name: str) -> NDArray[np.int64]:
    shape = file.header(name).shape
    if len(shape) == 2 and shape[1] > 1:
        raise DataError(file.path, f"{name!r} has {shape[1]} labels an image (multi-label), which is not supported")
    return check_labels(_one_column(file.read(name)), file.path)


def read_names(file: NpzFile, name: str) -> list[str]:
    """A list of short texts, such as the names of classes.

    Raises:
        DataError: the array is missing, is no such list, or is longer than 16 MiB.
    """
    header = file.header(name)
    if len(header.shape) != 1 or header.dtype.kind not in "US" or header.nbytes > _MAX_NAMES_BYTES:
        raise DataError(file.path, f"{name!r} is {header.dtype} {list(header.shape)}: save a list of short strings")
    with file.refusing(f"{name!r} is not text"):
        names = [n.decode() if isinstance(n, bytes) else str(n) for n in file.read(name).tolist()]
        "".join(names).encode()  # half a surrogate pair is no text that could be written
        return names


def _read_labelling(file: NpzFile, prefix: str) -> tuple[NDArray[np.int64], list[str]]:
    """Labels [N] of a split, and the class names of the whole file."""
    labels = _read_labels(file, f"{prefix}labels")
    if "classes" in file.names:
        return labels, read_names(file, "classes")
    # A split may lack the last class: count over all of them.
    siblings = [name for name in (f"{s}_labels" for s in SPLITS if prefix) if name in file.names]
    largest = max([labels.max(), *(_read_labels(file, name).max() for name in siblings)])
    return labels, [str(number) for number in range(largest + 1)]


def read_npz(path: str | os.PathLike[str], split: str = "train", *, labelled: bool = True) -> ArrayDataset:
    """Read an NPZ file of images.

    Args:
        path: a file with `images` [N, H, W], [N, H, W, C], [N, D, H, W] or [N, D, H, W, C] (C up to 4; uint8, or what
            `to_uint8` converts) and `labels` (integers [N] or [N, 1]); optionally `groups` [N] and `classes`. In
            MedMNIST's layout all but `classes` bear the prefix `train_`, `val_` or `test_`.
        split: "train", "val" or "test". A file of one undivided set has only "train".
        labelled: False for images whose labels and classes may be missing and are not read.

    Raises:
        DataError: the file is damaged, hostile, lacks an array, or its arrays do not make an image set.
    """
    with NpzFile(path) as file:
        prefix = _prefix(file, split)
        shape = file.header(f"{prefix}images").shape
        has_channels = _has_channels(file.path, shape)
        has_groups = f"{prefix}groups" in file.names
        for name in ["labels"] * labelled + ["groups"] * has_groups:
            length = file.header(prefix + name).shape[:1]
            if length != shape[:1]:
                raise DataError(file.path, f"{shape[0]} images, but {prefix + name!r} has the length {list(length)}")
        labelling = _read_labelling(file, prefix) if labelled else None
        groups = _one_column(file.read(f"{prefix}groups")) if has_groups else None
        images = file.read(f"{prefix}images")
    if not has_channels:
        images = images[..., None]
    check_range(images, file.path)
    pixels = np.moveaxis(to_uint8(images, file.path), -1, 1)
    # Counted only now: the number of images that a header claims need not be true.
    labels, classes = labelling or unlabelled(len(pixels))
    return ArrayDataset(pixels, labels, source=file.path, classes=classes, groups=groups)
