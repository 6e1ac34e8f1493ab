"""Writing files so that whoever looks finds the old one or the new one, never half of one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from parteq.datasets.errors import DataError

__all__ = ["check_file", "check_folder", "make_folder", "replacing", "sync"]


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path in the same folder; what is written there takes the place of ``path`` at the end.

    Nothing changes if the block raises. A link stays, and what it points to is replaced.

    Raises:
        DataError: if the folder does not exist or cannot be written to; for a device, a pipe or the like.
    """
    _check_replaceable(path)
    path = path.resolve()
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    finally:
        temporary.unlink(missing_ok=True)


def check_file(path: Path) -> None:
    """Refuses a file that could not be written in the end, before any work is done for it.

    Raises:
        DataError: it is a folder, a device or the like; the folder it is to stand in does not exist or cannot be
            written to.
    """
    if path.is_dir():
        raise DataError(path, "is a folder, and a file is to be written")
    _check_replaceable(path)
    if not path.parent.is_dir():
        raise DataError(path, f"cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK):
        raise DataError(path, f"cannot be written: nothing may be written to {path.parent}")


def _check_replaceable(path: Path) -> None:
    """Refuses a device, a pipe or the like: a file in its place would be its end."""
    if path.exists() and not path.is_file():
        raise DataError(path, "is no regular file, which could be replaced")


def check_folder(path: Path) -> None:
    """Refuses a folder that could not be made; nothing is made yet.

    Raises:
        DataError: it, or what it is to stand in, is a file, or cannot be written to.
    """
    nearest = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not nearest.is_dir():
        raise DataError(path, "is no folder" if nearest == path else f"cannot be made: {nearest} is no folder")
    if not os.access(nearest, os.W_OK):
        raise DataError(path, f"cannot be made: nothing may be written to {nearest}")


def make_folder(path: Path) -> None:
    """Makes a folder, and those above it, unless it is there.

    Raises:
        DataError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(path, f"cannot be made ({error.strerror})") from error


def sync(path: Path) -> None:
    """Waits until a file, or the list of names of a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
