"""A table of images, a CSV file: which image is of which class and, where known, of which patient and for what.

Columns are found by name: `image`, a path relative to the table's own folder, which it must not leave; `label`, the
name of the class; optionally `group`, else `patient`, else `slide`: which images belong together; optionally `split`:
train, val or test. Other columns are left alone. Images are opened as those of a folder are.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePath
from typing import NoReturn

import numpy as np

from parteq.datasets.base import SPLITS, unlabelled
from parteq.datasets.errors import DataError
from parteq.datasets.folder import split_of_name
from parteq.datasets.imagefiles import ImageFiles, inside

__all__ = ["Table", "TableDataset", "files_of", "splits_in_table"]

_GROUPS = ("group", "patient", "slide")
# No path, class or patient is longer; an array of strings is as wide as its longest.
_MAX_CELL = 1024
_SEPARATORS = (",", ";", "\t")


def _separator(header: str) -> str:
    """What stands between the cells: a comma, or as Excel writes in half of Europe, a semicolon; or a tab."""
    return max(_SEPARATORS, key=header.count)


class Table:
    """A CSV file by column, its cells separated by commas, semicolons or tabs.

    Column names may be in upper case; blanks around cells are dropped, empty lines left out.

    Attributes:
        path: of the file, UTF-8.
        names: of the columns.
        lines: the line each row ends on; the header is line 1.

    Raises:
        DataError: not a readable CSV file; a column named twice; no rows; a row with more or fewer cells than columns.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError(path, "no such file")
        self.lines: list[int] = []
        self._rows: list[list[str]] = []
        try:
            # Excel puts a byte order mark before UTF-8.
            with self.path.open(newline="", encoding="utf-8-sig") as stream:
                reader = csv.reader(stream, strict=True, delimiter=_separator(stream.readline()))
                stream.seek(0)
                self.names = [name.strip().lower() for name in next(reader, [])]
                for cells in filter(None, reader):
                    if len(cells) != len(self.names):
                        reason = f"line {reader.line_num}: {len(cells)} cells for {len(self.names)} columns"
                        raise DataError(path, reason)
                    self.lines.append(reader.line_num)
                    self._rows.append(cells)
        except UnicodeDecodeError as error:
            raise DataError(path, "is not UTF-8 text: save it as such (Excel: CSV UTF-8)") from error
        except (OSError, csv.Error) as error:
            raise DataError(path, f"is not a readable CSV file ({error})") from error
        for name in self.names:
            if name and self.names.count(name) > 1:
                raise DataError(path, f"line 1: two columns are named {name!r}")

    def column(self, name: str) -> list[str]:
        """The cells of a column.

        Raises:
            DataError: no such column, or no rows; an empty cell, or one that is absurdly long or no text.
        """
        if name not in self.names:
            raise DataError(self.path, f"line 1: has no column {name!r}; it has {', '.join(self.names[:12]) or 'none'}")
        if not self._rows:
            raise DataError(self.path, "lists no images")
        cells = [row[self.names.index(name)].strip() for row in self._rows]
        for row, cell in enumerate(cells):
            if not cell or len(cell) > _MAX_CELL or "\0" in cell:
                self.refuse(row, f"{name!r} is {'no text' if cell else 'empty'}")
        return cells

    def refuse(self, row: int, reason: str) -> NoReturn:
        """Raise DataError for a row, by its line."""
        raise DataError(self.path, f"line {self.lines[row]}: {reason}")


