"""Networks of points: symmetry, clouds of unequal size, settings that are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from parteq.apps.points.export import Standalone
from parteq.apps.points.models import PointNetwork, create_model, nearest
from parteq.core.chain import Chain
from parteq.core.density import Density
from parteq.core.groups import space_group
from parteq.core.measure import measure_degree, partial_layers
from parteq.core.tilts import tilt_map, tilt_means, tilt_profile

SMALL = {"num_classes": 3, "neighbours": 4, "width": 0.3, "layers": 1}


def _model(**options: object) -> PointNetwork:
    torch.manual_seed(0)
    model = create_model(**(SMALL | options))
    model(_clouds())  # running statistics
    return model.eval()


def _clouds(count: int = 4, points: int = 20) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, points, 3, generator=generator) * torch.tensor([3.0, 2.0, 1.0])


@pytest.mark.parametrize(
    ("group", "tolerance"), [("so3", 0.1), ("o3", 0.1), ("so2", 0.1), ("o2", 0.1), ("cone", 0.1), ("d4", 1e-4)]
)
@torch.no_grad()
def test_full_degree_is_invariant(group: str, tolerance: float) -> None:
    model = _model(group=group, degree="full")
    symmetry, clouds = space_group(group), _clouds()
    output = model(clouds)
    elements, _ = symmetry.quadrature(3)
    for element in elements[1:20:6]:
        turned = model(clouds @ torch.from_numpy(symmetry.matrix(element)).float().T)
        assert (turned - output).abs().max() < tolerance * output.std(0).mean()


@torch.no_grad()
def test_without_a_group_turning_matters_and_shifting_does_not() -> None:
    model, clouds = _model(group="none", degree="none"), _clouds()
    output = model(clouds)
    assert (model(clouds.roll(1, dims=2)) - output).abs().max() > 0.1 * output.std(0).mean()
    torch.testing.assert_close(model(clouds + 5.0), output, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_numbers_are_in_double_precision_throughout() -> None:
    model, clouds = _model(layers=0, group="none", degree="none").double(), _clouds().double()
    torch.testing.assert_close(model(clouds + 100.0), model(clouds), atol=1e-10, rtol=0)


@torch.no_grad()
def test_what_is_beyond_the_count_is_not_looked_at() -> None:
    model, clouds = _model(), _clouds()
    counts = torch.tensor([20, 7, 2, 20])
    output = model(clouds, counts)
    other = clouds.clone()
    for cloud, count in zip(other, counts, strict=True):
        cloud[count:] = 9.0
    torch.testing.assert_close(model(other, counts), output)
    torch.testing.assert_close(model(clouds[1:2, :7]), output[1:2], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_neighbours_may_be_given() -> None:
    model, clouds = _model(), _clouds()
    found = nearest(clouds, torch.ones(4, 20, dtype=torch.bool), 4)
    assert (found != torch.arange(20)[:, None]).all()
    torch.testing.assert_close(model(clouds, neighbours=found.int()), model(clouds))


def test_one_density_serves_all_layers_and_starts_uniform() -> None:
    model = create_model(**SMALL | {"layers": 0})
    densities = Chain.of(model).densities
    assert len(densities) == 1
    layers = measure_degree(model)
    assert {layer.group for layer in layers} == {"SO(3)"}
    assert max(layer.broken_energy for layer in layers) < 1e-6
    assert max(max(layer.singular_values) for layer in layers) < 1e-6
    torch.manual_seed(3)
    with torch.no_grad():
        densities[0].logits[1:10] = 0.3 * torch.outer(torch.tensor([0.0, 1.0, 0.0]), torch.ones(3)).flatten()
    axis = torch.linalg.svd(densities[0].mean_matrix().detach())[0][:, 0].double().numpy()
    profile = tilt_profile(densities[0], axis, np.array([0.0, 90.0, 180.0]))
    assert profile[0] > 1.2 > 1.05 > profile[1] > profile[2]
    # The same on the sphere, where it peaks at the axis.
    measured = measure_degree(model)
    assert measured[0].tilt_deg[18] == 90
    assert all(layer.density_over_tilt == measured[0].density_over_tilt for layer in measured)
    found = np.array(measured[0].axis)
    place = np.arctan2(found[1], found[0]), np.arcsin(found[2])
    there, opposite = (
        tilt_map(densities[0], found, np.array([a]), np.array([b]))[0, 0]
        for a, b in (place, (place[0] + np.pi, -place[1]))
    )
    assert measured[0].density_over_tilt[0] == pytest.approx(there)
    assert measured[0].density_over_tilt[-1] == pytest.approx(opposite)


@torch.no_grad()
def _some_density(degree: str = "learned") -> Density:
    density = next(iter(partial_layers(create_model(**SMALL | {"layers": 0, "degree": degree})).values())).density
    for parameter in density.parameters():
        parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    return density


@pytest.mark.parametrize("degree", ["full", "learned"])
@torch.no_grad()
def test_density_over_tilt_is_the_mean_of_the_aligned_density_over_turns_about_the_axis(degree: str) -> None:
    density = _some_density(degree)
    axis, direction = np.array([0.6, 0.0, 0.8]), np.array([0.0, 1.0, 0.0])
    (mean,) = tilt_means(density, axis, direction[None])
    takes = Rotation.from_rotvec(np.pi / 2 * np.cross(direction, axis))
    turns = Rotation.from_rotvec(np.linspace(0.1, 0.1 + 2 * np.pi, 8, endpoint=False)[:, None] * axis) * takes
    elements = [density.group.element(turn) for turn in turns.as_matrix()]
    expected = 0.0
    for irrep, block in zip(density.group.irreps(density.band), density.coefficients(), strict=True):
        squares, vectors = np.linalg.eigh((block @ block.mT).double().numpy())
        aligned = vectors * np.sqrt(squares.clip(0)) @ vectors.T
        expected += irrep.size * np.mean([np.sum(aligned * irrep(element)) for element in elements])
    assert mean == pytest.approx(expected, abs=1e-6)
    assert degree == "learned" or mean == pytest.approx(1.0)


@torch.no_grad()
def test_density_over_tilt_does_not_tell_what_the_weights_absorb() -> None:
    density, axis, tilts = _some_density(), np.array([0.6, 0.0, 0.8]), np.linspace(0, 180, 7)
    profile = tilt_profile(density, axis, tilts)
    turn = density.group.element(Rotation.from_rotvec([0.3, -1.0, 2.0]).as_matrix())
    irreps = density.group.irreps(density.band)
    blocks = zip(irreps, density.layout.split(density.logits), strict=True)
    density.logits.copy_(
        torch.cat([(block @ torch.from_numpy(irrep(turn)).float()).flatten() for irrep, block in blocks])
    )
    np.testing.assert_allclose(tilt_profile(density, axis, tilts), profile, atol=1e-5)
    assert profile.max() - profile.min() > 0.1


@pytest.mark.parametrize("kernel", ["analytic", "implicit"])
def test_features_targets_and_a_learned_axis(kernel: str) -> None:
    shape = {"neighbours": 4, "width": 0.3, "layers": 1, "absolute": True}
    model = create_model(num_targets=1, in_features=2, group="so2", axis=None, kernel=kernel, **shape)
    model.set_target_scale([5.0], [2.0])
    model.set_lengths(1.0, 0.5)
    clouds = _clouds()
    for _ in range(20):  # running statistics
        output = model(clouds, features=torch.randn(4, 20, 2))
    output.sum().backward()
    directions = [parameter for name, parameter in model.named_parameters() if name.endswith("direction")]
    assert directions[0].grad.abs().sum() > 0
    columns = torch.cat([clouds, torch.zeros(4, 20, 2)], dim=2)
    alone = Standalone(model.eval())(columns)
    torch.testing.assert_close(alone, model(clouds, features=torch.zeros(4, 20, 2)))
    columns[1, 12:] = torch.nan  # a smaller cloud
    smaller = model(clouds[1:2, :12], features=torch.zeros(1, 12, 2))
    torch.testing.assert_close(Standalone(model)(columns)[1:2], smaller)
    assert math.isclose(float(alone.detach().mean()), 5.0, abs_tol=6.0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_classes": 0},
        {"group": "so4"},
        {"degree": "some"},
        {"neighbours": 1},
        {"kernel": "odd"},
        {"attributes": ["mass"]},
        {"attributes": ["bonds"], "in_features": 2},
    ],
)
def test_what_cannot_be_meant_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"network|unknown"):
        create_model(**(SMALL | wrong))
