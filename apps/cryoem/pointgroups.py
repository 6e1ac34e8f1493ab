"""The point groups of particles, as rotation matrices in the setting of RELION.

A map φ has the symmetry S if φ(S x) = φ(x); then the poses R and R S give the same image, for
o(p) = ∫ φ(Rᵀ(x, y, z)) dz. The axes are those of RELION:

======  =====  ================================================================
group   order  axes
======  =====  ================================================================
C_n     n      n-fold along z
D_n     2 n    n-fold along z, 2-fold along x
T       12     3-fold along z, 2-fold along (0, √2, 1)
O       24     4-fold along x, y and z
I1      60     2-fold along x, y and z; 5-fold along (φ, 0, ±1), φ the golden ratio
I2, I   60     2-fold along x, y and z; 5-fold along (±1, 0, φ): I1 turned by 90° about z
======  =====  ================================================================
"""

from __future__ import annotations

import re

import numpy as np
from jaxtyping import Float
from scipy.spatial.transform import Rotation

__all__ = ["point_group"]


def point_group(name: str) -> Float[np.ndarray, "order 3 3"]:
    """The rotations of a point group, the identity first.

    Args:
        name: C1, C2, …, D1, D2, …, T, O, I (which is I2), I1 or I2; lower case too.

    Raises:
        ValueError: there is no such group.

    >>> point_group("D2").round().astype(int).diagonal(axis1=1, axis2=2).tolist()[0]
    [1, 1, 1]
    >>> len(point_group("I1"))
    60
    """
    group = name.strip().upper()
    if not re.fullmatch(r"[CD][1-9]\d{0,2}|T|O|I[12]?", group):
        raise ValueError(f"no point group {name!r}: C1, C2, …, D1, D2, …, T, O, I1 or I2 (also I)")
    rotations = Rotation.create_group("I" if group[0] == "I" else group).as_matrix()
    rotations = _turn_from_scipy(group) @ rotations @ _turn_from_scipy(group).T
    from_identity = np.linalg.norm(rotations - np.eye(3), axis=(1, 2))
    ordered: Float[np.ndarray, "order 3 3"] = rotations[np.argsort(from_identity, kind="stable")]
    return ordered


def _turn_from_scipy(group: str) -> Float[np.ndarray, "3 3"]:
    """The rotation that takes SciPy's axes, 2-fold along x, y, z for T and I1 for I, to RELION's."""
    if group == "T":
        threefold, twofold = np.ones(3) / np.sqrt(3), np.array([1.0, 0.0, 0.0])
        second = (twofold - threefold * (threefold @ twofold)) * np.sqrt(3 / 2)
        return np.stack([np.cross(second, threefold), second, threefold])
    if group in ("I", "I2"):
        return np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    return np.eye(3)
