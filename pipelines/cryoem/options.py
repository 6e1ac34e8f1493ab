"""Options that several commands on particles share, and how they open them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import File

if TYPE_CHECKING:
    from parteq.datasets.cryoem.particles import Particles

__all__ = ["ParticlesInput", "fingerprint"]


@dataclass(kw_only=True)
class ParticlesInput:
    """Particles of a STAR or .cs file."""

    particles: Annotated[Path, tyro.conf.arg(metavar="X.star")]
    """STAR file (RELION 3.0 to 5) or .cs file."""
    datadir: File = None
    """Folder of the image paths; else as --particles says."""

    def open(self) -> Particles:
        """The particles.

        Raises:
            DataError: if the file cannot be read, or holds none.
        """
        from parteq.datasets.cryoem.particles import open_particles

        particles = open_particles(self.particles, datadir=self.datadir)
        if not len(particles):
            raise DataError(self.particles, "holds no particles")
        return particles


def fingerprint(particles: Particles) -> str:
    """SHA-256 (hex) of the tables of particles, and of what stands at the head and the end of their stack."""
    import numpy as np

    digest = hashlib.sha256()
    for table in (particles.table, particles.optics):
        digest.update(table.to_csv(index=False).encode())
    digest.update(particles.images().read(np.unique([0, len(particles) - 1])).tobytes())
    return digest.hexdigest()
