from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from parteq.core.axis import Axis
from parteq.core.density import Density, FixedDensity, LearnedDensity, SoftmaxDensity, make_density
from parteq.core.fields import FieldType, band_limited, direct_sum, regular
from parteq.core.groups import Element, SymmetryGroup, plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialConv3d, PartialLayer, PartialLinear
from parteq.core.measure import (
    FLOOR,
    SHARE,
    TOLERANCE,
    LayerDegree,
    broken_energy,
    equivariance_errors,
    measure_axis,
    measure_degree,
    measure_layer,
    nearest_subgroup,
    partial_layers,
    summarize_degree,
)
from parteq.core.subgroups import (
    Subgroup,
    axial_subgroup,
    dihedral_subgroup,
    mirror,
    subgroups,
    with_inversion,
)
from tests.core.equivariance import turned
from tests.core.helpers import concentrate, randomise, some_subgroups, transform

D4 = plane_group("d4")
O3 = space_group("o3")
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


def _about(group: SymmetryGroup, axis: np.ndarray, angle: float) -> Element:
    return group.element(Rotation.from_rotvec(angle * axis).as_matrix())


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
    for subgroup in some_subgroups(group):
        elements, weights = subgroup.quadrature(8)
        expected = float(weights @ np.array(equivariance_errors(layer, elements)))
        assert broken_energy(layer, subgroup) == pytest.approx(expected, abs=1e-9)
    assert broken_energy(layer) == pytest.approx(broken_energy(layer, subgroups(group)[0]), abs=1e-9)


def test_full_symmetry_breaks_nothing(plane: SymmetryGroup) -> None:
    layer = _layer(plane, "full")
    for subgroup in subgroups(plane)[::4]:
        assert broken_energy(layer, subgroup) == pytest.approx(0, abs=1e-9)
    assert measure_layer(layer).nearest_subgroup == subgroups(plane)[0].name


@pytest.mark.parametrize("name", ["c2", "c4", "c5", "c8", "d1", "d4", "d5"])
def test_kernels_without_symmetry_break_all_but_one_part_in_the_order(name: str) -> None:
    group = plane_group(name)
    layer = _layer(group, "none", count=8)
    for subgroup in subgroups(group):
        assert broken_energy(layer, subgroup) == pytest.approx(1 - 1 / subgroup.size[1], abs=0.02)
    assert measure_layer(layer).nearest_subgroup == "identity only"


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


def test_a_subgroup_counts_where_it_explains_what_broke() -> None:
    assert nearest_subgroup([{"D4": 0.9 * FLOOR, "C4": 0.0, "identity only": 0.0}]) == "D4"
    assert nearest_subgroup([{"D4": 0.3, "C4": 0.9 * SHARE * 0.3, "identity only": 0.0}]) == "C4"
    assert nearest_subgroup([{"D4": 0.3, "C4": 1.1 * SHARE * 0.3, "identity only": 0.0}]) == "identity only"
    assert nearest_subgroup([{"D4": 0.9 * TOLERANCE, "C4": 0.8 * TOLERANCE, "identity only": 0.0}]) == "D4"


def test_a_network_keeps_what_all_its_layers_keep() -> None:
    symmetric = {"D4": 0.0, "C4": 0.0, "C2": 0.0, "identity only": 0.0}
    broken = {"D4": 0.5, "C4": 0.4, "C2": 0.0, "identity only": 0.0}
    assert nearest_subgroup([symmetric, broken, symmetric]) == "C2"


def test_what_a_subgroup_leaves_is_looked_at_again() -> None:
    """Structure below structure: O(2) explains most, SO(2) nearly all of the rest."""
    under = {"SO(3)": 0.4, "O(2) about z": 0.08, "SO(2) about z": 0.002, "C4 about z": 0.002, "identity only": 0.0}
    assert nearest_subgroup([under]) == "SO(2) about z"
    assert nearest_subgroup([under | {"O(2) about z": 0.004}]) == "O(2) about z"
    assert nearest_subgroup([under | {"SO(2) about z": 0.04, "C4 about z": 0.03}]) == "O(2) about z"


def test_of_equal_subgroups_the_least_broken_is_named() -> None:
    under = {"D4": 0.4, "D1 (mirror line at 0°)": 0.05, "D1 (mirror line at 90°)": 0.0, "identity only": 0.0}
    assert nearest_subgroup([under]) == "D1 (mirror line at 90°)"


