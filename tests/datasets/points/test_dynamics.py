"""Particles and springs: energy, known motions, and which symmetries hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from parteq.datasets.points.dynamics import Surroundings, simulate

RNG = np.random.default_rng(0)
POSITIONS, VELOCITIES = RNG.standard_normal((2, 6, 5, 3))
TURN = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()


@pytest.mark.parametrize(
    "surroundings",
    [Surroundings(), Surroundings(plane_stiffness=3), Surroundings(gravity=2, axis=(1, 2, 2), natural_length=0)],
)
def test_energy_is_kept(surroundings: Surroundings) -> None:
    before = surroundings.energy(POSITIONS, VELOCITIES)
    after = surroundings.energy(*surroundings.move(POSITIONS, VELOCITIES, 3))
    assert after == pytest.approx(before, rel=2e-3)


def test_accelerations_are_the_slope_of_the_energy() -> None:
    surroundings = Surroundings(plane_stiffness=2, gravity=1.5, axis=(0, 3, 4))
    rest, step = np.zeros_like(POSITIONS), 1e-5
    slopes = np.zeros_like(POSITIONS)
    for particle, coordinate in np.ndindex(5, 3):
        moved = [POSITIONS.copy() for _ in range(2)]
        moved[0][:, particle, coordinate] += step
        moved[1][:, particle, coordinate] -= step
        above, below = (surroundings.energy(positions, rest) for positions in moved)
        slopes[:, particle, coordinate] = (above - below) / (2 * step)
    assert surroundings.accelerations(POSITIONS) == pytest.approx(-slopes, abs=1e-5)


def test_motions_that_are_known() -> None:
    """A lone particle oscillates about the plane, or falls; two oscillate about each other."""
    alone = POSITIONS[:, :1], VELOCITIES[:, :1]
    end, _ = Surroundings(plane_stiffness=4).move(*alone, 1.3)
    height, speed = alone[0][..., 2], alone[1][..., 2]
    assert end[..., 2] == pytest.approx(height * np.cos(2.6) + speed / 2 * np.sin(2.6), abs=1e-3)
    assert end[..., :2] == pytest.approx((alone[0] + 1.3 * alone[1])[..., :2])
    end, _ = Surroundings(gravity=9).move(*alone, 1.3)
    assert end[..., 2] == pytest.approx(height + 1.3 * speed - 4.5 * 1.3**2)
    pair = POSITIONS[:, :2], VELOCITIES[:, :2]
    end, _ = Surroundings(natural_length=0).move(*pair, 1.0)
    apart, speed = (values[:, 0] - values[:, 1] for values in pair)
    rate = np.sqrt(2)
    assert end[:, 0] - end[:, 1] == pytest.approx(apart * np.cos(rate) + speed / rate * np.sin(rate), abs=1e-3)


@pytest.mark.parametrize(
    ("surroundings", "about_any", "turning_over"),
    [
        (Surroundings(), True, True),
        (Surroundings(plane_stiffness=2, axis=(1, 2, 3)), False, True),
        (Surroundings(gravity=2, axis=(1, 2, 3)), False, False),
    ],
)
def test_symmetries(surroundings: Surroundings, about_any: bool, turning_over: bool) -> None:
    axis, across = np.array([1, 2, 3]) / np.sqrt(14), np.array([3, 0, -1]) / np.sqrt(10)
    matrices = {
        "any turn": (TURN, about_any),
        "turn about the axis": (Rotation.from_rotvec(0.8 * axis).as_matrix(), True),
        "mirror that contains it": (np.eye(3) - 2 * np.outer(across, across), True),
        "half turn across it": (Rotation.from_rotvec(np.pi * across).as_matrix(), turning_over),
        "mirror of the plane": (np.eye(3) - 2 * np.outer(axis, axis), turning_over),
        "a third across it": (Rotation.from_rotvec(2 * np.pi / 3 * across).as_matrix(), about_any),
    }
    end, _ = surroundings.move(POSITIONS, VELOCITIES, 1)
    for name, (matrix, holds) in matrices.items():
        turned, _ = surroundings.move(POSITIONS @ matrix.T, VELOCITIES @ matrix.T, 1)
        assert np.allclose(turned, end @ matrix.T, atol=1e-6) == holds, name


def test_systems() -> None:
    motions = simulate(Surroundings(), 8, seed=3, particles=4, duration=0.5)
    assert motions.displacements.shape == motions.positions.shape == motions.velocities.shape == (8, 4, 3)
    end, _ = Surroundings().move(motions.positions.double().numpy(), motions.velocities.double().numpy(), 0.5)
    free = motions.positions + 0.5 * motions.velocities
    assert (free + motions.displacements).numpy() == pytest.approx(end, abs=1e-5)
    # The beginnings are those of the seed, whatever surrounds them.
    other = simulate(Surroundings(plane_stiffness=1), 8, seed=3, particles=4, duration=0.5)
    assert other.positions.equal(motions.positions)
    assert not other.displacements.allclose(motions.displacements)
    with pytest.raises(ValueError, match="axis must not be zero"):
        simulate(Surroundings(axis=(0, 0, 0)), 1, seed=0)
