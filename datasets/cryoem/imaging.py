"""How images were made, for those that compute with all of them: one pixel size, and contrast transfer functions."""

from __future__ import annotations

import logging
import warnings

import numpy as np

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.errors import DataError

__all__ = ["SAME_PIXEL_SIZE", "altered_by_ctf", "imaging_ctf", "imaging_pixel_size", "passed_over_of_ctf"]

log = logging.getLogger(__name__)

SAME_PIXEL_SIZE = 1e-3
"""Pixel sizes that differ by a smaller share are one, written with more digits or fewer."""
_ALTERED = {"rlnCtfDataArePhaseFlipped": "phase-flipped", "rlnCtfDataAreCtfPremultiplied": "multiplied with their CTF"}
# How a CTF falls off or is bent, which nothing here looks at, and what is said where there is nothing to it.
_PASSED_OVER = {"rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0, "rlnBeamTiltX": 0.0, "rlnBeamTiltY": 0.0}


def imaging_pixel_size(particles: Particles) -> float:
    """The pixel size of all images in Å; warns of differences by rounding, which are passed over.

    Raises:
        DataError: as `Particles.pixel_size_in_angstroms`; there are several.
    """
    sizes = particles.pixel_size_in_angstroms()
    least, most = float(sizes.min()), float(sizes.max())
    if least == most:
        return least
    said, common = f"has pixel sizes from {least:.8g} to {most:.8g} Å", float(np.median(sizes))
    if most - least > SAME_PIXEL_SIZE * least:
        raise DataError(particles.source, f"{said}: images of one pixel size are needed")
    warnings.warn(f"{particles.source} {said}: taken as {common:.8g} Å", stacklevel=2)
    return common


def imaging_ctf(particles: Particles) -> CTFParameters | None:
    """The contrast transfer functions, None if no defocus is given; warns of what is passed over.

    Raises:
        DataError: as `Particles.ctf`; images were altered by their CTF.
    """
    ctf = particles.ctf()
    if ctf is None:
        return None
    if altered := altered_by_ctf(particles):
        raise DataError(particles.source, f"{altered}: use images as the microscope made them")
    if passed_over := passed_over_of_ctf(particles):
        log.warning("%s: %s", particles.source, passed_over)
    return ctf


def altered_by_ctf(particles: Particles) -> str:
    """What was done to the images by their CTF, in words; empty where nothing was."""
    found = [f"{done} ({name})" for name, done in _ALTERED.items() if _differs(particles, name, 0.0)]
    return f"has images that are {' and '.join(found)}" if found else ""


def passed_over_of_ctf(particles: Particles) -> str:
    """What is said of CTFs that nothing here looks at, in words; empty where there is nothing."""
    found = [name for name, nothing in _PASSED_OVER.items() if _differs(particles, name, nothing)]
    return f"{', '.join(found)} are not taken into account" if found else ""


def _differs(particles: Particles, column: str, nothing: float) -> bool:
    """Whether a column is there and says something."""
    values = particles.numbers(column)
    return values is not None and bool(np.any(values != nothing))
