"""Solids that stand or lie on their head: clouds whose class tells up from down about an axis that they share.

Each of three solids (a bowl, a cone, a table) comes both ways up, which makes six classes. Sizes vary along x, y and z,
clouds are turned about z at random, and then all tilted by one rotation. So turns about the tilted z change no class,
while turning over does: of SO(3) just SO(2) about that axis is a symmetry.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

from parteq.datasets.points.base import ArrayClouds

__all__ = ["SOLIDS", "solids"]

_SIZES = (0.7, 1.3)  # along each axis, drawn anew for each cloud
_NOISE = 0.03  # of every point
_BOARD = 0.15  # height of the board of a table

Cloud = Float[np.ndarray, "points 3"]


def _bowl(points: int, generator: np.random.Generator) -> Cloud:
    directions = generator.normal(size=(points, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    directions[:, 2] = -np.abs(directions[:, 2])
    return directions


def _cone(points: int, generator: np.random.Generator) -> Cloud:
    radius, angle = np.sqrt(generator.uniform(0, 1, points)), generator.uniform(0, 2 * np.pi, points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), 1.5 * (1 - radius)], axis=1)


def _table(points: int, generator: np.random.Generator) -> Cloud:
    corners = 0.8 * generator.choice([-1.0, 1.0], (points, 2))
    legs = np.column_stack([corners, generator.uniform(-1, 0, points)])
    board = generator.uniform(-1, 1, (points, 3)) * [1, 1, _BOARD / 2]
    table: Cloud = np.where(np.arange(points)[:, None] % 2 == 0, legs, board)
    return table


SOLIDS: dict[str, Callable[[int, np.random.Generator], Cloud]] = {"bowl": _bowl, "cone": _cone, "table": _table}


def solids(count: int, seed: int, axis: Float[np.ndarray, "3"], points: int = 128) -> ArrayClouds:
    """Solids, upright and upside down, about an axis.

    Args:
        count: how many clouds, of each class as many but for the remainder.
        seed: equal seeds draw equally.
        axis: which way is up, a vector that is not 0.
        points: of each cloud.

    Returns:
        Clouds [count, points, 3] of the classes "bowl", "bowl upside down", …
    """
    generator = np.random.default_rng(seed)
    makers = list(SOLIDS.values())
    labels = np.arange(count) % (2 * len(makers))
    clouds = np.stack([makers[label // 2](points, generator) for label in labels])
    clouds = np.where(labels[:, None, None] % 2 == 1, clouds * [1.0, -1.0, -1.0], clouds)
    clouds *= generator.uniform(*_SIZES, (count, 1, 3))
    clouds += _NOISE * generator.normal(size=clouds.shape)
    turns = Rotation.from_euler("z", generator.uniform(0, 2 * np.pi, (count, 1)))
    tilt, _ = Rotation.align_vectors(np.asarray(axis, float)[None], [[0.0, 0.0, 1.0]])
    turned = np.einsum("nij,npj->npi", (tilt * turns).as_matrix(), clouds)
    names = tuple(f"{name}{way}" for name in SOLIDS for way in ("", " upside down"))
    return ArrayClouds(turned, labels=labels, classes=names)
