from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from parteq.apps.histo.models import MODELS, create_model
from parteq.apps.histo.twins import count_macs, count_parameters, plain_twin
from parteq.core.export import fold
from parteq.core.pool import AntiAliasedPool

SPATIAL = (12, 13)


def _size(config: dict[str, object], match: str) -> int:
    model = create_model(**config)  # type: ignore[arg-type]
    return count_parameters(model) if match == "parameters" else count_macs(model, SPATIAL)


@pytest.mark.parametrize("match", ["parameters", "macs"])
@pytest.mark.parametrize("name", MODELS)
def test_a_twin_is_as_large_as_its_model(name: str, match: Literal["parameters", "macs"]) -> None:
    config = create_model(name, num_classes=2, group="d4", degree="full", width=0.7).config
    twin = plain_twin(config, match, SPATIAL)
    assert _size(twin, match) == pytest.approx(_size(config, match), rel=0.02)
    assert twin["group"] == "none"
    assert {key for key in config if twin[key] != config[key]} <= {"group", "width"}


@pytest.mark.parametrize("group", ["c4", "c8", "so2"])
def test_twins_of_other_groups_and_degrees(group: str) -> None:
    config = create_model("mobilenetv2", num_classes=5, in_chans=1, group=group, degree="learned", width=0.5).config
    assert _size(plain_twin(config, "parameters"), "parameters") == pytest.approx(_size(config, "parameters"), rel=0.02)


def test_stages_of_a_twin_are_nearly_equally_wide() -> None:
    config = create_model("resnet", num_classes=2, group="d4", degree="full").config
    width = plain_twin(config, "macs", (10, 10))["width"]
    widths = [width] if isinstance(width, float) else width
    assert max(widths) / min(widths) < 1.2


def test_macs_can_be_matched_only_at_a_size() -> None:
    with pytest.raises(ValueError, match="give spatial"):
        plain_twin(create_model(num_classes=2).config, "macs")


def _counted(model: nn.Module, images: Tensor) -> int:
    """Return the multiply-accumulates of convolutions and linear maps, module by module."""
    total = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d | nn.Linear):
            total += output.numel() * module.weight[0].numel()
        if isinstance(module, AntiAliasedPool):
            total += output.numel() * (3 + (inputs[0].shape[2] + 1) % 2) * (3 + (inputs[0].shape[3] + 1) % 2)

    for module in model.modules():
        module.register_forward_hook(count)
    model(images)
    return total


@pytest.mark.parametrize("group", ["none", "d4"])
@pytest.mark.parametrize("name", MODELS)
def test_macs_are_those_of_convolutions_linear_maps_and_pools(name: str, group: str) -> None:
    model = create_model(name, num_classes=2, group=group, degree="full", width=0.4)
    assert count_macs(model, SPATIAL) == _counted(fold(model), torch.zeros(1, 3, *SPATIAL))


def test_macs_do_not_depend_on_the_degree() -> None:
    macs = {
        degree: count_macs(create_model("mobilenetv2", num_classes=2, group="d4", degree=degree, width=0.4), SPATIAL)
        for degree in ("full", "learned", "none")
    }
    assert len(set(macs.values())) == 1


def test_counting_leaves_the_model_as_it_is() -> None:
    model = create_model("densenet", num_classes=2, group="c4", width=0.4)
    count_macs(model, SPATIAL)
    assert model.training
    assert all(parameter.device.type == "cpu" and parameter.requires_grad for parameter in model.parameters())