def files_of(table: Table, images: Sequence[str], needed: Collection[int]) -> list[Path]:
    """The image files of a table's rows, from their paths relative to its folder.

    Args:
        table: where the paths are from.
        images: a path for each row.
        needed: the rows whose files must be there.

    Raises:
        DataError: a path that leaves the folder; an image listed twice; a file that is not there.
    """
    root = table.path.parent
    files: list[Path] = []
    rows: dict[str, int] = {}
    sound: dict[Path, bool] = {}
    needed = frozenset(needed)
    for row, image in enumerate(images):
        plain = os.path.normpath(image)
        if PurePath(plain).is_absolute() or plain.split(os.sep)[0] == os.pardir:
            table.refuse(row, f"{image!r} leaves the folder of the table, which is refused")
        if plain in rows:
            table.refuse(row, f"{image!r} is in line {table.lines[rows[plain]]} already")
        rows[plain] = row
        file = root / plain
        if file.parent not in sound:
            sound[file.parent] = file.parent.resolve().is_relative_to(root.resolve())
        if not sound[file.parent]:
            table.refuse(row, f"{image!r} leads out of the folder of the table, which is refused")
        if row in needed and not file.is_file():
            table.refuse(row, f"no such file: {image!r}")
        files.append(inside(file, root.resolve()))
    return files


def _splits(table: Table) -> list[str] | None:
    """The split of each row, of "train", "val" and "test"; None without such a column."""
    if "split" not in table.names:
        return None
    splits = []
    for row, name in enumerate(table.column("split")):
        split = split_of_name(name)
        if split is None:
            table.refuse(row, f"the split {name!r} is none of train, val and test")
        splits.append(split)
    return splits


def _groups(table: Table, splits: Sequence[str]) -> list[str] | None:
    """The group of each row; None without such a column. Raises DataError for a group that is in two splits."""
    column = next((name for name in _GROUPS if name in table.names), None)
    if column is None:
        return None
    groups = table.column(column)
    first: dict[str, int] = {}
    for row, group in enumerate(groups):
        before = first.setdefault(group, row)
        if splits[row] != splits[before]:
            where = f"{splits[row]!r}, but in {splits[before]!r} in line {table.lines[before]}"
            table.refuse(row, f"{column} {group!r} is in the split {where}")
    return groups


def splits_in_table(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The splits that a table names, of "train", "val" and "test"; () for one undivided set. Raises DataError."""
    found = _splits(Table(path)) or ()
    return tuple(split for split in SPLITS if split in found)


def _in_order(labels: Sequence[str]) -> list[str]:
    """The names of the classes: by number if all are numbers, else by name."""
    numbered = all(label.isdecimal() for label in labels)
    return sorted(set(labels), key=lambda label: (int(label) if numbered else 0, label))


class TableDataset(ImageFiles):
    """The images that a CSV file lists. Classes are sorted by name, or number; images are named as they are listed.

    Args:
        path: the file, see the head of this module. Without groups file names that bear x and y give them.
        split: "train", "val" or "test"; a table without the column `split` has only "train", which is all of it.
        labelled: False for images whose class is not wanted; the column `label` may be missing.
        skip_bad: go on without the images that are missing or cannot be used, see `ImageFiles`.

    Raises:
        DataError: with the number of the line, a missing column, an empty cell, a split of another name, a group in two
            splits, an image that is missing, listed twice or outside the table's folder; whatever `ImageFiles` refuses.
    """

    def __init__(
        self, path: str | os.PathLike[str], split: str = "train", *, labelled: bool = True, skip_bad: bool = False
    ) -> None:
        table = Table(path)
        images = table.column("image")
        splits = _splits(table)
        if split not in (splits or ("train",)):
            raise DataError(path, f"has no {split!r} split; it has {sorted(set(splits or ())) or 'one undivided set'}")
        chosen = [row for row in range(len(images)) if splits is None or splits[row] == split]
        groups = _groups(table, splits or ["train"] * len(images))
        if labelled:
            # A split may lack a class: the names are those of the whole table.
            names = table.column("label")
            classes = _in_order(names)
            numbers = {name: number for number, name in enumerate(classes)}
            labels = np.array([numbers[names[row]] for row in chosen])
        else:
            labels, only = unlabelled(len(chosen))
            classes = list(only)
        files = files_of(table, images, needed=() if skip_bad else chosen)
        super().__init__(
            path,
            [files[row] for row in chosen],
            labels,
            classes,
            names=[images[row] for row in chosen],
            groups=None if groups is None else [groups[row] for row in chosen],
            skip_bad=skip_bad,
        )
