"""The elements of the molecules of QM9, as features of atoms."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError

__all__ = ["ATOMIC_NUMBERS", "COVALENT_RADII_IN_ANGSTROMS", "ELEMENTS", "element_features"]

ELEMENTS = ("H", "C", "N", "O", "F")
"""Their symbols: the names of the features."""
ATOMIC_NUMBERS = {"H": 1, "C": 6, "N": 7, "O": 8, "F": 9}
"""Of the elements."""
COVALENT_RADII_IN_ANGSTROMS = (0.31, 0.76, 0.71, 0.66, 0.57)
"""Of the elements in order, for single bonds (Cordero et al., Dalton Trans. 2008, 2832)."""


def element_features(numbers: NDArray[Any], path: str | os.PathLike[str]) -> NDArray[np.float32]:
    """One-hot elements float32 [n, 5] of atoms given by atomic number [n].

    Raises:
        DataError: an atom of another element.
    """
    known = np.array([ATOMIC_NUMBERS[symbol] for symbol in ELEMENTS])
    features = numbers.reshape(-1, 1) == known
    if not features.any(1).all():
        stranger = numbers[~features.any(1)][0]
        raise DataError(path, f"holds an atom of atomic number {stranger}; known are {', '.join(ELEMENTS)}")
    return features.astype(np.float32)
