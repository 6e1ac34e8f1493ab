"""Drawing how particles are imaged, and their images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from parteq.datasets.cryoem.ctf import contrast_transfer
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.projection import project, shift_images
from parteq.datasets.cryoem.simulate import ImageFormation, Imaging, Microscope, draw_imaging, noisy_images


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def volume() -> np.ndarray:
    axis = np.arange(16) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    blobs = [
        np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 5) for a, b, c in [(0, 0, 0), (3, 1, 0), (0, -2, 3)]
    ]
    return np.sum(blobs, 0).astype(np.float32)


def test_ranges_of_what_is_drawn():
    microscope = Microscope(defocus_in_micrometres=(1.0, 2.5), astigmatism_in_angstroms=300)
    imaging = draw_imaging(2000, rng(), shift_in_angstroms=5, microscope=microscope)
    assert len(imaging) == 2000
    assert 4.9 < np.abs(imaging.shifts_in_angstroms).max() <= 5
    ctf = imaging.ctf
    mean = (ctf.defocus_u_in_angstroms + ctf.defocus_v_in_angstroms) / 2
    assert 10000 <= mean.min() < 10050
    assert 24950 < mean.max() <= 25000
    np.testing.assert_allclose(ctf.defocus_u_in_angstroms - ctf.defocus_v_in_angstroms, 300)
    assert ctf.defocus_angle_in_degrees.std() > 45


def test_without_microscope_there_is_no_ctf_and_without_shift_none():
    imaging = draw_imaging(3, rng(), poses="preferred")
    assert imaging.ctf is None
    assert not imaging.shifts_in_angstroms.any()


def test_rows_of_a_real_job_are_drawn_whole():
    ctf = Microscope().draw(4, rng(1))
    job = Particles.create(uniform_rotations(4, rng(2)), np.arange(8.0).reshape(4, 2), ctf, 1.2, 64)
    imaging = draw_imaging(50, rng(), poses=job)
    rows = [ctf.defocus_u_in_angstroms.tolist().index(u) for u in imaging.ctf.defocus_u_in_angstroms]
    assert set(rows) == {0, 1, 2, 3}
    np.testing.assert_allclose(imaging.shifts_in_angstroms, job.shifts_in_angstroms()[rows])
    np.testing.assert_allclose(imaging.rotations, job.rotations()[rows])
    other = draw_imaging(50, rng(), poses=job, shift_in_angstroms=0, microscope=Microscope((3, 3)))
    np.testing.assert_allclose(other.rotations, imaging.rotations)
    assert (other.ctf.defocus_u_in_angstroms == 30000).all()
    assert not other.shifts_in_angstroms.any()


def test_images_are_projections_shifted_and_filtered(volume):
    imaging = draw_imaging(4, rng(), shift_in_angstroms=6, microscope=Microscope((0.1, 0.2)))
    images = ImageFormation(volume, 2.0)(imaging)
    expected = project(torch.from_numpy(volume), torch.from_numpy(imaging.rotations).float())
    expected = shift_images(expected, torch.from_numpy(imaging.shifts_in_angstroms / 2).float())
    transfer = contrast_transfer(imaging.ctf, 16, 2.0)
    torch.testing.assert_close(
        images, torch.fft.irfft2(torch.fft.rfft2(expected) * transfer, s=(16, 16)), atol=1e-4, rtol=1e-4
    )


def test_batches_are_the_images_in_order(volume, monkeypatch):
    imaging, formation = draw_imaging(7, rng()), ImageFormation(volume, 2.0)
    variance = formation.variance(imaging)
    monkeypatch.setattr("parteq.datasets.cryoem.simulate._PIXELS_AT_ONCE", 3 * 16**2)
    batches = list(formation.batches(imaging))
    assert [len(batch) for batch in batches] == [3, 3, 1]
    torch.testing.assert_close(torch.cat(batches), formation(imaging))
    assert formation.variance(imaging) == pytest.approx(variance)


def test_noise_has_the_deviation_asked_for(volume):
    imaging, formation = draw_imaging(300, rng()), ImageFormation(volume, 2.0)
    noise = np.concatenate(list(noisy_images(formation, imaging, 0.7, rng(1)))) - formation(imaging).numpy()
    assert noise.std() == pytest.approx(0.7, rel=0.02)
    without = np.concatenate(list(noisy_images(formation, imaging, 0.0, rng(1))))
    np.testing.assert_array_equal(without, formation(imaging).numpy())


def test_subset(volume):
    imaging = draw_imaging(5, rng(), microscope=Microscope())
    some = imaging.subset(np.array([3, 0]))
    assert len(some) == len(some.ctf) == 2
    assert isinstance(replace(some, ctf=None).subset(slice(1)), Imaging)
