"""What two halves of the particles agree on is trusted, and what they do not is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from parteq.apps.cryoem import halves
from parteq.apps.cryoem.estimation import Poses, map_of_poses
from parteq.apps.cryoem.frames import turned_by_vector
from parteq.apps.cryoem.halves import Reliability, half_agreement
from parteq.apps.cryoem.symmetry_axes import NO_SYMMETRY

from .conftest import small_model
from .test_expectation import CPU, errors, noisy  # noqa: F401


@pytest.mark.parametrize(
    ("agreement", "confidence", "factor", "reliable"),
    [
        (0.9, 0.9, 1, True),
        (0.95, 0.9, 1, True),
        (0.7, 0.7, 1, True),
        (0.6, 0.6, 1, False),
        (0.6, 0.8, 0.75, False),
        (0.3, 0.9, 1 / 3, False),
        (0, 0, 0, False),
    ],
)
def test_confidence_is_scaled_to_what_halves_agree_on(agreement, confidence, factor, reliable):
    found = Reliability(agreement, confidence)
    assert found.factor == pytest.approx(factor)
    assert found.reliable is reliable
    assert found.sentence().startswith("Not reliable: ") is not reliable


def test_what_searches_agree_on_counts_where_halves_do_not():
    assert not Reliability(0.1, 0.8, search_agreement=0.6).reliable
    found = Reliability(0.1, 0.9, search_agreement=0.9)
    assert found.reliable
    assert found.factor == 1
    assert found.sentence() == (
        "The two searches of several that fit best find the same pose for 90% of the particles."
    )


def ending_at(monkeypatch, model, data, shifts, ends) -> None:
    """Lets searches end at these rotations, one after another; begun again, they stay."""
    left = []

    def refined(model, data, start, device, symmetry):
        poses = start if any(start is one for one in left) else Poses(next(ends), shifts)
        left.append(poses)
        return poses, map_of_poses(model, data, poses, device), NO_SYMMETRY

    monkeypatch.setattr(halves, "refine_with_map", refined)


def shaken(rotations: torch.Tensor, count: int) -> list[torch.Tensor]:
    """The rotations, a degree off, so often."""
    jitter = torch.nn.functional.normalize(torch.randn(count, len(rotations), 3), dim=2) * 0.02
    return [turned_by_vector(rotations, turns) for turns in jitter]


# Few particles, which the halves prove nothing of, and more.
@pytest.mark.parametrize(("few", "agreement"), [(1000, 1.0), (10, 0.0)])
def test_the_search_goes_on_until_the_two_that_fit_best_agree(noisy, monkeypatch, few, agreement):  # noqa: F811
    data, rotations, shifts = noisy
    model, right = small_model(), shaken(rotations, 2)
    ends = iter([rotations.roll(1, 0), rotations.roll(2, 0), right[0], rotations.roll(3, 0), right[1], right[0]])
    ending_at(monkeypatch, model, data, shifts, ends)
    monkeypatch.setattr(halves, "half_agreement", lambda *_: agreement)
    monkeypatch.setattr(halves, "_FEW", few)
    found = halves.refine_until_reliable(model, data, Poses(rotations, shifts), CPU, seed=0)
    assert found.reliability.reliable
    assert found.reliability.search_agreement > 0.8
    assert np.median(errors(found.poses.rotations, rotations)) < 3
    assert len(list(ends)) == 1


def test_halves_that_agree_are_enough_where_particles_are_many(noisy, monkeypatch):  # noqa: F811
    data, rotations, shifts = noisy
    model = small_model()
    ending_at(monkeypatch, model, data, shifts, iter([rotations]))
    monkeypatch.setattr(halves, "half_agreement", lambda *_: 1.0)
    monkeypatch.setattr(halves, "_FEW", 10)
    found = halves.refine_until_reliable(model, data, Poses(rotations, shifts), CPU, seed=0)
    assert found.reliability.reliable
    assert found.reliability.search_agreement is None


def test_halves_of_a_symmetric_map_are_not_enough(noisy, monkeypatch):  # noqa: F811
    data, rotations, shifts = noisy
    model = small_model()
    ending_at(monkeypatch, model, data, shifts, iter(shaken(rotations, 2)))
    monkeypatch.setattr(halves, "half_agreement", lambda *_: 1.0)
    monkeypatch.setattr(halves, "_FEW", 10)
    found = halves.refine_until_reliable(model, data, Poses(rotations, shifts), CPU, seed=0, symmetry="C2")
    assert found.reliability.reliable
    assert found.reliability.search_agreement > 0.8


def test_a_disputed_pose_is_trusted_less(noisy, monkeypatch):  # noqa: F811
    data, rotations, shifts = noisy
    model, right = small_model(), shaken(rotations, 2)
    disputed = torch.arange(len(rotations)) % 4 == 0
    right[1][disputed] = right[1][disputed].roll(1, 0)
    ending_at(monkeypatch, model, data, shifts, iter(right))
    monkeypatch.setattr(halves, "half_agreement", lambda *_: 0.0)
    monkeypatch.setattr(halves, "_MOST_SEARCHES", 2)
    found = halves.refine_until_reliable(model, data, Poses(rotations, shifts), CPU, seed=0)
    assert 0.6 < found.reliability.search_agreement < 0.9
    assert found.confidence[disputed].mean() < 0.6 * found.confidence[~disputed].mean()
    assert found.confidence.max() <= 1


@pytest.mark.slow
def test_right_poses_are_found_again_and_wrong_ones_are_not(noisy):  # noqa: F811
    data, rotations, shifts = noisy
    model = small_model()
    right = half_agreement(model, data, Poses(rotations, shifts), CPU)
    wrong = half_agreement(model, data, Poses(rotations.roll(1, 0), torch.zeros_like(shifts)), CPU)
    assert right > 0.6
    assert wrong < 0.5
