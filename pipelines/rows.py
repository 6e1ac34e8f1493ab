"""Results of a benchmark, row by row: kept in a file as they come, and gone on with when the script is run again."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from parteq.datasets.errors import DataError
from parteq.pipelines.files import read_json, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)
else:
    Row = TypeVar("Row")

__all__ = ["Rows"]


class Rows(list[Row], Generic[Row]):
    """A list of rows.

    Args:
        kind: the dataclass of a row.
        path: JSON file that holds them under ``rows``; None keeps nothing.
        settings: what all rows have in common, kept under ``settings``.

    Raises:
        DataError: the file is damaged, or was made with other settings.
    """

    def __init__(self, kind: type[Row], path: Path | None, **settings: Any) -> None:
        self.path, self.settings = path, settings
        found: dict[str, Any] = read_json(path) if path is not None and path.exists() else {}
        super().__init__(kind(**row) for row in found.get("rows", []))
        if path is not None and found.get("settings", settings) != settings:
            raise DataError(path, f"was made with {found['settings']}, not {settings}; name another file")

    def add(self, row: Row) -> None:
        """Appends a row, prints it and writes the file."""
        self.append(row)
        print(json.dumps(asdict(row)), flush=True)
        if self.path is not None:
            rows = [asdict(each) for each in self]
            write_json(self.path, {"schema": 1, "settings": self.settings, "rows": rows})

    def has(self, **values: Any) -> bool:
        """Whether there is a row with these values."""
        return any(all(getattr(row, name) == value for name, value in values.items()) for row in self)