@pytest.mark.parametrize("degree", [20.0, 22.5, 97.5])
@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["o2", "cone"])
def test_mirrors_are_found_at_any_angle(name: str, order: int, degree: float) -> None:
    group = plane_group("o2") if name == "o2" else space_group(name)
    subgroup = dihedral_subgroup(group, order, degree % (180 / order))
    type_ = FieldType(band_limited(group, 1), 1)
    layer = PartialLinear(type_, type_, FixedDensity(group, 8, subgroup.quadrature(8)))
    if order > 2:  # a linear map of fields of frequency 1 is of frequency 2 at most
        make = PartialConv2d if name == "o2" else PartialConv3d
        layer = make(type_, type_, 5, layer.density)
    assert measure_layer(layer).nearest_subgroup == subgroup.name


@pytest.mark.parametrize("kind", ["c2", "c3", "c4", "d3", "d4"])
@pytest.mark.parametrize("name", ["so3", "o3"])
def test_turns_are_found_about_any_axis(name: str, kind: str) -> None:
    group = space_group(name)
    type_ = FieldType(direct_sum(group, dict.fromkeys(group.irreps(2), 1)), 1)
    density = FixedDensity(group, 6, axial_subgroup(group, (2, -1, 2), kind, turn=20.0).quadrature(6))
    found = measure_layer(PartialLinear(type_, type_, density)).nearest_subgroup
    assert found == f"{kind.upper()} about (0.67, -0.33, 0.67)"


def test_half_turns_about_three_axes_are_found() -> None:
    group = space_group("so3")
    type_ = FieldType(direct_sum(group, dict.fromkeys(group.irreps(2), 1)), 1)
    density = FixedDensity(group, 6, axial_subgroup(group, (2, -1, 2), "d2", turn=20.0).quadrature(6))
    layer = PartialLinear(type_, type_, density)
    found = measure_layer(layer)
    assert found.nearest_subgroup.startswith("D2 about")  # one of the three
    assert found.broken_under[found.nearest_subgroup] < 1e-6


@pytest.mark.parametrize("name", ["T (", "D4 about z", "D2 ("])
def test_subgroups_of_finite_rotations_are_named(name: str) -> None:
    group = space_group("octahedral")
    subgroup = next(subgroup for subgroup in subgroups(group) if subgroup.name.startswith(name))
    type_ = FieldType(regular(group), 1)
    layer = PartialLinear(type_, type_, FixedDensity(group, 0, subgroup.quadrature(0)))
    assert measure_layer(layer).nearest_subgroup == subgroup.name


def test_the_axis_of_a_group_about_an_axis_is_its_own() -> None:
    group = space_group("so2")
    type_ = FieldType(band_limited(group, 1), 1)
    layer = PartialConv3d(type_, type_, 3, make_density(group, "full", 2), axis=Axis((0.6, 0.0, 0.8)))
    assert measure_layer(layer).axis == pytest.approx([0.6, 0.0, 0.8])
    assert measure_degree(nn.Sequential(layer))[0].axis == pytest.approx([0.6, 0.0, 0.8])


def test_layers_about_different_axes_have_no_degree_together() -> None:
    group = space_group("so2")
    type_, density = FieldType(band_limited(group, 1), 1), make_density(group, "full", 2)
    about_x, about_y = (PartialConv3d(type_, type_, 3, density, axis=Axis(n)) for n in np.eye(3)[:2].tolist())
    about_z = PartialConv3d(type_, type_, 3, density)
    for pair in ((about_x, about_y), (about_z, about_x)):
        with pytest.raises(ValueError, match="different axes"):
            measure_degree(nn.Sequential(*pair))


@pytest.mark.parametrize(
    ("subgroup", "name"),
    [
        (mirror(O3, (2, -1, 2)), "mirror (plane normal to (0.67, -0.33, 0.67))"),
        (with_inversion(O3, axial_subgroup(O3, (2, -1, 2), "so2")), "SO(2) × inversion about (0.67, -0.33, 0.67)"),
        (with_inversion(O3, axial_subgroup(O3, (2, -1, 2), "o2")), "O(2) × inversion about (0.67, -0.33, 0.67)"),
        (axial_subgroup(O3, (2, -1, 2), "cone"), "cone about (0.67, -0.33, 0.67)"),
    ],
)
def test_subgroups_with_mirrors_are_found_about_any_axis(subgroup: Subgroup, name: str) -> None:
    type_ = FieldType(direct_sum(O3, dict.fromkeys(O3.irreps(2), 1)), 1)
    layer = PartialLinear(type_, type_, FixedDensity(O3, 4, subgroup.quadrature(4)))
    assert measure_layer(layer).nearest_subgroup == name


def test_what_is_not_finite_is_not_called_symmetric() -> None:
    layer = _layer(D4, "full")
    nn.init.constant_(layer.kernel.weight, math.nan)
    with pytest.raises(ValueError, match="not finite"):
        measure_layer(layer)


