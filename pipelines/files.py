"""Writing files so that whoever looks finds the old one or the new one, never half of one."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w

from parteq.datasets.errors import DataError
from parteq.datasets.files import check_file, check_folder, make_folder, replacing, sync

__all__ = [
    "check_file",
    "check_folder",
    "make_folder",
    "parse_json",
    "read_json",
    "read_toml",
    "replacing",
    "sync",
    "values_of",
    "write_json",
    "write_text",
    "write_toml",
]


def write_text(path: Path, text: str) -> None:
    """Writes a text file.

    Raises:
        DataError: it cannot be written; it holds the name of a file whose bytes are no text.
    """
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        part = ascii(text[max(error.start - 20, 0) : error.end])
        raise DataError(path, f"cannot hold what is no UTF-8, such as a name with {part}: rename it") from error
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, values: dict[str, Any]) -> None:
    """Writes JSON that every reader understands: numbers that are not finite raise a ValueError."""
    write_text(path, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")


def write_toml(path: Path, values: dict[str, Any]) -> None:
    """Writes TOML, which has no null: what is None is left out."""
    write_text(path, tomli_w.dumps({key: value for key, value in values.items() if value is not None}))


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        DataError: if there is none.
    """
    try:
        return parse_json(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except ValueError as error:
        raise DataError(path, f"is not text: {error}") from error


@contextmanager
def values_of(path: Path) -> Iterator[dict[str, Any]]:
    """Reads a JSON object; what its values do not allow is its damage.

    Raises:
        DataError: if there is none, or on leaving for a value that is missing or of another kind.
    """
    values = read_json(path)
    try:
        yield values
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, "is damaged, or of another version of parteq") from error


def parse_json(path: Path, text: str) -> dict[str, Any]:
    """Reads a JSON object from a text that stands in a file.

    Raises:
        DataError: if it is none.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise DataError(path, "is not a JSON object")
    return values


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file.

    Raises:
        DataError: if it is none.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"is not TOML: {error}") from error
