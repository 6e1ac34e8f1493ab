"""How far estimated poses are from the true ones, after one global alignment; see `parteq.apps.cryoem.alignment`.

The error of a pose is the rotation E = R̂ Tᵀ, T = H R S A the true pose in the estimated frame, in the frame of the
image. Its angle is the error; the angle by which it tilts the axis of the beam is the error of the view direction; its
turn about the beam, the twist of E = swing · twist, is the error in the plane. The error of a shift is that of where
the origin of the estimated map stands: ŝ − s − P R (1 − S) c − P R S t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float

from parteq.apps.cryoem.alignment import Alignment, align
from parteq.apps.cryoem.placement import Rotations, Shifts

__all__ = ["PoseErrors", "pose_errors", "rotation_angles"]

Errors = Float[np.ndarray, " particles"]
HANDS = ("same", "mirrored")


@dataclass(frozen=True)
class PoseErrors:
    """The errors of each particle.

    Attributes:
        rotation_in_degrees: the angle of the error, 0…180.
        view_direction_in_degrees: between the estimated and the true beam, 0…180.
        in_plane_in_degrees: of the turn about the beam, 0…180.
        shift_in_angstroms: between where the origin of the estimated map is said to stand and where it does; None if
            no shifts were given.
        alignment: the one after which they were taken.
        rotation_median_by_hand: the median rotation error in degrees after the best alignment of either hand.
    """

    rotation_in_degrees: Errors
    view_direction_in_degrees: Errors
    in_plane_in_degrees: Errors
    shift_in_angstroms: Errors | None
    alignment: Alignment
    rotation_median_by_hand: dict[str, float]

    def summary(self) -> dict[str, float | int | str | None]:
        """The figures that are reported; of a symmetric particle also where its axes were taken to stand."""
        rotation, shift, alignment = self.rotation_in_degrees, self.shift_in_angstroms, self.alignment
        axes: dict[str, float | str] = {}
        if alignment.symmetry != "C1":
            axes["symmetry_axes"] = "found" if alignment.axes_found else "standard"
            axes |= {f"symmetry_axis_{name}": float(value) for name, value in zip("xyz", alignment.axis, strict=True)}
        return {
            "rotation_error_mean_deg": float(rotation.mean()),
            "rotation_error_median_deg": float(np.median(rotation)),
            "rotation_error_p90_deg": float(np.percentile(rotation, 90)),
            "fraction_below_5deg": float((rotation < 5).mean()),
            "fraction_below_15deg": float((rotation < 15).mean()),
            "view_direction_error_median_deg": float(np.median(self.view_direction_in_degrees)),
            "in_plane_error_median_deg": float(np.median(self.in_plane_in_degrees)),
            "shift_error_median_angstrom": None if shift is None else float(np.median(shift)),
            "hand": alignment.hand,
            "n_particles": len(rotation),
            **axes,
        }


def pose_errors(
    estimated: Rotations,
    true: Rotations,
    shifts: tuple[Shifts, Shifts] | None = None,
    *,
    symmetry: str = "C1",
    axes: Float[np.ndarray, "3 3"] | None = None,
    seed: int = 0,
) -> PoseErrors:
    """The errors after the better of the best alignments of the two hands, to the nearest symmetry copy.

    Args:
        estimated: R̂.
        true: R, row for row.
        shifts: the estimated and the true shifts in Å, where the particles' centres stand.
        symmetry: the point group of the true map.
        axes: F, the frame of its axes, if it is known; else they stand as in `parteq.apps.cryoem.pointgroups` or, where
            poses clearly say so, elsewhere.
        seed: of the random choices of the alignment.

    Raises:
        ValueError: for arrays that are not rotations row for row, or no such point group.
    """
    align_hand = partial(align, estimated, true, shifts, symmetry=symmetry, seed=seed)
    hands = {mirrored: align_hand(axes=axes, mirrored=mirrored) for mirrored in (False, True)}
    mirrored = hands[True].distance < hands[False].distance - 1e-9
    best, other = hands[mirrored], hands[not mirrored]
    if best.axes_found:
        # They are the particle's, whatever the hand of the map.
        other = align_hand(axes=best.axes, mirrored=not mirrored)
    copies, errors = _errors(best, estimated, true)
    of_hand = {best.hand: errors, other.hand: _errors(other, estimated, true)[1]}
    medians = {hand: float(np.median(rotation_angles(of_hand[hand]))) for hand in HANDS}
    beams = np.arctan2(np.hypot(errors[:, 0, 2], errors[:, 1, 2]), errors[:, 2, 2])
    turns = np.arctan2(errors[:, 1, 0] - errors[:, 0, 1], errors[:, 0, 0] + errors[:, 1, 1])
    moved = None
    if shifts is not None:
        moved = np.linalg.norm(best.shift_errors(true, copies, shifts[0] - shifts[1]), axis=1)
    return PoseErrors(rotation_angles(errors), np.degrees(beams), np.degrees(np.abs(turns)), moved, best, medians)


def _errors(alignment: Alignment, estimated: Rotations, true: Rotations) -> tuple[Rotations, Rotations]:
    """R S, and H E H, the errors in the true frame; their angles are those of E, for H keeps the axis of the beam."""
    copies = alignment.nearest_copies(estimated, true)
    return copies, alignment.rotations_in_true_frame(estimated) @ copies.swapaxes(1, 2)


def rotation_angles(rotations: Float[np.ndarray, "*batch 3 3"]) -> Float[np.ndarray, "*batch"]:
    """The angles of rotations in degrees, 0…180, precise at both ends."""
    skew = rotations - rotations.swapaxes(-1, -2)
    sine = np.sqrt(skew[..., 0, 1] ** 2 + skew[..., 0, 2] ** 2 + skew[..., 1, 2] ** 2)
    angles: Float[np.ndarray, "*batch"] = np.degrees(np.arctan2(sine, np.trace(rotations, axis1=-2, axis2=-1) - 1))
    return angles
