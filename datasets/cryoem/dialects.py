"""The dialects of RELION's STAR files, brought to one: that of RELION 3.1 and later.

RELION 3.1 keeps what the images of one microscope setting share (voltage, spherical aberration, amplitude contrast,
pixel size, box) in the table `data_optics`, to which each row of `data_particles` points, and measures origins in Å.
RELION 3.0 has one table under any name, repeats all of this in every row, gives the pixel size as the detector's
(µm) over the magnification, and measures origins in pixels. No column is taken away: those of RELION 3.1 are added
behind the others. Files with a 3.1 optics table and origins in pixels exist, and are understood too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float64
from numpy.typing import NDArray

from parteq.datasets.cryoem.star import StarFile
from parteq.datasets.errors import DataError

__all__ = [
    "ORIGINS_IN_ANGSTROMS",
    "ORIGINS_IN_PIXELS",
    "check_range",
    "numbers",
    "optics_groups",
    "optics_rows",
    "to_relion31",
]

ORIGINS_IN_ANGSTROMS = ("rlnOriginXAngst", "rlnOriginYAngst")
ORIGINS_IN_PIXELS = ("rlnOriginX", "rlnOriginY")
# What RELION 3.0 repeats in every row.
_SHARED = ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast")
_MICROMETRE_IN_ANGSTROMS = 1e4
# By any of these columns a table is known as one of particles.
_OF_PARTICLES = {"rlnImageName", "rlnAngleRot", "rlnAnglePsi", "rlnDefocusU"}


def to_relion31(path: Path, star: StarFile) -> StarFile:
    """The blocks of a STAR file with the tables "optics" and "particles" of RELION 3.1; other blocks stay.

    Args:
        path: where it came from, for errors.
        star: of any dialect.

    Raises:
        DataError: there is no table of particles, or several, or it is empty; optics groups are lost or unclear.
    """
    name, particles = _particle_table(path, star)
    blocks = {"particles" if key == name else key: block for key, block in star.blocks.items()}
    optics = blocks.get("optics")
    if optics is None:
        particles, optics = _with_optics(path, particles)
        blocks = {"optics": optics, **blocks}
    elif isinstance(optics, dict):
        blocks["optics"] = optics = pd.DataFrame([optics])
    if "rlnOpticsGroup" not in particles and len(optics) == 1 and "rlnOpticsGroup" in optics:
        particles = particles.assign(rlnOpticsGroup=optics["rlnOpticsGroup"].iloc[0])
    rows = optics_rows(path, particles, optics)
    blocks["particles"] = _with_origins_in_angstroms(path, particles, optics.iloc[rows])
    return StarFile(blocks)


def _particle_table(path: Path, star: StarFile) -> tuple[str, pd.DataFrame]:
    # A table of one row may be written as single values, but what stands beside a table is none.
    candidates = [name for name, block in star.blocks.items() if name != "optics" and _OF_PARTICLES & set(block)]
    found = [name for name in candidates if isinstance(star.blocks[name], pd.DataFrame)] or candidates
    if "particles" in found:
        found = ["particles"]
    if not found:
        raise DataError(path, f"has no table of particles, with columns such as {', '.join(sorted(_OF_PARTICLES))}")
    if len(found) > 1 or (found != ["particles"] and "particles" in star.blocks):
        raise DataError(path, f"has several tables that may be of particles: {', '.join(map(repr, found))}")
    block = star.blocks[found[0]]
    particles = pd.DataFrame([block]) if isinstance(block, dict) else block
    if not len(particles):
        raise DataError(path, "holds no particles")
    return found[0], particles


def _with_optics(path: Path, particles: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Particles with their optics groups, and the table of these groups."""
    shared = {name: numbers(path, particles, name, finite=False) for name in _SHARED if name in particles}
    given = [name for name in ("rlnImagePixelSize", "rlnPixelSize") if name in particles]
    if given:
        shared["rlnImagePixelSize"] = numbers(path, particles, given[0], finite=False)
    elif {"rlnDetectorPixelSize", "rlnMagnification"} <= set(particles.columns):
        detector, magnification = (
            numbers(path, particles, name, finite=False) for name in ("rlnDetectorPixelSize", "rlnMagnification")
        )
        # What is not finite is refused where it is used.
        with np.errstate(all="ignore"):
            shared["rlnImagePixelSize"] = detector * _MICROMETRE_IN_ANGSTROMS / magnification
    groups, optics = optics_groups(len(particles), shared)
    if "rlnOpticsGroup" not in particles:
        return particles.assign(rlnOpticsGroup=groups), optics
    # The groups are named, but their table is lost. It is made again if nothing is missing and each has one setting.
    lost = [name for name in _SHARED if name not in particles]
    if "rlnDefocusU" in particles and lost:
        raise DataError(path, f"has lost its table data_optics: it gives defocus, but not {', '.join(lost)}")
    named = pd.DataFrame({"rlnOpticsGroup": particles["rlnOpticsGroup"], "made": groups}).drop_duplicates()
    if named["rlnOpticsGroup"].duplicated().any():
        raise DataError(path, "has lost its table data_optics, and a group has rows of several voltages or the like")
    optics = optics.iloc[named["made"].to_numpy() - 1].reset_index(drop=True)
    return particles, optics.assign(
        rlnOpticsGroup=named["rlnOpticsGroup"].to_numpy(),
        rlnOpticsGroupName=[f"opticsGroup{number}" for number in named["rlnOpticsGroup"]],
    )


