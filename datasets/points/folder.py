"""A folder of meshes by class, and the points drawn on them.

Layouts: ROOT/CLASS/*.off, ROOT/{train,val,test}/CLASS/*.off, or ROOT/CLASS/{train,val,test}/*.off as ModelNet has it.
Folders within a class are families, with all that lies below them: ROOT/CLASS/FAMILY/*.off. Where a class has any, a
file that lies in none is a family of its own.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from parteq.datasets.base import SPLITS
from parteq.datasets.errors import DataError
from parteq.datasets.folder import split_of_name
from parteq.datasets.imagefiles import inside
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.meshes import SUFFIXES, load_points

__all__ = ["CloudFile", "Drawer", "MeshFolder", "open_folder", "read_folder", "splits_in_folder"]

log = logging.getLogger(__name__)

Points = NDArray[np.float32]

_BLOCK = 2**20
# To be raised where readers come to read a file otherwise, so that it is drawn again: 2 since concave faces are cut.
_EDITION = 2


@dataclass(frozen=True)
class CloudFile:
    """A mesh file of a folder: its path below ROOT, class, split (None if there are none) and family (likewise)."""

    name: str
    kind: str
    split: str | None
    family: str | None


@dataclass(frozen=True)
class MeshFolder:
    """The mesh files of a folder, sorted, and its classes."""

    root: Path
    files: tuple[CloudFile, ...]
    classes: tuple[str, ...]


def _folders(path: Path, root: Path) -> list[Path]:
    """Visible folders in `path` with meshes in them or below, sorted by name."""
    found = [inside(entry, root) for entry in _entries(path) if entry.is_dir()]
    return [folder for folder in found if _meshes(folder) or _folders(folder, root)]


def _entries(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(path, f"cannot be listed ({error.strerror})") from error


def _meshes(path: Path) -> list[Path]:
    """Mesh files directly in `path`, sorted by name."""
    return [entry for entry in _entries(path) if entry.suffix.lower() in SUFFIXES and not entry.is_dir()]


def _homes(root: Path, anchor: Path) -> Iterator[tuple[str, str | None, Path]]:
    """Class, split and folder of everything that holds the files of one class."""
    folders = _folders(root, anchor)
    if _are_splits(root, folders):
        for part in folders:
            for home in _folders(part, anchor):
                yield home.name, split_of_name(part.name), home
        return
    inner = {folder: _folders(folder, anchor) for folder in folders}
    is_split = _are_splits(root, [part for parts in inner.values() for part in parts])
    for folder, parts in inner.items():
        if parts and is_split:
            yield from ((folder.name, split_of_name(part.name), part) for part in parts)
        else:
            yield folder.name, None, folder


def _are_splits(root: Path, folders: Sequence[Path]) -> bool:
    """Whether folders are splits of the data. Raises DataError if some are."""
    named = {folder.name for folder in folders if split_of_name(folder.name)}
    others = {folder.name for folder in folders} - named
    if named and others:
        both = ", ".join(sorted(named)), ", ".join(sorted(others)[:3])
        raise DataError(root, f"has the splits {both[0]}, and beside them {both[1]}: where do those belong?")
    return bool(named)


def _files_of_class(home: Path, anchor: Path) -> Iterator[tuple[Path, str | None]]:
    """Mesh files of a class, and their families by name."""
    families = _folders(home, anchor)
    for file in _meshes(home):
        yield file, f"{home.name}/{file.name}" if families else None
    for family in families:
        yield from ((file, f"{home.name}/{family.name}") for file in _below(family, anchor))


def _below(path: Path, anchor: Path) -> Iterator[Path]:
    """Mesh files in `path` and in the folders below it."""
    yield from _meshes(path)
    for folder in _folders(path, anchor):
        yield from _below(folder, anchor)


def open_folder(root: str | os.PathLike[str]) -> MeshFolder:
    """List the meshes of a folder.

    Raises:
        DataError: no such folder; no class folders with meshes in them; some files in splits and others not; a link
            to a folder elsewhere.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(root, "no such folder")
    anchor = root.resolve()
    files = [
        CloudFile(file.relative_to(root).as_posix(), kind, split, family)
        for kind, split, home in _homes(root, anchor)
        for file, family in _files_of_class(home, anchor)
    ]
    if not files:
        raise DataError(root, f"has no class folders with meshes in them ({', '.join(sorted(SUFFIXES))})")
    if len({file.split is None for file in files}) > 1:
        raise DataError(root, "has files in train or test folders, and files in none")
    if any(file.family for file in files):
        files = [CloudFile(file.name, file.kind, file.split, file.family or file.name) for file in files]
    return MeshFolder(root, tuple(sorted(files, key=lambda f: f.name)), tuple(sorted({file.kind for file in files})))


