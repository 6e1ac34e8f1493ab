"""STAR files: named blocks, each a table or a list of single values, as RELION writes them.

Files are read with gemmi, which keeps every value as the text that stands there; a table whose lines are not full, two
blocks or columns of one name, and whatever else is no STAR file are refused. A column becomes integers or floats only
if that loses nothing: what is written again has the same values, the same rows, and the same columns in their place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, TypeAlias, cast

import numpy as np
import pandas as pd
from gemmi import cif
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.files import replacing

__all__ = ["Block", "StarFile", "read_star", "write_star"]

Block: TypeAlias = pd.DataFrame | dict[str, Any]

# Leading zeros, which a number would not give back, make a text.
_INTEGER = re.compile(r"0|-?[1-9][0-9]*")
_FLOAT = re.compile(r"[+-]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf)", re.IGNORECASE)
# Text that needs no quotes; RELION writes lists in brackets bare.
_BARE = re.compile(r"(?!(data_|save_|loop_|stop_|global_))[^\s\"'_#;$][!-~\u00a1-\U0010ffff]*", re.IGNORECASE)
_ROWS_AT_A_TIME = 10_000
# gemmi reads ASCII alone: ~u…~ with its number stands for any other character, and for a ~ that would be mistaken.
_FOREIGN = re.compile(r"[^\x00-\x7f]|~(?=u[0-9a-f]{1,6}~)")
_STAND_IN = re.compile(r"~u([0-9a-f]{1,6})~")


@dataclass
class StarFile:
    """The blocks of a STAR file, in its order.

    Names are those of the file without `data_` and `_`: "particles", "rlnImageName". Tables are data frames of int64,
    uint64, float64 and text columns, single values a dictionary of int, float and str.
    """

    blocks: dict[str, Block]

    def table(self, name: str) -> pd.DataFrame | None:
        """The table of this name, None if there is none."""
        block = self.blocks.get(name)
        return block if isinstance(block, pd.DataFrame) else None


def read_star(path: str | os.PathLike[str]) -> StarFile:
    """Reads a STAR file.

    Raises:
        DataError: there is no such file, or it is not a STAR file, or a block holds several tables.
    """
    path = Path(path)
    # A pipe or a device in place of the file would be read for ever.
    if not path.is_file():
        raise DataError(path, "no such file")
    try:
        text = path.read_bytes().decode("utf-8-sig")
        document = cif.read_string(_FOREIGN.sub(lambda found: f"~u{ord(found[0]):x}~", text))
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise DataError(path, "is not a STAR file (it is no text in UTF-8)") from error
    except (ValueError, RuntimeError) as error:
        where = re.sub(r"^(?:data|string):(\d+)(:\d+\(\d+\))?", r"line \1", str(error))
        raise DataError(path, f"is not a STAR file ({where})") from error
    # gemmi calls a block without a name " ".
    blocks = {_restored(block.name.strip()): _block(path, block) for block in document}
    if not blocks:
        raise DataError(path, "is not a STAR file: it has no data_ block")
    return StarFile(blocks)


def _block(path: Path, block: cif.Block) -> Block:
    """A block, its values typed."""
    loops = 0
    pairs: dict[str, Any] = {}
    for item in block:
        if item.pair is not None:
            name, text = cast("list[str]", item.pair)
            pairs[_restored(name[1:])] = _typed(name, [_unquoted(text)]).tolist()[0]
        elif item.loop is not None:
            loops += 1
            tags = item.loop.tags
        else:
            raise DataError(path, f"data_{block.name.strip()} holds a save frame, which is not supported")
    if not loops:
        return pairs
    if pairs or loops > 1:
        raise DataError(path, f"data_{block.name.strip()} holds more than one table")
    columns = {_restored(tag[1:]): _typed(tag, [_unquoted(text) for text in block.find_loop(tag)]) for tag in tags}
    return pd.DataFrame(columns)


def _unquoted(text: str) -> str:
    """A value without the quotes around it; what is not quoted stays as it is, "." and "?" too."""
    return _restored(cif.as_string(text) if text[0] in "'\";" else text)


def _restored(text: str) -> str:
    """A text with the characters that gemmi does not read."""
    return _STAND_IN.sub(lambda found: chr(int(found[1], 16)), text) if "~u" in text else text


def _typed(name: str, texts: list[str]) -> NDArray[Any]:
    """A column as integers or floats if no value loses by it, otherwise as text."""
    # A name is text even if all of its characters are digits.
    if not name.endswith("Name"):
        if all(map(_INTEGER.fullmatch, texts)):
            numbers = [int(text) for text in texts]
            smallest, largest = min(numbers, default=0), max(numbers, default=0)
            for kind in (np.int64, np.uint64):
                if np.iinfo(kind).min <= smallest and largest <= np.iinfo(kind).max:
                    return np.array(numbers, dtype=kind)
        elif all(map(_FLOAT.fullmatch, texts)):
            return np.array(texts, dtype=object).astype(np.float64)
    return np.array(texts, dtype=object)


def write_star(path: str | os.PathLike[str], star: StarFile) -> None:
    """Writes a STAR file of RELION 3.1 form; numbers have the fewest digits that give the same float64 again.

    Raises:
        DataError: the folder does not exist or cannot be written to; a text of several lines has one that begins with
            a semicolon.
    """
    path = Path(path)
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as stream:
        try:
            for name, block in star.blocks.items():
                _write_block(stream, name, block)
        except ValueError as error:
            raise DataError(path, f"a STAR file cannot hold {error}") from error


def _write_block(stream: TextIO, name: str, block: Block) -> None:
    # By this line RELION tells its dialects apart.
    stream.write(f"\n# version 30001\n\ndata_{name}\n\n")
    if isinstance(block, dict):
        stream.writelines(f"_{key} {text}\n" for key, value in block.items() for text in _texts([value]))
    else:
        stream.write("loop_\n")
        stream.writelines(f"_{column} #{number}\n" for number, column in enumerate(block.columns, start=1))
        stream.writelines(_rows(block))
    stream.write("\n")


def _rows(table: pd.DataFrame) -> Iterator[str]:
    for start in range(0, len(table), _ROWS_AT_A_TIME):
        part = table.iloc[start : start + _ROWS_AT_A_TIME]
        columns = [_texts(part[name].tolist()) for name in part.columns]
        yield from (" ".join(values) + "\n" for values in zip(*columns, strict=True))


def _texts(values: Sequence[Any]) -> list[str]:
    """Values as they stand in a file; `repr` of a float is the shortest text that reads as the same number."""
    return [_quoted(value) if isinstance(value, str) else repr(value) for value in values]


def _quoted(text: str) -> str:
    """A text as it stands in a file: bare, in quotes, or as a text field, on lines of its own."""
    if _BARE.fullmatch(text):
        return text
    # Quotes that the text has not, where there are any; one in the text ends it only where a blank or # follows.
    for quote in sorted("\"'", key=text.count):
        if "\n" not in text and not re.search(rf"{quote}[\s#]", text):
            return f"{quote}{text}{quote}"
    if "\n;" in text:
        raise ValueError(f"the text {text!r}")
    # A carriage return before the last line counts as part of the end of the line.
    end = "\r\n;" if text.endswith("\r") else "\n;"
    return f"\n;{text}{end}"