def optics_groups(n: int, shared: dict[str, Float64[np.ndarray, " n"]]) -> tuple[NDArray[np.int64], pd.DataFrame]:
    """Optics groups of N particles: those with the same values are of one group.

    Args:
        n: the number of particles.
        shared: values by the name of their column.

    Returns:
        The group of each particle, from 1, in the order in which they occur, and the table of groups.
    """
    values = pd.DataFrame(shared, index=range(n))
    if shared:
        groups = values.groupby(list(shared), sort=False, dropna=False).ngroup().to_numpy(dtype=np.int64) + 1
    else:
        groups = np.ones(n, dtype=np.int64)
    _, first = np.unique(groups, return_index=True)
    optics = values.iloc[first].reset_index(drop=True)
    optics.insert(0, "rlnOpticsGroup", np.arange(1, len(first) + 1))
    optics.insert(1, "rlnOpticsGroupName", [f"opticsGroup{number + 1}" for number in range(len(first))])
    return groups, optics.assign(rlnImageDimensionality=2)


def optics_rows(path: Path, particles: pd.DataFrame, optics: pd.DataFrame) -> NDArray[np.int64]:
    """The row of the optics table that each particle points to.

    Raises:
        DataError: a group is missing there or stands there twice, or one of the tables does not number its groups.
    """
    for name, table in (("optics", optics), ("particles", particles)):
        if "rlnOpticsGroup" not in table:
            raise DataError(path, f"data_{name} has lost its column rlnOpticsGroup")
    groups = pd.Index(optics["rlnOpticsGroup"])
    if groups.has_duplicates:
        raise DataError(path, "data_optics lists an optics group twice")
    rows = groups.get_indexer(particles["rlnOpticsGroup"])
    if (rows < 0).any():
        lost = particles["rlnOpticsGroup"].iloc[int(np.argmin(rows))]
        raise DataError(path, f"particles are of the optics group {lost!r}, which data_optics lacks")
    return np.asarray(rows, dtype=np.int64)


def _with_origins_in_angstroms(path: Path, particles: pd.DataFrame, optics: pd.DataFrame) -> pd.DataFrame:
    """Particles with origins in Å beside those in pixels; `optics` has a row for each of them."""
    known = set(particles.columns)
    if not known.issuperset(ORIGINS_IN_PIXELS) or known & {*ORIGINS_IN_ANGSTROMS} or "rlnImagePixelSize" not in optics:
        return particles
    pixel_size = numbers(path, optics, "rlnImagePixelSize", finite=False)
    origins = [numbers(path, particles, name, finite=False) for name in ORIGINS_IN_PIXELS]
    with np.errstate(all="ignore"):
        in_angstroms = [origin * pixel_size for origin in origins]
    return particles.assign(**dict(zip(ORIGINS_IN_ANGSTROMS, in_angstroms, strict=True)))


def numbers(path: Path, table: pd.DataFrame, name: str, *, finite: bool = True) -> Float64[np.ndarray, " n"]:
    """A column as float64.

    Raises:
        DataError: a value is no number or, unless `finite` is False, not a finite one.
    """
    try:
        values = table[name].to_numpy().astype(np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(path, f"the column {name} does not hold numbers ({error})") from error
    wrong = np.flatnonzero(~np.isfinite(values))
    if finite and len(wrong):
        raise DataError(path, f"{name} is not finite in row {wrong[0] + 1}")
    return np.asarray(values)


def check_range(
    path: Path, what: str, values: Float64[np.ndarray, " n"], least: float, most: float, unit: str = ""
) -> None:
    """Refuses numbers that no microscope has. Raises DataError, with the first such row."""
    wrong = np.flatnonzero((values < least) | (values > most))
    if len(wrong):
        reason = f"has {what} of {values[wrong[0]]:g} {unit}".rstrip()
        raise DataError(path, f"{reason} in row {wrong[0] + 1}; {least:g} to {most:g} is understood")
