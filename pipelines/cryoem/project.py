"""``parteq cryoem project``: the images that a map gives at the poses of a STAR file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, Number

if TYPE_CHECKING:
    from parteq.datasets.cryoem.particles import Particles

__all__ = ["Project"]

Map = Annotated[Path, tyro.conf.arg(metavar="MAP.mrc")]
Table = Annotated[Path, tyro.conf.arg(metavar="X.star")]
Stack = Annotated[Path, tyro.conf.arg(metavar="IMAGES.mrcs")]
Real = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]

# Pixel sizes, or fields of view, that differ by a smaller share are the same.
_TOLERANCE = 0.01


@dataclass(kw_only=True)
class Project(Command):
    """Project a map as a STAR file's angles, origins and CTFs say."""

    example: ClassVar[str] = "parteq cryoem project --volume map.mrc --particles poses.star --out images.mrcs --ctf"

    volume: Map
    """Map to project."""
    particles: Table
    """Poses: STAR or .cs file; its images are not read."""
    out: Stack
    """Stack to write."""
    ctf: bool = False
    """Apply the CTFs of the particles."""
    box: Number = None
    """Pixels along an edge, the field of view kept; the map's."""
    pixel_size: Real = None
    """Å, of the map; by default what its header says, or the particles."""

    def run(self) -> dict[str, Any]:
        """Writes the stack; the images come in the order of the particles."""
        from tqdm import tqdm

        from parteq.datasets.cryoem.imaging import imaging_ctf
        from parteq.datasets.cryoem.mrc import read_volume
        from parteq.datasets.cryoem.particles import open_particles
        from parteq.datasets.cryoem.resampling import resample
        from parteq.datasets.cryoem.simulate import ImageFormation, Imaging
        from parteq.datasets.cryoem.stack import StackWriter
        from parteq.datasets.cryoem.volumes import is_model

        for name, value in {"box": self.box, "pixel-size": self.pixel_size}.items():
            if value is not None and not value > 0:
                raise DataError(f"--{name} {value}", "must be greater than 0")
        if is_model(self.volume):
            raise DataError(self.volume, "is an atomic model: `parteq cryoem simulate` makes a map of it, volume.mrc")
        device, particles = self.torch_device(), open_particles(self.particles)
        if not particles.has_poses:
            raise DataError(self.particles, "has no angles to project along")
        particles.check_not_lost(self.out)
        ctf = imaging_ctf(particles) if self.ctf else None
        if self.ctf and ctf is None:
            raise DataError(self.particles, "has no CTF parameters")
        volume, _ = read_volume(self.volume)
        old_pixel_size = self._pixel_size(len(volume), particles)
        box = self.box or len(volume)
        pixel_size = old_pixel_size * len(volume) / box
        formation = ImageFormation(resample(volume, old_pixel_size, box, pixel_size), pixel_size, device)
        # Origins in pixels of no known size are in those of the map.
        imaging = Imaging(particles.rotations(), particles.shifts_in_angstroms(old_pixel_size), ctf)
        hidden = True if self.quiet else None
        with (
            StackWriter(self.out, box, pixel_size) as writer,
            tqdm(total=len(imaging), desc="projecting", unit="image", delay=2, disable=hidden, leave=False) as bar,
        ):
            for images in formation.batches(imaging):
                writer.append(images.cpu().numpy())
                bar.update(len(images))
        return {"out": str(self.out), "n": len(imaging), "box": box, "pixel_size_angstrom": pixel_size}

    def _pixel_size(self, box: int, particles: Particles) -> float:
        """The size of the map's voxels in Å: as given, as its header says, as the particles say, or 1.

        Raises:
            DataError: map and particles differ, in the size of their pixels and in their field of view.
        """
        import numpy as np

        from parteq.datasets.cryoem.mrc import read_header

        if self.pixel_size is not None:
            return self.pixel_size
        of_map, of_images = read_header(self.volume).pixel_size_in_angstroms, particles.numbers("rlnImagePixelSize")
        if of_map is None or of_images is None:
            if of_map is None and of_images is None:
                warnings.warn(f"{self.volume} says no voxel size, nor do the particles: 1 Å is assumed", stacklevel=2)
            return of_map or (1.0 if of_images is None else float(of_images[0]))
        same_size = np.isclose(of_images, of_map, rtol=_TOLERANCE).any()
        if (
            not same_size
            and not np.isclose(of_images * (particles.box_in_pixels() or 0), of_map * box, rtol=_TOLERANCE).any()
        ):
            raise DataError(
                self.volume,
                f"has voxels of {of_map:g} Å, the images of {self.particles.name} have pixels of {of_images[0]:g} Å: "
                "say with --pixel-size which the map has",
            )
        return of_map
