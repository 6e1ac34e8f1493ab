"""Subgroups that kernels may have kept, where they stand in these kernels.

Where mirrors (or half turns across an axis) can stand at any angle, so are those measured: with f the flip at 0 and
r(θ) a turn, ⟨K, r(θ) f K⟩ is a trigonometric polynomial of θ, and D_M leaves most of the kernels alone where the mean
of that over the turns of C_M is largest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from parteq.core.energies import Action, Gram, band_of, broken_energies, distance
from parteq.core.groups import Element, FloatArray, SymmetryGroup, space_group
from parteq.core.subgroups import (
    HIGHEST_ORDER,
    Subgroup,
    axial_subgroup,
    carried,
    dihedral_subgroup,
    mirror,
    subgroups,
    with_inversion,
)

__all__ = ["candidates"]

_HIGHEST_ORDER_IN_SPACE = 6  # of the turns about an axis looked for in SO(3) and O(3)
_FLIP_STEPS = 7200  # at which mirrors are looked for, of turns that follow the flip


def candidates(group: SymmetryGroup, grams: Sequence[Gram], axes: FloatArray | None) -> list[Subgroup]:
    """Return the subgroups to compare layers with, the whole group first, larger before smaller.

    Args:
        group: of the layers.
        grams: of the layers.
        axes: in SO(3) and O(3) those, of which the first, that groups about an axis can have.
    """
    found = subgroups(group)
    if not group.continuous:
        return found
    # Those of which there are many are looked for where they stand in these layers.
    if group.flip:
        angles = _flip_angles(group, grams, partial(group.rotation, flipped=True))
        found += [dihedral_subgroup(group, order, angle) for order, angle in angles.items()]
    elif group.dimension == 3 and not group.about_axis:
        assert axes is not None
        kinds = ["o2", "cone", "so2"] if group.has_inversion else ["o2", "so2"]
        found += [axial_subgroup(group, axes[0], kind) for kind in kinds]
        if group.has_inversion:
            found += [with_inversion(group, axial_subgroup(group, axes[0], kind)) for kind in ("o2", "so2")]
            mirrors = [mirror(group, axis) for axis in axes]
            found.append(min(mirrors, key=lambda each: sum(broken_energies(grams, group, each))))
        angles_about = [_flip_angles(group, grams, partial(_half_turn, group, axis)) for axis in axes]
        for order in range(2, _HIGHEST_ORDER_IN_SPACE + 1):
            turns = [axial_subgroup(group, axis, f"c{order}") for axis in axes]
            dihedral = [
                axial_subgroup(group, axis, f"d{order}", angles[order])
                for axis, angles in zip(axes, angles_about, strict=True)
            ]
            for alike in (turns, dihedral):
                found.append(min(alike, key=lambda each: sum(broken_energies(grams, group, each))))
    return sorted(found, key=lambda subgroup: subgroup.size, reverse=True)


def _half_turn(group: SymmetryGroup, axis: FloatArray, angle: float) -> Element:
    """Return the half turn about an axis at right angles to another, and then the turn about that by ``angle``."""
    model = space_group("o2")
    return carried(group, axis, model.matrix(model.rotation(angle, flipped=True)))


def _flip_angles(group: SymmetryGroup, grams: Sequence[Gram], flip: Callable[[float], Element]) -> dict[int, float]:
    """Return for each M the angle, in degrees, of a flip whose D_M leaves most of the kernels alone.

    Args:
        group: of the kernels.
        grams: of the kernels.
        flip: the flip at 0 and then the turn by an angle in radians.
    """
    count = 2 * band_of(grams, group) + 2
    kept = np.zeros(count)
    for step in range(count):
        action = Action([flip(2 * np.pi * step / count)], np.ones(1))
        matrices = {triple: action(triple) for gram in grams for triple in gram}
        kept[step] = -sum(distance(gram, matrices.__getitem__) for gram in grams)
    spectrum, angles = np.fft.rfft(kept), {}
    for order in range(1, HIGHEST_ORDER + 1):
        # Turns of C_M leave the frequencies that M divides.
        mean = np.fft.irfft(np.where(np.arange(len(spectrum)) % order == 0, spectrum, 0.0), _FLIP_STEPS)
        turn = 360.0 / _FLIP_STEPS * int(np.round(mean * _FLIP_STEPS / count, 9).argmax())
        angles[order] = round(turn / 2 % (180 / order), 1)
    return angles