def splits_in_folder(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that ROOT holds, of "train", "val" and "test"; () for one undivided set. Raises DataError."""
    found = {file.split for file in open_folder(root).files}
    return tuple(split for split in SPLITS if split in found)


class Drawer:
    """Draws points of the meshes of a folder.

    What is drawn of a file depends on its name below ROOT, its content, the number of points and the seed alone, not on
    the other files.

    Args:
        folder: the meshes.
        points: how many of each.
        seed: equal seeds draw equally.
        known: clouds drawn earlier, by recipe; they are not drawn again.

    Attributes:
        bad: the files that could not be used so far.
    """

    def __init__(self, folder: MeshFolder, points: int, seed: int, known: Mapping[str, Callable[[], Points]]) -> None:
        self._folder, self._points, self._seed, self._known = folder, points, seed, known
        self.bad: list[DataError] = []

    def draw(self, files: Sequence[CloudFile]) -> Iterator[tuple[CloudFile, Points, str]]:
        """Points float32 [n, 3] of one file after another, and their recipe; bad files are logged and left out."""
        title = f"sampling {self._folder.root.name}"
        for file in tqdm(files, title, unit=" files", delay=2, disable=None, leave=False):
            try:
                recipe = self._recipe(file)
                positions = self._known[recipe]() if recipe in self._known else self._draw(file)
            except DataError as error:
                log.warning("skipped %s", error)
                self.bad.append(error)
                continue
            yield file, positions, recipe

    def _recipe(self, file: CloudFile) -> str:
        path = inside(self._folder.root / file.name, self._folder.root.resolve())
        # A pipe would be read for ever.
        if not path.is_file():
            raise DataError(path, "is not a regular file")
        try:
            digest = hashlib.sha256(repr((_EDITION, file.name, self._points, self._seed)).encode())
            with path.open("rb") as stream:
                while block := stream.read(_BLOCK):
                    digest.update(block)
        except OSError as error:
            raise DataError(path, f"cannot be read ({error.strerror})") from error
        return digest.hexdigest()

    def _draw(self, file: CloudFile) -> Points:
        name = np.frombuffer(hashlib.sha256(repr(file.name).encode()).digest(), np.uint32)
        generator = np.random.default_rng([self._seed, *name.tolist()])
        return load_points(self._folder.root / file.name, self._points, generator)


def read_folder(root: str | os.PathLike[str], split: str, points: int, seed: int) -> ArrayClouds:
    """The clouds of one split of a folder, in memory. Files that cannot be used are logged and left out.

    Raises:
        DataError: as `open_folder`; no such split; no file can be used.
    """
    folder = open_folder(root)
    files = tuple(file for file in folder.files if (file.split or "train") == split)
    if not files:
        raise DataError(folder.root, f"has no {split!r} split; it has {', '.join(splits_in_folder(root))}")
    drawn = [(file, positions) for file, positions, _ in Drawer(folder, points, seed, {}).draw(files)]
    if not drawn:
        raise DataError(folder.root, f"none of {len(files)} files can be used")
    kept = [file for file, _ in drawn]
    return ArrayClouds(
        np.concatenate([positions for _, positions in drawn]),
        [len(positions) for _, positions in drawn],
        source=folder.root,
        labels=[folder.classes.index(file.kind) for file in kept],
        classes=folder.classes,
        families=[file.family for file in kept] if kept[0].family else None,
        names=[file.name for file in kept],
    )
