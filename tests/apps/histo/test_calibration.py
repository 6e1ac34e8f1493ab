"""The temperature against a search over a grid, the diagram against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from parteq.apps.histo.calibration import RANGE, at_temperature, fit_temperature, reliability
from parteq.apps.histo.metrics import ece


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
    assert ece(at_temperature(softmax(logits * temperature), found), labels, np.ones((1, 8000))) < 0.02


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


@pytest.mark.parametrize("classes", [2, 5])
def test_the_diagram_is_that_of_scikit_learn(classes):
    logits, labels = honest(500, classes)
    probabilities = softmax(2 * logits)
    rows = reliability(probabilities, labels, bins=10)
    right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=10)
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracy)
    assert [row["confidence"] for row in rows] == pytest.approx(confidence)
    assert sum(row["n"] for row in rows) == 500


def test_the_calibration_error_is_the_mean_gap_of_the_diagram():
    logits, labels = honest(400, 3)
    probabilities = softmax(2 * logits)
    gaps = [row["n"] / 400 * abs(row["accuracy"] - row["confidence"]) for row in reliability(probabilities, labels)]
    assert sum(gaps) == pytest.approx(ece(probabilities, labels, np.ones((1, 400)))[0])
