"""What goes on learning, how fast, and degrees set free without a change of what is computed."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import TensorDataset

from parteq.apps.histo import task
from parteq.apps.histo.finetune import freeze_backbone, freeze_degree, layer_rates, released
from parteq.apps.histo.models import MODELS, Classifier, create_model
from parteq.core.chain import Chain
from parteq.core.measure import measure_degree, partial_layers
from parteq.core.training import Settings, fit

IMAGES = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))
SETTINGS = Settings(epochs=2, batch_size=4)


def lived_in(name: str = "resnet", group: str = "c4", degree: str = "full") -> Classifier:
    """A model whose parameters and statistics are no longer those of a new one."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=2, group=group, degree=degree, width=0.25)
    model.set_normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.2])
    train(model)
    return model


def train(model: Classifier, rates=None) -> None:
    data = TensorDataset((IMAGES * 255).byte(), torch.arange(8) % 2)
    fit(model, task.loss, data, SETTINGS, rates=rates, progress=False)


def changed(model: Classifier, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def snapshot(model: Classifier) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize(("name", "group"), [*((name, "d4") for name in MODELS), ("resnet", "c4"), ("resnet", "so2")])
def test_released_degrees_change_nothing_and_can_be_learned(name, group):
    model = lived_in(name, group).eval()
    before = snapshot(model)
    free = released(model).eval()
    with torch.no_grad():
        assert torch.allclose(free(IMAGES), model(IMAGES), atol=1e-4)
    assert free.config == model.config | {"degree": "learned"}
    assert all(layer.broken_energy < 1e-6 for layer in measure_degree(free))
    assert not changed(model, before)
    task.loss(free, (IMAGES, torch.arange(8) % 2)).backward()
    densities = [parameter for density in Chain.of(free).densities for parameter in density.parameters()]
    assert len(densities) == len(partial_layers(free))
    assert all(density.grad.abs().max() > 0 for density in densities[:-1])


def test_learned_degrees_are_kept_by_release():
    model = lived_in(degree="learned").eval()
    with torch.no_grad():
        assert torch.equal(released(model).eval()(IMAGES), model(IMAGES))


@pytest.mark.parametrize(("group", "degree"), [("none", "full"), ("c4", "none")])
def test_without_symmetry_there_is_no_degree_to_release(group, degree):
    with pytest.raises(ValueError, match="has no degree to release"):
        released(create_model(num_classes=2, group=group, degree=degree, width=0.25))


def test_a_frozen_backbone_keeps_weights_and_statistics():
    model = lived_in(degree="learned")
    before = snapshot(model)
    freeze_backbone(model)
    train(model)
    parts = {name.split(".")[0] for name in changed(model, before)}
    assert parts == {"head", "classifier"}
    assert any("running_mean" in name for name in changed(model, before))


def test_frozen_degrees():
    model = lived_in(degree="learned")
    before = snapshot(model)
    freeze_degree(model)
    train(model)
    assert changed(model, before)
    assert not any("density" in name for name in changed(model, before))


@pytest.mark.parametrize("name", MODELS)
def test_deeper_layers_learn_faster(name):
    model = create_model(name, num_classes=2, group="c4", width=0.25)
    rates = layer_rates(model, 0.5)
    blocks = [model.stem, *(block for block in model.stages if list(block.parameters()))]
    values = [{rates[parameter] for parameter in block.parameters()} for block in blocks]
    assert all(len(value) == 1 for value in values)
    assert sorted(values, key=min) == values
    assert values[-1] == {0.5}
    assert values[0] == {0.5 ** sum(bool(partial_layers(block)) for block in blocks)}
    assert len(rates) + len(list(model.head.parameters())) + 2 == len(list(model.parameters()))
