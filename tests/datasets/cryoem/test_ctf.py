"""The contrast transfer function against its formula, its symmetries, and RELION."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parteq.datasets.cryoem.ctf import CTFParameters, contrast_transfer, contrast_transfer_at, wavelength_in_angstroms


def parameters(n: int = 1, **changes: float) -> CTFParameters:
    values = {
        "defocus_u_in_angstroms": 15000.0,
        "defocus_v_in_angstroms": 14000.0,
        "defocus_angle_in_degrees": 20.0,
        "voltage_in_kilovolts": 300.0,
        "spherical_aberration_in_millimetres": 2.7,
        "amplitude_contrast": 0.1,
        "phase_shift_in_degrees": 0.0,
    }
    return CTFParameters(**{name: np.full(n, value) for name, value in (values | changes).items()})


def test_wavelengths_of_the_usual_voltages():
    found = wavelength_in_angstroms(np.array([100.0, 200.0, 300.0]))
    np.testing.assert_allclose(found, [0.037014, 0.025079, 0.019687], atol=1e-6)


def test_starts_at_the_amplitude_contrast_and_stays_between_minus_one_and_one():
    values = contrast_transfer(parameters(), 32, 2.0, dtype=torch.float64)
    assert values.shape == (1, 32, 17)
    assert values[0, 0, 0].item() == pytest.approx(0.1)
    assert values.abs().max() <= 1


def test_is_the_formula_along_the_axes_of_the_astigmatism():
    angle = np.deg2rad(20.0)
    u = torch.tensor([[0.1 * np.cos(angle), 0.1 * np.sin(angle)], [-0.1 * np.sin(angle), 0.1 * np.cos(angle)]])
    found = contrast_transfer_at(parameters(phase_shift_in_degrees=35.0), u, dtype=torch.float64)
    wavelength = wavelength_in_angstroms(np.array([300.0]))[0]
    for value, defocus in zip(found[0].tolist(), (15000.0, 14000.0), strict=True):
        chi = np.pi * wavelength * defocus * 0.01 - np.pi / 2 * 2.7e7 * wavelength**3 * 1e-4 + np.deg2rad(35.0)
        assert value == pytest.approx(np.sqrt(1 - 0.1**2) * np.sin(chi) + 0.1 * np.cos(chi), abs=1e-5)


def test_turns_with_the_defocus_angle():
    generator = torch.Generator().manual_seed(0)
    frequencies = 0.2 * torch.rand(50, 2, generator=generator, dtype=torch.float64) - 0.1
    turn = np.deg2rad(33.0)
    rotation = torch.tensor([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    still = contrast_transfer_at(parameters(), frequencies, dtype=torch.float64)
    turned = contrast_transfer_at(
        parameters(defocus_angle_in_degrees=53.0), frequencies @ rotation.T, dtype=torch.float64
    )
    torch.testing.assert_close(turned, still)


def test_a_phase_plate_acts_as_amplitude_contrast_does():
    """The phase shift adds to χ, as arcsin w does: an ideal plate makes a cosine of the sine."""
    plate = parameters(amplitude_contrast=0.0, phase_shift_in_degrees=np.rad2deg(np.arcsin(0.1)))
    torch.testing.assert_close(contrast_transfer(plate, 32, 2.0), contrast_transfer(parameters(), 32, 2.0))
    ideal = parameters(amplitude_contrast=0.0, phase_shift_in_degrees=90.0)
    assert contrast_transfer(ideal, 32, 2.0)[0, 0, 0].item() == pytest.approx(1)


def test_pixel_size_of_each_image():
    both = contrast_transfer(parameters(2), 16, np.array([1.5, 3.0]), dtype=torch.float64)
    for values, pixel_size in zip(both, (1.5, 3.0), strict=True):
        torch.testing.assert_close(values, contrast_transfer(parameters(), 16, pixel_size, dtype=torch.float64)[0])


def test_subset_and_length():
    three = CTFParameters(*(np.arange(3.0) for _ in range(7)))
    assert len(three) == 3
    assert three.subset(np.array([2, 0])).amplitude_contrast.tolist() == [2, 0]


@pytest.mark.parametrize("wrong", [np.zeros(2), np.zeros((3, 1))])
def test_columns_of_different_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="of one length"):
        CTFParameters(*(np.zeros(3) for _ in range(6)), wrong)
