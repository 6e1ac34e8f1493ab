"""Augmentation of a batch of images, and the symmetries of the pixel grid, which are also the orbit of an image.

The eight elements of D4 are numbered so that k < 4 turns by k quarters and k >= 4 mirrors first. They act on the last
two axes, so on every slice of a volume. What goes beyond the grid is in `appearance` and `warp`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from jaxtyping import Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from parteq.apps.histo.appearance import blur, stain
from parteq.apps.histo.warp import warp
from parteq.core.groups import plane_group
from parteq.core.training import Augment, Batch, uniform
from parteq.datasets.errors import DataError

__all__ = ["augmentation", "orbit", "transform"]

log = logging.getLogger(__name__)

_KEEPING_SHAPE = (0, 2, 4, 6)
_NAMES = {name: {name} for name in ("flip", "d4", "stain", "turn", "elastic", "blur")}
_NAMES |= {"none": set(), "strong": {"d4", "stain", "turn", "elastic", "blur"}}


def transform(images: Shaped[Tensor, "*batch h w"], element: int) -> Shaped[Tensor, "*batch H W"]:
    """Applies an element of D4, without interpolation. Odd elements exchange height and width."""
    mirrored = images.flip(-1) if element >= 4 else images
    return torch.rot90(mirrored, element % 4, dims=(-2, -1))


def orbit(group: str, spatial_dims: int = 2) -> tuple[int, ...]:
    """Those elements of D4 that are in a model's group; of volumes only turns; a plain network is probed with all.

    Args:
        group: name of a group of the plane, or ``none``.
        spatial_dims: 3 for volumes, where the flips of a group are half turns, not mirrorings of the slices.
    """
    if spatial_dims == 3:
        return tuple(range(4))
    if group == "none":
        return tuple(range(8))
    whole = plane_group(group)
    if whole.continuous:
        return tuple(range(8 if whole.flip else 4))
    members = np.stack([whole.matrix(element) for element in whole.algebra.elements])
    return tuple(k for k in range(8) if np.isclose(members, _matrix(k)).all((1, 2)).any())


def _matrix(element: int) -> NDArray[np.float64]:
    """What an element of D4 does to a point (x, y), y pointing up."""
    cosine, sine = [(1, 0), (0, 1), (-1, 0), (0, -1)][element % 4]
    return np.array([[cosine, -sine], [sine, cosine]]) @ np.diag([-1.0 if element >= 4 else 1.0, 1.0])


def _move(images: Shaped[Tensor, "batch ..."], keys: Int[Tensor, " batch"], elements: tuple[int, ...]) -> Tensor:
    """Applies to each image one of the elements, those that keep the shape if it is no square."""
    if images.shape[-1] != images.shape[-2]:
        elements = tuple(element for element in elements if element in _KEEPING_SHAPE)
    chosen = (uniform(keys, 1)[:, 0] * len(elements)).long()
    result = torch.empty_like(images)
    for number, element in enumerate(elements):
        result[chosen == number] = transform(images[chosen == number], element)
    return result


def augmentation(names: str, group: str = "none", degree: str = "none", spatial_dims: int = 2) -> Augment | None:
    """What alters the images that a model is trained on, put together by names.

    ``flip`` mirrors every other image left to right; ``d4`` turns by quarters (images that are no squares by halves)
    and mirrors; ``stain`` jitters the stains of all images; ``turn`` turns every other one by any angle, ``elastic``
    deforms and ``blur`` blurs every other one. They are done in this order, whatever that of the names. The first two
    give bytes for bytes, the others numbers in 0…1. The slices of a volume are treated alike.

    A model that is invariant under D4 learns nothing from ``flip`` and ``d4``: they are left out, and the log says so.
    One with a learned degree is trained with them, and learns the degree of the data so altered, which are symmetric
    by construction: the log says that too, and of ``turn``.

    Args:
        names: separated by commas; ``none``, and ``strong`` for ``d4,stain,turn,elastic,blur``.
        group: of the model.
        degree: of the model.
        spatial_dims: 2 for images, 3 for volumes, of which no group mirrors the slices.

    Returns:
        None where nothing is to be done.

    Raises:
        DataError: an unknown name.
    """
    chosen: set[str] = set()
    for name in names.split(","):
        if name not in _NAMES:
            raise DataError(f"--augment {names}", f"{name!r} is none of {', '.join(_NAMES)}")
        chosen |= _NAMES[name]
    grid = chosen & {"flip", "d4"}
    if grid and group in ("d4", "o2") and degree == "full" and spatial_dims == 2:
        log.info("augmentation leaves out %s: the network is invariant under all of D4", " and ".join(sorted(grid)))
        chosen, grid = chosen - grid, set()
    elif degree == "learned" and group != "none" and (moving := grid | chosen & {"turn"}):
        parts = ", ".join(sorted(moving))
        log.info("augmentation (%s) makes the images symmetric: the degree learned is theirs, not the data's", parts)

    steps: list[Callable[[Tensor, Tensor], Tensor]] = []
    if grid:
        steps.append(partial(_move, elements=tuple(range(8)) if "d4" in grid else (0, 4)))
    if "stain" in chosen:
        steps.append(stain)
    if chosen & {"turn", "elastic"}:
        steps.append(partial(warp, turn="turn" in chosen, elastic="elastic" in chosen))
    if "blur" in chosen:
        steps.append(blur)

    def augment(batch: Batch, keys: Int[Tensor, " batch"]) -> Batch:
        images, *rest = batch
        for number, step in enumerate(steps):
            images = step(images, keys ^ (number << 40))  # so that each draws numbers of its own
        return images, *rest

    return augment if steps else None
