"""Encoders: a turned image gives a turned pose."""

from __future__ import annotations

import pytest
import torch

from parteq.apps.cryoem.encoder import PoseEncoder
from parteq.apps.cryoem.equivariance import turn_errors

from .conftest import small_model

NARROW = 1e-9


@pytest.mark.parametrize("size", [16, 17, 21])
@pytest.mark.parametrize("encoder", ["d4", "c4", "o2"])
def test_turned_images_give_turned_poses(encoder, size):
    model = small_model(encoder=encoder, size=size, loss="multihead")
    # A shift of zero is equivariant in a trivial way.
    torch.nn.init.normal_(model.encoder.shift.kernel.weight)
    errors = turn_errors(model, torch.randn(8, size, size, dtype=torch.float64))
    assert errors["quarter_turn_error_rad"] < NARROW
    assert errors["quarter_turn_shift_error_px"] < NARROW
    if encoder != "c4":
        assert errors["mirror_error_rad"] < NARROW
        assert errors["mirror_shift_error_px"] < NARROW


def test_an_ordinary_network_does_not():
    errors = turn_errors(small_model(encoder="cnn"), torch.randn(8, 16, 16, dtype=torch.float64))
    assert errors["quarter_turn_error_rad"] > 0.1


def test_an_image_with_a_mirror_line_has_a_pose():
    model = small_model()
    image = torch.randn(1, 16, 16)
    rotations, _ = model.propose(model.disc.samples(image + image.flip(-1)), torch.ones(1, len(model.disc)))
    assert torch.isfinite(rotations).all()


@pytest.mark.parametrize("box", [8, 24, 30, 64])
def test_boxes_of_many_sizes_are_taken(box):
    columns, shifts = PoseEncoder("d4", "full", box, heads=2, width=0.2)(torch.randn(3, box, box))
    assert columns.shape == (3, 2, 2, 3)
    assert shifts.shape == (3, 2)


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="unknown encoder"):
        PoseEncoder("d5", "full", 16, 1)
    with pytest.raises(ValueError, match="too small"):
        PoseEncoder("d4", "full", 6, 1)


def test_a_plain_network_has_about_as_many_weights():
    count = [sum(p.numel() for p in PoseEncoder(name, "full", 32, 1).parameters()) for name in ("d4", "cnn")]
    assert abs(count[0] / count[1] - 1) < 0.25
