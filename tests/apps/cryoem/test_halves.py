"""What two halves of the particles agree on is trusted, and what they do not is not."""

from __future__ import annotations

import pytest
import torch

from parteq.apps.cryoem.estimation import Poses
from parteq.apps.cryoem.halves import Reliability, half_agreement

from .conftest import small_model
from .test_expectation import CPU, noisy  # noqa: F401


@pytest.mark.parametrize(
    ("agreement", "confidence", "factor", "reliable"),
    [(0.9, 0.9, 1, True), (0.95, 0.9, 1, True), (0.6, 0.8, 0.75, True), (0.3, 0.9, 1 / 3, False), (0, 0, 0, False)],
)
def test_confidence_is_scaled_to_what_halves_agree_on(agreement, confidence, factor, reliable):
    found = Reliability(agreement, confidence)
    assert found.factor == pytest.approx(factor)
    assert found.reliable is reliable
    assert found.sentence().startswith("Not reliable: ") is not reliable


@pytest.mark.slow
def test_right_poses_are_found_again_and_wrong_ones_are_not(noisy):  # noqa: F811
    data, rotations, shifts = noisy
    model = small_model()
    right = half_agreement(model, data, Poses(rotations, shifts), CPU)
    wrong = half_agreement(model, data, Poses(rotations.roll(1, 0), torch.zeros_like(shifts)), CPU)
    assert right > 0.6
    assert wrong < 0.5
