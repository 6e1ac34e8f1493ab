"""The symmetries of the pixel grid: as augmentation of a batch, and as the orbit of an image.

The eight elements of D4 are numbered so that k < 4 turns by k quarters and k >= 4 mirrors first. They act on the last
two axes, so on every slice of a volume.
"""

from __future__ import annotations

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from parteq.core.training import Augment, Batch, uniform

__all__ = ["AUGMENTATIONS", "ORBITS", "transform"]

ORBITS = {
    "c4": (0, 1, 2, 3),
    "c8": (0, 1, 2, 3),
    "so2": (0, 1, 2, 3),
    "d4": tuple(range(8)),
    "o2": tuple(range(8)),
    "none": tuple(range(8)),
}
"""For each group of a model, those elements that move pixels onto pixels; a plain network is probed with all."""

_KEEPING_SHAPE = (0, 2, 4, 6)


def transform(images: Shaped[Tensor, "*batch h w"], element: int) -> Shaped[Tensor, "*batch H W"]:
    """Applies an element of D4, without interpolation. Odd elements exchange height and width."""
    mirrored = images.flip(-1) if element >= 4 else images
    return torch.rot90(mirrored, element % 4, dims=(-2, -1))


def _apply_some(batch: Batch, keys: Int[Tensor, " batch"], elements: tuple[int, ...]) -> Batch:
    """Applies to each image one of the elements, those that keep the shape if it is no square."""
    images, *rest = batch
    if images.shape[-1] != images.shape[-2]:
        elements = tuple(element for element in elements if element in _KEEPING_SHAPE)
    chosen = (uniform(keys, 1)[:, 0] * len(elements)).long()
    result = torch.empty_like(images)
    for number, element in enumerate(elements):
        result[chosen == number] = transform(images[chosen == number], element)
    return result, *rest


def flip(batch: Batch, keys: Int[Tensor, " batch"]) -> Batch:
    """Mirrors left and right every other image."""
    return _apply_some(batch, keys, (0, 4))


def d4(batch: Batch, keys: Int[Tensor, " batch"]) -> Batch:
    """Turns by quarters and mirrors; images that are no squares by halves."""
    return _apply_some(batch, keys, tuple(range(8)))


AUGMENTATIONS: dict[str, Augment | None] = {"none": None, "flip": flip, "d4": d4}
"""By name; each takes a batch of images and labels."""
