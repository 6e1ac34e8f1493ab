"""Pixels of any common depth as uint8, the one depth every image data set of parteq gives out."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError

__all__ = ["check_range", "to_uint8"]

# Values converted at a time: bounds the temporary arrays to some tens of megabytes.
_CHUNK = 2**22
_DARKEST = 2**14  # cameras of up to 14 bits stay below it


def check_range(pixels: NDArray[Any], path: str | os.PathLike[str]) -> None:
    """Refuses uint16 pixels of a camera of fewer bits: scaled from 0…65535 they would lose most of their levels.

    Args:
        pixels: of a whole data set, or the highest of each image; what is not uint16 has no such range.
        path: the file or folder named in the error.

    Raises:
        DataError: the highest is not 0, and below 2¹⁴.
    """
    if not _is_uint16(pixels):
        return
    brightest = int(pixels.max(initial=0))
    if 0 < brightest < _DARKEST:
        raise DataError(path, f"16-bit pixels reach only {brightest} of 65535: scale them up, or save 8 bits")


def to_uint8(pixels: NDArray[Any], path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Scale pixels to 0…255, rounding to nearest. uint8 is returned as it is.

    Args:
        pixels: any shape. bool (0 | 1), uint8, uint16 (the whole range 0…65535 is scaled), or float in 0…1.
        path: the file named in errors.

    Raises:
        DataError: another dtype, NaN, or floats outside 0…1.
    """
    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype.kind not in "bf" and not _is_uint16(pixels):
        raise DataError(path, f"pixels are {pixels.dtype}: save uint8, uint16, bool, or floats in 0…1")
    scaled = np.empty(pixels.shape, np.uint8)
    flat_in, flat_out = pixels.reshape(-1), scaled.reshape(-1)
    for start in range(0, flat_in.size, _CHUNK):
        part = flat_in[start : start + _CHUNK]
        levels: NDArray[Any]
        if pixels.dtype.kind == "b":
            levels = part * np.uint8(255)
        elif pixels.dtype.kind == "u":
            levels = (part.astype(np.uint32) * 255 + 32767) // 65535
        else:
            # NaN fails both comparisons.
            if not bool(np.all((part >= 0) & (part <= 1))):
                raise DataError(path, "float pixels are not all within 0…1 (or are NaN)")
            levels = np.rint(part.astype(np.float32) * 255)
        flat_out[start : start + _CHUNK] = levels
    return scaled


def _is_uint16(pixels: NDArray[Any]) -> bool:
    """Of either byte order."""
    return pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2
