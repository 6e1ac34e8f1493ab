from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from parteq.apps.histo.turning import accuracy_against_turn, holding_turn


class _Compass(nn.Module):
    """Sorts images by the direction of a bright spot: two logits, class 0 where the first is larger."""

    def __init__(self, direction: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.direction = direction

    def forward(self, images: Tensor) -> Tensor:
        axis = torch.arange(images.shape[-1]) - (images.shape[-1] - 1) / 2
        mass = images.sum((1, 2, 3))
        right = (images * axis).sum((1, 2, 3)) / mass
        up = -(images * axis[:, None]).sum((1, 2, 3)) / mass
        first = self.direction(right, up)
        return torch.stack([first, -first], dim=1)


def _spot_above(count: int = 2) -> Tensor:
    images = torch.zeros(count, 1, 21, 21)
    images[:, :, 2:5, 9:12] = 1.0
    return images


UP = _Compass(lambda right, up: up)
LABELS = torch.zeros(2, dtype=torch.long)


def test_accuracy_falls_where_the_class_changes() -> None:
    angles, rates = accuracy_against_turn(UP, [(_spot_above(), LABELS)], step_in_degrees=30)
    assert angles == [0, 30, 60, 90, 120, 150, 180]
    assert rates[:3] == [1, 1, 1]
    assert rates[4:] == [0, 0, 0]


def test_the_default_turns_are_0_5_and_so_on_to_180() -> None:
    angles, rates = accuracy_against_turn(UP, [(_spot_above(), LABELS)])
    assert angles == [5.0 * i for i in range(37)]
    assert len(rates) == 37


def test_both_senses_are_turned() -> None:
    """A spot above moves left when it is turned anticlockwise and right when clockwise."""
    left = _Compass(lambda right, up: -right + 0.1)
    angles, rates = accuracy_against_turn(left, [(_spot_above(), LABELS)], step_in_degrees=45)
    assert dict(zip(angles, rates, strict=True)) == {0: 1, 45: 0.5, 90: 0.5, 135: 0.5, 180: 1}


def test_accuracy_is_that_of_the_labels_given() -> None:
    images = torch.cat([_spot_above(), _spot_above().flip(-2)])
    labels = torch.tensor([0, 1, 1, 1])
    angles, rates = accuracy_against_turn(UP, [(images, labels)], step_in_degrees=180)
    assert (angles, rates) == ([0, 180], [0.75, 0.25])


def test_batches_count_by_their_images() -> None:
    above, below = _spot_above(3), _spot_above(1).flip(-2)
    batches = [(above, torch.zeros(3, dtype=torch.long)), (below, torch.zeros(1, dtype=torch.long))]
    assert accuracy_against_turn(UP, batches, step_in_degrees=180)[1] == [0.75, 0.25]


def test_bytes_are_the_same_images() -> None:
    images = (255 * _spot_above()).to(torch.uint8)
    assert accuracy_against_turn(UP, [(images, LABELS)]) == accuracy_against_turn(UP, [(_spot_above(), LABELS)])


def test_no_gradients_are_kept() -> None:
    weight = nn.Parameter(torch.ones(()))
    seen = []

    class Scaled(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits = UP(images) * weight
            seen.append(logits.requires_grad)
            return logits

    accuracy_against_turn(Scaled(), [(_spot_above(), LABELS)], step_in_degrees=180)
    assert not any(seen)


@pytest.mark.parametrize(
    ("rates", "share", "expected"),
    [
        ([1.0, 1.0, 1.0, 1.0], 0.9, 30.0),  # never falls
        ([1.0, 1.0, 0.8, 0.0], 0.9, 15.0),  # half of the way from 1 to 0.8
        ([1.0, 0.0, 1.0, 1.0], 0.9, 1.0),  # the first fall counts
        ([0.5, 0.5, 0.25, 0.0], 0.8, 14.0),  # of the rate of unturned images
        ([1.0, 0.9, 0.8, 0.7], 0.9, 10.0),  # at the level is still above
        ([0.0, 0.0, 0.0, 0.0], 0.9, 30.0),
    ],
)
def test_the_turn_up_to_which_accuracy_holds(rates: list[float], share: float, expected: float) -> None:
    assert holding_turn([0.0, 10.0, 20.0, 30.0], rates, share) == pytest.approx(expected)


def test_up_and_down_hold_to_a_quarter_turn() -> None:
    angles, rates = accuracy_against_turn(UP, [(_spot_above(), LABELS)], step_in_degrees=7.5)
    assert holding_turn(angles, rates) == pytest.approx(90, abs=7.5)
