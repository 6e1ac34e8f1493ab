"""Where the symmetry axes of a particle stand, told by poses that were estimated for it.

In the notation of `parteq.apps.cryoem.alignment` Q_i = S_i A with S_i in F G Fᵀ, G the point group in its standard
setting. So of two particles that are estimated rightly Q_i Q_jᵀ is a rotation in F G Fᵀ, whatever A is. F is sought as
that frame with the most such pairs: those with a wrong pose turn about any axis.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from parteq.apps.cryoem.frame_search import Elements, Frames, likely_frames
from parteq.apps.cryoem.placement import Rotations

__all__ = ["likely_axes"]

_PAIRS = 40_000
_NEAR = np.radians(10)  # the width of the kernel by which a rotation counts as one of the group
_AT_ONCE, _IN_ALL = 5 * 10**6, 3 * 10**7  # comparisons


def likely_axes(
    quotients: Rotations, group: Float[np.ndarray, "order 3 3"], generator: np.random.Generator
) -> Float[np.ndarray, "3 3"]:
    """The likeliest F, a few degrees off.

    Args:
        quotients: Q, two or more.
        group: G, the identity first; more than that.
        generator: of the pairs that are looked at.
    """
    first = generator.integers(len(quotients), size=_PAIRS)
    second = (first + generator.integers(1, len(quotients), size=_PAIRS)) % len(quotients)
    pairs = (quotients[first] @ quotients[second].swapaxes(1, 2)).astype(np.float32)
    angles = _angles(pairs)

    def fit(frames: Frames, elements: Elements) -> Float[np.ndarray, " frames"]:
        elements = elements[1:] if np.allclose(elements[0], np.eye(3)) else elements
        possible = pairs[np.abs(angles[:, None] - np.unique(_angles(elements).round(6))).min(1) < 2 * _NEAR]
        some = possible[: max(1, _IN_ALL // (len(frames) * len(elements)))].reshape(-1, 9)
        parts = np.array_split(frames, 1 + len(frames) * len(elements) * len(some) // _AT_ONCE)
        return np.concatenate([_kernel(some, part @ elements[:, None] @ part.swapaxes(1, 2)).sum(0) for part in parts])

    likeliest: Float[np.ndarray, "3 3"] = likely_frames(group, group, fit)[0]
    return likeliest


def _angles(rotations: Rotations) -> Float[np.ndarray, " particles"]:
    angles: Float[np.ndarray, " particles"] = np.arccos(np.clip((np.trace(rotations, axis1=1, axis2=2) - 1) / 2, -1, 1))
    return angles


def _kernel(
    pairs: Float[np.ndarray, "pairs 9"], rotations: Float[np.ndarray, "elements frames 3 3"]
) -> Float[np.ndarray, "pairs frames"]:
    """exp(−(θ / 10°)²), with the θ of the turn from each pair to the nearest of a frame's rotations; as its chord has
    it."""
    traces = pairs @ rotations.reshape(*rotations.shape[:2], 9).swapaxes(1, 2).astype(np.float32)
    kernel: Float[np.ndarray, "pairs frames"] = np.exp((traces.max(0) - 3) / _NEAR**2)
    return kernel
