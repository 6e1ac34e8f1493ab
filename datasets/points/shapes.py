"""Shapes that only topology tells apart: annuli from discs, and linked rings from unlinked ones.

Both kinds of a task have the same extent, density and local geometry; each cloud is turned at random.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from parteq.datasets.points.base import ArrayClouds

__all__ = ["annuli_and_discs", "linked_and_unlinked"]

# Of annuli: their inner radius, where the outer one is 1; how wide slits are, and how wide the bridge that a slit may
# leave, both across.
_INNER, _SLIT, _BRIDGE = 0.5, (0.35, 0.5), (0.15, 0.25)
# Rings have the radius 1; how far apart their middles are, and how close they come to each other.
_APART, _CLEARANCE = (0.7, 1.5), (0.4, 0.6)


def annuli_and_discs(count: int, seed: int, points: int = 256) -> ArrayClouds:
    """Flat annuli with a slit: in an annulus the slit leaves a bridge; in a disc it goes through, which makes it one.

    The slit is anywhere; a bridge is anywhere along the slit. Every other cloud is an annulus.

    Args:
        count: how many clouds.
        seed: equal seeds draw equally.
        points: of each cloud.

    Returns:
        Clouds [count, points, 3] of the classes "disc" and "annulus".
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    flat = np.zeros((count, points, 3))
    for cloud, is_annulus in zip(flat, labels, strict=True):
        width, across = generator.uniform(*_SLIT), generator.uniform(*_BRIDGE)
        begins = generator.uniform(_INNER, 1 - across)
        # More than enough points uniform on the square about the annulus, and of those inside as many as wanted.
        candidates = generator.uniform(-1, 1, (20 * points, 2))
        radius = np.linalg.norm(candidates, axis=1)
        in_slit = (np.abs(candidates[:, 1]) < width / 2) & (candidates[:, 0] > 0)
        on_bridge = bool(is_annulus) & (radius > begins) & (radius < begins + across)
        inside = (radius > _INNER) & (radius < 1) & (~in_slit | on_bridge)
        cloud[:, :2] = candidates[inside][:points]
    return _turned(flat, labels, ("disc", "annulus"), generator)


def linked_and_unlinked(count: int, seed: int, points: int = 128) -> ArrayClouds:
    """Two rings each, of radius 1, whose middles are as far apart whether one passes through the other or not.

    Args:
        count: how many clouds; every other one is linked.
        seed: equal seeds draw equally.
        points: of each cloud, half on either ring.

    Returns:
        Clouds [count, points, 3] of the classes "unlinked" and "linked".
    """
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    clouds = np.empty((count, points, 3))
    for cloud, is_linked in zip(clouds, labels, strict=True):
        half = points // 2
        first = _ring(half, np.eye(3), np.zeros(3), generator)
        distance = generator.uniform(*_APART)
        while True:
            turn = Rotation.random(random_state=generator).as_matrix()
            centre = distance * _direction(generator)
            if _CLEARANCE[0] < _gap(turn, centre) < _CLEARANCE[1] and _linked(turn, centre) == bool(is_linked):
                break
        cloud[:] = np.concatenate([first, _ring(points - half, turn, centre, generator)])
    return _turned(clouds, labels, ("unlinked", "linked"), generator)


def _direction(generator: np.random.Generator) -> NDArray[np.float64]:
    vector = generator.standard_normal(3)
    return vector / np.linalg.norm(vector)


def _ring(
    count: int, turn: NDArray[np.float64], centre: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """Points of a circle of radius 1 about the third column of `turn`, one in each of `count` equal arcs."""
    angles = 2 * np.pi * (np.arange(count) + generator.random(count)) / count
    return np.column_stack([np.cos(angles), np.sin(angles)]) @ turn[:, :2].T + centre


def _gap(turn: NDArray[np.float64], centre: NDArray[np.float64]) -> float:
    """How close the ring comes to the one about the origin."""
    angles = np.linspace(0, 2 * np.pi, 200)
    ring = np.column_stack([np.cos(angles), np.sin(angles)]) @ turn[:, :2].T + centre
    return float(np.hypot(np.linalg.norm(ring[:, :2], axis=1) - 1, ring[:, 2]).min())


def _linked(turn: NDArray[np.float64], centre: NDArray[np.float64]) -> bool:
    """Whether the ring passes through the disc of radius 1 about the origin exactly once.

    Its height over the disc is c + a cos φ + b sin φ, zero at two angles or at none.
    """
    (a, b), c = turn[2, :2], centre[2]
    amplitude = np.hypot(a, b)
    if abs(c) >= amplitude:
        return False
    crossings = np.arctan2(b, a) + np.array([1, -1]) * np.arccos(-c / amplitude)
    places = np.column_stack([np.cos(crossings), np.sin(crossings)]) @ turn[:, :2].T + centre
    return int((np.linalg.norm(places, axis=1) < 1).sum()) == 1


def _turned(
    clouds: NDArray[np.float64], labels: NDArray[np.int64], classes: tuple[str, str], generator: np.random.Generator
) -> ArrayClouds:
    turns = Rotation.random(len(clouds), random_state=generator).as_matrix()
    return ArrayClouds(np.einsum("bij,bnj->bni", turns, clouds), labels=labels, classes=classes)
