"""What is to be known of a set of particles before anything is computed from it, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.core.sphere import spread_directions
from parteq.datasets.cryoem.imagenames import image_keys
from parteq.datasets.cryoem.imaging import SAME_PIXEL_SIZE, altered_by_ctf, passed_over_of_ctf
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.errors import DataError

__all__ = ["Inspection", "inspect_particles", "listed", "rows_of"]

_PLAUSIBLE_DEFOCUS_IN_ANGSTROMS = (1_000.0, 100_000.0)
# The largest eigenvalue of the mean of v vᵀ over view directions v: 1/3 if none is preferred, 1 if there is but one.
_PREFERRED = 0.5
_DIRECTIONS = 100
_NAMED = 3


@dataclass
class Inspection:
    """Numbers by name, and the problems found, a sentence each."""

    numbers: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def flag(self, wrong: object, problem: str) -> None:
        """Adds a problem if there is one."""
        if wrong:
            self.problems.append(problem)


def listed(items: Sequence[object]) -> str:
    """The first few items, and how many there are."""
    shown = ", ".join(map(str, items[:_NAMED]))
    return shown + (f", … ({len(items):,} in all)" if len(items) > _NAMED else "")


def rows_of(wrong: NDArray[np.bool_]) -> str:
    """How many rows are wrong, and the first of them, from 1."""
    rows = np.flatnonzero(wrong) + 1
    return f"{len(rows):,} rows ({', '.join(map(str, rows[:_NAMED]))}{', …' * (len(rows) > _NAMED)})"


def inspect_particles(particles: Particles, found: Inspection) -> None:
    """Adds what the tables say: optics, defocus, poses, shifts, rows that stand twice, numbers that are not finite."""
    optics, table = particles.optics, particles.table
    found.numbers |= {"n_particles": len(particles), "optics_groups": len(optics)}
    for part in (optics, table):
        for name in part.select_dtypes("float"):
            wrong = ~np.isfinite(part[name].to_numpy())
            found.flag(wrong.any(), f"{name} is NaN or infinite in {rows_of(wrong)}")
    _inspect_duplicates(particles, found)
    if "cs/blob/sign" in table:
        found.numbers["cryosparc_sign"] = float(table["cs/blob/sign"].median())
    found.numbers |= {"has_poses": particles.has_poses, "has_shifts": particles.has_shifts}
    for look in (_inspect_sizes, _inspect_ctf, _inspect_shifts, _inspect_views):
        try:
            look(particles, found)
        except DataError as error:
            # Numbers that are not finite are in the list already.
            found.flag("is not finite" not in error.reason, error.reason)


def _inspect_duplicates(particles: Particles, found: Inspection) -> None:
    table = particles.table
    images = np.zeros(len(table), dtype=bool)
    if "rlnImageName" in table:
        images = image_keys(table["rlnImageName"]).duplicated(keep=False).to_numpy()
        found.flag(images.any(), f"the same image stands in several rows: {rows_of(images)}")
    picks = np.zeros(len(table), dtype=bool)
    place = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"]
    if set(place) <= set(table.columns):
        picks = table.duplicated(place, keep=False).to_numpy()
        found.flag(picks.any(), f"the same place of a micrograph stands in several rows: {rows_of(picks)}")
    found.numbers["duplicate_rows"] = int((images | picks).sum())


def _inspect_sizes(particles: Particles, found: Inspection) -> None:
    known = particles.numbers("rlnImagePixelSize") is not None
    found.flag(not known, "the file says no pixel size")
    sizes, counts = np.unique(particles.pixel_size_in_angstroms(), return_counts=True)
    several = sizes[-1] - sizes[0] > SAME_PIXEL_SIZE * sizes[0]
    found.flag(several, f"there are several pixel sizes: {listed([f'{size:.6g} Å' for size in sizes])}")
    found.numbers["pixel_size_angstrom"] = float(sizes[np.argmax(counts)])
    box = particles.box_in_pixels()
    found.numbers["box"] = box
    found.flag(box is not None and box % 2, f"the box of {box} pixels is odd, which some programs refuse")


def _inspect_ctf(particles: Particles, found: Inspection) -> None:
    ctf = particles.ctf()
    found.numbers["has_ctf"] = ctf is not None
    if ctf is None:
        return
    for said in (altered_by_ctf(particles), passed_over_of_ctf(particles)):
        found.flag(said, said)
    defocus = (ctf.defocus_u_in_angstroms + ctf.defocus_v_in_angstroms) / 2
    found.numbers |= {
        "defocus_min_angstrom": float(defocus.min()),
        "defocus_median_angstrom": float(np.median(defocus)),
        "defocus_max_angstrom": float(defocus.max()),
        "astigmatism_median_angstrom": float(
            np.median(np.abs(ctf.defocus_u_in_angstroms - ctf.defocus_v_in_angstroms))
        ),
        "voltage_kilovolt": float(np.median(ctf.voltage_in_kilovolts)),
        "spherical_aberration_millimetre": float(np.median(ctf.spherical_aberration_in_millimetres)),
        "amplitude_contrast": float(np.median(ctf.amplitude_contrast)),
    }
    low, high = _PLAUSIBLE_DEFOCUS_IN_ANGSTROMS
    strange = (defocus < low) | (defocus > high)
    found.flag(strange.any(), f"defocus is not between 0.1 and 10 µm in {rows_of(strange)}")
    strange = (ctf.amplitude_contrast < 0) | (ctf.amplitude_contrast > 1)
    found.flag(strange.any(), f"amplitude contrast is not between 0 and 1 in {rows_of(strange)}")


def _inspect_shifts(particles: Particles, found: Inspection) -> None:
    if not particles.has_shifts:
        return
    shifts = np.linalg.norm(particles.shifts_in_angstroms(), axis=1)
    found.numbers |= {
        "shift_median_angstrom": float(np.median(shifts)),
        "shift_max_angstrom": float(shifts.max()),
    }
    box = particles.box_in_pixels()
    if box is not None:
        far = shifts > box * particles.pixel_size_in_angstroms() / 4
        found.flag(far.any(), f"particles stand off centre by more than a quarter of the box in {rows_of(far)}")


def _inspect_views(particles: Particles, found: Inspection) -> None:
    """How evenly the particles are seen from all sides; a view and the opposite one show the same, mirrored."""
    if not particles.has_poses:
        return
    views = particles.rotations()[:, 2, :]
    largest = float(np.linalg.eigvalsh(views.T @ views / len(views))[-1])
    # A cell for each of some directions.
    cells = spread_directions(_DIRECTIONS, half=True)
    seen = len(np.unique(np.abs(views @ cells.T).argmax(axis=1))) / _DIRECTIONS
    expected = 1 - (1 - 1 / _DIRECTIONS) ** len(views)
    found.numbers |= {
        "view_tensor_largest_eigenvalue": largest,
        "view_coverage": seen,
        "view_coverage_expected": expected,
    }
    # A dozen particles look preferred by chance.
    preferred = len(views) >= _DIRECTIONS and (largest > _PREFERRED or seen < 0.8 * expected)
    found.flag(
        preferred,
        f"some orientations are preferred: {seen:.0%} of {_DIRECTIONS} directions are seen where {expected:.0%} are"
        f" expected, and the view tensor's largest eigenvalue is {largest:.2f} (1/3: none preferred, 1: one direction)",
    )