@pytest.mark.parametrize("kind", ["so2", "o2", "c4"])
def test_the_axis_is_that_about_which_turns_alter_kernels_least(kind: str) -> None:
    """Also where λ says nothing of vectors (O(2): M = 0), and where only some turns are left."""
    group = space_group("so3")
    type_ = FieldType(direct_sum(group, dict.fromkeys(group.irreps(2), 1)), 2)
    axis = np.array([2.0, -1.0, 2.0]) / 3
    density = FixedDensity(group, 6, axial_subgroup(group, axis, kind).quadrature(6))
    layers = [PartialConv3d(type_, type_, 3, density) for _ in range(2)]
    assert measure_axis(layers) == pytest.approx(axis, abs=1e-6 if kind != "c4" else 0.1)


def test_an_infinitesimal_turn_breaks_what_the_derivative_says() -> None:
    """1 − cos of a small angle: the error at h is ‖X_n K‖² θ² / 2‖K‖²."""
    group = space_group("so3")
    type_ = FieldType(direct_sum(group, dict.fromkeys(group.irreps(1), 1)), 1)
    layer = PartialConv3d(type_, type_, 3, make_density(group, "none", 4))
    best = measure_axis([layer])
    about = {tuple(n): equivariance_errors(layer, [_about(group, n, 0.01)])[0] for n in (*np.eye(3), best)}
    assert min(about, key=lambda n: about[n]) == tuple(best)


def test_the_axis_of_a_layer_in_space_is_found() -> None:
    group = space_group("so3")
    type_ = FieldType(direct_sum(group, dict.fromkeys(group.irreps(1), 1)), 2)
    axis = np.array([1.0, 2.0, 2.0]) / 3
    density = FixedDensity(group, 2, axial_subgroup(group, axis, "so2").quadrature(2))
    found = measure_layer(PartialConv3d(type_, type_, 3, density))
    assert found.singular_values == pytest.approx([1, 0, 0], abs=1e-9)
    assert found.axis == pytest.approx(axis.tolist(), abs=1e-6)
    assert found.nearest_subgroup == "SO(2) about (0.33, 0.67, 0.67)"
    full = measure_layer(PartialConv3d(type_, type_, 3, make_density(group, "full", 2)))
    assert (full.nearest_subgroup, full.singular_values) == ("SO(3)", pytest.approx([0, 0, 0], abs=1e-9))


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


def test_layers_on_different_groups_have_no_degree_together() -> None:
    layers = nn.Sequential()
    for name in ("d4", "c4"):
        type = FieldType(regular(plane_group(name)), 1)
        layers.append(PartialConv2d(type, type, 3, make_density(type.group, "full", 0)))
    with pytest.raises(ValueError, match=r"different groups \(C4, D4\)"):
        measure_degree(layers)


def test_measuring_leaves_the_layer_alone() -> None:
    layer = _layer(D4, "learned")
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    measure_layer(layer)
    torch.testing.assert_close(dict(layer.state_dict()), before, atol=0, rtol=0)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in layer.parameters())
    assert isinstance(layer.density, LearnedDensity)


def _found(*under: dict[str, float]) -> list[LayerDegree]:
    return [
        LayerDegree(f"layer{i}", "D4", broken["D4"], 0.0, "", broken_under=broken) for i, broken in enumerate(under)
    ]


EXACTLY = {"D4": 1e-13, "C4": 0.0, "identity only": 0.0}
KEPT = {"D4": 0.002, "C4": 0.0, "identity only": 0.0}
TURNS = {"D4": 0.2, "C4": 0.001, "identity only": 0.0}
NOTHING = {"D4": 0.4, "C4": 0.3, "identity only": 0.0}


@pytest.mark.parametrize(
    ("degrees", "sentence"),
    [
        ([], "The network has no equivariant layers."),
        (
            [LayerDegree("a", "C1", 0.0, 0.0, "identity only", broken_under={"identity only": 0.0})],
            "The network is an ordinary one: its group is the identity alone.",
        ),
        (
            _found(KEPT, KEPT),
            "The network kept nearly all of D4; layer0 broke most, 0.2% of its kernel's energy.",
        ),
        (
            _found(EXACTLY, EXACTLY),
            "The network kept the full symmetry D4 in every layer.",
        ),
        (
            _found(KEPT, TURNS, KEPT),
            "Of D4 the network kept C4; it broke the rest most in layer1 (broken energy 20.0%).",
        ),
        (
            _found(TURNS, NOTHING),
            "Of D4 the network kept no symmetry; most was broken in layer1 (broken energy 40.0%).",
        ),
    ],
)
def test_the_summary_says_what_was_kept_and_where_it_was_broken(degrees: list[LayerDegree], sentence: str) -> None:
    assert summarize_degree(degrees) == sentence
