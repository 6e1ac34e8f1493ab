"""What the commands that show where a class is seen share: which class, and the picture they write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import RunCommand
from parteq.pipelines.files import replacing
from parteq.pipelines.histo.options import Out

__all__ = ["Picturing"]


@dataclass(kw_only=True)
class Picturing(RunCommand):
    """A command that makes a picture of where a class is seen."""

    out: Out
    """PNG file to write."""
    class_name: Annotated[str | None, tyro.conf.arg(name="class", metavar="NAME", help_behavior_hint="")] = None
    """Class to look for."""

    def check_out(self) -> None:
        """Refuses what could not be written, before the work is done."""
        if self.out.suffix.lower() != ".png":
            raise DataError(self.out, "is to be a PNG file: give it a name that ends in .png")

    def number(self, classes: Sequence[str]) -> int | None:
        """The number of the class asked for, None if none is.

        Raises:
            DataError: there is no such class.
        """
        if self.class_name is None:
            return None
        if self.class_name not in classes:
            raise DataError(f"--class {self.class_name}", f"the model tells apart {', '.join(classes)}")
        return classes.index(self.class_name)

    def write(self, picture: bytes) -> None:
        """Writes the picture."""
        with replacing(self.out) as temporary:
            temporary.write_bytes(picture)
