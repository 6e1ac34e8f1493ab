"""The target a network is to learn, by name, and the unit its error is reported in."""

from __future__ import annotations

from dataclasses import dataclass

from parteq.datasets.errors import DataError
from parteq.datasets.points.base import PointClouds

__all__ = ["Target", "find_target"]

# Units of names whose own text cannot be printed well, and those that errors are customarily reported in.
_REPORTED = {
    "hartree": ("meV", 27211.386246),
    "debye": ("D", 1.0),
    "bohr3": ("bohr³", 1.0),
    "bohr2": ("bohr²", 1.0),
    "cal_mol_K": ("cal/mol/K", 1.0),
}


@dataclass(frozen=True)
class Target:
    """A column of `PointClouds.targets`.

    Attributes:
        name: its whole name.
        column: its number.
        unit: that errors are reported in; empty if unknown.
        factor: what turns a value of the column into that unit.
    """

    name: str
    column: int
    unit: str
    factor: float


def find_target(clouds: PointClouds, name: str) -> Target:
    """The target of this name, "homo" being enough for "homo_hartree".

    Raises:
        DataError: there is none, or the name stands for several.
    """
    names = clouds.target_names
    matches = [whole for whole in names if whole == name] or [
        whole for whole in names if whole.partition("_")[0] == name
    ]
    if len(matches) != 1:
        known = ", ".join(names) or "none"
        raise DataError(clouds.source, f"has {'no' if not matches else 'several'} target {name!r}; it has {known}")
    unit = matches[0].partition("_")[2]
    reported, factor = _REPORTED.get(unit, (unit, 1.0))
    return Target(matches[0], names.index(matches[0]), reported, factor)
