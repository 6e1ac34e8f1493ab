"""Grad-CAM: turns with the image, and adds up to the logit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from parteq.apps.histo.augment import transform
from parteq.apps.histo.explain import explain
from parteq.apps.histo.models import Classifier, create_model


def image(height: int, width: int) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))


def classifier(name: str = "resnet", group: str = "d4") -> Classifier:
    """All of whose features speak for every class: they are not negative, nor are the weights."""
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, group=group, degree="full", width=0.5).eval()
    return model.requires_grad_(False).apply(_positive)


def _positive(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        module.weight.abs_()


@pytest.mark.parametrize("name", ["resnet", "mobilenetv2", "densenet"])
@pytest.mark.parametrize(("height", "width"), [(24, 24), (33, 26)])
def test_the_map_turns_with_the_image(name: str, height: int, width: int) -> None:
    model = classifier(name)
    straight = explain(model, image(height, width), 1)
    assert straight.cam.shape == (height, width)
    assert straight.cam.max() > 0
    for element in range(8):
        turned = explain(model, transform(image(height, width), element), 1)
        assert torch.allclose(
            turned.cam, transform(straight.cam, element), atol=1e-5 * float(straight.cam.max()) + 1e-6
        )
        assert torch.allclose(turned.probabilities, straight.probabilities, atol=1e-5)


def test_evidence_adds_up_to_the_logit() -> None:
    model = classifier(group="none")
    logits = model(image(24, 24)[None])[0]
    for number in range(3):
        explanation = explain(model, image(24, 24), number)
        assert explanation.number == number
        added = logits[number] - model.classifier.bias[number]
        assert float(explanation.cam.mean()) == pytest.approx(float(added), abs=1e-4)
    explanation = explain(model, image(24, 24))
    assert explanation.number == int(logits.argmax())
    assert torch.allclose(explanation.probabilities, logits.softmax(0), atol=1e-6)
    cooler = explain(model, image(24, 24), temperature=0.5)
    assert torch.allclose(cooler.probabilities, (2 * logits).softmax(0), atol=1e-6)
    assert torch.equal(cooler.cam, explanation.cam)


def test_evidence_against_a_class_is_not_shown() -> None:
    model = classifier()
    model.classifier.weight.neg_()
    assert not explain(model, image(24, 24), 0).cam.any()


def test_evidence_is_where_the_object_is() -> None:
    model = classifier()
    field = torch.full((3, 48, 48), 0.5)
    # Without the object, so that only what it adds remains.
    empty = explain(model, field, 1).cam
    field[:, 8:16, 30:38] = image(8, 8)
    added = (explain(model, field, 1).cam - empty).abs()
    row, column = divmod(int(added.argmax()), 48)
    assert abs(row - 11.5) < 8
    assert abs(column - 33.5) < 8


def test_too_small_an_image() -> None:
    with pytest.raises(ValueError, match="leaves 2 × 1 features: too small for a map"):
        explain(classifier(), image(5, 9))
