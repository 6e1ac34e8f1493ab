"""``parteq cryoem simulate``: particles with known poses, from a map or an atomic model."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, Number, Text

if TYPE_CHECKING:
    from parteq.datasets.cryoem.particles import Particles
    from parteq.datasets.cryoem.simulate import Microscope

__all__ = ["Simulate"]

Volume = Annotated[Path, tyro.conf.arg(metavar="FILE")]
Folder = Annotated[Path, tyro.conf.arg(metavar="DIR")]
Optional = Annotated[float | None, tyro.conf.arg(metavar="X", help_behavior_hint="")]
Real = Annotated[float, tyro.conf.arg(metavar="X")]
Kind = Annotated[str, tyro.conf.arg(metavar="KIND")]
Colour = Annotated[Literal["white", "pink"], tyro.conf.arg(metavar="KIND")]
Transfer = Annotated[Literal["full", "none"], tyro.conf.arg(metavar="KIND")]

_DEFOCUS_IN_MICROMETRES = "1.0-2.5"


@dataclass(kw_only=True)
class Simulate(Command):
    """Simulate particles: DIR/particles.star with the truth, particles.mrcs, volume.mrc."""

    example: ClassVar[str] = (
        "parteq cryoem simulate --volume map.mrc --n 10000 --box 128 --pixel-size 1.5 --snr 0.1 --out DIR"
    )

    volume: Volume
    """Map (.mrc), or atomic model (.pdb, .cif)."""
    n: int
    """How many particles."""
    out: Folder
    """Folder to write to."""
    box: Number = None
    """Pixels along an edge; by default the map's."""
    pixel_size: Optional = None
    """Å; by default the map's field of view is kept."""
    snr: Optional = None
    """Signal variance over noise variance, all pixels; by default no noise."""
    noise: Colour = "white"
    """white, or pink: power as 1/frequency."""
    poses: Kind = "uniform"
    """uniform, preferred (near z), or a .star or .cs file to draw from."""
    shift: Optional = None
    """Å, the most along x and along y; by default 0, or as in the file."""
    ctf: Transfer = "full"
    """full or none."""
    defocus: Text = None
    """Underfocus in µm; by default 1.0-2.5, or all of the file's CTFs."""
    astigmatism: Real = 0.0
    """Å, defocus U − V."""
    voltage: Real = 300.0
    """kV."""
    cs: Real = 2.7
    """mm, spherical aberration."""
    amplitude_contrast: Real = 0.1
    """Between 0 and 1."""
    phase_shift: Real = 0.0
    """Degrees."""
    assembly: Text = None
    """Of a model; by default its first, else asymmetric-unit."""
    b_factor: Optional = None
    """Å², in place of those of a model."""
    align: bool = False
    """Turn a model's symmetry axis onto z."""

    def folder_to_make(self) -> Path:
        """That of the particles."""
        return self.out

    def run(self) -> dict[str, Any]:
        """Writes the stack, then the volume, then the STAR file that refers to them."""
        import numpy as np
        from tqdm import tqdm

        from parteq.datasets.cryoem.mrc import write_volume
        from parteq.datasets.cryoem.noise import noise_deviation
        from parteq.datasets.cryoem.particles import Particles
        from parteq.datasets.cryoem.simulate import ImageFormation, draw_imaging, noisy_images
        from parteq.datasets.cryoem.stack import StackWriter
        from parteq.datasets.cryoem.volumes import open_volume
        from parteq.pipelines.files import make_folder

        self._check()
        poses, device = self._poses(), self.torch_device()
        microscope = self._microscope(poses)
        volume, pixel_size = open_volume(
            self.volume, self.box, self.pixel_size, assembly=self.assembly, b_factor=self.b_factor, align=self.align
        )
        least, most = _limits()["pixel_size"]
        if not least <= pixel_size <= most:
            raise DataError(self.volume, f"would give pixels of {pixel_size:g} Å: {least:g} to {most:g} is understood")
        box = volume.shape[-1]
        # The noise does not change the poses that a seed gives, nor the poses the noise.
        of_poses, of_noise = (np.random.default_rng(seed) for seed in np.random.SeedSequence(self.seed).spawn(2))
        imaging = draw_imaging(
            self.n,
            of_poses,
            poses=poses,
            pixel_size_in_angstroms=pixel_size,
            shift_in_angstroms=self.shift,
            microscope=microscope,
        )
        if self.ctf == "none":
            imaging = replace(imaging, ctf=None)
        formation = ImageFormation(volume, pixel_size, device)
        variance = formation.variance(imaging)
        deviation = 0.0 if self.snr is None else noise_deviation(variance, self.snr)

        make_folder(self.out)
        stack = self.out / "particles.mrcs"
        hidden = True if self.quiet else None
        with (
            StackWriter(stack, box, pixel_size) as writer,
            tqdm(total=self.n, desc="simulating", unit="image", delay=2, disable=hidden, leave=False) as bar,
        ):
            for images in noisy_images(formation, imaging, deviation, of_noise, self.noise):
                writer.append(images)
                bar.update(len(images))
        write_volume(self.out / "volume.mrc", volume, pixel_size)
        Particles.create(
            imaging.rotations,
            imaging.shifts_in_angstroms,
            imaging.ctf,
            pixel_size,
            box,
            image_names=[f"{number:06d}@{stack.name}" for number in range(1, self.n + 1)],
        ).write(self.out / "particles.star")
        return {
            "out": str(self.out),
            "n": self.n,
            "box": box,
            "pixel_size_angstrom": pixel_size,
            "signal_variance": variance,
            "noise_variance": deviation**2,
        }

    def _check(self) -> None:
        """Refuses numbers that make no sense, and a folder with particles of others."""
        for name in ("n", "box", "snr"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise DataError(f"--{name} {value}", "must be a number greater than 0")
        for name, (least, most) in _limits().items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise DataError(f"--{name.replace('_', '-')} {value}", f"must be between {least:g} and {most:g}")
        made = [self.out / name for name in ("particles.star", "particles.mrcs", "volume.mrc")]
        for read in (self.volume, Path(self.poses)):
            if read.resolve() in [path.resolve() for path in made]:
                raise DataError(read, "is read, and would be lost: choose another --out")
        # What was simulated before stands there whole.
        there = [path for path in made if path.exists()]
        if there and len(there) < len(made):
            raise DataError(there[0], "was not simulated here and would be lost: choose another --out")

    def _poses(self) -> str | Particles:
        """The name of a distribution, or the particles to draw from."""
        from parteq.datasets.cryoem.particles import open_particles

        if self.poses in ("uniform", "preferred"):
            return self.poses
        particles = open_particles(Path(self.poses))
        if not particles.has_poses:
            raise DataError(self.poses, "has no poses to draw from")
        return particles

    def _microscope(self, poses: str | Particles) -> Microscope | None:
        """What CTFs are drawn from; None where they are drawn with the poses, or where there are none."""
        from parteq.datasets.cryoem.ctf import RANGES
        from parteq.datasets.cryoem.simulate import Microscope

        if self.ctf == "none":
            return None
        if self.defocus is None and not isinstance(poses, str) and poses.ctf() is not None:
            defaults = {field.name: field.default for field in fields(self)}
            for name in ("astigmatism", "voltage", "cs", "amplitude_contrast", "phase_shift"):
                if getattr(self, name) != defaults[name]:
                    option = f"--{name.replace('_', '-')} {getattr(self, name):g}"
                    raise DataError(option, f"is nothing beside the CTFs of {self.poses}: give --defocus for others")
            return None
        least, greatest = _range(self.defocus or _DEFOCUS_IN_MICROMETRES)
        # What those who read the particles understand, in Å.
        if 1e4 * greatest + self.astigmatism / 2 > RANGES["defocus_u_in_angstroms"][2]:
            raise DataError(f"--defocus {greatest:g}", "and half the astigmatism must not exceed 100 µm")
        return Microscope(
            defocus_in_micrometres=(least, greatest),
            astigmatism_in_angstroms=self.astigmatism,
            voltage_in_kilovolts=self.voltage,
            spherical_aberration_in_millimetres=self.cs,
            amplitude_contrast=self.amplitude_contrast,
            phase_shift_in_degrees=self.phase_shift,
        )


def _limits() -> dict[str, tuple[float, float]]:
    """The least and the most of each option, as those who read the particles understand it."""
    from parteq.datasets.cryoem.ctf import RANGES
    from parteq.datasets.cryoem.particles import FARTHEST_ORIGIN_IN_ANGSTROMS, PIXEL_SIZES_IN_ANGSTROMS

    return {
        "pixel_size": PIXEL_SIZES_IN_ANGSTROMS,
        "shift": (0, FARTHEST_ORIGIN_IN_ANGSTROMS),
        "astigmatism": (0, RANGES["defocus_u_in_angstroms"][2]),
        "voltage": RANGES["voltage_in_kilovolts"][1:3],
        "cs": (0, RANGES["spherical_aberration_in_millimetres"][2]),
        "amplitude_contrast": (0, 1),
        "phase_shift": RANGES["phase_shift_in_degrees"][1:3],
        "b_factor": (0, 1e6),
    }


def _range(text: str) -> tuple[float, float]:
    """The two numbers of `1.0-2.5`, or a number twice."""
    first, _, second = text.partition("-")
    try:
        least, greatest = float(first), float(second or first)
    except ValueError as error:
        raise DataError(f"--defocus {text}", "is not a number of micrometres, nor a range such as 1.0-2.5") from error
    if not 0 <= least <= greatest < float("inf"):
        raise DataError(f"--defocus {text}", "is to go from the smaller to the greater underfocus")
    return least, greatest
