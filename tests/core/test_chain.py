from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from parteq.core.chain import Chain, degree_penalty, full_symmetry
from parteq.core.density import LearnedDensity, SoftmaxDensity, make_density
from parteq.core.fields import FieldType, regular
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.layers import PartialConv2d
from parteq.core.norm import FieldBatchNorm
from tests.core.helpers import concentrate, randomise

D4 = plane_group("d4")


def _random(group: SymmetryGroup, seed: int, parent: LearnedDensity | None = None) -> SoftmaxDensity:
    density = SoftmaxDensity(group, 2, parent=parent)
    randomise(density, torch.Generator().manual_seed(seed))
    return density


def _nats(price: Tensor) -> float:
    return float(price.detach())


def _on(group: SymmetryGroup, turns_in_degrees: Sequence[float], flipped: bool = False) -> SoftmaxDensity:
    """Return a density on a few turns of a finite group (flipped first, if asked), as good as uniform there."""
    density = SoftmaxDensity(group, 0)
    concentrate(density, [group.rotation(math.radians(angle), flipped) for angle in turns_in_degrees])
    return density


def _network(*densities: object) -> nn.Sequential:
    type = FieldType(regular(D4), 1)
    return nn.Sequential(*[PartialConv2d(type, type, 1, density) for density in densities])  # type: ignore[arg-type]


def test_uniform_densities_cost_nothing(plane: SymmetryGroup) -> None:
    chain = Chain([SoftmaxDensity(plane, 2) for _ in range(3)])
    for price in (chain.to_uniform(), chain.to_predecessor(), chain.alignment()):
        assert _nats(price) == pytest.approx(0, abs=1e-9)


def test_to_uniform_is_the_sum_of_divergences(plane: SymmetryGroup) -> None:
    densities = [_random(plane, seed) for seed in range(3)]
    expected = sum(_nats(density.divergence_from_uniform()) for density in densities)
    assert _nats(Chain(densities).to_uniform()) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_breaking_c4_to_the_identity_costs_log_4() -> None:
    assert _nats(Chain([_on(plane_group("c4"), [0])]).to_uniform()) == pytest.approx(math.log(4), abs=1e-9)


def test_departure_counts_the_irreps_that_a_subgroup_breaks() -> None:
    """λ uniform on C4 in D4 breaks the one irrep that is 1 on turns and −1 on mirrorings; on C2 three such, of size 1;
    the identity alone breaks both directions of the irrep of size 2 as well."""
    for turns, expected in (([0, 90, 180, 270], 1.0), ([0, 180], 3.0), ([0], 3.0 + 2.0)):
        density = _on(D4, turns)
        assert _nats(Chain([density]).departure()) == pytest.approx(expected, abs=0.02)


def test_departure_counts_directions_within_an_irrep() -> None:
    """λ on {e, a mirroring} switches on one direction of the irrep of size 2, and one irrep of size 1."""
    density = SoftmaxDensity(D4, 0)
    concentrate(density, [D4.rotation(0.0), D4.rotation(0.0, flipped=True)])
    assert _nats(Chain([density]).departure()) == pytest.approx(1.0 + 1.0, abs=0.02)


