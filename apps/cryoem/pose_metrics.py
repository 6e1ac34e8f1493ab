"""How far estimated poses are from the true ones, after one global alignment; see `parteq.apps.cryoem.alignment`.

The error of a pose is the rotation E = R̂ Tᵀ, T = H R S A the true pose in the estimated frame, in the frame of the
image. Its angle is the error; the angle by which it tilts the axis of the beam is the error of the view direction; its
turn about the beam, the twist of E = swing · twist, is the error in the plane. The error of a shift is that of where
the origin of the estimated map stands: ŝ − s − P R S t.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from parteq.apps.cryoem.alignment import Alignment, Rotations, Shifts, align

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
        """The figures that are reported."""
        rotation, shift = self.rotation_in_degrees, self.shift_in_angstroms
        return {
            "rotation_error_mean_deg": float(rotation.mean()),
            "rotation_error_median_deg": float(np.median(rotation)),
            "rotation_error_p90_deg": float(np.percentile(rotation, 90)),
            "fraction_below_5deg": float((rotation < 5).mean()),
            "fraction_below_15deg": float((rotation < 15).mean()),
            "view_direction_error_median_deg": float(np.median(self.view_direction_in_degrees)),
            "in_plane_error_median_deg": float(np.median(self.in_plane_in_degrees)),
            "shift_error_median_angstrom": None if shift is None else float(np.median(shift)),
            "hand": self.alignment.hand,
            "n_particles": len(rotation),
        }


def pose_errors(
    estimated: Rotations,
    true: Rotations,
    shifts: tuple[Shifts, Shifts] | None = None,
    *,
    symmetry: str = "C1",
    seed: int = 0,
) -> PoseErrors:
    """The errors after the better of the best alignments of the two hands, to the nearest symmetry copy.

    Args:
        estimated: R̂.
        true: R, row for row; the symmetry axes stand as in `parteq.apps.cryoem.pointgroups`.
        shifts: the estimated and the true shifts in Å, where the particles' centres stand.
        symmetry: the point group of the true map.
        seed: of the random choices of the alignment.

    Raises:
        ValueError: for arrays that are not rotations row for row, or no such point group.
    """
    same, mirrored = (align(estimated, true, shifts, symmetry=symmetry, mirrored=m, seed=seed) for m in (False, True))
    best = mirrored if mirrored.distance < same.distance - 1e-9 else same
    copies, errors = _errors(best, estimated, true)
    other = _errors(same if best is mirrored else mirrored, estimated, true)[1]
    medians = {hand: float(np.median(rotation_angles(errors if best.hand == hand else other))) for hand in HANDS}
    beams = np.arctan2(np.hypot(errors[:, 0, 2], errors[:, 1, 2]), errors[:, 2, 2])
    turns = np.arctan2(errors[:, 1, 0] - errors[:, 0, 1], errors[:, 0, 0] + errors[:, 1, 1])
    moved = None
    if shifts is not None:
        moved = np.linalg.norm(shifts[0] - shifts[1] - copies[:, :2] @ best.offset_in_angstroms, axis=1)
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
