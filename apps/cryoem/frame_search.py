"""A search for the frame of the axes of a point group, from a measure of how well a frame fits.

Of a rotation of the highest order first the axis, over the half sphere (what turns an axis over is in the group, or
leaves it as it is), and then the turn about it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from parteq.core.sphere import spread_directions

__all__ = ["Fit", "first_rotation", "likely_frames"]

Frames = Float[np.ndarray, "frames 3 3"]
Elements = Float[np.ndarray, "elements 3 3"]
Fit = Callable[[Frames, Elements], Float[np.ndarray, " frames"]]
"""How well frames F fit, told by some elements S: what is to be so are the rotations F S Fᵀ."""

_DIRECTIONS, _KEPT, _STEP_DEGREES = 1500, 6, 4


def first_rotation(group: Float[np.ndarray, "order 3 3"]) -> Float[np.ndarray, "3 3"]:
    """The first rotation of the smallest angle, which is one of the highest order; not of C1."""
    angles = np.round(Rotation.from_matrix(group[1:]).magnitude(), 6)
    first: Float[np.ndarray, "3 3"] = group[1:][angles.argmin()]
    return first


def likely_frames(group: Float[np.ndarray, "order 3 3"], elements: Elements, fit: Fit) -> Frames:
    """The frames that fit best, the best first, a few degrees off.

    Args:
        group: the rotations of the point group, the identity first; more than that.
        elements: of the group, by which the turn about the axis is told.
        fit: see `Fit`.
    """
    first = first_rotation(group)
    axis = Rotation.from_matrix(first).as_rotvec()
    axis /= np.linalg.norm(axis)
    directions = spread_directions(_DIRECTIONS, half=True)
    across = np.cross(axis, directions)
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    frames = Rotation.from_rotvec(across * np.arccos(directions @ axis)[:, None]).as_matrix()
    frames = frames[np.argsort(-fit(frames, first[None]))[:_KEPT]]
    if not np.allclose(elements @ axis, axis):
        turns = Rotation.from_rotvec(np.radians(np.arange(0, 360, _STEP_DEGREES))[:, None] * axis).as_matrix()
        frames = (frames[:, None] @ turns).reshape(-1, 3, 3)
    ranked: Frames = frames[np.argsort(-fit(frames, elements))[:_KEPT]]
    return ranked
