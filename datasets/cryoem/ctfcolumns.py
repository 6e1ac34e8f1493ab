"""Which columns of RELION hold the contrast transfer function of an image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from parteq.datasets.cryoem.ctf import RANGES, CTFParameters
from parteq.datasets.cryoem.dialects import check_range
from parteq.datasets.errors import DataError

__all__ = ["IMAGE_OF_CTF", "OPTICS_OF_CTF", "ROW_BEFORE_OPTICS", "ctf_of_columns"]

IMAGE_OF_CTF = {
    "rlnDefocusU": "defocus_u_in_angstroms",
    "rlnDefocusV": "defocus_v_in_angstroms",
    "rlnDefocusAngle": "defocus_angle_in_degrees",
    "rlnPhaseShift": "phase_shift_in_degrees",
}
"""Those of each image, by what they hold."""
OPTICS_OF_CTF = {
    "rlnVoltage": "voltage_in_kilovolts",
    "rlnSphericalAberration": "spherical_aberration_in_millimetres",
    "rlnAmplitudeContrast": "amplitude_contrast",
}
"""Those that its optics group shares."""
ROW_BEFORE_OPTICS = {*IMAGE_OF_CTF, *OPTICS_OF_CTF, "rlnCtfBfactor", "rlnCtfScalefactor"}
"""What RELION's `CTF::readByGroup` takes from the row of a particle where its optics group gives it too."""


def ctf_of_columns(
    source: Path, n: int, column: Callable[[str], Float64[np.ndarray, " n"] | None]
) -> CTFParameters | None:
    """The contrast transfer functions of N particles, None if no defocus is given.

    Args:
        source: where they came from, for errors.
        n: the number of particles.
        column: gives a column by its name, None if there is none.

    Raises:
        DataError: as `column`; a number is none that a microscope has, or there is defocus but not all that belongs
            to it.
    """
    found = {name: column(label) for label, name in {**IMAGE_OF_CTF, **OPTICS_OF_CTF}.items()}
    if found["defocus_u_in_angstroms"] is None:
        return None
    # What RELION takes where these are not given: no astigmatism, and no phase plate.
    if found["defocus_v_in_angstroms"] is None:
        found["defocus_v_in_angstroms"] = found["defocus_u_in_angstroms"]
    for name in ("defocus_angle_in_degrees", "phase_shift_in_degrees"):
        if found[name] is None:
            found[name] = np.zeros(n)
    lost = [label for label, name in OPTICS_OF_CTF.items() if found[name] is None]
    if lost:
        raise DataError(source, f"gives defocus, but has lost {', '.join(lost)}")
    for name, (what, least, most, unit) in RANGES.items():
        values = found[name]
        assert values is not None
        check_range(source, what, values, least, most, unit)
    return CTFParameters(**found)  # type: ignore[arg-type]  # none is None any more
