"""The reliability diagram against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from parteq.apps.histo.calibration import reliability
from parteq.apps.histo.metrics import ece
from parteq.core.calibration import at_temperature, fit_temperature


def too_sure(count: int, classes: int, times: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a classifier whose logits are so many times as large as they ought to be, and labels."""
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.ones(classes), count)
    labels = (rng.random((count, 1)) > chances.cumsum(1)).sum(1).clip(0, classes - 1)
    return at_temperature(chances, 1 / times), labels


@pytest.mark.parametrize("classes", [2, 5])
def test_the_diagram_is_that_of_scikit_learn(classes):
    probabilities, labels = too_sure(500, classes)
    rows = reliability(probabilities, labels, bins=10)
    right = probabilities.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, probabilities.max(1), n_bins=10)
    assert [row["accuracy"] for row in rows] == pytest.approx(accuracy)
    assert [row["confidence"] for row in rows] == pytest.approx(confidence)
    assert sum(row["n"] for row in rows) == 500


def test_the_calibration_error_is_the_mean_gap_of_the_diagram():
    probabilities, labels = too_sure(400, 3)
    gaps = [row["n"] / 400 * abs(row["accuracy"] - row["confidence"]) for row in reliability(probabilities, labels)]
    assert sum(gaps) == pytest.approx(ece(probabilities, labels, np.ones((1, 400)))[0])


@pytest.mark.parametrize("classes", [2, 6])
@pytest.mark.parametrize("times", [0.4, 1.0, 3.0])
def test_at_the_temperature_the_calibration_error_is_small(classes, times):
    probabilities, labels = too_sure(8000, classes, times)
    calibrated = at_temperature(probabilities, fit_temperature(probabilities, labels))
    assert ece(calibrated, labels, np.ones((1, 8000))) < 0.02
    assert (ece(probabilities, labels, np.ones((1, 8000))) < 0.02) == (times == 1)
