"""The folder that image paths of a file are relative to, and how a file that was written elsewhere remembers it.

RELION's paths are relative to the folder of a project, in which its programs are started; others' to the file that
names the images. A file of poses that is written to a third place keeps the names, which RELION must read as they are,
and says in a block of its own, ``data_parteq``, which other programs pass over, where they lead from. What a file says
of itself is not believed, or it could lead its images out of its folder: it is told to the user, and followed only
where the user's own run wrote the file.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

from parteq.datasets.cryoem.star import Block

__all__ = ["advice", "blocks_remembering", "folder_of_images", "remembered_folder"]

_BLOCK, _FOLDER = "parteq", "parteqImageFolder"


def folder_of_images(source: Path, first: Path) -> Path:
    """The folder of a file; or, if its first image is not there, the working folder if it is there.

    Absolute paths must lead into one of the two.
    """
    beside = source.parent
    if first.is_absolute():
        return beside if first.is_relative_to(beside.absolute()) else Path()
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
    needed = absolute != os.path.abspath(path.parent)
    # A folder that a STAR file cannot hold is no reason not to write the poses.
    return kept | ({_BLOCK: {_FOLDER: absolute}} if needed and absolute.isprintable() and '"' not in absolute else {})


def advice(folder: Path | None) -> str:
    """What to do where images are not found, which lay in this folder once."""
    return "see --datadir" if folder is None else f"they lay elsewhere: give --datadir {shlex.quote(str(folder))}"
