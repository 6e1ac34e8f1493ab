"""Plain twins: for any classifier an ordinary network of its architecture, with as many weights or as much work."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from parteq.apps.histo.models import STAGES, Classifier, create_model
from parteq.core.export import fold

__all__ = ["count_macs", "count_parameters", "plain_twin"]

_CLOSE = 0.005
_NARROWEST = 1 / 64  # a single channel everywhere
_OFFSETS = (0.0, -0.04, 0.04, -0.08, 0.08)


def count_parameters(model: nn.Module) -> int:
    """Return the number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def count_macs(model: Classifier, spatial: Sequence[int]) -> int:
    """Return the multiply-accumulates that the folded model takes for one image.

    These are all products of convolutions and matrices: anti-aliased pooling and, of continuous groups, the Fourier
    transforms of the nonlinearities are among them; norms that could not be melted and rectifiers are not.

    Args:
        model: a classifier of :func:`~parteq.apps.histo.models.create_model`.
        spatial: size of the image in pixels.
    """
    # Without data: a model on the device "meta" has shapes alone.
    folded, channels = fold(model).to("meta"), model.config["in_chans"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        folded(torch.empty(1, channels, *spatial, device="meta"))
    return counter.get_total_flops() // 2


def plain_twin(
    config: dict[str, Any], match: Literal["parameters", "macs"], spatial: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return the configuration of the ordinary network that comes closest to a model in size.

    Its width is found by bisection. Channels come in whole numbers, which leaves gaps of some percent; where the
    nearest is more than half a percent away, each stage is given a width of its own, up to 8 % off, and the first
    combination that comes as close is taken, or the closest.

    Args:
        config: of the model, see :func:`~parteq.apps.histo.models.create_model`; a learned degree counts with all the
            weights that it has.
        match: what is to be equal, ``parameters`` or ``macs`` (multiply-accumulates).
        spatial: size of the images in pixels, for ``macs``.

    Raises:
        ValueError: MACs are to be matched, and the size of the images is not given.
    """
    if match == "macs" and spatial is None:
        raise ValueError("the MACs of a model depend on the size of its images: give spatial")

    def size(config: dict[str, Any]) -> int:
        model = create_model(**config)
        return count_parameters(model) if spatial is None or match == "parameters" else count_macs(model, spatial)

    def twin(widths: Sequence[float]) -> dict[str, Any]:
        width = widths[0] if len(set(widths)) == 1 else list(widths)
        return config | {"group": "none", "degree": "full", "width": width}

    target = size(config)

    def error(widths: Sequence[float]) -> float:
        return size(twin(widths)) / target - 1

    wide = 1.0
    while error([wide] * STAGES) < 0:
        wide *= 2
    while wide > _NARROWEST and error([wide / 2] * STAGES) >= 0:
        wide /= 2
    narrow = wide / 2
    while wide - narrow > _CLOSE * wide:
        middle = (narrow + wide) / 2
        narrow, wide = (middle, wide) if error([middle] * STAGES) < 0 else (narrow, middle)
    closest, least = [wide] * STAGES, math.inf
    for offsets in sorted(itertools.product(_OFFSETS, repeat=STAGES), key=lambda each: sum(map(abs, each))):
        widths = [round(wide * (1 + offset), 4) for offset in offsets]
        if (off := abs(error(widths))) < least:
            closest, least = widths, off
        if least <= _CLOSE:
            break
    return twin(closest)