def test_departure_prefers_few_directions_broken_clearly() -> None:
    """λ̂ of the irrep of size 3 of SO(3) with one singular value, and with three equal ones of the same norm."""
    space = space_group("so3")
    prices, norms = [], []
    for directions, height in (([0], 0.9), ([0, 4, 8], 0.36)):
        density = SoftmaxDensity(space, 1)
        with torch.no_grad():
            for direction in directions:
                density.logits[density.layout.offsets[1] + direction] = height
        prices.append(_nats(density.departure(clear=0.1)))
        norms.append(float(density.coefficients()[1].detach().norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.2)
    assert prices[0] < 0.7 * prices[1]


def test_departure_has_a_slope_wherever_the_density_is(space: SymmetryGroup) -> None:
    density = SoftmaxDensity(space, 1).double()
    for scale in (0.0, 1e-8, 0.3):
        randomise(density, torch.Generator().manual_seed(0), scale)
        (gradient,) = torch.autograd.grad(density.departure(5.0), list(density.parameters()))
        assert torch.isfinite(gradient).all()


def test_departure_of_high_frequencies_is_dearer() -> None:
    group = plane_group("so2")
    for frequency in (1, 2):
        density = SoftmaxDensity(group, 2)
        position = density.layout.offsets[frequency]
        density.logits.data[position] = 0.5
        alone = _nats(density.departure())
        weighted = _nats(density.departure(smoothness=3.0))
        if frequency == 2:  # exp cos 2θ holds even frequencies alone: within the band, 2
            assert weighted == pytest.approx(7 * alone, rel=1e-6)
            assert _nats(density.departure(smoothness=3.0, cheap_band=1)) == pytest.approx(4 * alone, rel=1e-6)
        assert weighted > 3 * alone
        assert _nats(density.departure(smoothness=3.0, cheap_band=2)) == alone


def test_to_predecessor_of_known_densities() -> None:
    """From D4 to C4 to C2 each step halves the symmetry; going back is dear, a link that skips pays for both steps."""
    densities = [SoftmaxDensity(D4, 0), _on(D4, [0, 90, 180, 270]), _on(D4, [0, 180])]
    assert _nats(Chain(densities).to_predecessor()) == pytest.approx(2 * math.log(2), abs=1e-9)
    assert _nats(Chain(densities, [(0, 2)]).to_predecessor()) == pytest.approx(math.log(4), abs=1e-9)
    assert _nats(Chain(densities[:2], []).to_predecessor()) == 0
    assert _nats(Chain(densities[::-1]).to_predecessor()) > 10
    first, second = _random(D4, 0), _random(D4, 1)
    p, q = first.density() / 8, second.density() / 8
    assert _nats(Chain([first, second]).to_predecessor()) == pytest.approx(_nats((q * (q / p).log()).sum()))


@pytest.mark.parametrize("turns", [[0], [0, 180], [0, 90, 180, 270]])
def test_alignment_tells_a_subgroup_from_its_cosets(turns: list[float]) -> None:
    assert _nats(Chain([_on(D4, turns)]).alignment()) == pytest.approx(0, abs=1e-9)
    assert _nats(Chain([_on(D4, turns, flipped=True)]).alignment()) > 10


def test_the_penalty_is_a_price_over_the_samples() -> None:
    densities = [_random(D4, seed) for seed in range(2)]
    model = _network(*densities, make_density(D4, "none", 0))
    departure = _nats(Chain(densities).departure())
    assert departure > 0.1
    for samples, price in ((1, 1.0), (100, 1.0), (600, 10.0)):
        expected = departure * price / samples
        assert _nats(degree_penalty(model, samples, price)) == pytest.approx(expected, rel=1e-12)
    assert _nats(degree_penalty(model, 50)) == pytest.approx(10 * _nats(degree_penalty(model, 500)), rel=1e-12)


@pytest.mark.parametrize("model", [nn.Linear(2, 2), _network(make_density(D4, "full", 0))], ids=["plain", "full"])
def test_without_learned_densities_the_penalty_is_0(model: nn.Module) -> None:
    assert _nats(degree_penalty(model, 10)) == 0


@pytest.mark.parametrize("degree", ["learned", "full"])
def test_the_penalty_is_where_the_model_is(degree: str) -> None:
    """There is no second device to test on but that of tensors without numbers."""
    group = plane_group("c4")
    layer = PartialConv2d(*[FieldType(regular(group), 1)] * 2, 3, make_density(group, degree, 0))
    assert degree_penalty(layer.to("meta"), samples=2).device.type == "meta"


def test_gradients_reach_every_density_and_lead_to_uniform() -> None:
    densities = [_random(D4, seed) for seed in range(2)]
    model = _network(*densities)
    before = _nats(degree_penalty(model, 1, 1.0))
    degree_penalty(model, 1, 1.0).backward()
    for density in densities:
        assert density.logits.grad is not None
        assert density.logits.grad.isfinite().all()
        assert float(density.logits.grad.abs().max()) > 1e-3
        with torch.no_grad():
            density.logits -= 0.1 * density.logits.grad
    assert _nats(degree_penalty(model, 1, 1.0)) < before
    assert all(layer.kernel.weight.grad is None for layer in model)


def test_a_shared_density_is_counted_once() -> None:
    shared, other = _random(D4, 0), _random(D4, 1)
    chain = Chain.of(_network(shared, shared, other, shared))
    assert chain.densities == [shared, other]
    assert chain.links == [(0, 1)]
    expected = _nats(shared.divergence_from_uniform() + other.divergence_from_uniform())
    assert _nats(chain.to_uniform()) == pytest.approx(expected, rel=1e-12)


def _normalised(values: Tensor, weights: Tensor) -> Tensor:
    return values / (values @ weights)


def test_an_inherited_density_is_that_of_the_parent_times_its_own(plane: SymmetryGroup) -> None:
    parent, alone = _random(plane, 0), _random(plane, 1)
    child = _random(plane, 1, parent=parent)
    grandchild = _random(plane, 2, parent=child)
    weights = child.weights
    torch.testing.assert_close(child.density(), _normalised(parent.density() * alone.density(), weights))
    own = _random(plane, 2)
    torch.testing.assert_close(grandchild.density(), _normalised(child.density() * own.density(), weights))
    some = [child.element(i) for i in range(0, len(weights), 1 + len(weights) // 5)]
    torch.testing.assert_close(child.density_at(some), child.density()[:: 1 + len(weights) // 5])


def test_what_the_parent_broke_stays_broken() -> None:
    parent = _on(D4, [0, 180])
    child = SoftmaxDensity(D4, 0, parent=parent)
    torch.testing.assert_close(child(), parent())  # it starts where the parent is
    randomise(child, torch.Generator().manual_seed(0), scale=1.0)
    assert _nats(child.density()[parent.density() < 1].max()) < 1e-6


def test_inheritance_owns_no_parameters_twice_and_survives_a_copy() -> None:
    parent = _random(D4, 0)
    child = _random(D4, 1, parent=parent)
    assert list(child.state_dict()) == ["logits"]
    model = _network(parent, child)
    assert sum(name.endswith("logits") for name, _ in model.named_parameters()) == 2
    twin = copy.deepcopy(model)
    torch.testing.assert_close(twin[1].density(), child())
    before = child().detach().clone()
    randomise(twin[0].density, torch.Generator().manual_seed(2))
    assert not torch.allclose(twin[1].density(), before)
    torch.testing.assert_close(child(), before)
    degree_penalty(_network(child), 1).backward()
    assert parent.logits.grad is not None  # the price of the child is paid by what it inherits as well


def test_full_symmetry_holds_every_density_that_is_learned_uniform():
    broken, kept = _random(D4, 1), _random(D4, 2)
    kept.requires_grad_(False)  # a frozen density is no longer a question
    network = _network(broken, kept)
    image = torch.randn(1, 8, 3, 3)
    uniform = copy.deepcopy(network)
    uniform[0].density.logits.data.zero_()
    before = network(image)
    with full_symmetry(network):
        torch.testing.assert_close(network(image), uniform(image))
        loss = network(image).square().sum()
    loss.backward()
    assert not broken.logits.grad.any()
    torch.testing.assert_close(network(image), before, rtol=0, atol=0)


def test_full_symmetry_within_itself_holds_until_the_outer_one_lets_go():
    density = _random(D4, 1)
    network = _network(density)
    with full_symmetry(network):
        with full_symmetry(network):
            pass
        assert density.held_uniform
    assert not density.held_uniform


def test_full_symmetry_lets_go_after_an_error():
    density = _random(D4, 1)
    with pytest.raises(RuntimeError, match="stop"), full_symmetry(_network(density)):
        raise RuntimeError("stop")
    assert not density.held_uniform


def test_half_precision_has_a_price_too():
    network = _network(_random(D4, 1))
    price = _nats(degree_penalty(network, samples=10))
    assert _nats(degree_penalty(network.bfloat16(), samples=10)) == pytest.approx(price, rel=0.05)


def test_the_price_needs_samples():
    with pytest.raises(ValueError, match="of which there are 0"):
        degree_penalty(_network(_random(D4, 1)), samples=0)


@pytest.mark.parametrize("plain", [False, True])
def test_norms_do_not_remember_what_they_see_under_full_symmetry(plain: bool):
    norm = nn.BatchNorm2d(8) if plain else FieldBatchNorm(FieldType(regular(D4), 1))
    network = torch.nn.Sequential(_network(_random(D4, 1)), norm).train()
    image = torch.randn(4, 8, 3, 3)
    with full_symmetry(network):
        network(image)
        assert not norm.running_mean.any()
    network(image)
    assert norm.running_mean.any()
