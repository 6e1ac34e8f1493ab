"""Metrics against scikit-learn and torchmetrics, and what the bootstrap promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk
from torchmetrics.functional.classification import multiclass_calibration_error

from parteq.apps.histo.metrics import (
    accuracy,
    auc,
    balanced_accuracy,
    classification_metrics,
    ece,
    nll,
    pr_auc,
    sensitivity_at_95_specificity,
)
from parteq.core.calibration import at_temperature

CURVES = (auc, pr_auc, sensitivity_at_95_specificity)
METRICS = (accuracy, balanced_accuracy, *CURVES, nll, ece)


def sample(classes: int, count: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, with ties, and labels they tell something about."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, count - classes)])
    logits = rng.normal(size=(count, classes)).round(1)
    logits[np.arange(count), labels] += 1
    odds = np.exp(logits)
    return odds / odds.sum(1, keepdims=True), labels


def sklearn_values(probabilities: np.ndarray, labels: np.ndarray, weight: np.ndarray | None = None) -> dict:
    scores = probabilities[:, 1] if probabilities.shape[1] == 2 else probabilities
    predicted = probabilities.argmax(1)
    classes = [1] if probabilities.shape[1] == 2 else range(probabilities.shape[1])
    precisions, sensitivities = [], []
    for c in classes:
        one = (labels == c, probabilities[:, c])
        precisions.append(sk.average_precision_score(*one, sample_weight=weight))
        mistaken, found, _ = sk.roc_curve(*one, sample_weight=weight, drop_intermediate=False)
        sensitivities.append(found[mistaken <= 0.05].max())
    return {
        "accuracy": sk.accuracy_score(labels, predicted, sample_weight=weight),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, predicted, sample_weight=weight),
        "auc": sk.roc_auc_score(labels, scores, multi_class="ovr", sample_weight=weight),
        "pr_auc": np.mean(precisions),
        "sensitivity_at_95_specificity": np.mean(sensitivities),
        "nll": sk.log_loss(labels, probabilities, sample_weight=weight),
    }


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_agree_with_scikit_learn_and_torchmetrics(classes):
    probabilities, labels = sample(classes)
    found = classification_metrics(probabilities, labels, draws=0)
    for name, value in sklearn_values(probabilities, labels).items():
        assert found[name] == pytest.approx(value, abs=1e-12), name
    oracle = multiclass_calibration_error(torch.tensor(probabilities), torch.tensor(labels), classes, n_bins=15)
    assert found["ece"] == pytest.approx(float(oracle), abs=1e-6)
    assert found["n"] == 300
    names = {"n", "temperature", "nll_calibrated", "ece_calibrated"} | {metric.__name__ for metric in METRICS}
    assert set(found) == names
    assert found["temperature"] is found["nll_calibrated"] is found["ece_calibrated"] is None


@pytest.mark.parametrize("classes", [2, 4])
def test_weights_agree_with_scikit_learn(classes):
    probabilities, labels = sample(classes)
    weights = np.random.default_rng(1).integers(0, 4, (3, len(labels))).astype(float)
    for metric in (accuracy, balanced_accuracy, *CURVES, nll):
        values = metric(probabilities, labels, weights)
        for value, weight in zip(values, weights, strict=True):
            assert value == pytest.approx(sklearn_values(probabilities, labels, weight)[metric.__name__], abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_a_weight_is_a_repetition(metric):
    probabilities, labels = sample(3, count=40)
    times = np.random.default_rng(2).integers(0, 3, 40)
    repeated = metric(probabilities.repeat(times, axis=0), labels.repeat(times), np.ones((1, times.sum())))
    assert metric(probabilities, labels, times[None].astype(float)) == pytest.approx(repeated, abs=1e-12)


def test_intervals_hold_the_value_and_follow_the_seed():
    probabilities, labels = sample(3)
    found = classification_metrics(probabilities, labels, seed=1)
    for name in ("accuracy", "balanced_accuracy", "auc", "pr_auc", "sensitivity_at_95_specificity", "nll"):
        assert found[f"{name}_low"] < found[name] < found[f"{name}_high"]
    assert found == classification_metrics(probabilities, labels, seed=1)
    assert found != classification_metrics(probabilities, labels, seed=2)


def test_intervals_of_independent_samples_are_those_of_theory():
    probabilities, labels = sample(2, count=2000)
    found = classification_metrics(probabilities, labels, draws=4000)
    spread = 1.96 * np.sqrt(found["accuracy"] * (1 - found["accuracy"]) / 2000)
    assert found["accuracy"] - found["accuracy_low"] == pytest.approx(spread, rel=0.1)
    assert found["accuracy_high"] - found["accuracy"] == pytest.approx(spread, rel=0.1)


def test_groups_of_equal_samples_count_as_one():
    # Ten copies of each sample tell no more than one of each.
    probabilities, labels = sample(2, count=100)
    one = classification_metrics(probabilities, labels)
    ten = classification_metrics(probabilities.repeat(10, axis=0), labels.repeat(10), np.arange(100).repeat(10))
    for name in ("accuracy_low", "accuracy_high", "auc_low", "auc_high", "nll_low", "nll_high"):
        assert ten[name] == pytest.approx(one[name], abs=1e-9)


def test_groups_may_be_text():
    probabilities, labels = sample(2, count=60)
    names = np.array([f"patient {number % 12:02}" for number in range(60)])
    numbers = np.arange(60) % 12
    assert classification_metrics(probabilities, labels, names) == classification_metrics(
        probabilities, labels, numbers
    )


def test_one_class_has_no_auc():
    probabilities, _ = sample(2, count=50)
    with pytest.warns(UserWarning, match="no auc, pr_auc, sensitivity_at_95_specificity: all 50 samples") as warned:
        found = classification_metrics(probabilities, np.ones(50, dtype=int))
    assert len(warned) == 1
    for metric in CURVES:
        assert [found[f"{metric.__name__}{end}"] for end in ("", "_low", "_high")] == [None] * 3
    assert found["accuracy"] == found["balanced_accuracy"] == pytest.approx((probabilities[:, 1] > 0.5).mean())


def test_one_group_has_no_intervals():
    probabilities, labels = sample(2, count=50)
    with pytest.warns(UserWarning, match="no intervals: all 50 samples are of one group"):
        found = classification_metrics(probabilities, labels, np.zeros(50))
    assert found["accuracy_low"] is found["nll_high"] is None
    assert found["auc"] is not None


def test_few_groups_are_told_and_have_no_interval_of_what_most_draws_lack():
    """Of three groups, one of which holds a class for itself, half of the draws or so have both classes."""
    probabilities, _ = sample(2, count=60)
    groups = np.arange(60) % 3
    with pytest.warns(UserWarning, match="the intervals are of 3 groups alone"):
        found = classification_metrics(probabilities, (groups == 0).astype(int), groups)
    assert found["auc"] is not None
    assert found["auc_low"] is found["auc_high"] is found["pr_auc_low"] is None
    assert found["accuracy_low"] < found["accuracy_high"]


def test_classes_that_do_not_occur_are_left_out():
    probabilities, labels = sample(4)
    kept = labels < 3
    found = classification_metrics(probabilities[kept], labels[kept], draws=0)
    areas = [sk.roc_auc_score(labels[kept] == number, probabilities[kept][:, number]) for number in range(3)]
    assert found["auc"] == pytest.approx(np.mean(areas), abs=1e-12)


@pytest.mark.parametrize(("negatives", "expected"), [(19, 0.0), (20, 0.5), (39, 0.5), (40, 1.0)])
def test_one_in_twenty_negatives_may_be_mistaken(negatives, expected):
    # From the top: two negatives that are mistaken before the first and the second positive.
    scores = np.concatenate([[0.9, 0.7], np.linspace(0.1, 0.5, negatives - 2), [0.8, 0.6]])
    probabilities = np.stack([1 - scores, scores], axis=1)
    labels = np.repeat([0, 1], [negatives, 2])
    assert sensitivity_at_95_specificity(probabilities, labels, np.ones((1, negatives + 2))) == expected


@given(seed=st.integers(0, 1000), classes=st.integers(2, 5))
def test_the_order_is_all_that_curves_know(seed, classes):
    probabilities, labels = sample(classes, 60, seed)
    weights = np.random.default_rng(seed).integers(1, 4, (2, 60)).astype(float)
    for metric in CURVES:
        values = metric(probabilities, labels, weights)
        assert np.all((values >= 0) & (values <= 1))
        assert metric(probabilities**3 / 2, labels, weights) == pytest.approx(values)


def test_scores_at_a_temperature():
    probabilities, labels = sample(3)
    found = classification_metrics(probabilities, labels, np.arange(300) // 3, temperature=2.5)
    assert found["temperature"] == 2.5
    tempered = at_temperature(probabilities, 2.5)
    expected = classification_metrics(tempered, labels, np.arange(300) // 3)
    for name in ("nll", "nll_low", "nll_high", "ece", "ece_low", "ece_high"):
        metric, _, end = name.partition("_")
        assert found[f"{metric}_calibrated{'_' * bool(end)}{end}"] == expected[name]
    plain = classification_metrics(probabilities, labels, np.arange(300) // 3)
    different = {name for name in found if found[name] != plain[name]}
    assert different == {"temperature", *(name for name in found if "calibrated" in name)}


def test_certain_and_wrong_is_finite():
    found = classification_metrics(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]), draws=0)
    assert 300 < found["nll"] < np.inf


@pytest.mark.parametrize("count", [0, 3])
def test_shapes_that_do_not_match(count):
    with pytest.raises(ValueError, match="predictions for"):
        classification_metrics(np.ones((count, 2)) / 2, np.zeros(2 if count else 0, dtype=int))
