"""cryoDRGN's pickles of poses and of contrast transfer functions.

`pose.pkl` holds R [N, 3, 3], or a tuple of R and of RELION's origins [N, 2] as fractions of the box. `ctf.pkl` holds
[N, 9]: box in pixels, pixel size in Å, defocus U and V in Å, defocus angle in degrees, voltage in kV, spherical
aberration in mm, amplitude contrast, phase shift in degrees. It is float32, in which cryoDRGN computes; poses, which
cryoDRGN converts itself, are written as float64. The pickles neither name the images nor hold any other column: a
stack or a STAR file beside them does.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy.typing import NDArray

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.imagenames import image_name
from parteq.datasets.cryoem.mrc import read_header
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.cryoem.pickles import read_arrays, write_arrays
from parteq.datasets.errors import DataError
from parteq.datasets.files import make_folder, replacing

__all__ = ["read_cryodrgn", "write_cryodrgn"]

log = logging.getLogger(__name__)

# The columns of ctf.pkl behind the box and the pixel size.
_CTF = (
    "defocus_u_in_angstroms",
    "defocus_v_in_angstroms",
    "defocus_angle_in_degrees",
    "voltage_in_kilovolts",
    "spherical_aberration_in_millimetres",
    "amplitude_contrast",
    "phase_shift_in_degrees",
)
# Matrices further than this from a rotation are none, in float32.
_NO_ROTATION = 1e-3
# Numbers that agree so far, of their scale, are the same, one of them in float32.
_SAME = 1e-5

Poses = tuple[Float64[np.ndarray, "n 3 3"], Float64[np.ndarray, "n 2"] | None]


def read_cryodrgn(paths: Sequence[Path], *, datadir: Path | None = None) -> Particles:
    """Particles from pickles of poses and of contrast transfer functions, and what names their images.

    Args:
        paths: `pose.pkl`, `ctf.pkl` or both, told apart by what they hold; and, if wanted, the stack (`.mrcs`,
            `.mrc`) whose images these are, or a STAR file of them, whose columns are then all kept: poses are taken
            from the pickle, and `ctf.pkl` must agree.
        datadir: the folder that image paths of the STAR file are relative to.

    Raises:
        DataError: a file cannot be read, or is none of these; two files of one kind, or of different lengths;
            matrices that are no rotations; numbers that are not finite; neither `ctf.pkl` nor images give the box.
    """
    poses: Poses | None = None
    ctf: NDArray[np.float64] | None = None
    images: Path | None = None
    for path in paths:
        if path.suffix != ".pkl":
            _refuse_second(path, images)
            images = path
            continue
        arrays = read_arrays(path)
        if len(arrays) == 1 and arrays[0].ndim == 2:
            _refuse_second(path, ctf)
            ctf = _checked_ctf(path, arrays[0])
        else:
            _refuse_second(path, poses)
            poses = _checked_poses(path, arrays)
    if poses is None and ctf is None:
        raise DataError(paths[0], "no pickle of poses or of contrast transfer functions is given")
    lengths = {len(part) for part in (ctf, poses and poses[0]) if part is not None}
    if len(lengths) > 1:
        raise DataError(paths[0], f"the pickles are of different particles: {' and '.join(map(str, lengths))} of them")
    if images is not None and images.suffix == ".star":
        return _joined(open_particles(images, datadir=datadir), poses, ctf)
    return _made(paths[0], lengths.pop(), poses, ctf, images)


def _refuse_second(path: Path, first: object) -> None:
    if first is not None:
        raise DataError(path, "is the second file of its kind: one of poses, one of CTFs and one of images are taken")


def _checked_poses(path: Path, arrays: tuple[NDArray[np.number], ...]) -> Poses:
    shapes = [list(array.shape) for array in arrays]
    n = shapes[0][0] if shapes[0] else 0
    if n == 0 or shapes not in ([[n, 3, 3]], [[n, 3, 3], [n, 2]]):
        raise DataError(path, f"holds arrays of the shapes {shapes}: neither poses nor contrast transfer functions")
    rotations, *shifts = (_finite(path, array) for array in arrays)
    departure = np.abs(rotations @ rotations.transpose(0, 2, 1) - np.eye(3)).max(axis=(1, 2))
    wrong = np.flatnonzero((departure > _NO_ROTATION) | (np.linalg.det(rotations) < 0))
    if len(wrong):
        raise DataError(path, f"the matrix of particle {wrong[0] + 1} is no rotation")
    return rotations, shifts[0] if shifts else None


def _checked_ctf(path: Path, array: NDArray[np.number]) -> NDArray[np.float64]:
    if array.shape[1] != 2 + len(_CTF) or not len(array):
        raise DataError(path, f"holds an array of the shape {list(array.shape)}: CTFs have {2 + len(_CTF)} columns")
    ctf = _finite(path, array)
    if (ctf[:, :2] <= 0).any() or (ctf[:, 0] != np.floor(ctf[0, 0])).any():
        raise DataError(path, "its boxes or pixel sizes are not those of images of one size")
    return ctf


def _finite(path: Path, array: NDArray[np.number]) -> NDArray[np.float64]:
    values = array.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(wrong):
        raise DataError(path, f"a number of particle {wrong[0] + 1} is not finite")
    return values


def _made(path: Path, n: int, poses: Poses | None, ctf: NDArray[np.float64] | None, images: Path | None) -> Particles:
    """Particles of the pickles, and of a stack if there is one; without it they have no image names."""
    header = None if images is None else read_header(images)
    if header is not None and header.shape[0] != n:
        raise DataError(header.path, f"has {header.shape[0]} images, and the pickles are of {n}")
    if ctf is not None:
        box, pixel_size = int(ctf[0, 0]), ctf[:, 1]
    elif header is not None:
        box, pixel_size = header.shape[2], np.full(n, header.pixel_size_in_angstroms or 1.0)
    else:
        raise DataError(path, "the box and the pixel size are not known: add +ctf.pkl or the stack, +X.mrcs")
    rotations, fractions = poses or (None, None)
    return Particles.create(
        rotations,
        None if fractions is None else -fractions * (box * pixel_size)[:, None],
        None if ctf is None else CTFParameters(**dict(zip(_CTF, ctf[:, 2:].T, strict=True))),
        pixel_size,
        box,
        None if header is None else [image_name(number, header.path.name) for number in range(n)],
        source=path if header is None else header.path,
    )


def _joined(particles: Particles, poses: Poses | None, ctf: NDArray[np.float64] | None) -> Particles:
    """Particles of a STAR file with the poses of a pickle; rows whose pose is the same keep its digits."""
    n = len(ctf if ctf is not None else poses[0])  # type: ignore[index]  # one of them is given
    if len(particles) != n:
        raise DataError(particles.source, f"has {len(particles)} particles, and the pickles are of {n}")
    if ctf is not None:
        _refuse_other_ctf(particles, ctf)
    if poses is None:
        return particles
    rotations, fractions = poses
    box = particles.box_in_pixels()
    if ctf is not None:
        extent = ctf[:, 0] * ctf[:, 1]
    elif box is not None:
        extent = box * particles.pixel_size_in_angstroms()
    else:
        raise DataError(particles.source, "does not say how large its images are: add +ctf.pkl")
    shifts = None if fractions is None else -fractions * extent[:, None]
    moved = particles.with_poses(rotations, shifts)
    if not particles.has_poses:
        return moved
    same = np.abs(particles.rotations() - rotations).max(axis=(1, 2)) < _SAME
    if shifts is not None:
        same &= np.abs(particles.shifts_in_angstroms() - shifts).max(axis=1) < _SAME * extent
    table = moved.table.copy()
    table.loc[same, list(particles.table)] = particles.table[same]
    return particles.with_table(table)


def _refuse_other_ctf(particles: Particles, ctf: NDArray[np.float64]) -> None:
    own = particles.ctf()
    if own is None:
        raise DataError(particles.source, "has no CTF that ctf.pkl could be compared to")
    values = np.stack([getattr(own, name) for name in _CTF], axis=1)
    wrong = np.flatnonzero((np.abs(values - ctf[:, 2:]) > _SAME * np.maximum(1, np.abs(values))).any(axis=1))
    if len(wrong):
        raise DataError(particles.source, f"has another CTF than ctf.pkl in row {wrong[0] + 1}: other particles?")


def write_cryodrgn(particles: Particles, folder: Path) -> list[Path]:
    """Writes `pose.pkl` and `ctf.pkl` into a folder, which is made if it is not there.

    Returns:
        The files written; what the particles do not have is left out.

    Raises:
        DataError: neither poses nor defocus, or no box, is given; the folder cannot be written to.
    """
    box, pixel_size, ctf = particles.box_in_pixels(), particles.pixel_size_in_angstroms(), particles.ctf()
    if box is None:
        raise DataError(particles.source, "gives no box (rlnImageSize), nor does a stack beside it")
    if box % 2:
        log.warning("%s: cryoDRGN takes even boxes alone, and these are of %d pixels", particles.source, box)
    contents: dict[str, NDArray[np.floating] | tuple[NDArray[np.floating], ...]] = {}
    if particles.has_poses:
        rotations = particles.rotations()
        fractions = (0.0 - particles.shifts_in_angstroms()) / (box * pixel_size)[:, None]
        contents["pose.pkl"] = (rotations, fractions) if particles.has_shifts else rotations
    if ctf is not None:
        columns = [np.full(len(particles), float(box)), pixel_size, *(getattr(ctf, name) for name in _CTF)]
        with np.errstate(over="ignore"):
            contents["ctf.pkl"] = np.stack(columns, axis=1).astype(np.float32)
        if not np.isfinite(contents["ctf.pkl"]).all():
            raise DataError(particles.source, "its CTFs have numbers too large for ctf.pkl")
    if not contents:
        raise DataError(particles.source, "has neither poses nor defocus, and cryoDRGN's pickles hold nothing else")
    make_folder(folder)
    with ExitStack() as both:
        # Neither takes its place before both are written.
        for name, arrays in contents.items():
            write_arrays(both.enter_context(replacing(folder / name)), arrays)
    return [folder / name for name in contents]
