"""``parteq cryoem estimate``: poses of particles by a trained run."""

from __future__ import annotations

import hashlib
import math
import sys
import time
import warnings
import zipfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, cast

import numpy as np
import tyro

from parteq.datasets.errors import DataError
from parteq.datasets.splits import evenly_spread
from parteq.pipelines.command import RunCommand
from parteq.pipelines.cryoem.encoder_frame import read_encoder_frame
from parteq.pipelines.cryoem.options import ParticlesInput, fingerprint
from parteq.pipelines.cryoem.reliability import read_reliability, report_reliability
from parteq.pipelines.cryoem.symmetry import report_symmetry

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import TensorDataset

    from parteq.apps.cryoem.estimation import Poses
    from parteq.apps.cryoem.inference import PoseInference
    from parteq.apps.cryoem.placement import Placement
    from parteq.apps.cryoem.samples import ParticleSamples
    from parteq.apps.cryoem.symmetry_axes import SymmetryFrame

__all__ = ["Estimate"]

_PART = 4096
"""Particles that are done, and put down, before the next are begun."""
_HEARD = 1024
"""Particles that the noise of more than a part is told by, so that no confidence depends on the part."""
_ASKED = 200
"""Particles for which a search is asked whether the encoder is right."""


@dataclass(kw_only=True)
class Estimate(ParticlesInput, RunCommand):
    """Estimate poses and how sure each is; all other columns are kept.

    parteqConfidence: how probable a rotation is right to 15°; doubts of the map lower it.
    """

    example: ClassVar[str] = "parteq cryoem estimate --run RUN --particles particles.star --out poses.star --refine"

    out: Annotated[Path, tyro.conf.arg(metavar="poses.star")]
    """STAR file to write."""
    refine: bool = False
    """Match projections of the run's map, one particle at a time."""
    resume: bool = False
    """Go on where a run with the same --out was stopped."""

    def run(self) -> dict[str, Any]:
        """Estimates part after part, and writes the file at the end."""
        import torch

        from parteq.apps.cryoem.disc import Disc
        from parteq.apps.cryoem.samples import ParticleSamples
        from parteq.core.distributed import is_main, joined, wait

        began = time.monotonic()
        reliability = read_reliability(self.run_path)
        if self.out.suffix != ".star":
            raise DataError(f"--out {self.out}", "the name of a STAR file ends in .star")
        with joined(self.torch_device()) as device:
            model = cast("PoseInference", self.checkpoint("cryoem").model()).to(device)
            particles = self.open()
            size = particles.images().box
            try:
                disc = Disc(model.disc.box, size)
            except ValueError as error:
                raise DataError(self.particles, str(error)) from error
            model.disc = Disc(disc.box, size).to(device)  # images are read into the other, on the CPU
            samples = ParticleSamples(particles, disc, model.config["scale"])
            self._check_scale(samples.pixel_size, model.config["pixel_size"])
            of_run = self._volume(model)
            # It stands in another frame than what the encoder proposes, which only its own map can choose from.
            volume = of_run if self.refine else model.decoder.volume().detach().cpu()
            axes = self._axes(of_run, warned_of=True)
            frame = axes if self.refine else self._axes(volume)
            with torch.no_grad():
                done, found = self._parts(model, volume, samples, device, frame)
                asked = {} if self.refine else self._ask_search(model, of_run, samples, device, found, axes)
            if reliability is not None:
                found["confidence"] *= reliability.factor
            if is_main():
                estimated = particles.with_poses(
                    found["rotations"].astype(np.float64),
                    found["shifts"].astype(np.float64) * samples.pixel_size,
                    parteqConfidence=found["confidence"],
                )
                estimated.write(self.out)
                self._parts_file().unlink(missing_ok=True)
            wait()
        seconds = time.monotonic() - began
        return {
            "out": str(self.out),
            "n_particles": len(particles),
            **report_reliability(reliability),
            **asked,
            "mean_confidence": float(found["confidence"].mean()),
            "particles_per_second": (len(particles) - done) / seconds,
            "seconds": seconds,
        }

    @cached_property
    def _encoder_frame(self) -> Placement:
        return read_encoder_frame(self.run_path)

    def _check_scale(self, found: float, expected: float) -> None:
        if abs(found / expected - 1) > 0.02:
            reason = f"shows {found:.3f} Å a reduced pixel, where the run was trained on {expected:.3f}"
            raise DataError(self.particles, f"{reason}: rescale the images to the same field of view")

    def _volume(self, model: PoseInference) -> Tensor:
        """The map of the run, in units of the samples."""
        import torch

        from parteq.datasets.cryoem.mrc import read_volume

        path = self.run_path / "volume.mrc"
        if not path.exists():
            return model.decoder.volume().detach().cpu()
        volume, _ = read_volume(path)
        if len(volume) != model.disc.box:
            raise DataError(path, f"has {len(volume)} voxels along an edge, the run {model.disc.box}")
        return torch.from_numpy(volume) / (model.disc.box * model.config["scale"])

    def _axes(self, volume: Tensor, *, warned_of: bool = False) -> SymmetryFrame:
        """The axes of a map, by the symmetry that the run was told; where it has none, that may be warned of."""
        from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY, find_axes
        from parteq.pipelines.run import Run

        run = Run.open(self.run_path)
        try:
            frame = find_axes(volume.numpy(), str(run.options.get("symmetry", "C1")))
        except ValueError as error:
            raise DataError(self.run_path / "config.toml", str(error)) from error
        if warned_of:
            report_symmetry(frame)
        return frame if frame.found else NO_SYMMETRY

    def _parts(
        self, model: PoseInference, volume: Tensor, samples: ParticleSamples, device: torch.device, frame: SymmetryFrame
    ) -> tuple[int, dict[str, np.ndarray]]:
        """Rotations, shifts and confidence of all, as they come, and how many were done before.

        What is done is kept on the disk.
        """
        from tqdm import tqdm

        from parteq.apps.cryoem.estimation import weigh
        from parteq.core.distributed import is_main, wait

        count = len(samples)
        names = {"rotations": (count, 3, 3), "shifts": (count, 2), "confidence": (count,)}
        identity = self._identity(samples, volume)
        done, found = self._begun(identity, names)
        noise = self._noise(model, volume, samples, device)
        shown = is_main() and sys.stderr.isatty() and not self.quiet
        with tqdm(total=count, initial=done, unit="particle", leave=False, disable=not shown) as bar:
            for first in range(done, count, _PART):
                indices = np.arange(first, min(first + _PART, count))
                data = _read(samples, indices)
                poses = self._estimate(model, volume, data, device)
                confidence = weigh(model, volume, data, poses, device, frame, noise)
                if not self.refine:
                    poses = poses.in_true_frame(self._encoder_frame)
                for name, tensor in zip(names, (poses.rotations, poses.shifts, confidence), strict=True):
                    found[name][indices] = tensor.numpy()
                if is_main():
                    self._keep(identity, found, int(indices[-1]) + 1)
                wait()
                bar.update(len(indices))
        return done, found

    def _noise(
        self, model: PoseInference, volume: Tensor, samples: ParticleSamples, device: torch.device
    ) -> Tensor | None:
        """What the map leaves of particles evenly spread over all; None where all are one part."""
        from parteq.apps.cryoem.estimation import noise_left

        if len(samples) <= _PART:
            return None
        data = _read(samples, evenly_spread(len(samples), _HEARD))
        return noise_left(model, volume, data, self._estimate(model, volume, data, device), device)

    def _estimate(self, model: PoseInference, volume: Tensor, data: Any, device: torch.device) -> Poses:
        """Of the encoder, in its own frame, given its own map; to refine, in the frame of the run's map, given that."""
        from parteq.apps.cryoem.estimation import propose, refine_proposed

        if not self.refine:
            return propose(model, volume, data, device)
        proposed = propose(model, model.decoder.volume().detach(), data, device)
        return refine_proposed(model, volume, data, proposed, self._encoder_frame, device)

    def _ask_search(
        self,
        model: PoseInference,
        volume: Tensor,
        samples: ParticleSamples,
        device: torch.device,
        found: dict[str, np.ndarray],
        frame: SymmetryFrame,
    ) -> dict[str, Any]:
        """Whether a search in the map of the run finds the poses of the encoder, up to one turn of all.

        For a part of the particles.
        """
        import torch

        from parteq.apps.cryoem.diagnosis import Diagnosis
        from parteq.apps.cryoem.estimation import Poses
        from parteq.apps.cryoem.halves import search_agreement

        few = evenly_spread(len(samples), _ASKED)
        poses = Poses(*(torch.from_numpy(found[name][few]) for name in ("rotations", "shifts")))
        diagnosis = Diagnosis(search_agreement(model, volume, _read(samples, few), poses, device, frame))
        if diagnosis.stuck:
            warnings.warn(diagnosis.sentence(), stacklevel=2)
        unreliable = {"reliable": False} if diagnosis.stuck else {}
        return {"encoder_search_agreement": diagnosis.agreement, "stuck": diagnosis.stuck, **unreliable}

    def _parts_file(self) -> Path:
        return self.out.with_name(f".{self.out.stem}.parts.npz")

    def _identity(self, samples: ParticleSamples, volume: Tensor) -> str:
        """What a result that was begun must have been begun with."""
        weights = self.checkpoint("cryoem").fingerprint()
        of_map = hashlib.sha256(volume.numpy().tobytes()).hexdigest()
        return f"{weights} {of_map} {fingerprint(samples.particles)} {self.refine}"

    def _begun(self, identity: str, names: dict[str, Any]) -> tuple[int, dict[str, np.ndarray]]:
        """How many particles were done before, and what was found of them."""
        found = {name: np.zeros(shape, np.float32) for name, shape in names.items()}
        path = self._parts_file()
        if not self.resume or not path.exists():
            return 0, found
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file["identity"]) != identity:
                    raise DataError(
                        path, "was begun with another run or other particles, or in another order: go without --resume"
                    )
                done = int(file["done"])
                for name, values in found.items():
                    values[:done] = file[name]
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(path, f"is damaged: {error}") from error
        return done, found

    def _keep(self, identity: str, found: dict[str, np.ndarray], done: int) -> None:
        from parteq.datasets.files import replacing

        with replacing(self._parts_file()) as temporary:
            parts = {name: values[:done] for name, values in found.items()}
            np.savez(temporary, identity=identity, done=done, **parts)


def _read(samples: ParticleSamples, indices: np.ndarray) -> TensorDataset:
    """Some of the samples, read a few at a time."""
    import torch
    from torch.utils.data import TensorDataset

    parts = [samples.batch(part) for part in np.array_split(indices, math.ceil(len(indices) / 256))]
    return TensorDataset(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
