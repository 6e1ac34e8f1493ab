"""One array of an HDF5 file, read piece by piece and with care.

A handle is opened in each process that reads, since HDF5 handles survive neither pickling nor forking.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.npz import byte_limit

__all__ = ["StoredArray", "refusing"]

# Reading one row unpacks its whole chunk: a file whose chunks are larger than this is refused.
_MAX_CHUNK_BYTES = 2**28
# Letters of NumPy's types.
_KINDS = {"integers": "iu", "real numbers": "f", "bytes": "S"}


@contextmanager
def refusing(path: Path) -> Iterator[None]:
    """Turn whatever h5py raises on a truncated or hostile file into DataError."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        # Any type: h5py maps the library's errors to OSError, KeyError, ValueError, RuntimeError, TypeError, …
        raise DataError(path, f"is not an HDF5 file, or is truncated or damaged ({error})") from error


class StoredArray:
    """One array of one HDF5 file, opened on first use in each process.

    Args:
        path: the file.
        key: name of the array.
        kind: what it has to hold: "integers", "real numbers" or "bytes".
    """

    def __init__(self, path: Path, key: str, kind: str = "integers") -> None:
        self.path = path
        self.key = key
        self.kind = kind
        self._process: int | None = None
        self._file: h5py.File | None = None
        self._dataset: h5py.Dataset | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "key": self.key, "kind": self.kind}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def close(self) -> None:
        """Let go of the file; the next use opens it again."""
        if self._file is not None:
            self._file.close()
        self._file = self._dataset = self._process = None

    def open(self) -> h5py.Dataset:
        """The array in this process. Raises DataError if it is missing, damaged, or lies outside its own file."""
        if self._dataset is not None and self._process == os.getpid():
            return self._dataset
        self.close()
        with refusing(self.path):
            self._file = h5py.File(self.path, "r")
            self._process = os.getpid()
            try:
                self._dataset = self._own_array(self._file)
            except BaseException:
                self.close()
                raise
        return self._dataset

    def read(self) -> NDArray[Any]:
        """The array, whole; the file is let go of. Raises DataError as `open`, and for more bytes than fit."""
        array = self.open()
        try:
            if array.nbytes > byte_limit():
                raise DataError(self.path, f"{self.key!r} takes {array.nbytes / 2**30:.1f} GiB, more than is accepted")
            with refusing(self.path):
                values: NDArray[Any] = array[...]
        finally:
            self.close()
        return values

    def _own_array(self, file: h5py.File) -> h5py.Dataset:
        link = file.get(self.key, getlink=True)
        if link is None:
            raise DataError(self.path, f"has no array {self.key!r}; it has {sorted(file)[:12]}")
        if not isinstance(link, h5py.HardLink):
            raise DataError(self.path, f"{self.key!r} is a link that may lead out of the file, which is refused")
        array = file[self.key]
        if not isinstance(array, h5py.Dataset) or array.shape is None:
            raise DataError(self.path, f"{self.key!r} is not an array")
        if array.is_virtual or array.external:
            raise DataError(self.path, f"the data of {self.key!r} lie in other files, which is refused")
        if array.dtype.kind not in _KINDS[self.kind]:
            raise DataError(self.path, f"{self.key!r} is {array.dtype} instead of {self.kind}")
        if array.chunks is not None and int(np.prod(array.chunks)) * array.dtype.itemsize > _MAX_CHUNK_BYTES:
            raise DataError(self.path, f"{self.key!r} is stored in chunks of {array.chunks}: too large to read rows")
        return array
