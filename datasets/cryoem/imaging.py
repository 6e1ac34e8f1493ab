"""The contrast transfer functions that images were made with, and what a STAR file says of them beside."""

from __future__ import annotations

import logging

import numpy as np

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.errors import DataError

__all__ = ["altered_by_ctf", "imaging_ctf", "passed_over_of_ctf"]

log = logging.getLogger(__name__)

_ALTERED = {"rlnCtfDataArePhaseFlipped": "phase-flipped", "rlnCtfDataAreCtfPremultiplied": "multiplied with their CTF"}
# How a CTF falls off or is bent, which nothing here looks at, and what is said where there is nothing to it.
_PASSED_OVER = {"rlnCtfBfactor": 0.0, "rlnCtfScalefactor": 1.0, "rlnBeamTiltX": 0.0, "rlnBeamTiltY": 0.0}


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
