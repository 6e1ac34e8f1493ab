from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from parteq.core.density import LearnedDensity, SoftmaxDensity
from parteq.core.fields import FieldType, band_limited, regular
from parteq.core.groups import plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialLinear
from parteq.core.measure import (
    TOLERANCE,
    broken_energy,
    candidate_subgroups,
    equivariance_errors,
    measure_degree,
    partial_layers,
)
from parteq.core.pruning import prune_breaking, pruning
from parteq.core.subgroups import axial_subgroup, subgroups
from parteq.core.training import Settings
from tests.core.helpers import concentrate, randomise

D4 = plane_group("d4")


def _network(scales: Sequence[float], seed: int = 0) -> nn.Sequential:
    """Layers that break D4 by so much, at random."""
    torch.manual_seed(seed)
    type = FieldType(regular(D4), 2)
    layers = [PartialConv2d(type, type, 3, SoftmaxDensity(D4, 0)) for _ in scales]
    for layer, scale in zip(layers, scales, strict=True):
        randomise(layer.density, torch.Generator().manual_seed(seed), scale)
    return nn.Sequential(*layers)


def _broken(model: nn.Module) -> list[float]:
    return [broken_energy(layer) for layer in partial_layers(model).values()]


def test_what_nothing_needs_is_undone() -> None:
    model = _network([0.1, 0.3, 0.02])
    assert min(_broken(model)) > 1e-5
    assert prune_breaking(model, lambda: torch.ones(1, 10)) == (1, 1)
    assert max(_broken(model)) < 1e-12


def test_what_is_needed_stays_and_the_rest_is_undone() -> None:
    """The second layer is to tell mirror images apart, but not turned ones; it breaks turns a little, too."""
    model = _network([0.1, 0.0, 0.2])
    middle = model[1]
    c4 = next(subgroup for subgroup in subgroups(D4) if subgroup.name == "C4")
    concentrate(middle.density, c4.quadrature(0)[0])
    randomise(middle.density, torch.Generator().manual_seed(1), 0.2)
    mirror = D4.rotation(0.0, flipped=True)

    def losses() -> Tensor:
        (error,) = equivariance_errors(middle, [mirror])
        return torch.full((1, 20), 2.0 if error < 0.3 else 1.0)

    assert broken_energy(middle, c4) > 1e-4
    assert prune_breaking(model, losses) == (1, 1)
    first, _, last = _broken(model)
    assert max(first, last) < 1e-12
    assert broken_energy(middle, c4) < 1e-12
    assert [degree.nearest_subgroup for degree in measure_degree(model)] == ["D4", "C4", "D4"]


@pytest.mark.parametrize(("rise", "undone"), [(0.019, True), (0.021, False)])
def test_a_fiftieth_in_the_mean_is_harmless(rise: float, undone: bool) -> None:
    """However much the losses of two samples go up and down."""
    model = _network([0.1, 0.3])
    before = _broken(model)

    def losses() -> Tensor:
        return 2 + torch.tensor([[2 * rise + 1, 2 * rise - 1]]) * float(_broken(model) != before)

    prune_breaking(model, losses)
    assert _broken(model) == ([pytest.approx(0, abs=1e-12)] * 2 if undone else before)


@pytest.mark.parametrize(("scale", "undone"), [(0.03, True), (0.1, False)])
def test_of_slight_breaking_a_standard_error_more_is_harmless(scale: float, undone: bool) -> None:
    model = _network([0.02, scale])
    before = _broken(model)
    assert undone == (max(before) < TOLERANCE)
    rise = 0.05 + torch.tensor([[0.1, -0.1] * 5])  # of standard error .03
    prune_breaking(model, lambda: 1 + rise * float(_broken(model) != before))
    assert _broken(model) == ([pytest.approx(0, abs=1e-12)] * 2 if undone else before)


@pytest.mark.parametrize(("more", "undone"), [(1, True), (2, True), (3, False)])
def test_errors_come_whole_and_may_rise_by_a_fiftieth_and_a_standard_error(more: int, undone: bool) -> None:
    """Whatever the losses say: of 100 samples 50 are misjudged, and now ``more``."""
    model = _network([0.1, 0.3])
    before = _broken(model)

    def losses() -> Tensor:
        errors = torch.arange(100) < 50 + more * (_broken(model) != before)
        return torch.stack([torch.ones(100), errors.float()])

    prune_breaking(model, losses)
    assert _broken(model) == ([pytest.approx(0, abs=1e-12)] * 2 if undone else before)


