"""MRC files: headers that are checked before anything else is read, and maps.

The format (MRC2014, https://www.ccpem.ac.uk/mrc-format/mrc2014) is a header of 1,024 bytes, an extended header of
`nsymbt` bytes, and `nz` sections of `ny` × `nx` numbers. The sizes in the header must account for every byte of the
file. Programs that leave the machine stamp and the word MAP blank are common, and are believed if the rest of the
header makes sense in either byte order; any other stamp than the two of the standard is refused.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32
from mrcfile.dtypes import HEADER_DTYPE
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.files import replacing

__all__ = ["HEADER_BYTES", "MrcHeader", "header_bytes", "read_header", "read_volume", "write_volume"]

HEADER_BYTES = 1024
# Number types by the mode of the header: two of integers, float32, uint16 and float16.
_DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
_Order = Literal["<", ">"]
_STAMPS: dict[bytes, _Order] = {b"\x44\x44": "<", b"\x44\x41": "<", b"\x11\x11": ">"}
# Two pixel sizes that differ by less than this share are the same, written with few digits.
_SAME_PIXEL_SIZE = 1e-3


@dataclass(frozen=True)
class MrcHeader:
    """What an MRC file holds, and where."""

    path: Path
    shape: tuple[int, int, int]
    """Sections, rows, columns."""
    dtype: np.dtype[Any]
    """Of the numbers, with their byte order."""
    offset: int
    """Bytes in front of the first number."""
    pixel_sizes_in_angstroms: tuple[float | None, float | None, float | None]
    """Along x, y and z; None where the header does not say."""
    axes: tuple[int, int, int]
    """Which of the axes x, y, z (0, 1, 2) columns, rows and sections are."""

    @property
    def pixel_size_in_angstroms(self) -> float | None:
        """Pixel size of a stack of images, if the header says one."""
        return self.pixel_sizes_in_angstroms[0]

    @property
    def is_transposed(self) -> bool:
        """Whether columns, rows and sections are other axes than x, y and z."""
        return self.axes != (0, 1, 2)


def read_header(path: str | os.PathLike[str]) -> MrcHeader:
    """Reads and checks the header of an MRC file of any kind.

    Raises:
        DataError: no such file; not an MRC file; cut off; sizes that do not fit the file; complex or packed numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(path, "no such file")
    try:
        with path.open("rb") as stream:
            head, size = stream.read(HEADER_BYTES), os.fstat(stream.fileno()).st_size
    except OSError as error:
        raise DataError(path, error.strerror or str(error)) from error
    if len(head) < HEADER_BYTES:
        raise DataError(path, f"is no MRC file: {size} bytes are less than a header")
    header, order = _in_byte_order(path, head)
    shape = (int(header["nz"]), int(header["ny"]), int(header["nx"]))
    extended, mode = int(header["nsymbt"]), int(header["mode"])
    if mode not in _DTYPES:
        raise DataError(path, f"MRC mode {mode} is not supported: modes {', '.join(map(str, _DTYPES))} are")
    if min(shape) < 1 or extended < 0:
        raise DataError(path, f"is no MRC file: its header claims the shape {list(shape)} behind {extended} bytes")
    dtype = np.dtype(_DTYPES[mode]).newbyteorder(order)
    needed = HEADER_BYTES + extended + math.prod(shape) * dtype.itemsize
    if needed != size:
        fault = "is cut off" if needed > size else "is longer than its header says"
        raise DataError(path, f"{fault}: {dtype.name} {list(shape)} makes {needed} bytes, the file has {size}")
    axes = tuple(int(header[name]) - 1 for name in ("mapc", "mapr", "maps"))
    pixel_sizes = tuple(_pixel_size(header, axis) for axis in "xyz")
    return MrcHeader(
        path=path,
        shape=shape,
        dtype=dtype,
        offset=HEADER_BYTES + extended,
        pixel_sizes_in_angstroms=pixel_sizes,  # type: ignore[arg-type]  # three, as "xyz" has
        axes=(0, 1, 2) if axes == (-1, -1, -1) else axes,  # type: ignore[arg-type]  # likewise
    )


def _in_byte_order(path: Path, head: bytes) -> tuple[NDArray[Any], _Order]:
    """The header in the byte order of its machine stamp, or in the one in which its mode makes sense."""
    header = np.frombuffer(head, HEADER_DTYPE.newbyteorder("<"))[0]
    word, stamp = bytes(header["map"]), bytes(header["machst"])
    if word not in (b"MAP ", b"MAP", b""):
        raise DataError(path, "is no MRC file: the word MAP is not in its header")
    orders: list[_Order] = [_STAMPS[stamp[:2]]] if stamp[:2] in _STAMPS else ["<", ">"]
    if stamp[:2] not in _STAMPS and any(stamp):
        raise DataError(path, f"has a machine stamp, {stamp.hex(' ')}, that names no byte order")
    for order in orders:
        header = np.frombuffer(head, HEADER_DTYPE.newbyteorder(order))[0]
        if 0 <= header["mode"] < 256:
            return header, order
    raise DataError(path, "is no MRC file, or its machine stamp names the wrong byte order")


