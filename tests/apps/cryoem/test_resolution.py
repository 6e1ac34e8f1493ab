"""Shell correlations against a loop over shells, the mask against distances, the correction against a mask's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from parteq.apps.cryoem.resolution import (
    falls_to,
    fourier_shell_correlation,
    half_map_resolution,
    resolution_at,
    resolution_values,
    soft_mask,
)


def noise(box: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(box,) * 3)


def blob(box: int, radius: float) -> np.ndarray:
    """A ball off the centre."""
    z, y, x = np.indices((box,) * 3) - box // 2
    return (np.sqrt((x - 2) ** 2 + y**2 + (z + 1) ** 2) < radius).astype(np.float64)


@pytest.mark.parametrize("box", [10, 11])
def test_the_curve_is_that_of_a_loop_over_shells(box):
    first = noise(box, 0)
    second = first + noise(box, 1)
    one, two = np.fft.fftn(first), np.fft.fftn(second)
    frequencies = np.fft.fftfreq(box) * box
    radius = np.sqrt(sum(axis**2 for axis in np.meshgrid(frequencies, frequencies, frequencies)))
    curve = fourier_shell_correlation(first, second)
    assert len(curve) == box // 2 + 1
    for shell, value in enumerate(curve):
        on = np.rint(radius) == shell
        expected = (one[on] @ two[on].conj()).real / (np.linalg.norm(one[on]) * np.linalg.norm(two[on]))
        assert value == pytest.approx(expected)


def test_curves_of_equal_opposite_and_empty_maps():
    volume = noise(8, 0)
    assert np.allclose(fourier_shell_correlation(volume, 3 * volume), 1)
    assert np.allclose(fourier_shell_correlation(volume, -volume), -1)
    assert np.allclose(fourier_shell_correlation(volume, 0 * volume), 0)


@pytest.mark.parametrize("shapes", [((4, 4, 4), (5, 5, 5)), ((4, 4, 5), (4, 4, 5)), ((4, 4), (4, 4))])
def test_what_is_no_pair_of_cubes(shapes):
    with pytest.raises(ValueError, match="cubes of one size"):
        fourier_shell_correlation(np.zeros(shapes[0]), np.zeros(shapes[1]))


def test_resolution_by_a_straight_line_between_shells():
    curve = np.array([1, 1, 0.8, 0.4, 0.1])
    assert resolution_at(curve, 0.5, 100.0) == pytest.approx(100 / 2.75)
    assert resolution_at(curve, 0.4, 100.0) == pytest.approx(100 / 3)
    assert resolution_at(curve, 0.05, 100.0) == pytest.approx(25)
    assert resolution_at(0 * curve, 0.5, 100.0) == 100
    # It is the first fall that counts.
    assert resolution_at(np.array([1, 0.9, 0.1, 0.9]), 0.5, 60.0) == pytest.approx(60 / 1.5)


def test_a_curve_that_does_not_fall_so_far_gives_a_bound():
    curve = np.array([1, 1, 0.8, 0.4, 0.2])
    assert [falls_to(curve, level) for level in (0.5, 0.2, 0.143)] == [True, True, False]
    assert resolution_values("x", curve, 0.143, 100.0) == {"resolution_x_angstrom": 25, "resolution_x_at_nyquist": True}
    assert resolution_values("x", curve, 0.2, 100.0) == {"resolution_x_angstrom": 25, "resolution_x_at_nyquist": False}


def test_the_mask_extends_the_particle_and_falls_as_a_cosine():
    volume = blob(32, 6)
    mask = soft_mask(volume, 1.0, low_pass_in_angstroms=2.0, extend_in_pixels=2, edge_in_pixels=4)
    beyond = ndimage.distance_transform_edt(volume == 0)
    assert np.all(mask[beyond <= 2] == 1)
    assert np.all(mask[beyond >= 6] == 0)
    assert np.allclose(mask[beyond == 4], 0.5)
    assert np.allclose(mask[beyond == 3], 0.5 + 0.5 * np.cos(np.pi / 4))


def test_the_mask_takes_the_largest_part_within_the_ball():
    volume = blob(32, 6)
    volume[14:17, 14:17, 29] = 1
    volume[0, 0, 0] = 9
    mask = soft_mask(volume, 1.0, threshold=0.5, low_pass_in_angstroms=0.1, extend_in_pixels=0, edge_in_pixels=1)
    assert np.array_equal(mask == 1, blob(32, 6) == 1)
    assert np.all(soft_mask(volume, 1.0, threshold=99)[16, 16] == 1)


def test_a_mask_alone_gives_no_resolution():
    mask = soft_mask(blob(32, 7), 2.0, extend_in_pixels=1, edge_in_pixels=1.5)
    found = half_map_resolution(noise(32, 0), noise(32, 1), mask, 2.0)
    assert np.abs(found.corrected[4:]).mean() < 0.15
    assert found.summary()["resolution_fsc_05_angstrom"] > 15


def test_half_maps_of_a_known_resolution():
    box, pixel_size = 48, 1.5
    truth = ndimage.gaussian_filter(blob(box, 9) * noise(box, 2), 1.0)
    mask = soft_mask(blob(box, 9), pixel_size)
    halves = [truth + 0.02 * noise(box, seed) for seed in (3, 4)]
    found = half_map_resolution(*halves, mask, pixel_size)
    values = found.summary()
    # Power of the map over that of the noise, on each shell: FSC = SNR / (1 + SNR).
    expected = fourier_shell_correlation(truth + 0.02 * noise(box, 5), truth) ** 2
    assert values["resolution_fsc_0143_unmasked_angstrom"] == pytest.approx(
        resolution_at(expected, 0.143, box * pixel_size), rel=0.08
    )
    assert values["resolution_fsc_0143_angstrom"] < values["resolution_fsc_0143_unmasked_angstrom"]
    assert values["resolution_fsc_0143_angstrom"] >= values["resolution_fsc_0143_masked_uncorrected_angstrom"] - 1e-9
    assert {name: value for name, value in values.items() if name.endswith("_at_nyquist")} == {
        f"resolution_fsc_{level}{suffix}_at_nyquist": False
        for level in ("0143", "05")
        for suffix in ("", "_masked_uncorrected", "_unmasked")
    }
    assert np.all(found.corrected <= found.masked + 1e-9)
    again = half_map_resolution(*halves, mask, pixel_size)
    assert np.array_equal(found.corrected, again.corrected)


def test_equal_halves_resolve_to_nyquist():
    truth = noise(16, 0)
    found = half_map_resolution(truth, truth, soft_mask(truth, 3.0), 3.0)
    assert found.summary()["resolution_fsc_0143_angstrom"] == pytest.approx(6)
    assert found.summary()["resolution_fsc_0143_at_nyquist"] is True
