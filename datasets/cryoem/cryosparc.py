"""cryoSPARC's `.cs` files: a NumPy structured array of one row a particle.

`alignments3D/pose` is the axis of a rotation times its angle; the rotation is Rᵀ. `alignments3D/shift` is RELION's
origin, in pixels of `alignments3D/psize_A`. Angles are in radians, images are counted from 0. Every column is also
kept as it is: `alignments3D/shift` becomes the columns `cs/alignments3D/shift/0` and `…/1` of the STAR file.
Arrays of Python objects, which would have to be unpickled, are refused.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.imagenames import image_name
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.errors import DataError

__all__ = ["read_cs"]

_CTF = {
    "defocus_u_in_angstroms": ("ctf/df1_A", 1.0),
    "defocus_v_in_angstroms": ("ctf/df2_A", 1.0),
    "defocus_angle_in_degrees": ("ctf/df_angle_rad", 180 / math.pi),
    "voltage_in_kilovolts": ("ctf/accel_kv", 1.0),
    "spherical_aberration_in_millimetres": ("ctf/cs_mm", 1.0),
    "amplitude_contrast": ("ctf/amp_contrast", 1.0),
    "phase_shift_in_degrees": ("ctf/phase_shift_rad", 180 / math.pi),
}


def read_cs(path: Path, *, datadir: Path | None = None) -> Particles:
    """Reads a `.cs` file of particles.

    Args:
        path: the file.
        datadir: the folder that image paths are relative to (cryoSPARC's project), instead of that of the file.

    Raises:
        DataError: no such file; not a `.cs` file; damaged; Python objects; no particles, or no pixel size or box.
    """
    rows = _read_rows(path)
    names = rows.dtype.names or ()
    lost = [name for name in ("blob/psize_A", "blob/shape") if name not in names]
    if lost:
        raise DataError(path, f"has no column {' or '.join(lost)}: is it the file of particles with their images?")
    pixel_size = rows["blob/psize_A"].astype(np.float64)
    boxes = rows["blob/shape"]
    if boxes.ndim != 2 or boxes.shape[1] != 2 or (boxes != boxes[0, 0]).any():
        raise DataError(path, "its images are not square, or of several sizes")
    return Particles.create(
        *_poses(path, rows),
        _ctf(path, rows),
        pixel_size,
        int(boxes[0, 0]),
        _image_names(path, rows),
        source=path,
        datadir=datadir,
        **_kept(path, rows),
    )


def _read_rows(path: Path) -> NDArray[Any]:
    """The structured array [N]."""
    if not path.is_file():
        raise DataError(path, "no such file")
    try:
        # Mapped, so that a header which claims more than the file has is found out before any memory is taken.
        rows = np.array(npy.open_memmap(path, mode="r"))
    except Exception as error:
        # Any type: numpy parses headers with the Python tokeniser.
        raise DataError(path, f"is not a .cs file, or is damaged ({type(error).__name__}: {error})") from error
    if rows.ndim != 1 or not rows.dtype.names:
        raise DataError(path, f"is not a .cs file: it holds {rows.dtype} {list(rows.shape)}, no table")
    if not len(rows):
        raise DataError(path, "holds no particles")
    return rows


def _poses(path: Path, rows: NDArray[Any]) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """R [N, 3, 3] and shifts in Å [N, 2], if they are there."""
    names = rows.dtype.names or ()
    if "alignments3D/pose" not in names:
        return None, None
    pose = _vectors(path, rows, "alignments3D/pose", 3)
    rotations = Rotation.from_rotvec(pose).as_matrix().transpose(0, 2, 1)
    if "alignments3D/shift" not in names:
        return rotations, None
    pixel_size = rows["alignments3D/psize_A" if "alignments3D/psize_A" in names else "blob/psize_A"]
    return rotations, -_vectors(path, rows, "alignments3D/shift", 2) * pixel_size.astype(np.float64)[:, None]


def _vectors(path: Path, rows: NDArray[Any], name: str, length: int) -> NDArray[np.float64]:
    values = rows[name]
    if values.shape != (len(rows), length) or values.dtype.kind != "f":
        raise DataError(
            path, f"the column {name} is {values.dtype} {list(values.shape)}, not of {length} numbers a row"
        )
    wrong = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(wrong):
        raise DataError(path, f"{name} is not finite in row {wrong[0] + 1}")
    return np.asarray(values, dtype=np.float64)


def _ctf(path: Path, rows: NDArray[Any]) -> CTFParameters | None:
    names = rows.dtype.names or ()
    lost = [column for column, _ in _CTF.values() if column not in names]
    if "ctf/df1_A" in lost:
        return None
    if lost:
        raise DataError(path, f"gives defocus, but has lost {', '.join(lost)}")
    return CTFParameters(**{name: rows[column].astype(np.float64) * unit for name, (column, unit) in _CTF.items()})


def _image_names(path: Path, rows: NDArray[Any]) -> list[str] | None:
    names = rows.dtype.names or ()
    if not {"blob/path", "blob/idx"} <= set(names):
        return None
    # A path relative to cryoSPARC's project may begin with ">".
    files = [text.lstrip(">") for text in _texts(path, rows["blob/path"])]
    return [image_name(number, file) for number, file in zip(rows["blob/idx"].tolist(), files, strict=True)]


def _kept(path: Path, rows: NDArray[Any]) -> dict[str, Any]:
    """Every column, those of vectors as one for each component."""
    kept: dict[str, Any] = {}
    for name in rows.dtype.names or ():
        values = rows[name]
        if values.dtype.kind not in "biufSU":
            raise DataError(path, f"the column {name} is {values.dtype}, neither numbers nor text")
        for place in np.ndindex(values.shape[1:]):
            component: Any = (slice(None), *place)
            kept["/".join(("cs", name, *map(str, place)))] = _widened(path, values[component])
    return kept


def _widened(path: Path, column: NDArray[Any]) -> Any:
    """A column of one of the types that STAR files are read as."""
    if column.dtype.kind in "SU":
        return _texts(path, column)
    if column.dtype.kind == "f":
        return column.astype(np.float64)
    return column.astype(np.uint64 if column.dtype == np.uint64 else np.int64)


def _texts(path: Path, column: NDArray[Any]) -> list[str]:
    try:
        return [text.decode() if isinstance(text, bytes) else text for text in column.tolist()]
    except UnicodeDecodeError as error:
        raise DataError(path, f"a text in it is not UTF-8 ({error})") from error
