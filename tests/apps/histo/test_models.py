from __future__ import annotations

import itertools
import json
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from parteq.apps.histo.models import MODELS, Classifier, create_model
from parteq.core.density import LearnedDensity
from parteq.core.export import fold, plain_program
from parteq.core.measure import measure_degree, partial_layers
from parteq.core.norm import FieldBatchNorm

GROUPS = ("c4", "c8", "d4", "so2", "o2", "none")


@pytest.fixture(autouse=True, scope="module")
def _fresh_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep bases that other versions of the code stored out of the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PARTEQ_CACHE", str(tmp_path_factory.mktemp("bases")))
        yield


def _model(name: str, group: str, degree: str = "full", *, spatial_dims: int = 2, **options: float) -> Classifier:
    """Return a small model in evaluation, its densities and norms moved as training might."""
    torch.manual_seed(0)
    options = {"num_classes": 3, "width": 0.4, **options}
    model = create_model(name, group=group, degree=degree, spatial_dims=spatial_dims, **options)  # type: ignore[arg-type]
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, LearnedDensity):
                for parameter in module.parameters():
                    parameter.normal_(std=0.5)
            if isinstance(module, FieldBatchNorm):
                module.bias.normal_(std=0.3)
                module.running_variance.uniform_(0.5, 2.0)
    model.set_normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])
    return model.eval().requires_grad_(False)


def _images(*grid: int) -> Tensor:
    return torch.rand(2, 3, *grid, generator=torch.Generator().manual_seed(1))


def _parameters(name: str, group: str, width: float = 1.0) -> int:
    model = create_model(name, num_classes=2, group=group, degree="full", width=width)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("width", [1.0, 2.0])
def test_an_equivariant_model_is_about_as_large_as_a_plain_one(name: str, width: float) -> None:
    assert _parameters(name, "d4", width) == pytest.approx(_parameters(name, "none", width), rel=0.4)


@pytest.mark.parametrize("edge", [15, 16])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", MODELS)
def test_logits_are_invariant_under_turns_and_mirrors(name: str, group: str, edge: int) -> None:
    """Where the degree is full, and only under what is in the group."""
    model, images = _model(name, group).double(), _images(edge, edge).double()
    logits = model(images)
    assert logits.std(0).max() > 1e-5  # tells images apart, far beyond the tolerance below
    for quarters in (1, 2, 3):
        turned = model(images.rot90(quarters, (-2, -1)))
        assert torch.allclose(turned, logits, atol=1e-9, rtol=0) == (group != "none")
    for axis in (-2, -1):
        assert torch.allclose(model(images.flip(axis)), logits, atol=1e-9, rtol=0) == (group in ("d4", "o2"))


@pytest.mark.parametrize("name", MODELS)
def test_features_turn_with_oblong_images(name: str) -> None:
    model, images = _model(name, "d4").double(), _images(13, 18).double()
    features = model.forward_features(images)
    assert features.shape[:2] == (2, model.num_features)
    for turned in (images.rot90(1, (-2, -1)), images.flip(-1)):
        torch.testing.assert_close(model(turned), model(images))
    torch.testing.assert_close(model.forward_features(images.rot90(1, (-2, -1))), features.rot90(1, (-2, -1)))
    torch.testing.assert_close(model.forward_features(images.flip(-1)), features.flip(-1))
    torch.testing.assert_close(model.classifier(features.mean((2, 3))), model(images))


@pytest.mark.parametrize("degree", ["learned", "none"])
@pytest.mark.parametrize("name", MODELS)
def test_other_degrees_may_break_the_symmetry(name: str, degree: str) -> None:
    model, images = _model(name, "d4", degree), _images(16, 16)
    assert not torch.allclose(model(images.rot90(1, (-2, -1))), model(images), atol=1e-3)


