"""How the training loop lets learned densities break their symmetry."""

from __future__ import annotations

import copy
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import TensorDataset

from parteq.core import training
from parteq.core.chain import degree_penalty
from parteq.core.density import make_density
from parteq.core.fields import FieldType, regular, trivial
from parteq.core.groups import plane_group
from parteq.core.layers import PartialLinear
from parteq.core.training import Settings, fit


@pytest.fixture(autouse=True)
def single_precision():
    """As in practice, unlike the property tests beside this file."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def loss(model: nn.Module, batch: training.Batch) -> torch.Tensor:
    samples, labels = batch
    return cross_entropy(model(samples), labels)


def test_densities_are_held_uniform_in_a_share_of_the_steps():
    group = plane_group("c4")
    type = FieldType(regular(group), 1)
    torch.manual_seed(0)
    model = PartialLinear(type, type, make_density(group, "learned", 0))
    held = []

    def noting(model: nn.Module, batch: training.Batch) -> torch.Tensor:
        held.append(bool(model.density.held_uniform))
        return model(batch[0]).square().mean()

    settings = Settings(epochs=8, batch_size=2, symmetric_steps=0.25)
    data = TensorDataset(torch.randn(50, 4))
    fit(model, noting, data, settings, progress=False)
    assert 0.15 < np.mean(held) < 0.35
    assert not model.density.held_uniform


def c4_classifier() -> PartialLinear:
    """Two invariant outputs of one regular field of C4, as far as λ, to be learned, keeps them so."""
    group = plane_group("c4")
    torch.manual_seed(0)
    return PartialLinear(FieldType(regular(group), 1), FieldType(trivial(group), 2), make_density(group, "learned", 0))


@pytest.mark.parametrize("breaking", [False, True])
def test_a_threshold_keeps_exactly_what_the_data_have_and_nothing_else(breaking):
    model = c4_classifier()
    some = torch.randn(128, 4)
    samples = torch.cat([some.roll(turn, dims=1) for turn in range(4)])  # with no symmetry broken by chance
    data = TensorDataset(samples, ((samples[:, 0] if breaking else samples.sum(1)) > 0).long())
    penalty = partial(degree_penalty, samples=512, price=1.0)

    def divergence(threshold: float) -> float:
        settings = Settings(batch_size=16, epochs=20, density_learning_rate=20.0, density_threshold=threshold)
        trained = copy.deepcopy(model)
        fit(trained, loss, data, settings, penalty=penalty, progress=False)
        return float(trained.density.divergence_from_uniform().detach())

    free, held = divergence(0.0), divergence(0.5)
    assert (held > 0.95 * free) if breaking else (free > 1e-6 and held == 0)


@pytest.mark.parametrize("warmup", [0.0, 0.1])
def test_a_threshold_waits_until_the_weights_know_what_a_direction_is_good_for(warmup):
    """They learn it while it is broken by chance, and small as they are here a step alone tells nothing."""
    model = c4_classifier()
    with torch.no_grad():
        model.kernel.weight.mul_(0.1)
    samples = torch.randn(512, 4)
    data = TensorDataset(samples, (samples[:, 0] > 0).long())
    settings = Settings(
        batch_size=16, epochs=20, density_learning_rate=20.0, density_threshold=1.0, symmetric_steps=0.0, warmup=warmup
    )
    fit(model, loss, data, settings, penalty=partial(degree_penalty, samples=512, price=1.0), progress=False)
    assert (float(model.density.divergence_from_uniform().detach()) > 1) == (warmup > 0)


def test_divergence_is_the_same_error_with_a_threshold():
    def diverging(model: nn.Module, batch: training.Batch) -> torch.Tensor:
        return loss(model, batch) * float("nan")

    data = TensorDataset(torch.randn(64, 4), torch.zeros(64).long())
    with pytest.raises(FloatingPointError, match="epoch 1"):
        fit(c4_classifier(), diverging, data, Settings(density_threshold=0.5, warmup=0.0), progress=False)


@pytest.mark.parametrize("breaking", [1 / 3, 1.0])
def test_a_density_made_uniform_stays_so_once_the_time_to_break_is_over(breaking):
    """And so it does in a training that goes on from a checkpoint of that time."""
    model = c4_classifier()
    samples = torch.randn(64, 4)
    data = TensorDataset(samples, (samples[:, 0] > 0).long())
    settings = Settings(batch_size=16, epochs=3, breaking=breaking, density_learning_rate=20.0)
    kept = {}

    def after_epoch(record, state):
        if record["epoch"] == 1:
            assert not model.density.is_untouched
            model.density.reset()
            assert float(model.density.divergence_from_uniform().detach()) == pytest.approx(0, abs=1e-6)
            kept["model"], kept["state"] = copy.deepcopy(model), copy.deepcopy(state)

    fit(model, loss, data, settings, after_epoch=after_epoch, progress=False)
    assert model.density.is_untouched == (breaking < 1)
    fit(kept["model"], loss, data, settings, state=kept["state"], progress=False)
    for name, tensor in kept["model"].state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
