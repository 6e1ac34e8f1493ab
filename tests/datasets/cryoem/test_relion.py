"""The golden tests: RELION's own projections, from its own STAR files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from parteq.datasets.cryoem.ctf import CTFParameters, contrast_transfer
from parteq.datasets.cryoem.mrc import read_volume
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.cryoem.projection import (
    fourier_slices,
    fourier_volume,
    half_plane,
    images_of_slices,
    phase_ramp,
    project,
    shift_images,
)

pytestmark = pytest.mark.realdata


def correlations(a: Tensor, b: NDArray[np.float32]) -> Tensor:
    """Of each image [D, D] with its partner."""
    first, second = a.flatten(1), torch.from_numpy(b).to(a).flatten(1)
    first, second = first - first.mean(1, keepdim=True), second - second.mean(1, keepdim=True)
    return (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))


@pytest.mark.parametrize("name", ["rln_proj_65", "rln_proj_65_centered", "rln_proj_65_shifted"])
def test_angles_origins_and_the_centre_of_an_odd_box(shared_data: Path, name: str):
    """Images of 65 pixels have their centre in the pixel 33, the volume in the voxel 32: nothing is off by one."""
    volume, _ = read_volume(shared_data / "cryoem" / "clean70SRibosome_vol_65p.mrc")
    particles = open_particles(shared_data / "cryoem" / f"{name}.star")
    theirs = particles.images().read(slice(None))
    pixels = torch.from_numpy(particles.shifts_in_angstroms() / particles.pixel_size_in_angstroms()[:, None]).float()
    ours = shift_images(project(torch.from_numpy(volume), torch.from_numpy(particles.rotations()).float()), pixels)
    assert correlations(ours, theirs).min() > 0.999
    np.testing.assert_allclose(ours.std((1, 2)), theirs.std((1, 2)), rtol=1e-3)
    # One pixel away it is another image.
    assert correlations(torch.roll(ours, (1, 1), (1, 2)), theirs).max() < 0.95


@pytest.fixture(scope="module")
def points(shared_data: Path) -> tuple[Particles, Tensor, CTFParameters, NDArray[np.float32]]:
    """Particles with CTF, the slices through their map (shifted), their CTFs, and RELION's images."""
    volume, _ = read_volume(shared_data / "cryoem" / "pointmass.mrc")
    particles = open_particles(shared_data / "cryoem" / "relion_proj_batch.star")
    ctf = particles.ctf()
    assert ctf is not None
    frequencies = half_plane(64, dtype=torch.float64)
    # RELION made these without padding.
    transform = fourier_volume(torch.from_numpy(volume).double(), padding=1)
    slices = fourier_slices(transform, torch.from_numpy(particles.rotations()), frequencies)
    shifts = torch.from_numpy(particles.shifts_in_angstroms() / 3.54)
    return particles, slices * phase_ramp(shifts, frequencies), ctf, particles.images().read(slice(None))


def agreement(points: tuple, ctf: CTFParameters) -> float:
    """The mean correlation with RELION's images if they had this CTF."""
    particles, slices, _, theirs = points
    transfer = contrast_transfer(ctf, 64, particles.pixel_size_in_angstroms(), dtype=torch.float64)
    return correlations(images_of_slices(slices * transfer, 64), theirs).mean().item()


def test_ctf_is_that_of_relion(points: tuple):
    assert agreement(points, points[2]) > 0.998


@pytest.mark.parametrize(
    "change",
    [
        {"defocus_angle_in_degrees": lambda angle: -angle},
        {"defocus_angle_in_degrees": lambda angle: angle + 90},
        {"defocus_u_in_angstroms": lambda u: -u, "defocus_v_in_angstroms": lambda v: -v},
        {"amplitude_contrast": lambda w: -w},
        {"phase_shift_in_degrees": lambda phase: phase + 10},
        {"phase_shift_in_degrees": lambda phase: phase - 10},
        {"spherical_aberration_in_millimetres": lambda cs: -cs},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_other_sign_is_further_from_relion(points: tuple, change: dict):
    other = replace(points[2], **{name: turn(getattr(points[2], name)) for name, turn in change.items()})
    assert agreement(points, other) < agreement(points, points[2]) - 0.003