@pytest.mark.parametrize("name", MODELS)
def test_a_learned_degree_starts_with_the_full_symmetry(name: str) -> None:
    model = create_model(name, num_classes=3, group="d4", degree="learned", width=0.4).eval().double()
    images = _images(15, 15).double()
    with torch.no_grad():
        torch.testing.assert_close(model(images.rot90(1, (-2, -1))), model(images))


@pytest.mark.parametrize("group", ["c4", "d4", "so2"])
@pytest.mark.parametrize("name", MODELS)
def test_learning_starts_from_the_fully_equivariant_network_of_the_same_seed(name: str, group: str) -> None:
    images = torch.rand(2, 3, 12, 12)
    outputs = []
    for degree in ("full", "learned"):
        torch.manual_seed(0)
        outputs.append(create_model(name, num_classes=4, group=group, degree=degree).eval()(images))
    torch.testing.assert_close(outputs[1], outputs[0], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_each_convolution_has_a_density_of_its_own_that_learns(name: str) -> None:
    model = create_model(name, num_classes=3, group="c4", degree="learned", width=0.3)
    densities = [layer.density for layer in partial_layers(model).values()]
    assert len(set(densities)) == len(densities) > 3
    assert len(measure_degree(model)) == len(densities)
    model(_images(16, 16)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert all(float(density.logits.grad.abs().max()) > 0 for density in densities)  # type: ignore[union-attr, operator]


@pytest.mark.parametrize("degree", ["full", "learned", "none"])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_rebuilt_from_its_config_and_state(name: str, group: str, degree: str) -> None:
    model = _model(name, group, degree, width=0.3)
    rebuilt = create_model(**json.loads(json.dumps(model.config)))
    assert rebuilt.config == model.config
    assert set(rebuilt.train().state_dict()) == set(model.eval().state_dict())
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    images = _images(12, 12)
    torch.testing.assert_close(rebuilt.eval()(images), model(images), atol=0, rtol=0)


@pytest.mark.parametrize("degree", ["full", "learned"])
@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("name", MODELS)
def test_a_folded_model_computes_the_same(name: str, group: str, degree: str) -> None:
    model = _model(name, group, degree)
    folded = fold(model)
    for edge in (12, 13):
        torch.testing.assert_close(folded(_images(edge, edge)), model(_images(edge, edge)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_folded_model_of_regular_fields_is_made_of_ordinary_operations(name: str) -> None:
    program = plain_program(_model(name, "d4", "learned"), _images(12, 12))
    called = {str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"}
    joined = {"add", "cat", "mean", "flatten"}
    constants = {"lift_fresh_copy", "detach_", "unsqueeze", "expand", "mul"}  # the filters of the pools
    normalization = {"sub", "div", "view"}
    assert called - joined - constants - normalization <= {"conv2d", "relu", "hardtanh", "linear", "batch_norm"}
    assert ("batch_norm" in called) == (name == "densenet")


def test_a_seed_makes_the_same_model_whatever_was_made_before() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        states.append(create_model("mobilenetv2", num_classes=2, group="c3", width=0.3).state_dict())
    torch.testing.assert_close(states[0], states[1], atol=0, rtol=0)


@pytest.mark.parametrize("widths", [[0.4, 0.6, 0.5], (0.4, 0.6, 0.5)])
@pytest.mark.parametrize("name", MODELS)
def test_stages_may_have_widths_of_their_own(name: str, widths: Sequence[float]) -> None:
    model = create_model(name, num_classes=2, group="none", width=widths)
    assert model.config["width"] == [0.4, 0.6, 0.5]
    assert create_model(**model.config).load_state_dict(model.state_dict(), strict=True)


def test_normalization_is_part_of_the_state() -> None:
    state = _model("resnet", "c4").state_dict()
    torch.testing.assert_close(state["normalize.mean"], torch.tensor([0.4, 0.5, 0.6]))
    torch.testing.assert_close(state["normalize.std"], torch.tensor([0.2, 0.3, 0.1]))


@pytest.mark.parametrize("group", ["d4", "so2"])
@pytest.mark.parametrize("name", MODELS)
def test_a_pickled_model_computes_the_same(name: str, group: str) -> None:
    model = _model(name, group, "learned")
    twin = pickle.loads(pickle.dumps(model))
    assert isinstance(twin, nn.Module)
    torch.testing.assert_close(twin(_images(12, 12)), model(_images(12, 12)), atol=0, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "transformer"}, "unknown model 'transformer'"),
        ({"group": "e8"}, "unknown group"),
        ({"group": "octahedral"}, "unknown group"),
        ({"group": "e8", "spatial_dims": 3}, "unknown group"),
        ({"degree": "most"}, "unknown degree 'most'"),
        ({"width": [1.0, 2.0]}, "2 widths for 3 stages"),
        ({"spatial_dims": 1}, "images have 2 or 3 dimensions"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        create_model(num_classes=2, **options)


@pytest.mark.parametrize("name", MODELS)
def test_features_are_what_the_classifier_reads(name: str) -> None:
    model, bare = _model(name, "d4", "learned"), _model(name, "d4", "learned", features_only=True)
    bare.load_state_dict(model.state_dict(), strict=True)
    images = _images(14, 14)
    maps = bare(images)
    assert maps[-1].shape[1] == bare.num_features >= 32
    assert [features.shape[2:] for features in maps] == sorted((f.shape[2:] for f in maps), reverse=True)
    assert len(maps) >= 3
    pooled = maps[-1].flatten(2).mean(2)
    torch.testing.assert_close(model.classifier(pooled), model(images), atol=0, rtol=0)
    model.reset_classifier(0)
    torch.testing.assert_close(model(images), pooled, atol=0, rtol=0)


def test_channels_and_classes_are_as_asked() -> None:
    model = create_model(num_classes=7, in_chans=1, group="c4", width=0.3).eval()
    assert model(torch.rand(2, 1, 10, 9)).shape == (2, 7)


def test_a_new_classifier_has_the_classes_asked_for_on_the_old_features() -> None:
    model = _model("mobilenetv2", "c4").double()
    before, config = model.forward_features(_images(12, 12).double()), model.config
    model.reset_classifier(5)
    assert model(_images(12, 12).double()).shape == (2, 5)
    torch.testing.assert_close(model.forward_features(_images(12, 12).double()), before, atol=0, rtol=0)
    assert model.config == config | {"num_classes": 5}
    assert config["num_classes"] == 3
    create_model(**model.config).load_state_dict(model.state_dict(), strict=True)


@pytest.mark.parametrize("edge", [8, 9])
@pytest.mark.parametrize("group", ["c4", "d4", "octahedral"])
@pytest.mark.parametrize("name", MODELS)
def test_volumes(name: str, group: str, edge: int) -> None:
    """C4 turns about z; D4 also turns over, about x; the octahedral group turns every way."""
    model = _model(name, group, spatial_dims=3, width=0.3).double()
    images = _images(edge, edge, edge).double()
    logits = model(images)
    assert logits.shape == (2, 3)
    torch.testing.assert_close(model(images.rot90(1, (-2, -1))), logits)
    if group != "c4":
        torch.testing.assert_close(model(images.flip(-3, -2)), logits)
    if group == "octahedral":
        for plane in itertools.combinations((-3, -2, -1), 2):
            torch.testing.assert_close(model(images.rot90(1, plane)), logits)
    # No mirrors are in these groups.
    assert not torch.allclose(model(images.flip(-1)), logits, atol=1e-8, rtol=0)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_volumes_is_rebuilt_from_its_config_and_state(name: str) -> None:
    model = _model(name, "c4", "learned", spatial_dims=3, width=0.3)
    rebuilt = create_model(**model.config).eval()
    rebuilt.load_state_dict(model.state_dict(), strict=True)
    images = _images(7, 8, 8)
    torch.testing.assert_close(rebuilt(images), model(images), atol=0, rtol=0)
    torch.testing.assert_close(fold(model)(images), model(images), atol=1e-5, rtol=1e-5)