def test_frozen_densities_stay_as_they_are() -> None:
    model = _network([0.1, 0.3])
    before = _broken(model)
    for parameter in model[0].density.parameters():
        parameter.requires_grad_(False)
    prune_breaking(model, lambda: torch.ones(1, 10))
    assert _broken(model) == [before[0], pytest.approx(0, abs=1e-12)]
    frozen = nn.Sequential(model[0])
    assert prune_breaking(frozen, lambda: torch.ones(1, 10)) == (1, 1)
    assert _broken(frozen) == before[:1]


def test_an_axis_is_kept_where_it_was_found() -> None:
    """One density of two layers on SO(3), nearly uniform on the turns about an axis that is tilted."""
    torch.manual_seed(0)
    group = space_group("so3")
    type = FieldType(band_limited(group, 1), 3)
    density = SoftmaxDensity(group, 2)
    model = nn.Sequential(PartialLinear(type, type, density), PartialLinear(type, type, density))
    axis = torch.tensor([0.6, 0.0, 0.8])
    about = axial_subgroup(group, axis.tolist(), "so2")
    with torch.no_grad():
        density.logits[1:10] = 2.0 * torch.outer(axis, axis).flatten()  # in the basis of irreps of degree 1, any axis
    randomise(density, torch.Generator().manual_seed(0), 0.02)
    found = torch.tensor(measure_degree(model)[0].axis)
    assert not any(broken_energy(layer, about) < 1e-6 for layer in model)

    def losses() -> Tensor:
        tells = float(torch.linalg.svdvals(density.mean_matrix())[0]) > 0.2
        return torch.full((1, 20), 1.0 if tells else 2.0)

    assert prune_breaking(model, losses) == (1, 1)
    degree = measure_degree(model)[0]
    assert "about" in degree.nearest_subgroup
    assert degree.singular_values[1:] == pytest.approx([0, 0], abs=1e-9)
    assert abs(float(torch.tensor(degree.axis) @ found)) == pytest.approx(1, abs=1e-6)


def _harm(model: nn.Module, harm: float) -> Tensor:
    """Losses that what is broken raises, more in some samples than in others."""
    return 2 + harm * torch.linspace(0.5, 1.5, 10)[None] * float(max(_broken(model)) > 1e-12)


@pytest.mark.parametrize(
    ("epochs", "breaking", "due"), [(1, 1 / 3, {1}), (2, 1 / 3, {1, 2}), (30, 1 / 3, {10, 30}), (9, 1.0, {9})]
)
@pytest.mark.parametrize("harm", [-0.01, 0.0, 0.01])
def test_early_what_does_harm_and_at_the_end_what_does_no_good(
    epochs: int, breaking: float, due: set[int], harm: float
) -> None:
    undone, state = set(), {}
    settings = Settings(epochs=epochs, breaking=breaking)
    for epoch in range(1, epochs + 1):
        model = _network([0.1])
        pruning(model, partial(_harm, model, harm), settings, state)({"epoch": epoch}, state)
        if _broken(model)[0] < 1e-12:
            undone.add(epoch)
    assert undone == (due if harm > 0 else {epochs})


@pytest.mark.parametrize("resumed", [False, True])
def test_early_all_epochs_of_the_second_half_count(resumed: bool) -> None:
    """What is broken does harm in epochs 6 to 9, and a little good in the tenth."""
    model, settings, harm = _network([0.1]), Settings(), [0.0]
    after_epoch = pruning(model, lambda: _harm(model, *harm), settings)
    for epoch in range(1, 11):
        harm[0] = {5: -9.0, 10: -0.1}.get(epoch, 0.1)
        after_epoch({"epoch": epoch}, state := {})
        if resumed:
            after_epoch = pruning(model, lambda: _harm(model, *harm), settings, state)
        assert (_broken(model)[0] < 1e-12) == (epoch == 10)
    assert model[0].density.is_untouched


def test_candidates_are_those_that_are_measured() -> None:
    model = _network([0.1])
    names = [subgroup.name for subgroup in candidate_subgroups(model)]
    assert names == list(measure_degree(model)[0].broken_under)
    assert isinstance(model[0].density, LearnedDensity)
