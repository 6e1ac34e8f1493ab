from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from parteq.apps.histo.models import create_model
from parteq.core.density import LearnedDensity, make_density
from parteq.core.export import fast_forward, fold, plain_program
from parteq.core.fields import FieldType, regular
from parteq.core.groups import plane_group
from parteq.core.layers import PartialConv2d, PartialLayer, PartialLinear
from parteq.core.norm import FieldBatchNorm
from tests.core.helpers import randomise

GROUPS = ("none", "c4", "d4", "so2")
DEGREES = ("full", "learned", "none")
CASES = [(symmetry, degree) for symmetry in GROUPS for degree in DEGREES]

_LOAD_WITHOUT_PARTEQ = """
import sys
sys.modules["parteq"] = sys.modules["escnn"] = None  # makes importing either of them an error
import torch
for path in sys.argv[1:]:
    program = torch.export.load(path)
    images = torch.load(path + ".images", weights_only=True)
    torch.save(program.module()(images), path + ".logits")
"""


@pytest.fixture(autouse=True)
def _float32(_float64: None) -> Iterator[None]:
    torch.set_default_dtype(torch.float32)
    yield
    torch.set_default_dtype(torch.float64)


def _model(group: str, degree: str) -> nn.Module:
    """Return a small model as training might leave it: densities, norms and biases moved, statistics gathered."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = create_model(num_classes=3, group=group, degree=degree, width=0.4)
    for module in model.modules():
        if isinstance(module, LearnedDensity):
            randomise(module, generator)
        if isinstance(module, FieldBatchNorm):
            with torch.no_grad():
                module.weight.uniform_(0.5, 2.0, generator=generator)
                module.bias.normal_(generator=generator)
    model.train()
    with torch.no_grad():
        model(torch.rand(4, 3, 12, 12, generator=generator))
    return model.eval().requires_grad_(False)


def _images(count: int, edge: int = 12) -> Tensor:
    return torch.rand(count, 3, edge, edge, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("symmetry", "degree"), CASES)
def test_a_folded_model_computes_the_same(symmetry: str, degree: str) -> None:
    model = _model(symmetry, degree)
    state = copy.deepcopy(model.state_dict())
    folded = fold(model)
    for edge in (12, 13):
        logits = model(_images(3, edge))
        assert logits.std(0).max() > 1e-3  # tells images apart
        torch.testing.assert_close(folded(_images(3, edge)), logits, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, PartialLayer) for module in folded.modules())
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    torch.testing.assert_close(model.state_dict(), state, atol=0, rtol=0)  # the model is left as it was


@pytest.mark.parametrize("dimensions", [2, 3])
def test_with_channels_last_a_model_computes_the_same(dimensions: int) -> None:
    torch.manual_seed(0)
    model = create_model(num_classes=3, in_chans=2, group="d4", degree="learned", width=0.4, spatial_dims=dimensions)
    images = torch.rand(4, 2, *[9] * dimensions)
    with torch.no_grad():
        torch.testing.assert_close(fast_forward(model, dimensions)(images), model.eval()(images), atol=1e-5, rtol=1e-4)


def test_norms_melt_into_convolutions_where_no_channels_are_mixed() -> None:
    folded = fold(_model("d4", "learned"))
    assert not any(isinstance(module, FieldBatchNorm) for module in folded.modules())


@pytest.mark.parametrize("precision", [torch.float64, torch.bfloat16])
def test_a_folded_model_is_as_precise_as_the_model(precision: torch.dtype) -> None:
    type_ = FieldType(regular(plane_group("c4")), 2)
    density = make_density(type_.group, "learned", 0)
    model = nn.Sequential(PartialConv2d(type_, type_, 3, density), FieldBatchNorm(type_), _Mean())
    model.append(PartialLinear(type_, type_, density)).to(precision).eval()
    images = torch.randn(2, type_.channels, 5, 5, dtype=precision)
    tolerance = 1e-12 if precision == torch.float64 else 0.05
    torch.testing.assert_close(fold(model)(images), model(images), atol=tolerance, rtol=tolerance)


class _ByName(nn.Module):
    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(OrderedDict(layers))

    def forward(self, images: Tensor) -> Tensor:
        names = ("convolution", "norm", "activation")
        for name in names:
            images = self.layers.get_submodule(name)(images)
        return images


def test_layers_keep_their_names() -> None:
    type_ = FieldType(regular(plane_group("c4")), 2)
    convolution = PartialConv2d(type_, type_, 3, make_density(type_.group, "learned", 0))
    model = _ByName(convolution=convolution, norm=FieldBatchNorm(type_), activation=nn.ReLU())
    images = torch.randn(5, type_.channels, 5, 5)
    model(images)
    torch.testing.assert_close(fold(model)(images), model.eval()(images), atol=1e-5, rtol=1e-5)


class _WithShortcut(nn.Sequential):
    def forward(self, images: Tensor) -> Tensor:
        return images + super().forward(images)


class _Mean(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def test_what_stands_between_layers_is_kept() -> None:
    type_ = FieldType(regular(plane_group("c2")), 3)
    density = make_density(type_.group, "full", 0)

    def convolution() -> PartialConv2d:
        return PartialConv2d(type_, type_, 3, density)

    shortcut = _WithShortcut(FieldBatchNorm(type_), nn.ReLU(), convolution(), FieldBatchNorm(type_))
    last = _Mean(), PartialLinear(type_, type_, density), FieldBatchNorm(type_)
    model = nn.Sequential(convolution(), shortcut, FieldBatchNorm(type_), *last)
    images = torch.randn(5, type_.channels, 7, 7)
    for _ in range(3):
        model(images)
    torch.testing.assert_close(fold(model)(images), model.eval()(images), atol=1e-5, rtol=1e-5)


def test_a_layer_that_stands_in_two_places_is_folded_in_both() -> None:
    layer = nn.Module()
    layer.first = layer.second = PartialConv2d(
        *[FieldType(regular(plane_group("c4")), 1)] * 2, 3, make_density(plane_group("c4"), "learned", 0)
    )
    folded = fold(layer)
    assert type(folded.first) is nn.Conv2d
    assert folded.first is folded.second


@pytest.mark.parametrize("training", [True, False])
def test_folding_leaves_the_mode_and_the_gradients_of_the_model_alone(training: bool) -> None:
    model = _model("c4", "learned").requires_grad_(True).train(training)
    assert not fold(model).training
    assert all(module.training == training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())


# torch says this of the column-major ``analysis`` of Fourier nonlinearities, and then saves them right.
@pytest.mark.filterwarnings("ignore:No complete tensor found in the group:UserWarning")
def test_a_program_needs_nothing_but_torch(tmp_path: Path) -> None:
    """For every group and degree; in one process that cannot import parteq, since starting one takes seconds."""
    expected = {}
    for symmetry, degree in CASES:
        model, path = _model(symmetry, degree), tmp_path / f"{symmetry}-{degree}.pt2"
        program = plain_program(model, _images(1))
        called = [node for node in program.graph.nodes if node.op == "call_function"]
        assert called
        foreign = [node.target for node in called if getattr(node.target, "namespace", None) != "aten"]
        assert not foreign
        torch.export.save(program, path)
        # More images than the example had: the size of the batch is free.
        torch.save(_images(5), f"{path}.images")
        expected[path] = model(_images(5))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", _LOAD_WITHOUT_PARTEQ, *map(str, expected)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for path, logits in expected.items():
        loaded = torch.load(f"{path}.logits", weights_only=True)
        torch.testing.assert_close(loaded, logits, atol=1e-5, rtol=1e-5, msg=lambda text, path=path: f"{path}: {text}")


def test_a_program_takes_a_single_image() -> None:
    model = _model("d4", "learned")
    program = plain_program(model, _images(4)).module()
    torch.testing.assert_close(program(_images(1)), model(_images(1)), atol=1e-5, rtol=1e-5)
