"""``parteq cryoem inspect``: what a set of particles holds, and what may be wrong with it."""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, File

if TYPE_CHECKING:
    from parteq.datasets.cryoem.stack import ImageStack

__all__ = ["Inspect"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Inspect(Command):
    """Look particles over before anything is computed from them.

    Problems are listed, and do not make the command fail.

    Bright or dark: the mean within half the box minus that outside 90 %, if 3 standard errors off.
    """

    example: ClassVar[str] = "parteq cryoem inspect --particles particles.star --json preflight.json"

    particles: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """X.star, X.cs, or a stack X.mrcs, X.mrc."""
    datadir: File = None
    """Folder that image paths are relative to, not the file's."""
    images: int = 200
    """Images to look at, evenly spread; 0: all."""

    def run(self) -> dict[str, Any]:
        """Looks at the tables, at every stack's header, and at some of the images."""
        from tqdm import tqdm

        from parteq.datasets.cryoem.inspection import Inspection, inspect_particles
        from parteq.datasets.cryoem.particles import open_particles
        from parteq.datasets.cryoem.stackinspection import inspect_file, inspect_images, inspect_stacks

        if self.images < 0:
            raise DataError(f"--images {self.images}", "must not be negative")

        found = Inspection({"particles": str(self.particles)})
        if self.particles.suffix in (".mrc", ".mrcs"):
            stack: ImageStack | None = inspect_file(self.particles, found)
        else:
            particles = open_particles(self.particles, datadir=self.datadir)
            inspect_particles(particles, found)
            stack = inspect_stacks(particles, found)
        if stack is not None:
            inspect_images(stack, self.images, found, lambda chosen: tqdm(chosen, delay=2, disable=None, leave=False))
        if found.numbers.get("contrast") == "unclear":
            looked_at = found.numbers["images_looked_at"]
            warnings.warn(
                f"contrast unclear: over {looked_at} images particles are neither brighter nor darker than what is "
                "around them by 3 standard errors: look at more (--images 0: all), or see in a viewer that they are "
                "bright",
                stacklevel=2,
            )
        for problem in found.problems:
            log.warning("problem: %s", problem)
        return found.numbers | {"n_problems": len(found.problems), "problems": found.problems}
