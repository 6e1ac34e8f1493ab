"""``parteq cryoem reconstruct``: a map from images and their poses, half maps, and the resolution."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, File
from parteq.pipelines.cryoem.options import ParticlesInput
from parteq.pipelines.cryoem.symmetry import Symmetry, report_symmetry, tell_axes
from parteq.pipelines.files import replacing, write_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from parteq.apps.cryoem.reconstruction import Reconstruction
    from parteq.datasets.cryoem.particles import Particles

__all__ = ["Reconstruct"]

Map = Annotated[Path, tyro.conf.arg(metavar="MAP.mrc")]


@dataclass(kw_only=True)
class Reconstruct(Symmetry, ParticlesInput, Command):
    """Make a map of particles with poses: MAP.mrc.

    With --halves also MAP_half1.mrc, MAP_half2.mrc, MAP_fsc.json and MAP_fsc.png.
    """

    example: ClassVar[str] = "parteq cryoem reconstruct --particles poses.star --out map.mrc --symmetry C5 --halves"

    out: Map
    """Map to write."""
    find_axes: bool = False
    """Move to the best axes even where those in place are nearly as good."""
    halves: bool = False
    """Make half maps (rlnRandomSubset, else at random), and from them the resolution."""
    ignore_ctf: bool = False
    """Take images as having no CTF, whatever the file says."""
    reference: File = None
    """Map in the same frame to compare with."""
    regularisation: float = 1e-3
    """Noise over signal, of an average point in Fourier space."""
    batch_size: int = 64
    """Images in memory at a time."""

    def run(self) -> dict[str, Any]:
        """Streams the images, then writes the maps; the map last."""
        from parteq.datasets.cryoem.mrc import write_volume

        self._check()
        particles, pixel_size = self._with_poses()
        particles.check_not_lost(self.out)
        reference = self._reference(particles.images().box, pixel_size)
        particles, symmetry = self._to_axes(particles, pixel_size)
        subsets = self._subsets(particles)
        parts = self._insert(particles, pixel_size, subsets, self.symmetry)
        total = parts[0] + parts[1] if self.halves else parts[0]
        volume = self._volume(total)
        results: dict[str, Any] = {
            "out": str(self.out),
            "n_particles": len(particles),
            "box": len(volume),
            "pixel_size_angstrom": pixel_size,
            **symmetry,
        }
        if reference is not None:
            from parteq.apps.cryoem.resolution import fourier_shell_correlation, resolution_values

            curve = fourier_shell_correlation(volume, reference)
            values = resolution_values("reference_05", curve, 0.5, len(volume) * pixel_size)
            _tell_bound("with the reference", values, "reference_05", "0.5", pixel_size)
            results |= {**values, "fsc_reference": curve.tolist()}
        if self.halves:
            first, second = (self._volume(part) for part in parts)
            write_volume(self._beside("_half1.mrc"), first, pixel_size)
            write_volume(self._beside("_half2.mrc"), second, pixel_size)
            results |= self._resolution(first, second, volume, pixel_size, [len(subset) for subset in subsets])
        write_volume(self.out, volume, pixel_size)
        return results

    def _check(self) -> None:
        """Refuses what could not be done, before the work."""
        self.check_symmetry()
        if self.out.suffix != ".mrc":
            raise DataError(self.out, "is to be a map: give it a name that ends in .mrc")
        if self.batch_size < 1:
            raise DataError(f"--batch-size {self.batch_size}", "must be greater than 0")
        if not self.regularisation >= 0:
            raise DataError(f"--regularisation {self.regularisation}", "must not be negative")

    def _with_poses(self) -> tuple[Particles, float]:
        """The particles, and the pixel size in Å that all share."""
        from parteq.datasets.cryoem.imaging import imaging_pixel_size

        particles = self.open()
        if not particles.has_poses:
            raise DataError(self.particles, "has no poses")
        return particles, imaging_pixel_size(particles)

    def _reference(self, box: int, pixel_size: float) -> NDArray[np.float32] | None:
        """The map to compare with."""
        from parteq.datasets.cryoem.mrc import read_volume

        if self.reference is None:
            return None
        made = [self._beside(f"_half{number}.mrc").resolve() for number in (1, 2)] if self.halves else []
        if self.reference.resolve() in made:
            raise DataError(self.reference, "is read by --reference, and would be lost to a half map")
        volume, its_pixel_size = read_volume(self.reference)
        if len(volume) != box or abs((its_pixel_size or pixel_size) / pixel_size - 1) > 0.01:
            found = f"{len(volume)} voxels" + (f" of {its_pixel_size:g} Å" if its_pixel_size else "")
            raise DataError(self.reference, f"has {found}, the images have {box} pixels of {pixel_size:g} Å")
        return volume

    def _to_axes(self, particles: Particles, pixel_size: float) -> tuple[Particles, dict[str, Any]]:
        """The particles, in the frame of the symmetry axes, and how symmetric their map is.

        Axes that are not in place are looked for elsewhere; where they are not found either all is left as it is.
        """
        import numpy as np

        from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, axes_of_map

        if self.symmetry == "C1":
            return particles, report_symmetry(NO_SYMMETRY)
        (part,) = self._insert(particles, pixel_size, [np.arange(len(particles))], symmetry="C1")
        frame = axes_of_map(self._volume(part), self.symmetry, anywhere=self.find_axes)
        if frame.stands_in_place:
            return particles, report_symmetry(frame)
        if not self.find_axes:
            tell_axes(str(self.particles), frame.matrix[:, 2])
        placement, rotations = frame.placement(pixel_size), particles.rotations()
        moved = placement.shifts_in_true_frame(rotations, particles.shifts_in_angstroms())
        return particles.with_poses(placement.rotations_in_true_frame(rotations), moved), report_symmetry(frame)

    def _subsets(self, particles: Particles) -> list[NDArray[np.int64]]:
        """The particles of the half sets, or all of them."""
        import numpy as np

        if not self.halves:
            return [np.arange(len(particles))]
        table = particles.table
        if "rlnRandomSubset" in table:
            numbers = table["rlnRandomSubset"].to_numpy()
            if set(numbers) == {1, 2}:
                return [np.flatnonzero(numbers == number) for number in (1, 2)]
            warnings.warn("rlnRandomSubset is not 1 and 2: the half sets are drawn at random", stacklevel=2)
        # An image that stands in several rows goes to one of the halves.
        unique, images = np.unique(table["rlnImageName"].astype(str), return_inverse=True)
        if len(unique) < 2:
            raise DataError(self.particles, "has one image, and half maps need two")
        first = np.random.default_rng(self.seed).permutation(len(unique)) < len(unique) // 2
        return [np.flatnonzero(first[images]), np.flatnonzero(~first[images])]

    def _insert(
        self, particles: Particles, pixel_size: float, subsets: list[NDArray[np.int64]], symmetry: str
    ) -> list[Reconstruction]:
        """A reconstruction of each subset."""
        from tqdm import tqdm

        from parteq.apps.cryoem.reconstruction import Reconstruction, insert_particles

        device, box = self.torch_device(), particles.images().box
        parts = [Reconstruction(box, symmetry=symmetry, device=device) for _ in subsets]
        hidden = True if self.quiet else None
        with tqdm(total=len(particles), desc="inserting", unit="image", delay=2, disable=hidden, leave=False) as bar:
            for part, subset in zip(parts, subsets, strict=True):
                insert_particles(
                    part,
                    particles,
                    subset,
                    pixel_size,
                    ctf=not self.ignore_ctf,
                    batch_size=self.batch_size,
                    progress=bar.update,
                )
        return parts

    def _volume(self, part: Reconstruction) -> NDArray[np.float32]:
        volume: NDArray[np.float32] = part.volume(self.regularisation).cpu().numpy()
        return volume

    def _beside(self, ending: str) -> Path:
        return self.out.with_name(self.out.stem + ending)

    def _resolution(
        self,
        first: NDArray[np.float32],
        second: NDArray[np.float32],
        volume: NDArray[np.float32],
        pixel_size: float,
        counts: list[int],
    ) -> dict[str, Any]:
        """Resolutions from half maps; writes the curves and the picture."""
        from parteq.apps.cryoem.resolution import half_map_resolution, soft_mask
        from parteq.pipelines.cryoem.pictures import resolution_figure
        from parteq.pipelines.figures import png

        mask = soft_mask(volume, pixel_size)
        found = half_map_resolution(first, second, mask, pixel_size, seed=self.seed)
        curves = {name: getattr(found, name).tolist() for name in ("unmasked", "masked", "randomised", "corrected")}
        frequencies = [shell / found.box_in_angstroms for shell in range(len(found.unmasked))]
        values = {**found.summary(), "n_half1": counts[0], "n_half2": counts[1]}
        _tell_bound("of the half maps", values, "fsc_0143", "0.143", pixel_size)
        record = {"schema": 1, **values, "frequency_per_angstrom": frequencies, **curves}
        write_json(self._beside("_fsc.json"), record)
        with replacing(self._beside("_fsc.png")) as temporary:
            temporary.write_bytes(png(resolution_figure(found, volume, mask)))
        return values


def _tell_bound(of: str, values: dict[str, Any], name: str, threshold: str, pixel_size: float) -> None:
    """Warns of a resolution that the pixels set, not the particles."""
    if values[f"resolution_{name}_at_nyquist"]:
        bound = values[f"resolution_{name}_angstrom"]
        warnings.warn(
            f"the FSC {of} does not fall to {threshold} before Nyquist: {bound:.4g} Å is a bound, "
            f"for pixels of {pixel_size:.4g} Å are too large to tell more",
            stacklevel=2,
        )
