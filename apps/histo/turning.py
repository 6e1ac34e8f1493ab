"""How far images may be turned before a classifier changes its mind."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from parteq.datasets.symmetry import turn

__all__ = ["accuracy_against_turn", "holding_turn"]


@torch.no_grad()
def accuracy_against_turn(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    step_in_degrees: float = 5.0,
    prepare: Callable[[Tensor], Tensor] = lambda images: images,
) -> tuple[list[float], list[float]]:
    """Return turns 0, 5, …, 180 degrees and the accuracy when images are turned so far, the mean of both senses.

    Args:
        model: maps images to logits.
        images: images in 0…1, shape (n, channels, y, x), as the labels mean them.
        labels: class numbers, shape (n,).
        step_in_degrees: between turns.
        prepare: applied to turned images before the model.
    """
    angles = [step_in_degrees * i for i in range(int(180 / step_in_degrees) + 1)]
    rates = []
    for angle in angles:
        right = []
        for signed in {angle, -angle}:
            turned = prepare(turn(images, signed))
            found = torch.cat([model(part).argmax(1) for part in turned.split(500)])
            right.append((found == labels).float().mean())
        rates.append(float(torch.stack(right).mean()))
    return angles, rates


def holding_turn(angles: Sequence[float], rates: Sequence[float], share: float = 0.9) -> float:
    """Return the turn up to which accuracy stays above ``share`` of that of unturned images, interpolated linearly."""
    level = share * rates[0]
    for i in range(1, len(angles)):
        if rates[i] < level:
            fraction = (rates[i - 1] - level) / (rates[i - 1] - rates[i])
            return angles[i - 1] + fraction * (angles[i] - angles[i - 1])
    return angles[-1]
