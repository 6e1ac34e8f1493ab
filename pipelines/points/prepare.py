"""``parteq points prepare``: a file of clouds from a folder of meshes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command
from parteq.pipelines.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Prepare"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Prepare(Command):
    """Draw points on the meshes of a folder, once."""

    example: ClassVar[str] = "parteq points prepare --data ModelNet40 --out clouds.h5"

    data: Annotated[Path, tyro.conf.arg(metavar="FOLDER")]
    """CLASS/*.off, or .ply .obj .stl .npy .xyz .wrl; train, val and test above or below the classes, if at all."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("clouds.h5")
    """HDF5 file to write; meshes it was made of are drawn again only if they changed."""
    points: int = 1024
    """Points of each mesh, uniform by area."""

    def run(self) -> dict[str, Any]:
        """Writes the clouds; files that cannot be used are listed and left out."""
        from parteq.datasets.points.folder import Drawer, open_folder
        from parteq.datasets.points.hdf5 import CloudWriter

        if self.out.suffix.lower() not in (".h5", ".hdf5"):
            raise DataError(self.out, "is to be an HDF5 file: let its name end in .h5")
        if self.points < 1:
            raise DataError(f"--points {self.points}", "must be at least 1")
        folder = open_folder(self.data)
        drawer = Drawer(folder, self.points, self.seed, self._known())
        kept, recipes = [], []
        with replacing(self.out) as temporary, CloudWriter(temporary) as writer:
            for file, positions, recipe in drawer.draw(folder.files):
                writer.append(positions)
                kept.append(file)
                recipes.append(recipe)
            if not kept:
                raise DataError(self.data, f"none of {len(folder.files)} files can be used")
            classes = sorted({file.kind for file in kept})
            for lost in sorted(set(folder.classes) - set(classes)):
                log.warning("%s", DataError(self.data / lost, "no file of this class can be used: it is left out"))
            writer.finish(
                labels=[classes.index(file.kind) for file in kept],
                classes=classes,
                families=[file.family for file in kept] if kept[0].family else None,
                names=[file.name for file in kept],
                splits=[file.split or "" for file in kept] if kept[0].split else None,
                recipes=recipes,
            )
        return {
            "out": str(self.out),
            "n": len(kept),
            "classes": len(classes),
            "points": self.points,
            "skipped": len(drawer.bad),
            "bad": [str(error) for error in drawer.bad],
        }

    def _known(self) -> dict[str, Callable[[], NDArray[np.float32]]]:
        """By recipe, what reads the clouds that the file already holds.

        Raises:
            DataError: it holds something else.
        """
        from parteq.datasets.points.hdf5 import HDF5Clouds

        if not self.out.exists():
            return {}
        try:
            clouds = HDF5Clouds(self.out, split=None)
        except DataError as error:
            raise DataError(self.out, f"is no file of clouds, and is left alone: {error.reason}") from error

        def positions(row: int) -> NDArray[np.float32]:
            return clouds.cloud(row)[0].numpy()

        return {recipe: partial(positions, row) for row, recipe in enumerate(clouds.recipes or ())}