def _pixel_size(header: NDArray[Any], axis: str) -> float | None:
    """Length of the cell over the number of samples along an axis; None where one of them was left zero."""
    length, samples = float(header["cella"][axis]), int(header[f"m{axis}"])
    return length / samples if math.isfinite(length) and length > 0 and samples > 0 else None


def header_bytes(
    shape: tuple[int, int, int],
    pixel_size_in_angstroms: float,
    *,
    is_volume: bool,
    extremes: tuple[float, float],
    mean: float,
    deviation: float,
) -> bytes:
    """The header of a map, or of a stack of images, of float32 numbers.

    Args:
        shape: sections, rows, columns.
        pixel_size_in_angstroms: along all axes.
        is_volume: whether the sections make one map; otherwise each is an image.
        extremes: the smallest and the largest number.
        mean: of the numbers.
        deviation: root-mean-square deviation from the mean.
    """
    header = np.zeros((), HEADER_DTYPE.newbyteorder("<"))
    header["nz"], header["ny"], header["nx"] = shape
    samples = shape if is_volume else (1, *shape[1:])
    header["mz"], header["my"], header["mx"] = samples
    header["cella"] = tuple(count * pixel_size_in_angstroms for count in reversed(samples))
    header["cellb"] = (90, 90, 90)
    header["mode"], header["ispg"] = 2, int(is_volume)
    header["mapc"], header["mapr"], header["maps"] = 1, 2, 3
    header["dmin"], header["dmax"], header["dmean"], header["rms"] = *extremes, mean, deviation
    header["nversion"], header["map"], header["machst"] = 20140, b"MAP ", (0x44, 0x44, 0, 0)
    return header.tobytes()


def read_volume(path: str | os.PathLike[str]) -> tuple[Float32[np.ndarray, "z y x"], float | None]:
    """Reads a map.

    Returns:
        The voxels [D, D, D], z first, and their size in Å, None if the header does not say. A map that is no cube is
        put into one with zeros around it, centre (voxel n // 2) on centre.

    Raises:
        DataError: as `read_header`; voxels that are no cubes; numbers that are not finite.
    """
    header = read_header(path)
    if sorted(header.axes) != [0, 1, 2]:
        raise DataError(path, f"its header maps the axes to {[axis + 1 for axis in header.axes]}: no order of 1, 2, 3")
    sizes = [size for size in header.pixel_sizes_in_angstroms if size is not None]
    if sizes and max(sizes) > min(sizes) * (1 + _SAME_PIXEL_SIZE):
        raise DataError(path, f"its voxels are no cubes but have sides of {', '.join(f'{s:.4g}' for s in sizes)} Å")
    stored = np.memmap(header.path, header.dtype, mode="r", offset=header.offset, shape=header.shape)
    # Sections are the first axis of the array, whose axes are to become z, y, x.
    along = [axis for axis in reversed(header.axes)]
    volume = np.ascontiguousarray(stored.transpose([along.index(axis) for axis in (2, 1, 0)]), dtype=np.float32)
    if not np.isfinite(volume).all():
        raise DataError(path, "holds NaN or infinite voxels")
    return _in_cube(volume), sizes[0] if sizes else None


def _in_cube(volume: Float32[np.ndarray, "z y x"]) -> Float32[np.ndarray, "d d d"]:
    box = max(volume.shape)
    before = [box // 2 - length // 2 for length in volume.shape]
    around = [(first, box - length - first) for first, length in zip(before, volume.shape, strict=True)]
    return np.pad(volume, around)


def write_volume(
    path: str | os.PathLike[str], volume: Float32[np.ndarray, "z y x"], pixel_size_in_angstroms: float
) -> None:
    """Writes a map of float32 numbers.

    Raises:
        DataError: the folder does not exist or cannot be written to; a number is not finite.
    """
    voxels = np.ascontiguousarray(volume, dtype="<f4")
    if not np.isfinite(voxels).all():
        raise DataError(path, "is not written: the map has come out as NaN or infinite")
    depth, height, width = voxels.shape
    header = header_bytes(
        (depth, height, width),
        pixel_size_in_angstroms,
        is_volume=True,
        extremes=(float(voxels.min()), float(voxels.max())),
        mean=float(voxels.mean(dtype=np.float64)),
        deviation=float(voxels.std(dtype=np.float64)),
    )
    with replacing(Path(path)) as temporary, temporary.open("wb") as stream:
        stream.write(header)
        stream.write(voxels.tobytes())
