"""``parteq cryoem convert``: particles from one program's files to another's."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, File

if TYPE_CHECKING:
    from parteq.datasets.cryoem.particles import Particles

__all__ = ["Convert"]


@dataclass(kw_only=True)
class Convert(Command):
    """Convert particles between RELION, cryoSPARC and cryoDRGN.

    Image names stay as they are; images are not copied. cryoDRGN's pickles hold poses and CTFs.

    Add the stack (+X.mrcs) to name the images, or the STAR file (+X.star) to keep all columns.
    """

    example: ClassVar[str] = "parteq cryoem convert --from pose.pkl+ctf.pkl+X.mrcs --to star --out particles.star"

    source: Annotated[str, tyro.conf.arg(name="from", metavar="FILE[+FILE…]")]
    """X.star, X.cs, or pose.pkl+ctf.pkl."""
    to: Literal["star", "cryodrgn"]
    """A STAR file of RELION 3.1, or cryoDRGN's pickles."""
    out: Annotated[Path, tyro.conf.arg(metavar="PATH")]
    """star: the file. cryodrgn: a folder, made if needed, for pose.pkl and ctf.pkl."""
    datadir: File = None
    """Folder that image paths are relative to, not the file's."""

    def folder_to_make(self) -> Path | None:
        """That of the pickles."""
        return self.out if self.to == "cryodrgn" else None

    def run(self) -> dict[str, Any]:
        """Converts."""
        from parteq.datasets.cryoem.cryodrgn import write_cryodrgn

        if self.to == "star" and self.out.suffix != ".star":
            raise DataError(f"--out {self.out}", "the name of a STAR file ends in .star")
        particles = self._read()
        # Numbers that are not finite are refused here, before anything is written.
        ctf, _ = particles.ctf(), particles.shifts_in_angstroms()
        if particles.has_poses:
            particles.rotations()
        if self.to == "star":
            particles.write(self.out)
            written = [self.out]
        else:
            written = write_cryodrgn(particles, self.out)
            for name, what, there in (("pose.pkl", "poses", particles.has_poses), ("ctf.pkl", "CTF", ctf is not None)):
                if not there:
                    older = f"; {self.out / name} is of an earlier conversion" if (self.out / name).exists() else ""
                    warnings.warn(f"{self.source} has no {what}, so {name} is not written{older}", stacklevel=2)
        return {
            "from": self.source,
            "to": self.to,
            "n_particles": len(particles),
            "optics_groups": len(particles.optics),
            "has_poses": particles.has_poses,
            "has_ctf": ctf is not None,
            "written": " ".join(map(str, written)),
        }

    def _read(self) -> Particles:
        from parteq.datasets.cryoem.cryodrgn import read_cryodrgn
        from parteq.datasets.cryoem.particles import open_particles

        # A plus may also be part of a name.
        parts = [self.source] if Path(self.source).exists() else self.source.split("+")
        paths = [Path(part) for part in parts]
        if any(path.suffix == ".pkl" for path in paths):
            self._check_pickles(paths)
            return read_cryodrgn(paths, datadir=self.datadir)
        if len(paths) > 1:
            raise DataError(f"--from {self.source}", "only cryoDRGN's pickles are joined by a plus sign")
        return open_particles(paths[0], datadir=self.datadir)

    def _check_pickles(self, paths: list[Path]) -> None:
        """Refuses a pickle that is not there, and says that one of poses or of CTFs is enough."""
        for path in paths:
            others = [other for other in paths if other != path]
            if path.suffix == ".pkl" and not path.exists() and any(other.suffix == ".pkl" for other in others):
                # Nothing but the pickle of CTFs or a stack says how large images are.
                images = [] if any(other.suffix != ".pkl" for other in others) else ["X.mrcs"]
                rest = "+".join(map(str, [*others, *images]))
                raise DataError(path, f"no such file; it may be left out: --from {rest}")
