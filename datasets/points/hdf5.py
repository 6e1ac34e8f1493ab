"""Point clouds in HDF5: written one by one, and read from disk when asked for, so that a set may exceed memory.

Layout: `positions` float32 [sum n, 3], the clouds one behind the other, and `sizes` [N]. Optional: `features`
[sum n, F] with `feature_names`; `labels` [N] with `classes`; `targets` [N, T] with `target_names`; `families`, `names`,
`splits` and `recipes` [N]; `unit` [1]. Texts are UTF-8 of fixed length.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
from numpy.typing import ArrayLike, NDArray

from parteq.datasets.base import SPLITS
from parteq.datasets.errors import DataError
from parteq.datasets.hdf5 import StoredArray, refusing
from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.positions import as_float32

__all__ = ["CloudWriter", "HDF5Clouds", "splits_in_hdf5"]

# Points stored together: some clouds' worth, so that reading one cloud reads little more.
_CHUNK_POINTS = 4096


class CloudWriter:
    """Writes clouds to a new HDF5 file, one after another. Use as a context manager.

    Args:
        path: the file; what was there is lost.
        feature_names: of the F features of each point; empty for none.
        unit: of the positions.
    """

    def __init__(self, path: str | os.PathLike[str], *, feature_names: Sequence[str] = (), unit: str = "") -> None:
        self._file = h5py.File(path, "w")
        self._sizes: list[int] = []
        self._widths = {"positions": 3} | ({"features": len(feature_names)} if feature_names else {})
        for name, width in self._widths.items():
            self._file.create_dataset(
                name, (0, width), np.float32, maxshape=(None, width), chunks=(_CHUNK_POINTS, width)
            )
        if feature_names:
            self._write_texts("feature_names", feature_names)
        self._write_texts("unit", [unit])

    def __enter__(self) -> CloudWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._sizes)

    def append(self, positions: ArrayLike, features: ArrayLike | None = None) -> None:
        """One more cloud: positions [n, 3], features [n, F] if points bear any.

        Raises:
            ValueError: arrays of other shapes.
        """
        arrays = {"positions": np.asarray(positions)}
        if features is not None:
            arrays["features"] = np.asarray(features)
        count = len(arrays["positions"])
        if {name: array.shape for name, array in arrays.items()} != {n: (count, w) for n, w in self._widths.items()}:
            raise ValueError("positions must be [n, 3] and features [n, F], or none if no names of features were given")
        for name, array in arrays.items():
            stored = self._file[name]
            start = len(stored)
            stored.resize(start + count, axis=0)
            stored[start:] = array
        self._sizes.append(count)

    def finish(
        self,
        *,
        labels: ArrayLike | None = None,
        classes: Sequence[str] = (),
        targets: ArrayLike | None = None,
        target_names: Sequence[str] = (),
        families: Sequence[object] | None = None,
        names: Sequence[str] | None = None,
        splits: Sequence[str] | None = None,
        recipes: Sequence[str] | None = None,
    ) -> None:
        """Write what is known of the clouds, see `PointClouds`.

        Args:
            labels, classes, targets, target_names, families, names: as there.
            splits: "train", "val" or "test" for each.
            recipes: what each was made from and how, in a word, so that it need not be made again.
        """
        self._file["sizes"] = np.array(self._sizes, np.int64)
        if labels is not None:
            self._file["labels"] = np.asarray(labels, np.int64)
            self._write_texts("classes", classes)
        if targets is not None:
            self._file["targets"] = np.asarray(targets, np.float64)
            self._write_texts("target_names", target_names)
        for name, texts in (("families", families), ("names", names), ("splits", splits), ("recipes", recipes)):
            if texts is not None:
                self._write_texts(name, texts)

    def _write_texts(self, name: str, texts: Sequence[object]) -> None:
        # Names of files may hold bytes that are no text.
        encoded = [str(text).encode(errors="backslashreplace") for text in texts]
        self._file[name] = np.array(encoded, dtype=np.bytes_)


def _names(path: Path) -> frozenset[str]:
    """What the file holds."""
    if not path.is_file():
        raise DataError(path, "no such file")
    with refusing(path), h5py.File(path, "r") as file:
        return frozenset(file)


def _texts(path: Path, name: str) -> list[str]:
    """An array of UTF-8 texts."""
    values = StoredArray(path, name, "bytes").read()
    if values.ndim != 1:
        raise DataError(path, f"{name!r} has the shape {list(values.shape)}: texts come as one list")
    try:
        return [value.decode() for value in values.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(path, f"{name!r} is not text ({error})") from error


def splits_in_hdf5(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that the file holds, of "train", "val" and "test"; () for one undivided set. Raises DataError."""
    path = Path(path)
    if "splits" not in _names(path):
        return ()
    found = set(_texts(path, "splits"))
    if strange := found - set(SPLITS):
        raise DataError(path, f"has a split {min(strange)!r}; known are {', '.join(SPLITS)}")
    return tuple(split for split in SPLITS if split in found)


