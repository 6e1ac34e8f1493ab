"""How good a classifier's probabilities are, with 95 % intervals that respect who the images came from.

Images of one patient, or one slide, are not independent: the bootstrap draws whole groups with replacement
(Field and Welsh, "Bootstrapping clustered data", JRSS B 2007). A draw is a weight a sample, how often its group was
drawn, so each metric is written once, for weighted samples, and evaluated for all draws together.

The areas and the sensitivity are, of two classes, those of class 1, of more the mean over the classes, each against the
rest; classes that do not occur, or to which all samples belong, have none and are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray

from parteq.apps.histo.calibration import BINS, bin_of
from parteq.core.calibration import at_temperature

__all__ = [
    "accuracy",
    "auc",
    "balanced_accuracy",
    "classification_metrics",
    "ece",
    "nll",
    "pr_auc",
    "sensitivity_at_95_specificity",
]

Weights = Float[np.ndarray, "draws samples"]
Probabilities = Float[np.ndarray, "samples classes"]
Labels = Int[np.ndarray, " samples"]
Draws = Float[np.ndarray, " draws"]
Counts = Float[np.ndarray, "draws scores"]
Metric = Callable[[Probabilities, Labels, Weights], Draws]
Score = Callable[[Weights], Draws]

_FEW_GROUPS = 10  # by which intervals come out too narrow
_DEFINED = 0.9  # of the draws, in which a score must exist to have an interval


def classification_metrics(
    probabilities: Probabilities,
    labels: Labels,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    *,
    temperature: float | None = None,
    seed: int = 0,
    draws: int = 1000,
) -> dict[str, float | int | None]:
    """What is asked of a classifier: right classes, right order, right probabilities; with intervals.

    Args:
        probabilities: of each class, rows that sum to one.
        labels: the true classes.
        groups: the group, such as the patient, of each sample; None if the samples are independent.
        temperature: fitted on other samples, see `parteq.core.calibration`; None if there is none.
        seed: of the bootstrap.
        draws: of the bootstrap; 0 leaves the intervals out.

    Returns:
        ``n``, ``temperature``, and ``accuracy``, ``balanced_accuracy``, ``auc``, ``pr_auc``,
        ``sensitivity_at_95_specificity``, ``nll`` (nats), ``ece``, and, at the temperature, ``nll_calibrated`` and
        ``ece_calibrated``, each also with ``_low`` and ``_high``, the 2.5 and 97.5 percentiles over the draws. What
        does not exist is None: with a warning the areas and the sensitivity where all samples are of one class, and
        the intervals where all are of one group; intervals of what more than a tenth of the draws lack; without a
        temperature what it would calibrate.

    Raises:
        ValueError: without samples, or for shapes that do not match.
    """
    if not 0 < len(labels) == len(probabilities):
        raise ValueError(f"{len(probabilities)} predictions for {len(labels)} labels")
    probabilities = probabilities.astype(np.float64)
    scores: dict[str, Score] = {
        metric.__name__: partial(metric, probabilities, labels)
        for metric in (accuracy, balanced_accuracy, auc, pr_auc, sensitivity_at_95_specificity, nll, ece)
    }
    if temperature is not None:
        tempered = at_temperature(probabilities, temperature)
        scores |= {f"{metric.__name__}_calibrated": partial(metric, tempered, labels) for metric in (nll, ece)}
    found = {name: float(score(np.ones((1, len(labels))))[0]) for name, score in scores.items()}
    missing = [name for name, value in found.items() if np.isnan(value)]
    if missing:
        warnings.warn(f"no {', '.join(missing)}: all {len(labels)} samples are of one class", stacklevel=2)
    existing = {name: score for name, score in scores.items() if name not in missing}

    clusters = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    intervals: dict[str, tuple[float, float]] = {}
    if draws > 0 and clusters.max() == 0:
        warnings.warn(f"no intervals: all {len(labels)} samples are of one group", stacklevel=2)
    elif draws > 0:
        if (count := int(clusters.max()) + 1) < _FEW_GROUPS:
            drawn = "samples" if groups is None else "groups"
            warnings.warn(f"the intervals are of {count} {drawn} alone, and likely too narrow", stacklevel=2)
        ends = _intervals(existing, clusters, seed, draws)
        # A calibration error is larger in draws than in the sample they are drawn from.
        intervals = {name: (min(low, found[name]), max(high, found[name])) for name, (low, high) in ends.items()}
    values: dict[str, float | int | None] = {"n": len(labels), "temperature": temperature}
    for name in (*scores, *(() if temperature is not None else ("nll_calibrated", "ece_calibrated"))):
        values[name] = found[name] if name in existing else None
        if draws > 0:
            values[f"{name}_low"], values[f"{name}_high"] = intervals.get(name, (None, None))
    return values


def _intervals(
    scores: dict[str, Score], clusters: NDArray[np.intp], seed: int, draws: int
) -> dict[str, tuple[float, float]]:
    """The 95 % intervals by percentiles, of those scores that exist in nearly all draws."""
    generator = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    at_once = max(1, 4_000_000 // len(clusters))
    samples: dict[str, list[Draws]] = {name: [] for name in scores}
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        weights = generator.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)[:, clusters]
        for name, score in scores.items():
            samples[name].append(score(weights))
    found = {name: np.concatenate(parts) for name, parts in samples.items()}
    # What is left of few groups, where most draws lack a class, is nearly the same in all.
    usual = {name: values for name, values in found.items() if np.isfinite(values).mean() >= _DEFINED}
    ends = {name: np.nanpercentile(values, [2.5, 97.5]) for name, values in usual.items()}
    return {name: (float(low), float(high)) for name, (low, high) in ends.items()}


def _mean(values: Float[np.ndarray, " samples"], weights: Weights) -> Draws:
    """The weighted mean of each draw; not a number where the weights are all zero."""
    total = weights.sum(1)
    return np.divide(weights @ values, total, out=np.full(len(weights), np.nan), where=total > 0)


def accuracy(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The share of samples whose most probable class is the true one."""
    return _mean((probabilities.argmax(1) == labels).astype(np.float64), weights)


