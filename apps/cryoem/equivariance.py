"""How exactly an encoder keeps its word: the pose of a turned image against the turned pose."""

from __future__ import annotations

import copy

import roma
import torch
from jaxtyping import Float
from torch import Tensor

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.frames import rotations_of_frames
from parteq.apps.cryoem.inference import PoseInference

__all__ = ["turn_errors"]


@torch.no_grad()
def turn_errors(model: PoseInference, images: Float[Tensor, "n size size"]) -> dict[str, float]:
    """The largest errors over images and the poses proposed for each, in radians and in pixels of the disc.

    Turns by other angles are not measured: of images that an encoder does not know, such as noise, it proposes poses
    that a little resampling changes at will.

    Args:
        model: trained.
        images: as stored, [y, x]; turned and mirrored as arrays.

    Returns:
        ``quarter_turn_error_rad``, ``half_turn_error_rad``, ``mirror_error_rad`` (x → −x), and the same of shifts in
        pixels, ``…_shift_error_px``.
    """
    model = copy.deepcopy(model).double().eval()
    # Its complex buffers stay in single precision under `double`.
    model.disc = Disc(model.disc.box, model.disc.size, torch.float64).to(images.device)
    plain = _encode(model, images)
    quarter = images.new_tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    mirror = torch.diag(images.new_tensor([-1.0, 1.0, -1.0]))
    cases = {
        # From x, the last axis, to y, the second-last.
        "quarter_turn": (torch.rot90(images, 1, (-1, -2)), quarter),
        "half_turn": (torch.rot90(images, 2, (-1, -2)), quarter @ quarter),
        "mirror": (images.flip(-1), mirror),
    }
    found = {}
    for name, (turned, matrix) in cases.items():
        rotations, shifts = _encode(model, turned)
        found[f"{name}_error_rad"] = float(roma.rotmat_geodesic_distance(rotations, matrix @ plain[0]).max())
        found[f"{name}_shift_error_px"] = float((shifts - plain[1] @ matrix[:2, :2].T).norm(dim=1).max())
    return found


def _encode(model: PoseInference, images: Float[Tensor, "n size size"]) -> tuple[Tensor, Tensor]:
    """The rotations proposed, [n, heads, 3, 3], and the shifts."""
    samples = model.disc.samples(images)
    columns, shifts = model.encoder(model.disc.images(samples))
    return rotations_of_frames(columns), shifts
