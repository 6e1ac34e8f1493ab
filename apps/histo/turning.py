"""How far images may be turned before a classifier changes its mind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from parteq.apps.histo.appearance import as_unit
from parteq.core.export import fast_forward
from parteq.core.training import Batch
from parteq.datasets.symmetry import turn

__all__ = ["accuracy_against_turn", "holding_turn"]


@torch.inference_mode()
def accuracy_against_turn(
    model: nn.Module,
    batches: Iterable[Batch],
    device: torch.device | str = "cpu",
    step_in_degrees: float = 5.0,
) -> tuple[list[float], list[float]]:
    """Return turns 0, 5, …, 180 degrees and the accuracy when images are turned so far, the mean of both senses.

    Beyond the frame a turned image goes on as its border does.

    Args:
        model: maps images to logits.
        batches: images, uint8 or in 0…1, shape (n, channels, y, x), and the numbers of their classes, shape (n,).
        device: where.
        step_in_degrees: between turns.
    """
    forward = fast_forward(model, 2, device)
    angles = [step_in_degrees * i for i in range(int(180 / step_in_degrees) + 1)]
    right, count = torch.zeros(len(angles), dtype=torch.float64), 0
    for images, labels in batches:
        pixels, truth = as_unit(images.to(device)), labels.to(device)
        for number, angle in enumerate(angles):
            senses = (angle,) if angle % 180 == 0 else (angle, -angle)  # half a turn is the same in both
            for signed in senses:
                found = forward(turn(pixels, signed, fill="edge")).argmax(1)
                right[number] += float((found == truth).sum()) / len(senses)
        count += len(labels)
    return angles, (right / count).tolist()


def holding_turn(angles: Sequence[float], rates: Sequence[float], share: float = 0.9) -> float:
    """Return the turn up to which accuracy stays above ``share`` of that of unturned images, interpolated linearly."""
    level = share * rates[0]
    for i in range(1, len(angles)):
        if rates[i] < level:
            fraction = (rates[i - 1] - level) / (rates[i - 1] - rates[i])
            return angles[i - 1] + fraction * (angles[i] - angles[i - 1])
    return angles[-1]