def balanced_accuracy(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The mean over the classes that occur of the accuracy within the class."""
    correct = (probabilities.argmax(1) == labels).astype(np.float64)
    within = [_mean(correct[labels == label], weights[:, labels == label]) for label in np.unique(labels)]
    return _mean_where_defined(np.stack(within))


def nll(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The mean negative log-likelihood of the true class, in nats."""
    likelihood = np.take_along_axis(probabilities, labels[:, None], axis=1)[:, 0]
    return _mean(-np.log(np.maximum(likelihood, np.finfo(np.float64).tiny)), weights)


def ece(probabilities: Probabilities, labels: Labels, weights: Weights, bins: int = BINS) -> Draws:
    """The expected calibration error: the mean over bins of equal width of |accuracy - confidence|.

    Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599), equation 3.
    """
    confidence = probabilities.max(1)
    surplus = (probabilities.argmax(1) == labels) - confidence
    inside = bin_of(confidence, bins)[:, None] == np.arange(bins)
    return np.abs((weights * surplus) @ inside).sum(1) / weights.sum(1)


def auc(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The area under the ROC curve: the probability that a positive scores above a negative, a tie counting half."""
    return _over_classes(_area, probabilities, labels, weights)


def pr_auc(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The area under the precision-recall curve, as steps: the average precision, which is not interpolated."""
    return _over_classes(_average_precision, probabilities, labels, weights)


def sensitivity_at_95_specificity(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The largest share of the positives above a threshold below which there are at least 95 % of the negatives."""
    return _over_classes(_sensitivity, probabilities, labels, weights)


def _over_classes(
    measure: Callable[[Counts, Counts], Draws], probabilities: Probabilities, labels: Labels, weights: Weights
) -> Draws:
    """The measure of class 1, or of more than two classes the mean.

    The measure takes how many positives and how many negatives there are at each score that occurs, highest first.
    """
    found = []
    for label in [1] if probabilities.shape[1] == 2 else np.unique(labels):
        order = np.argsort(-probabilities[:, label])
        starts = np.flatnonzero(np.diff(-probabilities[order, label], prepend=-np.inf))
        ordered, positive = weights.take(order, axis=1), labels[order] == label
        positives = np.add.reduceat(ordered * positive, starts, axis=1)
        negatives = np.add.reduceat(ordered * ~positive, starts, axis=1)
        both = (positives.sum(1) > 0) & (negatives.sum(1) > 0)
        found.append(np.full(len(weights), np.nan))
        found[-1][both] = measure(positives[both], negatives[both])
    return _mean_where_defined(np.stack(found))


def _area(positives: Counts, negatives: Counts) -> Draws:
    won = (negatives * (np.cumsum(positives, axis=1) - positives / 2)).sum(1)
    return won / (positives.sum(1) * negatives.sum(1))


def _average_precision(positives: Counts, negatives: Counts) -> Draws:
    above = np.cumsum(positives, axis=1)
    everything = above + np.cumsum(negatives, axis=1)
    precision = np.divide(above, everything, out=np.zeros_like(above), where=everything > 0)
    return (positives * precision).sum(1) / positives.sum(1)


def _sensitivity(positives: Counts, negatives: Counts) -> Draws:
    mistaken = np.cumsum(negatives, axis=1) / negatives.sum(1, keepdims=True)
    return np.where(mistaken <= 0.05, np.cumsum(positives, axis=1), 0).max(1) / positives.sum(1)


def _mean_where_defined(values: Float[np.ndarray, "parts draws"]) -> Draws:
    """The mean over the parts that are numbers; not a number where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(0)
    total = np.where(defined, values, 0).sum(0)
    return np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
