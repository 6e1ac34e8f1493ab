"""The point group of a particle: the option that names it, and what is told of how much of it a map has."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from parteq.datasets.errors import DataError

if TYPE_CHECKING:
    import numpy as np

    from parteq.apps.cryoem.symmetry_axes import SymmetryFrame

__all__ = ["Symmetry", "report_symmetry", "tell_axes"]


@dataclass(kw_only=True)
class Symmetry:
    """The point group of a particle."""

    symmetry: Annotated[str, tyro.conf.arg(metavar="GROUP")] = "C1"
    """Point group of the particle, axes as RELION sets them: C5, D2, T, O, I1, I2."""

    def check_symmetry(self) -> None:
        """Refuses what is no point group, and writes its name as RELION does."""
        from parteq.apps.cryoem.pointgroups import point_group

        try:
            point_group(self.symmetry)
        except ValueError as error:
            raise DataError(f"--symmetry {self.symmetry}", str(error)) from error
        self.symmetry = self.symmetry.strip().upper()


def report_symmetry(frame: SymmetryFrame) -> dict[str, Any]:
    """The results there are; warns of a map that may not have the symmetry."""
    if not frame.found:
        warnings.warn(frame.sentence(), stacklevel=2)
    measured = {"symmetry_found": frame.found, "symmetry_correlation": frame.correlation}
    return {"symmetry": frame.symmetry} | ({} if frame.symmetry == "C1" else measured)


def tell_axes(of: str, axis: np.ndarray) -> None:
    """Warns that axes were found elsewhere than they should stand.

    Args:
        of: whose they are.
        axis: where that stands which should be z, (x, y, z).
    """
    place = ", ".join(f"{value:.3f}" for value in axis)
    warnings.warn(f"the axes of {of} do not stand as RELION sets them: found with z along ({place})", stacklevel=2)
