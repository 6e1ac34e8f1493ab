"""A network of particles: what its predictions do when the system is turned."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from parteq.apps.points.dynamics import create_vector_network
from parteq.core.density import SoftmaxDensity

AXIS = np.array([1.0, 2.0, 2.0]) / 3
POSITIONS, VELOCITIES = torch.randn(2, 6, 4, 3, generator=torch.Generator().manual_seed(0))
ANY = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
ABOUT_AXIS = Rotation.from_rotvec(0.8 * AXIS).as_matrix()


def network(**options: object) -> torch.nn.Module:
    torch.manual_seed(0)
    model = create_vector_network(axis=AXIS.tolist(), width=0.3, **options)
    model(POSITIONS, VELOCITIES)  # norms are not the identity from here on
    return model.eval()


@torch.no_grad()
def turns(model: torch.nn.Module, matrix: np.ndarray) -> bool:
    turn = torch.from_numpy(matrix).float()
    turned = model(POSITIONS @ turn.T, VELOCITIES @ turn.T)
    return torch.allclose(turned, model(POSITIONS, VELOCITIES) @ turn.T, atol=1e-4)


@pytest.mark.parametrize(
    ("group", "degree", "any_turn", "about_axis"),
    [
        ("so3", "learned", True, True),  # uniform at the start
        ("so2", "full", False, True),
        ("none", "none", False, False),
    ],
)
def test_predictions_turn_with_the_system(group: str, degree: str, any_turn: bool, about_axis: bool) -> None:
    model = network(group=group, degree=degree)
    assert turns(model, ANY) == any_turn
    assert turns(model, ABOUT_AXIS) == about_axis


def test_density_breaks_what_it_holds_back() -> None:
    model = network()
    assert isinstance(model.density, SoftmaxDensity)
    with torch.no_grad():
        model.density.logits.copy_(torch.linspace(-1, 1, len(model.density.logits)))
    assert not turns(model, ANY)


def test_particles_have_no_order() -> None:
    model, order = network(), torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        expected = model(POSITIONS, VELOCITIES)[:, order]
        torch.testing.assert_close(model(POSITIONS[:, order], VELOCITIES[:, order]), expected, atol=1e-5, rtol=1e-4)


def test_a_learned_axis_is_given_a_gradient() -> None:
    torch.manual_seed(0)
    model = create_vector_network(group="so2", degree="full", axis=None, width=0.3)
    model(POSITIONS, VELOCITIES).square().sum().backward()
    assert model.axis.direction.grad.norm() > 0


def test_refused() -> None:
    with pytest.raises(ValueError, match="a layer and channels"):
        create_vector_network(layers=0)
    with pytest.raises(ValueError, match="unknown degree"):
        create_vector_network(degree="some")
