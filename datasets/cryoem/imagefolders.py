"""The folder that image paths of a file are relative to, and how a file that was written elsewhere remembers it.

RELION's paths are relative to the folder of a project, in which its programs are started; others' to the file that
names the images. A file of poses that is written to a third place keeps the names, which RELION must read as they are,
and says in a block of its own, ``data_parteq``, which other programs pass over, where they lead from. What a file says
of itself is not believed, or it could lead its images out of its folder; but what this user wrote here is: the block is
signed (HMAC-SHA256) with a secret that is drawn once and kept beside the cached bases, readable to the user alone. What
others wrote is told to the user.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from parteq.core.cache import cache_folder
from parteq.datasets.cryoem.star import Block

__all__ = ["advice", "blocks_remembering", "folder_of_images", "remembered_folder"]

_BLOCK, _FOLDER, _SIGNATURE = "parteq", "parteqImageFolder", "parteqSignature"


def folder_of_images(source: Path, blocks: Mapping[str, Block], first: Path) -> Path:
    """The folder that this user signed; else that of the file; or, if its first image is not there, the working folder.

    Absolute paths must lead into one of the latter two.
    """
    beside = source.parent
    if first.is_absolute():
        return beside if first.is_relative_to(beside.absolute()) else Path()
    if (remembered := remembered_folder(blocks, first)) is not None and _is_own(blocks, remembered):
        return remembered
    return Path() if not os.path.isfile(beside / first) and os.path.isfile(first) else beside


def remembered_folder(blocks: Mapping[str, Block], first: Path) -> Path | None:
    """The folder that paths were relative to when the file was written, if the first image is there."""
    block = blocks.get(_BLOCK)
    folder = Path(str(block.get(_FOLDER, ""))) if isinstance(block, dict) else Path()
    return folder if folder.is_absolute() and os.path.isfile(folder / first) else None


def blocks_remembering(blocks: Mapping[str, Block], folder: Path, first: Path, path: Path) -> dict[str, Block]:
    """Blocks as they are to be written to `path`; as they were where the first image is not in the folder."""
    absolute = os.path.abspath(folder)
    if not os.path.isfile(folder / first):
        return dict(blocks)
    kept = {name: block for name, block in blocks.items() if name != _BLOCK}
    # A folder that a STAR file cannot hold is no reason not to write the poses.
    if absolute == os.path.abspath(path.parent) or not absolute.isprintable():
        return kept
    signature = _signature(absolute)
    return kept | {_BLOCK: {_FOLDER: absolute} | ({} if signature is None else {_SIGNATURE: signature})}


def advice(folder: Path | None) -> str:
    """What to do where images are not found, which lay in this folder once."""
    return "see --datadir" if folder is None else f"they lay elsewhere: give --datadir {shlex.quote(str(folder))}"


def _is_own(blocks: Mapping[str, Block], folder: Path) -> bool:
    """Whether this user signed the block that names the folder."""
    block, signature = blocks[_BLOCK], _signature(str(folder))
    said = str(block.get(_SIGNATURE, "")) if isinstance(block, dict) else ""
    return signature is not None and hmac.compare_digest(said.encode(), signature.encode())


def _signature(folder: str) -> str | None:
    """That of this user; None where no secret can be kept."""
    try:
        return hmac.new(_secret(), folder.encode(), hashlib.sha256).hexdigest()
    except OSError:
        return None


def _secret() -> bytes:
    """Drawn at first use. Raises OSError: it cannot be kept."""
    path = cache_folder() / "secret"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, drawn = tempfile.mkstemp(dir=path.parent)  # readable to the user alone
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
        # The first of several processes wins, and none sees half a secret.
        try:
            with contextlib.suppress(FileExistsError):
                os.link(drawn, path)
        finally:
            os.unlink(drawn)
    return path.read_bytes()
