"""The temperature against a search over a grid, and losses at it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parteq.core.calibration import RANGE, at_temperature, fit_temperature, losses_and_errors


def honest(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn with the probabilities they stand for."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2, size=(count, classes))
    chances = softmax(logits).cumsum(1)
    return logits, (rng.random((count, 1)) > chances).sum(1).clip(0, classes - 1)


def softmax(logits: np.ndarray) -> np.ndarray:
    return torch.tensor(logits).softmax(1).numpy()


@given(temperature=st.floats(0.1, 10), classes=st.integers(2, 5))
def test_a_temperature_divides_logits(temperature, classes):
    logits = honest(20, classes)[0]
    assert np.allclose(at_temperature(softmax(logits), temperature), softmax(logits / temperature), atol=1e-12)


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_of_labels_that_were_drawn_at_it(classes, temperature):
    logits, labels = honest(8000, classes)
    found = fit_temperature(softmax(logits * temperature), labels)
    assert found == pytest.approx(temperature, rel=0.06)


@settings(max_examples=25)
@given(seed=st.integers(0, 50), count=st.integers(1, 60), classes=st.integers(2, 4))
def test_the_temperature_is_the_best_of_all(seed, count, classes):
    logits, labels = honest(count, classes, seed)
    one_more = np.full(classes, 1 / classes)

    def loss(temperature: float) -> float:
        logs = np.log(at_temperature(softmax(3 * logits), temperature))
        mixed = (count * np.eye(classes)[labels] + one_more) / (count + 1)
        return -(mixed * logs).sum(1).mean()

    grid = np.exp(np.linspace(*np.log(RANGE), 100))
    assert loss(fit_temperature(softmax(3 * logits), labels)) <= min(map(loss, grid)) + 1e-6


def test_a_classifier_without_mistakes_is_not_made_certain():
    labels = np.arange(20) % 2
    sure = np.where(np.eye(2)[labels] == 1, 0.95, 0.05)
    found = at_temperature(sure, fit_temperature(sure, labels))
    assert found.max() == pytest.approx(20.5 / 21, abs=1e-4)


@pytest.mark.parametrize("probabilities", [np.eye(2)[[0, 1, 0]], np.full((3, 2), 0.5)])
def test_extreme_probabilities_have_a_temperature(probabilities):
    assert RANGE[0] <= fit_temperature(probabilities, np.array([0, 1, 1])) <= RANGE[1]
    assert np.isfinite(at_temperature(probabilities, 0.05)).all()


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_losses_tell_what_is_known_not_how_surely(scale):
    logits, labels = (torch.from_numpy(array) for array in honest(4000, 3))
    told = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    found, errors = losses_and_errors(scale * logits, labels)
    assert errors.tolist() == (logits.argmax(1) != labels).tolist()
    assert float(found.mean()) == pytest.approx(float(told.mean()), rel=0.01)
    assert np.corrcoef(found, told)[0, 1] > 0.99


def test_losses_of_what_is_wrong_are_higher():
    labels = torch.arange(30) % 3
    outputs = torch.nn.functional.one_hot(labels, 3).double()
    outputs[0] = outputs[1]
    losses, errors = losses_and_errors(9 * outputs, labels)
    assert losses.argmax() == 0
    assert errors.tolist() == [1] + 29 * [0]
