"""Disk cache for static tensors: bases are computed once per machine, under a key that says everything they depend on.

A cached file is an NPZ of plain arrays. It is written beside its final name and moved into place, so that two
processes that build the same basis at the same time never see half a file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
import zipfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["cache_folder", "cached_arrays"]

_LOGGER = logging.getLogger(__name__)
_LAYOUT = 1  # raise when the meaning of any cached array changes


def cache_folder() -> Path:
    """Return the folder of cached bases.

    It is ``$PARTEQ_CACHE``, else ``$XDG_CACHE_HOME/parteq``, else ``~/.cache/parteq``.
    """
    chosen = os.environ.get("PARTEQ_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "parteq"


def cached_arrays(key: str, build: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """Return the arrays of ``key`` from disk, or build and store them.

    Args:
        key: a readable description of everything the arrays depend on.
        build: called with no argument when nothing sound is stored under ``key``.

    Returns:
        The arrays by name. An unreadable file is rebuilt; an unwritable folder costs speed, never correctness.
    """
    # Irreps are escnn's, and with them the bases of everything.
    digest = hashlib.sha256(f"{_LAYOUT}|escnn {version('escnn')}|{key}".encode()).hexdigest()
    path = cache_folder() / f"{digest[:40]}.npz"
    if path.exists():
        try:
            with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            _LOGGER.warning("rebuilding the cached basis %s: %s", path, error)
    arrays = build()
    try:
        _store(path, arrays)
    except OSError as error:
        _LOGGER.warning("cannot cache a basis in %s: %s", path.parent, error)
    return arrays


def _store(path: Path, arrays: dict[str, NDArray[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as handle:
            np.savez(handle, **arrays)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