class HDF5Clouds(PointClouds):
    """Point clouds of an HDF5 file. Points stay on disk until asked for, and each process opens the file for itself.

    Args:
        path: a file as `CloudWriter` writes it.
        split: "train", "val" or "test"; a file of one undivided set has only "train". None for all.

    Attributes:
        recipes: N of them; None where the file has none, see `CloudWriter.finish`.

    Raises:
        DataError: the file is damaged, lacks an array, keeps one in another file, or its arrays do not make clouds; it
            has no such split.
    """

    def __init__(self, path: str | os.PathLike[str], split: str | None = "train") -> None:
        path = Path(path)
        names = _names(path)
        sizes = StoredArray(path, "sizes").read()
        if sizes.ndim != 1:
            raise DataError(path, f"'sizes' has the shape {list(sizes.shape)} instead of [N]")
        rows = np.arange(len(sizes))

        def facts(name: str, kind: str) -> Any:
            """What is said of the clouds in these rows; None where nothing is."""
            if name not in names:
                return None
            values = np.asarray(_texts(path, name) if kind == "bytes" else StoredArray(path, name, kind).read())
            if values.shape[:1] != sizes.shape:
                raise DataError(path, f"{name!r} has the shape {list(values.shape)} for {len(sizes)} clouds")
            return values[rows]

        splits, parts = splits_in_hdf5(path), facts("splits", "bytes")
        if split not in (*(splits or ("train",)), None):
            raise DataError(path, f"has no {split!r} split; it has {', '.join(splits) or 'one undivided set'}")
        if splits and split is not None:
            rows = np.flatnonzero(parts == split)
        stems, recipes = facts("names", "bytes"), facts("recipes", "bytes")
        super().__init__(
            path,
            sizes[rows],
            labels=facts("labels", "integers"),
            targets=facts("targets", "real numbers"),
            target_names=_texts(path, "target_names") if "targets" in names else (),
            classes=_texts(path, "classes") if "classes" in names else None,
            families=facts("families", "bytes"),
            names=None if stems is None else stems.tolist(),
            feature_names=_texts(path, "feature_names") if "features" in names else (),
            unit=next(iter(_texts(path, "unit")), "") if "unit" in names else "",
        )
        self.recipes = None if recipes is None else tuple(recipes.tolist())
        self._rows = rows
        self._positions = self._stored("positions", 3, sizes)
        self._features = self._stored("features", len(self.feature_names), sizes) if self.feature_names else None
        self._starts: NDArray[np.int64] = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def _stored(self, name: str, width: int, sizes: NDArray[Any]) -> StoredArray:
        """An array of points, its shape checked."""
        stored = StoredArray(self.source, name, "real numbers")
        # As Python's integers, which cannot overflow.
        total = sum(sizes.tolist())
        shape = stored.open().shape
        stored.close()
        if sizes.min() < 1:
            raise DataError(self.source, f"cloud {int(sizes.argmin())} has no points")
        if shape != (total, width):
            raise DataError(self.source, f"{name!r} has the shape {list(shape)} instead of [{total}, {width}]")
        return stored

    def _read(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        sizes = np.diff(self._starts)[rows]
        positions = as_float32(self._points(self._positions, 3, rows), sizes)
        features: NDArray[np.float32] | None = None
        if self._features is not None:
            with np.errstate(over="ignore"):  # what becomes infinite is refused below
                features = self._points(self._features, len(self.feature_names), rows).astype(np.float32)
        self._check_points(rows, sizes, positions, features)
        return positions, features

    def _points(self, stored: StoredArray, width: int, rows: NDArray[np.int64]) -> NDArray[np.floating]:
        """These clouds' part of an array; clouds that follow one another in the file are read together."""
        array = stored.open()
        runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1) if len(rows) else []
        parts = [np.empty((0, width), np.float32)]
        with refusing(self.source):
            parts += [array[self._starts[run[0]] : self._starts[run[-1] + 1]] for run in runs]
        values: NDArray[np.floating] = np.concatenate(parts)
        return values
