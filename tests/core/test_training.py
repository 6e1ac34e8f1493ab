"""The training loop: deterministic, resumable, and fair to every sample."""

from __future__ import annotations

import copy
import io
import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from parteq.core import training
from parteq.core.density import make_density
from parteq.core.fields import FieldType, regular
from parteq.core.groups import plane_group
from parteq.core.layers import PartialConv2d
from parteq.core.training import Settings, at_a_time, fit, make_optimiser, read_batches, uniform

SAMPLES = 50
SETTINGS = Settings(epochs=4, batch_size=8, learning_rate=1e-2, seed=3)


@pytest.fixture(autouse=True)
def single_precision():
    """As in practice, unlike the property tests beside this file."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(before)


def toy_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))


def toy_data() -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(SAMPLES, 4, generator=generator)
    return TensorDataset(points, (points[:, 0] > 0).long())


def loss(model: nn.Module, batch: training.Batch) -> torch.Tensor:
    points, labels = batch
    return cross_entropy(model(points), labels)


def jitter(batch: training.Batch, keys: torch.Tensor) -> training.Batch:
    points, labels = batch
    return points + 0.1 * uniform(keys, 4), labels


class Lazy(Dataset):
    """Toy data that are no tensors."""

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        points, label = toy_data()[index]
        return points, int(label)


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([tensor.double().flatten() for tensor in model.state_dict().values()])


def test_learns():
    records = fit(toy_model(), loss, toy_data(), Settings(epochs=30, batch_size=8, learning_rate=3e-2), progress=False)
    assert [record["epoch"] for record in records] == list(range(1, 31))
    assert records[-1]["loss"] < 0.5 * records[0]["loss"]
    assert all(record["penalty"] == 0 for record in records)


def test_same_seed_same_bits():
    models = [toy_model(), toy_model()]
    for model in models:
        fit(model, loss, toy_data(), SETTINGS, augment=jitter, progress=False)
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_random_numbers_outside_are_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(toy_model_without_reseeding(), loss, toy_data(), SETTINGS, progress=False)
    assert torch.equal(torch.rand(3), expected)


def toy_model_without_reseeding() -> nn.Module:
    with torch.random.fork_rng():
        return toy_model()


@pytest.mark.parametrize("at", [1, 3])
def test_resumed_equals_uninterrupted(at):
    whole, part = toy_model(), toy_model()
    records = fit(whole, loss, toy_data(), SETTINGS, augment=jitter, progress=False)
    kept = {}

    def after_epoch(record, state):
        if record["epoch"] == at:
            buffer = io.BytesIO()
            torch.save({"state": state, "model": part.state_dict()}, buffer)
            kept["bytes"] = buffer.getvalue()

    fit(part, loss, toy_data(), SETTINGS, augment=jitter, after_epoch=after_epoch, progress=False)
    saved = torch.load(io.BytesIO(kept["bytes"]), weights_only=True)
    resumed = toy_model()
    resumed.load_state_dict(saved["model"])
    rest = fit(resumed, loss, toy_data(), SETTINGS, augment=jitter, state=saved["state"], progress=False)
    assert torch.equal(weights(whole), weights(resumed))
    assert rest == records[at:]


def test_lazy_data_give_the_same_bits_as_tensors():
    models = [toy_model(), toy_model()]
    fit(models[0], loss, toy_data(), SETTINGS, augment=jitter, progress=False)
    fit(models[1], loss, Lazy(), SETTINGS, augment=jitter, progress=False)
    assert torch.equal(weights(models[0]), weights(models[1]))


def test_every_sample_once_an_epoch_in_even_batches():
    seen: list[torch.Tensor] = []

    def watching(model, batch):
        seen.append(batch[0].flatten())
        return model(batch[0].float()).mean()

    numbers = TensorDataset(torch.arange(SAMPLES)[:, None])
    fit(nn.Linear(1, 1), watching, numbers, Settings(epochs=2, batch_size=8), progress=False)
    sizes = [len(batch) for batch in seen]
    assert max(sizes) <= 8
    assert max(sizes) - min(sizes) <= 1
    epochs = torch.cat(seen).split(SAMPLES)
    assert all(torch.equal(epoch.sort().values, torch.arange(SAMPLES)) for epoch in epochs)
    assert not torch.equal(*epochs)


@pytest.mark.parametrize(("samples", "steps"), [(5, 1), (50, 7), (100, 13), (250, 25), (400, 25), (3200, 100)])
def test_few_samples_do_not_mean_few_steps(samples, steps):
    assert len(training._order(samples, Settings(), epoch=0)) == steps


def test_penalty_is_added_and_recorded():
    model = toy_model()
    free = copy.deepcopy(model)
    fit(free, loss, toy_data(), SETTINGS, progress=False)
    records = fit(model, loss, toy_data(), SETTINGS, penalty=lambda m: 10 * m[0].weight.square().sum(), progress=False)
    assert records[0]["penalty"] > 0
    assert model[0].weight.norm() < 0.6 * free[0].weight.norm()


def test_densities_biases_and_norms_do_not_decay():
    model = toy_model()
    model.density = make_density(plane_group("c4"), "learned", 0)
    groups = make_optimiser(model, Settings(density_learning_rate=7, weight_decay=0.5)).param_groups
    density, decayed, bare = groups
    assert density["params"] == [model.density.logits]
    assert (density["factor"], density["weight_decay"]) == (7, 0)
    assert [id(p) for p in decayed["params"]] == [id(model[0].weight), id(model[4].weight)]
    assert decayed["weight_decay"] == 0.5
    assert bare["weight_decay"] == 0
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_a_copy_is_trained_like_its_original():
    group = plane_group("c4")
    model = PartialConv2d(*[FieldType(regular(group), 1)] * 2, 3, make_density(group, "learned", 0))

    def groups(model):
        found = make_optimiser(model, Settings()).param_groups
        return [(part["factor"], part["weight_decay"], [p.shape for p in part["params"]]) for part in found]

    assert groups(copy.deepcopy(model)) == groups(model)


def test_rates_of_single_parameters():
    model = toy_model()
    model.density = make_density(plane_group("c4"), "learned", 0)
    rates = {model[0].weight: 0.5, model[0].bias: 0.5, model.density.logits: 0.25}
    groups = make_optimiser(model, Settings(density_learning_rate=8, weight_decay=0.5), rates).param_groups
    found = [(group["factor"], group["weight_decay"], [id(p) for p in group["params"]]) for group in groups]
    assert found == [
        (2.0, 0.0, [id(model.density.logits)]),
        (0.5, 0.5, [id(model[0].weight)]),
        (1.0, 0.5, [id(model[4].weight)]),
        (0.5, 0.0, [id(model[0].bias)]),
        (1.0, 0.0, [id(model[1].weight), id(model[1].bias), id(model[4].bias)]),
    ]


def test_weights_of_kernels_learn_at_the_rate_of_the_kernel():
    group = plane_group("c4")
    layer = PartialConv2d(FieldType(regular(group), 1), FieldType(regular(group), 1), 3, make_density(group, "full", 0))
    weight = layer.kernel.weight
    groups = make_optimiser(layer, Settings(), {weight: 0.5}).param_groups
    rates = {id(parameter): found["factor"] for found in groups for parameter in found["params"]}
    assert rates == {id(weight): 0.5 * layer.kernel.weight_rate, id(layer.bias): 1.0}
    assert layer.kernel.weight_rate == pytest.approx(2)


def test_a_rate_is_a_factor_on_the_steps():
    # Adam's first step is the learning rate times the sign of the gradient, whatever its size.
    moved = []
    for rate in (1.0, 0.1):
        model = toy_model()
        before = model[4].weight.detach().clone()
        settings = Settings(epochs=1, batch_size=SAMPLES, weight_decay=0)
        fit(model, loss, toy_data(), settings, rates={model[4].weight: rate}, progress=False)
        moved.append(float((model[4].weight.detach() - before).abs().max()))
    assert moved[1] / moved[0] == pytest.approx(0.1, rel=1e-3)


def test_what_is_frozen_stays_as_it_is():
    model = toy_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for frozen in model[:2]:
        frozen.requires_grad_(False)
    modes = []

    def watching(model, batch):
        modes.append([module.training for module in model])
        return loss(model, batch)

    fit(model, watching, toy_data(), SETTINGS, progress=False)
    kept = {name for name, tensor in model.state_dict().items() if torch.equal(tensor, before[name])}
    assert kept == {name for name in before if name[0] in "01"}
    # The norm is in evaluation mode; dropout, which has nothing to freeze, is not.
    assert all(mode == [False, False, True, True, True] for mode in modes)


def test_the_rate_rises_and_falls_to_zero():
    settings = Settings(warmup=0.1, learning_rate=0.5)
    rates = [training._rate(step, 200, settings) for step in range(200)]
    assert np.argmax(rates) == 20
    assert max(rates) == pytest.approx(0.5)
    assert all(np.diff(rates[:20]) > 0)
    assert all(np.diff(rates[20:]) < 0)
    assert 0 < rates[0] < 0.05
    assert 0 < rates[-1] < 1e-3


def test_uniform_numbers():
    keys = torch.arange(2000)
    numbers = uniform(keys, 50)
    assert numbers.shape == (2000, 50)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.flatten().numpy(), "uniform").pvalue > 1e-3
    assert stats.kstest(numbers[:, 0].numpy(), "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(numbers[:, 0], numbers[:, 1])[0, 1]) < 0.1
    assert torch.equal(uniform(keys[7:9], 50), numbers[7:9])
    assert torch.equal(uniform(keys, 3), numbers[:, :3])


def test_uniform_follows_splitmix64():
    # The first output of splitmix64 with state 0, as its authors publish it, to the 24 bits that are kept.
    assert uniform(torch.zeros(1, dtype=torch.long), 1).item() == (0xE220A8397B1DCDAF >> 40) / 2**24


def test_worker_processes_read_the_same_batches():
    parts = [torch.tensor([3, 1]), torch.tensor([4])]
    plain, through_workers = list(read_batches(toy_data(), parts)), list(read_batches(Lazy(), parts, workers=1))
    for one, other in zip(plain, through_workers, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_bfloat16():
    types = set()

    def watching(model, batch):
        logits = model(batch[0])
        types.add(logits.dtype)
        return cross_entropy(logits.float(), batch[1])

    fit(toy_model(), watching, toy_data(), Settings(epochs=1, mixed_precision=True), progress=False)
    assert types == {torch.bfloat16}


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="epoch 1"):
        fit(toy_model(), lambda m, b: loss(m, b) * math.nan, toy_data(), SETTINGS, progress=False)


def test_no_batch_is_of_one_sample():
    sizes = []

    def watching(model, batch):
        sizes.append(len(batch[0]))
        return model(batch[0]).square().mean()

    settings = Settings(epochs=1, batch_size=2)
    fit(nn.Linear(1, 1), watching, TensorDataset(torch.ones(41, 1)), settings, progress=False)
    assert (min(sizes), max(sizes), sum(sizes)) == (2, 3, 41)


def test_no_data_is_an_error():
    with pytest.raises(ValueError, match="no sample"):
        fit(toy_model(), loss, TensorDataset(torch.zeros(0, 4), torch.zeros(0).long()), SETTINGS, progress=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"batch_size": 1},
        {"learning_rate": -1.0},
        {"weight_decay": math.nan},
        {"symmetric_steps": 1.0},
        {"breaking": 1.5},
        {"density_threshold": -1.0},
        {"seed": -2},
    ],
)
def test_settings_refuse_what_cannot_be_meant(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Settings(**wrong)


@pytest.mark.parametrize(
    ("sample", "count"), [((3, 28, 28), 128), ((1, 256, 256), 16), ((1, 64, 64, 64), 4), ((3, 2000, 2000), 1)]
)
def test_large_samples_go_through_few_at_a_time(sample, count):
    assert at_a_time(sample) == count
