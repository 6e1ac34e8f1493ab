"""The symmetry axis of an atomic model, turned onto z.

The principal axis of inertia that differs most from the others is that of a C_n or D_n model but for what breaks the
symmetry: ligands, loops, a chain that is not complete. It may be some degrees off. The axis about which one chain has
to turn to lie on another of its kind is not, for only what both have is laid on one another: by least squares (Kabsch),
over the atoms of the same name in residues of the same number. Of such axes, those near the principal one are averaged;
where there are none, the principal one stays.
"""

from __future__ import annotations

import gemmi
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

__all__ = ["turn_onto_z"]

Places = NDArray[np.float64]

_NEAR = np.cos(np.radians(20))
_SAME_KIND = 0.8  # of the atoms of the smaller of two chains
_FEWEST_ATOMS = 4
_SMALLEST_TURN = np.radians(5)  # chains that lie on one another tell of no axis


def turn_onto_z(model: gemmi.Model, places: Places, mass: NDArray[np.float64]) -> Places:
    """The rotation [3, 3] that turns the axis onto z.

    Args:
        model: with chains.
        places: of its atoms, in its order, about the centre of mass, [atoms, 3].
        mass: of the atoms.
    """
    principal = _principal_axes(places, mass)
    axes = _axes_between_chains(model, places @ principal.T)
    axes = axes[np.abs(axes[:, 2]) > _NEAR]
    if not len(axes):
        return principal
    mean = (axes * np.sign(axes[:, 2:])).sum(0)
    onto_z: Places = Rotation.align_vectors([[0.0, 0.0, 1.0]], [mean / np.linalg.norm(mean)])[0].as_matrix()
    return onto_z @ principal


def _principal_axes(places: Places, mass: NDArray[np.float64]) -> Places:
    """The rotation [3, 3] that turns the principal axis which differs most from the others onto z."""
    moments, axes = np.linalg.eigh(places.T @ (mass[:, None] * places))
    # Ascending: the middle moment is like the first or like the last, and the one left over is unique.
    order = [1, 2, 0] if moments[1] - moments[0] > moments[2] - moments[1] else [0, 1, 2]
    rotation = axes[:, order].T
    return rotation * np.array([[1.0], [1.0], [np.linalg.det(rotation)]])


def _axes_between_chains(model: gemmi.Model, places: Places) -> Places:
    """Unit vectors [axes, 3], one for each chain that turns onto the first of its kind."""
    chains: dict[str, dict[tuple[str, str, str], int]] = {}
    for number, place in enumerate(model.all()):
        name = (str(place.residue.seqid), place.residue.name, place.atom.name)
        chains.setdefault(place.chain.name, {}).setdefault(name, number)
    kinds: list[dict[tuple[str, str, str], int]] = []
    axes = []
    for chain in chains.values():
        for first in kinds:
            common = [name for name in first if name in chain]
            if len(common) < max(_FEWEST_ATOMS, _SAME_KIND * min(len(first), len(chain))):
                continue
            here, there = (places[[atoms[name] for name in common]] for atoms in (chain, first))
            turn = Rotation.align_vectors(there - there.mean(0), here - here.mean(0))[0].as_rotvec()
            angle = np.linalg.norm(turn)
            if angle > _SMALLEST_TURN:
                axes.append(turn / angle)
            break
        else:
            kinds.append(chain)
    return np.array(axes).reshape(-1, 3)
