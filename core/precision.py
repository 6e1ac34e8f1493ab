"""Keeping automatic mixed precision out of what has to be exact."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

__all__ = ["without_autocast"]


def without_autocast(tensor: Tensor) -> AbstractContextManager[object]:
    """Return a context in which automatic mixed precision is off on the device of this tensor.

    Static bases and densities are small: in bfloat16 they would save nothing, and uniform λ would not quite be uniform.
    """
    kind = tensor.device.type
    if not torch.amp.autocast_mode.is_autocast_available(kind):  # as on "meta"
        return nullcontext()
    return torch.autocast(kind, enabled=False)
