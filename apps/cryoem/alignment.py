"""One global alignment of estimated poses with the true ones: frame, hand and origin of the map, which no image tells.

Let the estimated map be the true one in another frame, φ̂(x) = φ(A x + t), see `parteq.apps.cryoem.placement`. A true
pose R is as right as its copies: with S a symmetry of the true map about the point c, φ(c + S y) = φ(c + y), the pose
R S, s + P R (1 − S) c gives the image of R, s. So

    R̂_i = H R_i S_i A        and        ŝ_i = s_i + P R_i (1 − S_i) c + P R_i S_i t,

with one A and one t for all particles, and with any element S_i of the group F G Fᵀ for each, G being the point group
in its standard setting and F the frame of the axes in the true map. Where they lie in the estimated map is left to A.

With Q_i = R_iᵀ H R̂_i the first says Q_i = S_i A. A is sought among the Q_i of a sample, S being free, as that with the
smallest mean chordal distance |Q_i − S_i A| over the best S_i; it is moved to the minimum by reweighting (Weiszfeld's
algorithm; Hartley, Trumpf, Dai and Li, "Rotation averaging", IJCV 2013), and finally to that of a redescending
distance (Geman and McClure), which outliers that agree with each other do not bend either. t is the point of smallest
mean distance.

The axes should stand in their standard setting, F = 1 and c = 0. Where they do not right poses would count as wrong;
so F is sought, too (`parteq.apps.cryoem.pose_axes`), and refined by turns with B = Fᵀ A, for Q_i = F G_i B. It is taken
only if there are clearly more poses near a copy then: more than in the standard setting, and more than near what stands
half-way between the copies, where poses come as often that are right but for the turn about an axis.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.frame_search import first_rotation
from parteq.apps.cryoem.placement import Placement, Rotations, Shifts
from parteq.apps.cryoem.pointgroups import point_group
from parteq.apps.cryoem.pose_axes import likely_axes

__all__ = ["Alignment", "align"]

_CANDIDATES, _SCORED, _REFINED, _USED = 256, 600, 5, 20_000
_FAR = np.radians(20)
# By what share of the poses, and by how many, and by how many times what chance varies by, more must be near a copy.
_SHARE, _COUNT, _DEVIATIONS = 0.05, 10, 5


@dataclass(frozen=True)
class Alignment(Placement):
    """φ̂(x) = φ(A x + t): where the estimated map lies, as seen from the true one.

    Attributes:
        symmetry: the point group of the true map.
        axes: F.
        centre: c, zero unless the axes were found; in the unit of shifts.
        axes_found: whether the axes were found elsewhere than they were said to be.
        distance: the mean of |sin(θ/2)| over the sample that A was found from, θ the angle of the error.
    """

    symmetry: str
    axes: Float[np.ndarray, "3 3"]
    centre: Float[np.ndarray, "3"]
    axes_found: bool
    distance: float

    @property
    def axis(self) -> Float[np.ndarray, "3"]:
        """The direction in which the axis of the standard setting's z stands, (x, y, z), z not negative."""
        axis: Float[np.ndarray, "3"] = self.axes[:, 2] * (1 if self.axes[2, 2] >= 0 else -1)
        return axis

    def nearest_copies(self, estimated: Rotations, true: Rotations) -> Rotations:
        """R S, of all symmetry copies of the true poses those nearest to the estimates in the true frame."""
        group = self.axes @ point_group(self.symmetry) @ self.axes.T
        quotients = true.swapaxes(1, 2) @ self.rotations_in_true_frame(estimated)
        nearest = np.concatenate(
            [_nearest(group, part)[0] for part in np.array_split(quotients, len(true) // 10**5 + 1)]
        )
        return true @ group[nearest]

    def shift_errors(self, true: Rotations, copies: Rotations, differences: Shifts) -> Shifts:
        """ŝ − s − P R (1 − S) c − P R S t, of the differences ŝ − s."""
        errors: Shifts = differences - (true - copies)[:, :2] @ self.centre - copies[:, :2] @ self.offset
        return errors


@dataclass(frozen=True)
class _Fit:
    """Q ≈ F G B, A = F B."""

    axes: Float[np.ndarray, "3 3"]
    rest: Float[np.ndarray, "3 3"]

    def copies(self, group: Float[np.ndarray, "order 3 3"]) -> Float[np.ndarray, "order 3 3"]:
        copies: Float[np.ndarray, "order 3 3"] = self.axes @ group @ self.rest
        return copies

    def near(self, group: Float[np.ndarray, "order 3 3"], quotients: Rotations, *, between: bool = False) -> float:
        """The share of the Q near a copy or, ``between``, near what a turn half-way to the next copy makes of one."""
        half = Rotation.from_matrix(first_rotation(group)) ** 0.5
        copies = self.copies(group @ half.as_matrix() if between else group)
        return float((_nearest(copies, quotients)[1] < _chord(_near_angle(group))).mean())


def align(
    estimated: Rotations,
    true: Rotations,
    shifts: tuple[Shifts, Shifts] | None = None,
    *,
    symmetry: str = "C1",
    axes: Float[np.ndarray, "3 3"] | None = None,
    mirrored: bool = False,
    seed: int = 0,
) -> Alignment:
    """Finds A, proper or, if ``mirrored``, improper, and t.

    Args:
        estimated: R̂.
        true: R, row for row.
        shifts: the estimated and the true shifts, in one unit; None leaves t at zero.
        symmetry: the point group of the true map.
        axes: F, if it is known; else the axes stand in their standard setting or, where poses say so, elsewhere.
        mirrored: of which hand the estimated map is to be.
        seed: of the sample, taken of sets above 20,000 particles, of the candidates, and of pairs.

    Raises:
        ValueError: for arrays that are not rotations row for row, or no such point group.
    """
    _check(estimated, true)
    generator = np.random.default_rng(seed)
    order = generator.permutation(len(true))[:_USED]
    group, turn = point_group(symmetry), np.diag([1.0, 1.0, -1.0 if mirrored else 1.0])
    quotients = true[order].swapaxes(1, 2) @ turn @ estimated[order]
    fit = _fitted(quotients, group, np.eye(3) if axes is None else axes)
    elsewhere = _fitted_elsewhere(quotients, group, fit, generator) if axes is None and len(group) > 1 else None
    best = elsewhere or fit
    distance = float(_nearest(best.copies(group), quotients)[1].mean()) / np.sqrt(8)
    found = Alignment(
        best.axes @ best.rest, np.zeros(3), symmetry, best.axes, np.zeros(3), elsewhere is not None, distance
    )
    if shifts is None:
        return found
    copies, differences = found.nearest_copies(estimated[order], true[order]), (shifts[0] - shifts[1])[order]
    projections = copies[:, :2]
    if elsewhere is not None:
        projections = np.concatenate([projections, (true[order] - copies)[:, :2]], 2)
    points = _offset(projections, differences)
    return replace(found, offset=points[:3], centre=points[3:] if elsewhere is not None else np.zeros(3))


def _fitted_elsewhere(
    quotients: Rotations, group: Float[np.ndarray, "order 3 3"], fit: _Fit, generator: np.random.Generator
) -> _Fit | None:
    """A fit with other axes, if it is clearly better."""
    count, usual, limit = len(quotients), fit.near(group, quotients), _near_angle(group)
    # The share of all rotations that is as near to one of the group.
    by_chance = len(group) * (limit - np.sin(limit)) / np.pi
    needed = _SHARE + _COUNT / count + _DEVIATIONS * np.sqrt(by_chance / count)
    if usual + needed >= 1:
        return None
    best = _fitted(quotients, group, likely_axes(quotients, group, generator), free=True)
    chance = max(usual, best.near(group, quotients, between=True))
    return best if best.near(group, quotients) > chance + needed else None


def _fitted(
    quotients: Rotations,
    group: Float[np.ndarray, "order 3 3"],
    axes: Float[np.ndarray, "3 3"],
    *,
    free: bool = False,
) -> _Fit:
    """The best A with these axes or, if these are free, with such as are near."""

    def misfit(fit: _Fit, quotients: Rotations) -> Float[np.ndarray, " particles"]:
        return _nearest(fit.copies(group), quotients)[1]

    few = quotients[:_SCORED]
    candidates = [_Fit(axes, axes.T @ quotient) for quotient in quotients[:_CANDIDATES]]
    distances = np.array([misfit(candidate, few).mean() for candidate in candidates])
    refined = [
        _refine(candidates[index], group, few, iterations=10, free=free) for index in np.argsort(distances)[:_REFINED]
    ]
    best = min(refined, key=lambda fit: float(misfit(fit, few).mean()))
    # Weiszfeld's algorithm may stay where it is at poses without error, and axes near the right ones with it.
    fit = _refine(best, group, quotients, iterations=30, free=free, scale=_chord(_FAR) if free else None)
    scale = min(2 * float(np.median(misfit(fit, quotients))), _chord(_FAR))
    return _refine(fit, group, quotients, iterations=10, free=free, scale=scale)


def _check(estimated: Rotations, true: Rotations) -> None:
    if not 0 < len(estimated) == len(true):
        raise ValueError(f"{len(estimated)} estimated poses for {len(true)} true ones")
    for name, rotations in (("estimated", estimated), ("true", true)):
        products = rotations @ rotations.swapaxes(1, 2)
        if not (np.allclose(products, np.eye(3), atol=1e-3) and (np.linalg.det(rotations) > 0).all()):
            raise ValueError(f"the {name} poses are not all rotation matrices")


def _near_angle(group: Float[np.ndarray, "order 3 3"]) -> float:
    """At most half-way to what stands half-way between the rotations of a group; in radians."""
    return min(_FAR, float(Rotation.from_matrix(first_rotation(group)).magnitude()) / 4)


def _chord(angle: float) -> float:
    """The chordal distance of rotations by so much, in radians."""
    return float(2 * np.sqrt(2) * np.sin(angle / 2))


def _nearest(
    copies: Float[np.ndarray, "order 3 3"], quotients: Rotations
) -> tuple[Int[np.ndarray, " particles"], Float[np.ndarray, " particles"]]:
    """Of the orthogonal matrices S A, for each Q the number of the nearest one, and the chordal distance to it."""
    products = quotients.reshape(-1, 9) @ copies.reshape(-1, 9).T
    nearest = products.argmax(1)
    difference = quotients - copies[nearest]
    return nearest, np.sqrt(np.einsum("nij,nij->n", difference, difference))


def _refine(
    fit: _Fit,
    group: Float[np.ndarray, "order 3 3"],
    quotients: Rotations,
    *,
    iterations: int,
    free: bool,
    scale: float | None = None,
) -> _Fit:
    """B, and F if free, moved to the least mean distance to all Q; given a scale in chordal distance, of Geman and
    McClure's."""
    for _ in range(iterations):
        nearest, distances = _nearest(fit.copies(group), quotients)
        floored = np.maximum(distances, 1e-9)
        weights = 1 / floored if scale is None else 1 / (1 + (floored / max(scale, 1e-9)) ** 2) ** 2
        # Σ w Q of the particles of each G.
        sums = np.zeros((len(group), 3, 3))
        np.add.at(sums, nearest, weights[:, None, None] * quotients)
        sign = np.sign(np.linalg.det(fit.rest))
        rest = _orthogonal(np.einsum("kji,kjl->il", fit.axes @ group, sums), sign)
        axes = _orthogonal(np.einsum("kij,klj->il", sums, group @ rest), 1.0) if free else fit.axes
        previous, fit = fit, _Fit(axes, rest)
        if max(np.abs(fit.rest - previous.rest).max(), np.abs(fit.axes - previous.axes).max()) < 1e-10:
            break
    return fit


def _orthogonal(matrix: Float[np.ndarray, "3 3"], sign: float) -> Float[np.ndarray, "3 3"]:
    """The nearest orthogonal matrix of this determinant."""
    left, _, right = np.linalg.svd(matrix)
    nearest: Float[np.ndarray, "3 3"] = left @ np.diag([1.0, 1.0, sign * np.sign(np.linalg.det(left @ right))]) @ right
    return nearest


def _offset(projections: Float[np.ndarray, "particles 2 unknown"], differences: Shifts) -> NDArray[np.float64]:
    """The points t of smallest mean |ŝ − s − P t|, by reweighted least squares; in what no view shows, zero."""
    weights, offset = np.ones(len(projections)), np.zeros(projections.shape[2])
    for _ in range(50):
        normal = np.einsum("n,nij,nik->jk", weights, projections, projections)
        right = np.einsum("n,nij,ni->j", weights, projections, differences)
        previous, offset = offset, np.linalg.pinv(normal, rcond=1e-9, hermitian=True) @ right
        if np.abs(offset - previous).max() < 1e-9:
            break
        weights = 1 / np.maximum(np.linalg.norm(differences - projections @ offset, axis=1), 1e-6)
    return offset
