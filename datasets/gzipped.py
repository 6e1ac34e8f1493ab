"""Unpack a gzip file beside itself, once.

Whoever looks finds the whole file or none; of several processes one unpacks and the others wait for it.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import os
import shutil
import zlib
from pathlib import Path
from typing import IO

from tqdm import tqdm

from parteq.datasets.errors import DataError

__all__ = ["unpack"]

_CHUNK = 2**20
# Left free on the disk.
_SPARE_BYTES = 2**26


class _Observed:
    """A file read from its start, with its MD5 sum and a progress bar."""

    def __init__(self, stream: IO[bytes], bar: tqdm) -> None:
        self._stream, self._bar = stream, bar
        self.md5 = hashlib.md5(usedforsecurity=False)

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._stream.read(size)
        self.md5.update(data)
        self._bar.update(len(data))
        return data


def unpack(packed: Path, largest: int, signature: bytes = b"") -> str | None:
    """Unpack `X.gz` to `X`.

    Args:
        packed: the file; its name ends in `.gz`.
        largest: more bytes than this are not accepted.
        signature: what the unpacked file has to begin with.

    Returns:
        MD5 sum of the packed file, hexadecimal; None if another process unpacked it in the meantime.

    Raises:
        DataError: the file is damaged, cut off or no gzip file, or unpacks to more than `largest` or to another kind
            of file; the disk is full, or the folder cannot be written to. Nothing is left behind.
    """
    target = packed.with_suffix("")
    # Always the same name: the lock keeps others away, and what a killed process left is overwritten.
    temporary = packed.with_name(f".{target.name}.part")
    try:
        with packed.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            if target.exists():
                return None
            _check_room(packed, largest)
            try:
                md5 = _copy(packed, stream, temporary, largest, signature)
                os.replace(temporary, target)
            finally:
                temporary.unlink(missing_ok=True)
            return md5
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(packed, f"is not a gzip file, or is cut off or damaged ({error})") from error
    except OSError as error:
        reason = f"cannot be unpacked beside itself ({error.strerror or error}): use gunzip where there is room"
        raise DataError(packed, reason) from error


def _copy(packed: Path, stream: IO[bytes], target: Path, largest: int, signature: bytes) -> str:
    """Unpack to `target`, and return the MD5 sum of what was packed."""
    size, total = os.fstat(stream.fileno()).st_size, 0
    with (
        tqdm(total=size, desc=f"unpacking {packed.name}", unit="B", unit_scale=True, delay=2, disable=None) as bar,
        target.open("wb") as output,
    ):
        observed = _Observed(stream, bar)
        with gzip.GzipFile(fileobj=observed) as unpacked:  # type: ignore[call-overload]
            if unpacked.peek(len(signature))[: len(signature)] != signature:
                raise DataError(packed, "does not hold the kind of file that its name promises")
            while data := unpacked.read(_CHUNK):
                total += len(data)
                if total > largest:
                    raise DataError(packed, f"unpacks to more than {largest:,} bytes, which is refused")
                output.write(data)
        if total == 0:
            raise DataError(packed, "is empty")
        output.flush()
        os.fsync(output.fileno())
    return observed.md5.hexdigest()


def _check_room(packed: Path, largest: int) -> None:
    """Refuse now what would fill the disk in the end.

    The last four bytes tell the unpacked size modulo 2³²: the least such size not below the packed one is meant.
    """
    with packed.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(0, size - 4))
        claimed = int.from_bytes(stream.read(4), "little")
    while claimed < 0.99 * size:
        claimed += 2**32
    free = shutil.disk_usage(packed.parent).free
    if min(claimed, largest) + _SPARE_BYTES > free:
        raise DataError(packed, f"unpacks to about {claimed / 2**30:.1f} GiB, but {free / 2**30:.1f} GiB are free")
