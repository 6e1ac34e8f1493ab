"""Particles: what a STAR file (or cryoSPARC's) says of each image, in the conventions of RELION.

A particle with the potential φ has the image o(p) = ∫ φ(Rᵀ(x, y, z)) dz, with R of the Euler angles (rot, tilt, psi)
as `parteq.datasets.cryoem.poses` says, and its centre stands at −origin. x points along the last axis of an image.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy.typing import ArrayLike, NDArray

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.ctfcolumns import IMAGE_OF_CTF, OPTICS_OF_CTF, ROW_BEFORE_OPTICS, ctf_of_columns
from parteq.datasets.cryoem.dialects import (
    ORIGINS_IN_ANGSTROMS,
    ORIGINS_IN_PIXELS,
    check_range,
    numbers,
    optics_groups,
    optics_rows,
    to_relion31,
)
from parteq.datasets.cryoem.imagefolders import advice, blocks_remembering, folder_of_images, remembered_folder
from parteq.datasets.cryoem.imagenames import ImagePlaces, image_places
from parteq.datasets.cryoem.mrc import MrcHeader, read_header
from parteq.datasets.cryoem.poses import euler_angles, rotations_of_angles
from parteq.datasets.cryoem.stack import ImageStack
from parteq.datasets.cryoem.star import StarFile, read_star, write_star
from parteq.datasets.errors import DataError

__all__ = ["ANGLES", "FARTHEST_ORIGIN_IN_ANGSTROMS", "PIXEL_SIZES_IN_ANGSTROMS", "Particles", "open_particles"]

log = logging.getLogger(__name__)

ANGLES = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi")

PIXEL_SIZES_IN_ANGSTROMS = (1e-3, 1e4)
"""The least and the most that are understood."""
FARTHEST_ORIGIN_IN_ANGSTROMS = 1e5
"""Along either axis."""
_SIGN = "cs/blob/sign"  # as `parteq.datasets.cryoem.cryosparc` keeps it: −1 where particles are dark

Indices = Sequence[int] | NDArray[np.integer] | NDArray[np.bool_] | slice


@dataclass(frozen=True)
class Particles:
    """N particles. Nothing is changed in place, and no column is ever taken away.

    Args:
        source: the file they came from, for errors; image paths are relative to its folder.
        star: their tables "optics" and "particles", in the form of RELION 3.1, and whatever else the file holds.
        datadir: the folder that image paths are relative to instead.
    """

    source: Path
    star: StarFile
    datadir: Path | None = None

    @classmethod
    def create(
        cls,
        rotations: Float64[np.ndarray, "n 3 3"] | None,
        shifts_in_angstroms: Float64[np.ndarray, "n 2"] | None,
        ctf: CTFParameters | None,
        pixel_size_in_angstroms: ArrayLike,
        box: int,
        image_names: Sequence[str] | None = None,
        *,
        source: Path = Path("particles.star"),
        datadir: Path | None = None,
        **columns: ArrayLike,
    ) -> Particles:
        """Particles from numbers; None for what is not known of them.

        Args:
            rotations: R of each.
            shifts_in_angstroms: where the centre of each stands, (x, y), from the image's centre.
            ctf: of each image.
            pixel_size_in_angstroms: of all images, or of each [N].
            box: rows and columns of an image.
            image_names: such as "000001@particles.mrcs", relative to the folder of `source`.
            source: a file, perhaps still to be written.
            datadir: the folder that image paths are relative to instead.
            columns: more columns, [N] each; names that RELION does not know are allowed.
        """
        known: list[Any] = [rotations, ctf, image_names, *columns.values()]
        n = next(len(part) for part in known if part is not None)
        shared = {} if ctf is None else {column: getattr(ctf, name) for column, name in OPTICS_OF_CTF.items()}
        shared["rlnImagePixelSize"] = np.broadcast_to(np.asarray(pixel_size_in_angstroms, dtype=np.float64), n)
        groups, optics = optics_groups(n, shared)
        table: dict[str, Any] = {} if image_names is None else {"rlnImageName": list(image_names)}
        if ctf is not None:
            table |= {column: getattr(ctf, name) for column, name in IMAGE_OF_CTF.items()}
        table |= {"rlnOpticsGroup": groups} | {name: np.asarray(values) for name, values in columns.items()}
        blocks = {"optics": optics.assign(rlnImageSize=box), "particles": pd.DataFrame(table)}
        particles = cls(source, StarFile(blocks), datadir)
        return particles if rotations is None else particles.with_poses(rotations, shifts_in_angstroms)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each particle."""
        return self.star.blocks["particles"]

    @property
    def optics(self) -> pd.DataFrame:
        """A row for each optics group."""
        return self.star.blocks["optics"]

    @cached_property
    def _optics_rows(self) -> NDArray[np.int64]:
        return optics_rows(self.source, self.table, self.optics)

    def numbers(self, name: str) -> Float64[np.ndarray, " n"] | None:
        """A column, or that of the optics groups, for each particle; None if there is none.

        Where both give it, that of the optics groups; but of a CTF, as RELION reads it, that of the particles.

        Raises:
            DataError: a value is not a finite number.
        """
        if name in self.table and (name in ROW_BEFORE_OPTICS or name not in self.optics):
            return numbers(self.source, self.table, name)
        return numbers(self.source, self.optics, name)[self._optics_rows] if name in self.optics else None

    @property
    def has_poses(self) -> bool:
        """Whether all three angles are given."""
        return set(ANGLES) <= set(self.table.columns)

    @property
    def has_shifts(self) -> bool:
        """Whether origins are given."""
        return self._origins() is not None

    def _origins(self) -> tuple[str, str] | None:
        """The columns of origins, in Å or else in pixels; None if there are none. Raises DataError: one is lost."""
        for columns in (ORIGINS_IN_ANGSTROMS, ORIGINS_IN_PIXELS):
            lost = [name for name in columns if name not in self.table]
            if not lost:
                return columns
            if len(lost) == 1:
                raise DataError(self.source, f"has lost {lost[0]}, the other half of its origins")
        return None

    def rotations(self) -> Float64[np.ndarray, "n 3 3"]:
        """R of each particle.

        Raises:
            DataError: an angle is missing or not finite.
        """
        if not self.has_poses:
            raise DataError(self.source, f"has no poses: it needs the columns {', '.join(ANGLES)}")
        return rotations_of_angles(np.stack([numbers(self.source, self.table, name) for name in ANGLES], axis=1))

    def shifts_in_angstroms(self, pixel_size_in_angstroms: float | None = None) -> Float64[np.ndarray, "n 2"]:
        """Where the centre of each particle stands, (x, y), from the centre of its image: −origin; 0 if not given.

        Args:
            pixel_size_in_angstroms: of origins in pixels, where the file says none; None for that of the images.

        Raises:
            DataError: an origin is not finite, or farther away than any image reaches; one of the two is lost.
        """
        columns = self._origins()
        if columns is None:
            return np.zeros((len(self), 2))
        origins = np.stack([numbers(self.source, self.table, name) for name in columns], axis=1)
        if columns == ORIGINS_IN_PIXELS:
            known = pixel_size_in_angstroms is None or self.numbers("rlnImagePixelSize") is not None
            origins = origins * (self.pixel_size_in_angstroms()[:, None] if known else pixel_size_in_angstroms)
        check_range(self.source, "an origin", np.abs(origins).max(1), 0.0, FARTHEST_ORIGIN_IN_ANGSTROMS, "Å")
        # Not −0 where there is no shift.
        return 0.0 - origins

    def ctf(self) -> CTFParameters | None:
        """The contrast transfer functions, None if no defocus is given.

        Raises:
            DataError: a number is not finite or none that a microscope has, or there is defocus but not all that
                belongs to it.
        """
        return ctf_of_columns(self.source, len(self), self.numbers)

    def pixel_size_in_angstroms(self) -> Float64[np.ndarray, " n"]:
        """Of each image: as the file says, else as the header of the first stack says, else 1.

        Raises:
            DataError: a pixel size is none that images have.
        """
        return self._pixel_sizes

    @cached_property
    def _pixel_sizes(self) -> Float64[np.ndarray, " n"]:
        sizes = self.numbers("rlnImagePixelSize")
        if sizes is None:
            size = self._pixel_size_of_images()
            if size is None:
                log.warning("%s says no pixel size, nor do its images: 1 Å is assumed", self.source)
            sizes = np.full(len(self), 1.0 if size is None else size)
        check_range(self.source, "a pixel size", sizes, *PIXEL_SIZES_IN_ANGSTROMS, "Å")
        return sizes

    def box_in_pixels(self) -> int | None:
        """Rows and columns of the images: as the file says, else as the header of the first stack, if it can be read.

        Raises:
            DataError: there are images of several sizes.
        """
        sizes = self.numbers("rlnImageSize")
        if sizes is None:
            header = self._first_header()
            return None if header is None else header.shape[2]
        if len(set(sizes)) > 1:
            raise DataError(self.source, f"has images of several sizes, {min(sizes):g} to {max(sizes):g} pixels")
        return int(sizes[0])

    def _pixel_size_of_images(self) -> float | None:
        """In Å, as the header of the first stack says."""
        header = self._first_header()
        return None if header is None else header.pixel_size_in_angstroms

    def _first_header(self) -> MrcHeader | None:
        """Header of the stack of the first image, if it can be read."""
        if "rlnImageName" not in self.table:
            return None
        # What is wrong with it matters once images are wanted: `images` says it.
        with suppress(DataError):
            return read_header(self.subset(slice(1)).image_places().paths[0])
        return None

    @cached_property
    def image_folder(self) -> Path:
        """The folder that image paths are relative to, see `parteq.datasets.cryoem.imagefolders`."""
        first = self._first_path()
        if self.datadir is not None or first is None:
            return self.datadir or self.source.parent
        return folder_of_images(self.source, self.star.blocks, first)

    @property
    def remembered_folder(self) -> Path | None:
        """That which the file says it was written with, if the first image is there; nothing is read from it."""
        first = self._first_path()
        return None if first is None else remembered_folder(self.star.blocks, first)

    def _first_path(self) -> Path | None:
        """That of the first image, as it is named."""
        if "rlnImageName" not in self.table or not len(self):
            return None
        return Path(str(self.table["rlnImageName"].iloc[0]).rpartition("@")[2])

    def _advice(self) -> str:
        return advice(None if self.datadir is not None else self.remembered_folder)

    def image_places(self) -> ImagePlaces:
        """Where the images are. Raises DataError: a name is no image name, or leads out of the folder."""
        if "rlnImageName" not in self.table:
            raise DataError(self.source, "names no images: it has no column rlnImageName")
        return image_places(self.source, self.table["rlnImageName"], self.image_folder, self._advice())

    def check_not_lost(self, out: Path) -> None:
        """Refuses to write a file that images are in. Raises DataError."""
        stacks = self.image_places().paths if "rlnImageName" in self.table and out.exists() else []
        if any(path.exists() and path.samefile(out) for path in stacks):
            raise DataError(out, f"holds images of {self.source}, which would be lost")

    def images(self) -> ImageStack:
        """The images, bright where cryoSPARC says that they are dark; nothing but headers is read yet.

        Raises:
            DataError: a stack is missing, damaged or too short, or its path leads out of the folder.
        """
        places = self.image_places()
        for path in places.paths:
            if not path.is_file():
                raise DataError(path, f"no such file, but {self.source.name} has images in it ({self._advice()})")
        signs = self.numbers(_SIGN)
        if signs is not None and not (np.abs(signs) == 1).all():
            raise DataError(self.source, f"has a {_SIGN} that is neither 1 nor -1")
        stack = ImageStack(*places, signs)
        box = self.box_in_pixels()
        if box != stack.box:
            raise DataError(places.paths[0], f"has images of {stack.box} pixels, where {self.source.name} says {box}")
        return stack

    def with_poses(
        self,
        rotations: Float64[np.ndarray, "n 3 3"],
        shifts_in_angstroms: Float64[np.ndarray, "n 2"] | None = None,
        **columns: ArrayLike,
    ) -> Particles:
        """These particles with other poses; all else stays, and columns that are new come last.

        A pixel size that only the images say is written beside shifts, which mean nothing without.

        Args:
            rotations: R of each.
            shifts_in_angstroms: where the centre of each stands; None leaves the origins as they are.
            columns: more columns, [N] each, such as `parteqConfidence`.
        """
        table = self.table.assign(**dict(zip(ANGLES, euler_angles(rotations).T, strict=True)))
        if shifts_in_angstroms is not None:
            origins = 0.0 - np.asarray(shifts_in_angstroms, dtype=np.float64)
            table = table.assign(**dict(zip(ORIGINS_IN_ANGSTROMS, origins.T, strict=True)))
            if set(ORIGINS_IN_PIXELS) & set(table.columns):
                in_pixels = origins / self.pixel_size_in_angstroms()[:, None]
                table = table.assign(**dict(zip(ORIGINS_IN_PIXELS, in_pixels.T, strict=True)))
        found = self.with_table(table.assign(**{name: np.asarray(values) for name, values in columns.items()}))
        if shifts_in_angstroms is None or self.numbers("rlnImagePixelSize") is not None:
            return found
        size = self._pixel_size_of_images()
        optics = self.optics if size is None else self.optics.assign(rlnImagePixelSize=size)
        return Particles(found.source, StarFile({**found.star.blocks, "optics": optics}), found.datadir)

    def subset(self, indices: Indices) -> Particles:
        """Some of the particles."""
        return self.with_table(self.table.iloc[indices].reset_index(drop=True))

    def with_table(self, table: pd.DataFrame) -> Particles:
        """These particles with another table "particles", whose optics groups are the same."""
        return Particles(self.source, StarFile({**self.star.blocks, "particles": table}), self.datadir)

    def write(self, path: str | os.PathLike[str]) -> None:
        """Writes a STAR file of RELION 3.1. Raises DataError as `write_star`.

        Image names stay as they are; what they are relative to is remembered.
        """
        first, blocks = self._first_path(), self.star.blocks
        if first is not None:
            blocks = blocks_remembering(blocks, self.image_folder, first, Path(path))
        write_star(path, StarFile(blocks))


