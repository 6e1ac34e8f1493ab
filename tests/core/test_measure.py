from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parteq.core.density import Density, LearnedDensity, SoftmaxDensity, make_density
from parteq.core.fields import FieldType, band_limited, regular
from parteq.core.groups import Element, SymmetryGroup, plane_group
from parteq.core.layers import PartialConv2d, PartialLayer
from parteq.core.measure import (
    LayerDegree,
    broken_energy,
    equivariance_errors,
    measure_degree,
    measure_layer,
    nearest_subgroup,
    partial_layers,
    summarize_degree,
)
from parteq.core.subgroups import Subgroup, subgroups
from tests.core.equivariance import turned
from tests.core.helpers import concentrate, randomise, transform

D4 = plane_group("d4")
MIRROR = "D1 (mirror line at 45°)"


def _layer(group: SymmetryGroup, density: Density | str, count: int = 2, size: int = 3) -> PartialLayer:
    torch.manual_seed(0)
    representation = band_limited(group, 1) if group.continuous else regular(group)
    type = FieldType(representation, count)
    return PartialConv2d(type, type, size, make_density(group, density, 2) if isinstance(density, str) else density)


def _subgroup(group: SymmetryGroup, name: str) -> Subgroup:
    return next(subgroup for subgroup in subgroups(group) if subgroup.name == name)


def _elements(name: str) -> list[Element]:
    return _subgroup(D4, name).quadrature(0)[0]


def _on_coset(name: str, by: Element) -> SoftmaxDensity:
    """Return a density on the coset K g of a subgroup K of D4."""
    density = SoftmaxDensity(D4, 0)
    concentrate(density, [h @ by for h in _elements(name)])
    return density


def _sampled_error(layer: PartialLayer, element: Element) -> float:
    """Return ‖h·K − K‖² / 2‖K‖² from the kernel as it is sampled on the pixels."""
    assert isinstance(layer, PartialConv2d)
    kernel = layer.weight().detach()
    moved: Tensor = transform(layer.out_type, element, kernel.transpose(0, 1)).transpose(0, 1)
    moved = turned(moved, layer.in_type, element)
    return float((moved - kernel).square().sum() / (2 * kernel.square().sum()))


# -- errors and broken energy -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", ["full", "none", "learned"])
@pytest.mark.parametrize("name", ["c4", "d4", "d2"])
def test_equivariance_errors_are_those_of_the_sampled_kernel(name: str, degree: str) -> None:
    group = plane_group(name)
    layer = _layer(group, degree)
    randomise(layer.density, torch.Generator().manual_seed(0), scale=1.0)
    elements = list(group.algebra.elements)
    expected = [_sampled_error(layer, h) for h in elements]
    assert equivariance_errors(layer, elements) == pytest.approx(expected, abs=1e-10)
    assert expected[elements.index(group.algebra.identity)] < 1e-12
    assert (max(expected) > 0.1) == (degree != "full")


@pytest.mark.parametrize("degree", ["none", "learned", "squared"])
@pytest.mark.parametrize("name", ["c8", "d4", "d5", "so2", "o2"])
def test_the_energy_a_subgroup_breaks_is_the_mean_of_its_errors(name: str, degree: str) -> None:
    """‖K − PK‖² = ‖K‖² − ⟨PK, K⟩, and P is the mean of the elements."""
    group = plane_group(name)
    layer = _layer(group, degree)
    randomise(layer.density, torch.Generator().manual_seed(0), scale=1.0 if degree == "squared" else 0.3)
    for subgroup in subgroups(group)[::3]:
        elements, weights = subgroup.quadrature(8)
        expected = float(weights @ np.array(equivariance_errors(layer, elements)))
        assert broken_energy(layer, subgroup) == pytest.approx(expected, abs=1e-9)
    assert broken_energy(layer) == pytest.approx(broken_energy(layer, subgroups(group)[0]), abs=1e-9)


def test_full_symmetry_breaks_nothing(plane: SymmetryGroup) -> None:
    layer = _layer(plane, "full")
    for subgroup in subgroups(plane)[::4]:
        assert broken_energy(layer, subgroup) == pytest.approx(0, abs=1e-9)
    assert nearest_subgroup(layer) == subgroups(plane)[0].name


@pytest.mark.parametrize("name", ["c2", "c4", "c5", "c8", "d1", "d4", "d5"])
def test_kernels_without_symmetry_break_all_but_one_part_in_the_order(name: str) -> None:
    group = plane_group(name)
    layer = _layer(group, "none", count=8)
    for subgroup in subgroups(group):
        assert broken_energy(layer, subgroup) == pytest.approx(1 - 1 / subgroup.size[1], abs=0.02)
    assert nearest_subgroup(layer) == "identity only"


def test_a_layer_without_weights_breaks_nothing() -> None:
    layer = _layer(D4, "none")
    nn.init.zeros_(layer.kernel.weight)
    assert broken_energy(layer) == 0
    assert equivariance_errors(layer, list(D4.algebra.elements)) == [0.0] * 8


