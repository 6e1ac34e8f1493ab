"""Rotations of frames: right, equivariant, and finite where frames degenerate."""

from __future__ import annotations

import pytest
import torch

from parteq.apps.cryoem.frames import rotations_of_frames, turned_by_vector

MIRROR = torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64))


def test_the_columns_are_those_of_a_rotation():
    rotations = rotations_of_frames(torch.randn(100, 2, 3, dtype=torch.float64))
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3, dtype=torch.float64).expand(100, 3, 3))
    assert torch.allclose(torch.linalg.det(rotations), torch.ones(100, dtype=torch.float64))


def test_a_turned_frame_gives_the_turned_rotation():
    frames = torch.randn(100, 2, 3, dtype=torch.float64)
    turn = turned_by_vector(torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.0, 0.7], dtype=torch.float64))
    for matrix in (turn, MIRROR, turn @ MIRROR):
        expected = matrix @ rotations_of_frames(frames)
        assert torch.allclose(rotations_of_frames(frames @ matrix.T), expected, atol=1e-12)


@pytest.mark.parametrize(
    "frame",
    [
        [[0.0, 0, 0], [0, 0, 0]],
        [[1.0, 0, 0], [0, 0, 0]],
        [[0.0, 0, 0], [0, 0, 1]],
        [[0.0, 2, 0], [0, -3, 0]],
        [[0.0, 2, 0], [0, 3, 1e-9]],
        [[1e-30, 0, 0], [0, 1e-30, 0]],
        [[1.0, 1, 1], [1, 1, 1]],
    ],
)
def test_degenerate_frames_give_rotations_and_finite_gradients(frame):
    frames = torch.tensor([frame]).requires_grad_()
    rotations = rotations_of_frames(frames)
    assert torch.allclose(rotations @ rotations.mT, torch.eye(3), atol=1e-5)
    (rotations * torch.randn(3, 3)).sum().backward()
    assert torch.isfinite(frames.grad).all()


def test_a_rotation_vector_turns_by_its_length():
    turned = turned_by_vector(torch.eye(3), torch.tensor([0.0, 0.0, 0.3]))
    assert torch.allclose(turned[0], torch.tensor([0.3, 0.0, 0.0]).cos() * torch.tensor([1.0, 0, 0])
                          + torch.tensor([0.0, -0.3, 0.0]).sin(), atol=1e-6)  # fmt: skip