def open_particles(path: str | os.PathLike[str], *, datadir: str | os.PathLike[str] | None = None) -> Particles:
    """Particles of a STAR file (RELION 3.0 to 5) or of cryoSPARC's `.cs`; images are not opened yet.

    Args:
        path: `X.star` or `X.cs`.
        datadir: the folder that image paths are relative to, instead of that of the file.

    Raises:
        DataError: the file cannot be read, has lost a table that it needs, or is of another kind.
    """
    path, folder = Path(path), None if datadir is None else Path(datadir)
    if folder is not None and not folder.is_dir():
        raise DataError(folder, "no such folder")
    if path.suffix == ".cs":
        from parteq.datasets.cryoem.cryosparc import read_cs

        return read_cs(path, datadir=folder)
    if path.suffix != ".star":
        raise DataError(path, "holds no particles: a STAR file (.star) or one of cryoSPARC (.cs) is needed")
    star = read_star(path)
    particles = Particles(path, to_relion31(path, star), folder)
    if "optics" in star.blocks or "rlnImageName" not in particles.table:
        return particles
    # RELION needs the box in its optics table, which RELION 3.0 left to the stack.
    box = particles.box_in_pixels()
    if box is None:
        return particles
    optics = particles.optics.assign(rlnImageSize=box)
    return Particles(path, StarFile({**particles.star.blocks, "optics": optics}), folder)