# -- subgroups --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", [0, 1, 4, 5])
@pytest.mark.parametrize("name", ["C2", "C4", MIRROR, "identity only"])
def test_a_subgroup_is_named_wherever_its_coset_lies(name: str, by: int) -> None:
    element = list(D4.algebra.elements)[by]
    layer = _layer(D4, _on_coset(name, element))
    assert nearest_subgroup(layer) == name
    assert broken_energy(layer, _subgroup(D4, name)) == pytest.approx(0, abs=1e-9)
    degree = measure_layer(layer)
    assert degree.nearest_subgroup == name
    order = len(_elements(name))
    assert degree.kl_to_uniform_nats == pytest.approx(math.log(8 / order), abs=1e-9)
    # As reported the density is uniform on the subgroup itself.
    turns = [D4.rotation(math.radians(angle)) for angle in degree.angles_deg]
    flips = [turn @ D4.rotation(0.0, flipped=True) for turn in turns]
    for elements, values in ((turns, degree.density), (flips, degree.density_flipped)):
        assert values == pytest.approx([8 / order * (h in _elements(name)) for h in elements], abs=1e-6)


def test_the_tolerance_decides_between_subgroups() -> None:
    layer = _layer(D4, "none", count=8)
    assert nearest_subgroup(layer, tolerance=0.9) == "D4"
    assert nearest_subgroup(layer, tolerance=0.8).startswith(("C4", "D2"))
    assert nearest_subgroup(layer, tolerance=0.55).startswith(("C2", "D1"))
    assert nearest_subgroup(layer, tolerance=0.4) == "identity only"


# -- reports ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("degree", ["full", "none", "learned", "squared"])
def test_measurements_of_a_layer_agree_with_each_other(plane: SymmetryGroup, degree: str) -> None:
    layer = _layer(plane, degree)
    randomise(layer.density, torch.Generator().manual_seed(0))
    found = measure_layer(layer, "first")
    assert (found.name, found.group) == ("first", plane.name)
    count = len(found.angles_deg)
    assert count == (72 if plane.continuous else plane.algebra.order() // (2 if plane.flip else 1))
    assert len(found.density) == len(found.equivariance_error) == count
    assert len(found.density_flipped) == len(found.equivariance_error_flipped) == (count if plane.flip else 0)
    assert np.mean(found.density + found.density_flipped) == pytest.approx(1, abs=1e-4)
    if not plane.continuous or degree in ("full", "none"):
        assert found.density[0] == pytest.approx(max(found.density + found.density_flipped))
    errors = found.equivariance_error + found.equivariance_error_flipped
    assert errors[0] == pytest.approx(0, abs=1e-12)
    assert np.mean(errors) == pytest.approx(found.broken_energy, abs=1e-9)
    assert json.loads(json.dumps(found.to_dict())) == found.to_dict()


def test_layers_are_measured_in_order_under_their_names() -> None:
    shared = make_density(D4, "learned", 0)
    model = nn.ModuleDict({"b": _layer(D4, shared), "a": nn.Sequential(nn.ReLU(), _layer(D4, shared))})
    assert list(partial_layers(model)) == ["b", "a.1"]
    assert [degree.name for degree in measure_degree(model)] == ["b", "a.1"]
    assert measure_degree(nn.Linear(2, 2)) == []


def test_measuring_leaves_the_layer_alone() -> None:
    layer = _layer(D4, "learned")
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    measure_layer(layer)
    torch.testing.assert_close(dict(layer.state_dict()), before, atol=0, rtol=0)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in layer.parameters())
    assert isinstance(layer.density, LearnedDensity)


def _found(*names: str, broken: float = 0.0) -> list[LayerDegree]:
    return [LayerDegree(f"layer{i}", "D4", broken, 0.0, name) for i, name in enumerate(names)]


@pytest.mark.parametrize(
    ("degrees", "sentence"),
    [
        ([], "The network has no equivariant layers."),
        (
            _found("D4", "D4", broken=0.023),
            "The network kept the full symmetry D4 in every layer (broken energy at most 2.3%).",
        ),
        (
            _found("D4", "C4", "C2"),
            "Of D4 the network kept C2 in its last layer; it broke the rest from layer1 on (2 of 3 layers).",
        ),
        (
            _found("C4", "C4"),
            "Of D4 the network kept C4 in its last layer; it broke the rest from the first layer on (2 of 2 layers).",
        ),
        (
            _found("D4", "identity only"),
            "Of D4 the network kept no symmetry in its last layer; it broke the rest from layer1 on (1 of 2 layers).",
        ),
    ],
)
def test_the_summary_says_what_was_kept_and_where_it_was_broken(degrees: list[LayerDegree], sentence: str) -> None:
    assert summarize_degree(degrees) == sentence
