"""The one exception for bad input, whatever the file was: which path, and why."""

from __future__ import annotations

import os

__all__ = ["DataError"]


def _one_line(text: str) -> str:
    """`text` on one line; what cannot be printed is escaped, for file names may hold anything."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DataError(Exception):
    """A file or folder that cannot be used. `str()` is the single line `PATH: REASON`.

    Args:
        path: what was being read.
        reason: why it cannot be used, in a short phrase; line breaks and runs of blanks become one blank.
    """

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        # Both go to `args`, so that the exception survives pickling.
        super().__init__(path, reason)
        self.path = path
        self.reason = _one_line(" ".join(reason.split()))

    def __str__(self) -> str:
        return f"{_one_line(os.fspath(self.path))}: {self.reason}"

    @classmethod
    def from_worker(cls, error: RuntimeError) -> DataError | None:
        """The DataError raised inside a worker of `torch.utils.data.DataLoader`, or None if `error` is another.

        DataLoader rebuilds exceptions from one string; where that cannot be done, as here, it raises a RuntimeError
        whose text is the worker's traceback, and the traceback's last line is ours.
        """
        last_line = str(error).rstrip().rpartition("\n")[2]
        name, _, message = last_line.partition(": ")
        if name != f"{cls.__module__}.{cls.__qualname__}":
            return None
        path, _, reason = message.partition(": ")
        return cls(path, reason)
