"""One global alignment of estimated poses with the true ones: frame, hand and origin of the map, which no image tells.

Let the estimated map be the true one in another frame, φ̂(x) = φ(A x + t) with A in O(3). A pose says
o(p) = ∫ φ(Rᵀ(p − s, z)) dz, where s is where the particle's centre stands. Put H = 1 if A is proper, and
H = diag(1, 1, −1) if it is not, when the map is mirrored. The estimate R̂ = H R S A, S a symmetry of the true map, gives
with z' = H z

    φ̂(R̂ᵀ(p − ŝ, z)) = φ(Sᵀ Rᵀ H (p − ŝ, z) + t) = φ(Rᵀ((p − ŝ, z') + R S t)),

the integral of which over z is the true image if ŝ = s + P R S t, P being the projection along z. So

    R̂_i = H R_i S_i A        and        ŝ_i = s_i + P R_i S_i t,

with one A and one t for all particles, and with any element S_i of the point group for each. The axes of the group are
those of the true map, in their standard setting; where they lie in the estimated map is left to A.

With Q_i = R_iᵀ H R̂_i the first says Q_i = S_i A. A is sought among the Q_i of a sample, S being free, as that with the
smallest mean chordal distance |Q_i − S_i A| over the best S_i; it is moved to the minimum by reweighting (Weiszfeld's
algorithm; Hartley, Trumpf, Dai and Li, "Rotation averaging", IJCV 2013), and finally to that of a redescending
distance (Geman and McClure), which outliers that agree with each other do not bend either. t is the point of smallest
mean distance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from parteq.apps.cryoem.pointgroups import point_group

__all__ = ["Alignment", "align"]

Rotations = Float[np.ndarray, "particles 3 3"]
Shifts = Float[np.ndarray, "particles 2"]

_CANDIDATES, _SCORED, _REFINED, _USED = 256, 600, 5, 20_000
_FAR = 2 * np.sqrt(2) * np.sin(np.radians(10))  # the chordal distance of 20°


@dataclass(frozen=True)
class Alignment:
    """φ̂(x) = φ(A x + t): where the estimated map lies, as seen from the true one.

    Attributes:
        matrix: A, orthogonal; its determinant is −1 if the estimated map is mirrored.
        offset_in_angstroms: t; zero if there were no shifts to find it from.
        symmetry: the point group of the true map.
        distance: the mean of |sin(θ/2)| over the sample that A was found from, θ the angle of the error.
    """

    matrix: Float[np.ndarray, "3 3"]
    offset_in_angstroms: Float[np.ndarray, "3"]
    symmetry: str
    distance: float

    @property
    def hand(self) -> str:
        """``same`` or ``mirrored``."""
        return "same" if np.linalg.det(self.matrix) > 0 else "mirrored"

    def rotations_in_true_frame(self, estimated: Rotations) -> Rotations:
        """H R̂ Aᵀ, what the estimates are as poses of the true map."""
        return _half_turn(self.matrix) @ estimated @ self.matrix.T

    def shifts_in_true_frame(self, estimated: Rotations, shifts: Shifts) -> Shifts:
        """ŝ − P H R̂ Aᵀ t, what the estimated shifts are about the origin of the true map."""
        moved: Shifts = shifts - self.rotations_in_true_frame(estimated)[:, :2] @ self.offset_in_angstroms
        return moved

    def nearest_copies(self, estimated: Rotations, true: Rotations) -> Rotations:
        """R S, of all symmetry copies of the true poses those nearest to the estimates in the true frame."""
        group = point_group(self.symmetry)
        quotients = true.swapaxes(1, 2) @ self.rotations_in_true_frame(estimated)
        nearest = np.concatenate(
            [_nearest(group, part)[0] for part in np.array_split(quotients, len(true) // 10**5 + 1)]
        )
        return true @ group[nearest]


def align(
    estimated: Rotations,
    true: Rotations,
    shifts: tuple[Shifts, Shifts] | None = None,
    *,
    symmetry: str = "C1",
    mirrored: bool = False,
    seed: int = 0,
) -> Alignment:
    """Finds A, proper or, if ``mirrored``, improper, and t.

    Args:
        estimated: R̂.
        true: R, row for row.
        shifts: the estimated and the true shifts in Å; None leaves t at zero.
        symmetry: the point group of the true map.
        mirrored: of which hand the estimated map is to be.
        seed: of the sample, taken of sets above 20,000 particles, and of the candidates.

    Raises:
        ValueError: for arrays that are not rotations row for row, or no such point group.
    """
    _check(estimated, true)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(true))[:_USED]
    group, turn = point_group(symmetry), np.diag([1.0, 1.0, -1.0 if mirrored else 1.0])
    quotients = true[order].swapaxes(1, 2) @ turn @ estimated[order]
    few = quotients[:_SCORED]
    candidates = quotients[:_CANDIDATES]
    distances = np.array([_nearest(group @ candidate, few)[1].mean() for candidate in candidates])
    refined = [_refine(candidates[index], group, few, iterations=10) for index in np.argsort(distances)[:_REFINED]]
    best = min(refined, key=lambda matrix: float(_nearest(group @ matrix, few)[1].mean()))
    matrix = _refine(best, group, quotients, iterations=30)
    scale = min(2 * float(np.median(_nearest(group @ matrix, quotients)[1])), _FAR)
    matrix = _refine(matrix, group, quotients, iterations=10, scale=scale)
    distance = float(_nearest(group @ matrix, quotients)[1].mean()) / np.sqrt(8)
    found = Alignment(matrix, np.zeros(3), symmetry, distance)
    if shifts is None:
        return found
    copies = found.nearest_copies(estimated[order], true[order])
    return Alignment(matrix, _offset(copies, (shifts[0] - shifts[1])[order]), symmetry, distance)


def _check(estimated: Rotations, true: Rotations) -> None:
    if not 0 < len(estimated) == len(true):
        raise ValueError(f"{len(estimated)} estimated poses for {len(true)} true ones")
    for name, rotations in (("estimated", estimated), ("true", true)):
        products = rotations @ rotations.swapaxes(1, 2)
        if not (np.allclose(products, np.eye(3), atol=1e-3) and (np.linalg.det(rotations) > 0).all()):
            raise ValueError(f"the {name} poses are not all rotation matrices")


def _half_turn(matrix: Float[np.ndarray, "3 3"]) -> Float[np.ndarray, "3 3"]:
    """H."""
    return np.diag([1.0, 1.0, np.sign(np.linalg.det(matrix))])


def _nearest(
    copies: Float[np.ndarray, "order 3 3"], quotients: Rotations
) -> tuple[Int[np.ndarray, " particles"], Float[np.ndarray, " particles"]]:
    """Of the orthogonal matrices S A, for each Q the number of the nearest one, and the chordal distance to it."""
    products = quotients.reshape(-1, 9) @ copies.reshape(-1, 9).T
    nearest = products.argmax(1)
    difference = quotients - copies[nearest]
    return nearest, np.sqrt(np.einsum("nij,nij->n", difference, difference))


def _refine(
    matrix: Float[np.ndarray, "3 3"],
    group: Float[np.ndarray, "order 3 3"],
    quotients: Rotations,
    *,
    iterations: int,
    scale: float | None = None,
) -> Float[np.ndarray, "3 3"]:
    """A moved to the least mean distance to all Sᵀ Q; given a scale in chordal distance, of Geman and McClure's."""
    sign = np.sign(np.linalg.det(matrix))
    for _ in range(iterations):
        nearest, distances = _nearest(group @ matrix, quotients)
        floored = np.maximum(distances, 1e-9)
        weights = 1 / floored if scale is None else 1 / (1 + (floored / max(scale, 1e-9)) ** 2) ** 2
        # Σ w Sᵀ Q, the particles of each S summed first.
        sums = np.zeros((len(group), 3, 3))
        np.add.at(sums, nearest, weights[:, None, None] * quotients)
        left, _, right = np.linalg.svd(np.einsum("kji,kjl->il", group, sums))
        flip = np.diag([1.0, 1.0, sign * np.sign(np.linalg.det(left @ right))])
        previous, matrix = matrix, left @ flip @ right
        if np.abs(matrix - previous).max() < 1e-10:
            break
    return matrix


def _offset(copies: Rotations, differences: Shifts) -> NDArray[np.float64]:
    """t of the smallest mean |ŝ − s − P R S t|, by reweighted least squares; in directions that no view shows, zero."""
    projections = copies[:, :2]
    weights, offset = np.ones(len(copies)), np.zeros(3)
    for _ in range(50):
        normal = np.einsum("n,nij,nik->jk", weights, projections, projections)
        right = np.einsum("n,nij,ni->j", weights, projections, differences)
        previous, offset = offset, np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ right
        if np.abs(offset - previous).max() < 1e-9:
            break
        weights = 1 / np.maximum(np.linalg.norm(differences - projections @ offset, axis=1), 1e-6)
    return offset
