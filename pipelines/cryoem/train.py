"""``parteq cryoem train``: an encoder of poses, from nothing but images or from poses that are known, and a map."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import tyro

from parteq.datasets.errors import DataError
from parteq.datasets.splits import evenly_spread
from parteq.pipelines.command import Number, Text
from parteq.pipelines.cryoem.options import ParticlesInput, fingerprint
from parteq.pipelines.cryoem.symmetry import Symmetry
from parteq.pipelines.cryoem.training import MEASURED, PoseTraining
from parteq.pipelines.training import TrainingCommand

if TYPE_CHECKING:
    from parteq.core.training import Settings
    from parteq.datasets.cryoem.particles import Particles

__all__ = ["TrainPoses"]

HELD_OUT = 0.2


@dataclass(kw_only=True)
class TrainPoses(Symmetry, ParticlesInput, TrainingCommand):
    """Learn poses and a map from images alone, or from poses that are known."""

    example: ClassVar[str] = "parteq cryoem train --particles particles.star --encoder d4 --out RUN"

    least_epochs: ClassVar[int] = 0
    mode: Annotated[Literal["abinitio", "supervised"], tyro.conf.arg(metavar="MODE")] = "abinitio"
    """abinitio, or supervised by the poses of --particles."""
    encoder: Annotated[Literal["d4", "c4", "so2", "o2", "cnn"], tyro.conf.arg(metavar="GROUP")] = "d4"
    """Turns of the image that turn the pose: d4, c4, so2, o2, or cnn."""
    degree: Annotated[Literal["learned", "full", "none"], tyro.conf.arg(metavar="DEGREE")] = "full"
    """How much of it: learned, full or none."""
    loss: Annotated[Literal["l2", "symmetric", "multihead"], tyro.conf.arg(metavar="LOSS")] = "multihead"
    """l2, symmetric or multihead (best of 8 poses)."""
    decoder: Annotated[Literal["voxel", "implicit"], tyro.conf.arg(metavar="KIND")] = "voxel"
    """Volume: voxel or implicit."""
    augment: Annotated[Literal["auto", "none", "d4", "poses"], tyro.conf.arg(metavar="NAME")] = "auto"
    """none; d4: turn and mirror; poses: other poses (auto, if supervised)."""
    box: int = 32
    """Pixels that images are reduced to."""
    width: float = 1.0
    """Factor on the channels of the encoder."""
    val: Text = None
    """Particles with poses to measure on; else a part."""
    restarts: int = 0
    """Begin again so often if stuck or too symmetric."""
    max_seconds: float = math.inf
    """Train no longer than this; refinement comes after."""
    epochs: int = 0
    """Passes; 0: 10 to 250, of 70,000 images in all."""
    batch_size: Number = 64
    """Images a step."""
    weight_decay: float = 0.01
    """Weight decay."""

    def settings(self) -> Settings:
        """The settings of the loop; they depend on the number of particles only through the epochs."""
        from dataclasses import replace

        for name, least in (("box", 8), ("restarts", 0), ("width", 1e-6), ("max_seconds", 1e-6)):
            if not (value := getattr(self, name)) >= least:
                raise DataError(f"--{name.replace('_', '-')} {value}", f"must be at least {least}")
        if self.augment == "poses" and self.mode != "supervised":
            raise DataError("--augment poses", "needs poses that are known: --mode supervised")
        return replace(super().settings(), gradient_clip=math.inf)

    def run(self) -> dict[str, Any]:
        """Trains, refines the poses, and leaves map, poses and report in the run directory."""
        from parteq.apps.cryoem.disc import Disc
        from parteq.apps.cryoem.samples import ParticleSamples, working_box
        from parteq.core.distributed import is_main, joined, wait

        began = time.monotonic()
        self.settings()
        self.check_symmetry()
        with joined(self.torch_device()) as device:
            particles = self.open()
            if self.mode == "supervised" and not particles.has_poses:
                raise DataError(self.particles, "has no poses to be supervised by: use --mode abinitio")
            training, measured = self._split(particles)
            size = training.images().box
            try:
                box = working_box(size, self.box)
            except ValueError as error:
                raise DataError(self.particles, str(error)) from error
            samples = ParticleSamples(training, Disc(box, size))
            about = {"source": str(training.source), "n": len(training), "fingerprint": fingerprint(training)}
            run = self.begin({"particles": about})
            config = {
                "encoder": self.encoder,
                "degree": self.degree,
                "loss": self.loss,
                "supervised": self.mode == "supervised",
                "decoder": self.decoder,
                "box": box,
                "size": size,
                "particles": len(training),
                "width": self.width,
                "pixel_size": samples.pixel_size,
                "scale": samples.scale,
            }
            poses = PoseTraining(self, run, samples, measured, config, device, began)
            model, outcome = poses.fit()
            results = poses.results(model, *outcome) if is_main() else {}
            wait()
        return results | {"seconds": time.monotonic() - began}

    def _split(self, particles: Particles) -> tuple[Particles, Particles | None]:
        """Those to train on, and those that errors are measured on after each epoch, if poses are known."""
        from parteq.datasets.cryoem.particles import open_particles

        if self.val is not None:
            measured = open_particles(Path(self.val), datadir=self.datadir)
            if not measured.has_poses:
                raise DataError(self.val, "has no poses to measure by")
            return particles, measured
        if self.mode == "supervised":
            order = np.random.default_rng(self.seed).permutation(len(particles))
            count = min(max(1, round(HELD_OUT * len(particles))), MEASURED)
            if count == len(particles):
                raise DataError(self.particles, "has too few particles to hold some out")
            return particles.subset(np.sort(order[count:])), particles.subset(np.sort(order[:count]))
        if not particles.has_poses:
            return particles, None
        # Errors are only recorded: no pose of the file is seen by the network.
        few = evenly_spread(len(particles), MEASURED)
        return particles, particles.subset(few)
