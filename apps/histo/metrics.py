"""How good a classifier's probabilities are, with 95 % intervals that respect who the images came from.

Images of one patient, or one slide, are not independent: the bootstrap draws whole groups with replacement
(Field and Welsh, "Bootstrapping clustered data", JRSS B 2007). A draw is a weight a sample, how often its group was
drawn, so each metric is written once, for weighted samples, and evaluated for all draws together.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray

__all__ = ["accuracy", "auc", "balanced_accuracy", "classification_metrics", "ece", "nll"]

Weights = Float[np.ndarray, "draws samples"]
Probabilities = Float[np.ndarray, "samples classes"]
Labels = Int[np.ndarray, " samples"]
Draws = Float[np.ndarray, " draws"]
Metric = Callable[[Probabilities, Labels, Weights], Draws]


def classification_metrics(
    probabilities: Probabilities,
    labels: Labels,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    *,
    seed: int = 0,
    draws: int = 1000,
) -> dict[str, float | int | None]:
    """Accuracy, balanced accuracy, AUC, negative log-likelihood and calibration error, with intervals.

    Args:
        probabilities: of each class, rows that sum to one.
        labels: the true classes.
        groups: the group, such as the patient, of each sample; None if the samples are independent.
        seed: of the bootstrap.
        draws: of the bootstrap; 0 leaves the intervals out.

    Returns:
        ``n``, and ``accuracy``, ``balanced_accuracy``, ``auc``, ``nll`` (nats) and ``ece``, each also with ``_low``
        and ``_high``, the 2.5 and 97.5 percentiles over the draws. What does not exist is None, with a
        warning: the AUC where all samples are of one class, the intervals where all are of one group.

    Raises:
        ValueError: without samples, or for shapes that do not match.
    """
    if not 0 < len(labels) == len(probabilities):
        raise ValueError(f"{len(probabilities)} predictions for {len(labels)} labels")
    probabilities = probabilities.astype(np.float64)
    clusters = np.arange(len(labels)) if groups is None else np.unique(groups, return_inverse=True)[1]
    once = np.ones((1, len(labels)))
    values: dict[str, float | int | None] = {"n": len(labels)}
    for metric in (accuracy, balanced_accuracy, auc, nll, ece):
        name = metric.__name__
        value = float(metric(probabilities, labels, once)[0])
        exists = not np.isnan(value)
        values[name] = value if exists else None
        if not exists:
            warnings.warn(f"no {name}: all {len(labels)} samples are of one class", stacklevel=2)
        if draws > 0:
            known = exists and clusters.max() > 0
            interval = _interval(metric, probabilities, labels, clusters, seed, draws) if known else (None, None)
            values[f"{name}_low"], values[f"{name}_high"] = interval
    if draws > 0 and clusters.max() == 0:
        warnings.warn(f"no intervals: all {len(labels)} samples are of one group", stacklevel=2)
    return values


def _interval(
    metric: Metric, probabilities: Probabilities, labels: Labels, clusters: NDArray[np.intp], seed: int, draws: int
) -> tuple[float, float]:
    """The 95 % interval by percentiles; draws in which the metric does not exist are left out."""
    generator = np.random.default_rng(seed)
    count = int(clusters.max()) + 1
    at_once = max(1, 4_000_000 // len(labels))
    samples = []
    for start in range(0, draws, at_once):
        size = min(at_once, draws - start)
        weights = generator.multinomial(count, np.full(count, 1 / count), size).astype(np.float64)
        samples.append(metric(probabilities, labels, weights[:, clusters]))
    low, high = np.nanpercentile(np.concatenate(samples), [2.5, 97.5])
    return float(low), float(high)


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


def ece(probabilities: Probabilities, labels: Labels, weights: Weights, bins: int = 15) -> Draws:
    """The expected calibration error: the mean over bins of equal width of |accuracy - confidence|.

    Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599), equation 3.
    """
    confidence = probabilities.max(1)
    surplus = (probabilities.argmax(1) == labels) - confidence
    inside = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)[:, None] == np.arange(bins)
    return np.abs((weights * surplus) @ inside).sum(1) / weights.sum(1)


def auc(probabilities: Probabilities, labels: Labels, weights: Weights) -> Draws:
    """The area under the ROC curve of class 1, or for more classes the mean over classes, each against the rest.

    Classes that do not occur, or to which all samples belong, have no area and are left out of the mean.
    """
    classes = [1] if probabilities.shape[1] == 2 else np.unique(labels)
    return _mean_where_defined(np.stack([_area(probabilities[:, c], labels == c, weights) for c in classes]))


def _area(scores: Float[np.ndarray, " samples"], positive: NDArray[np.bool_], weights: Weights) -> Draws:
    """The probability that a positive scores above a negative, a tie counting half."""
    order = np.argsort(scores)
    starts = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))
    positives = np.add.reduceat((weights * positive)[:, order], starts, axis=1)
    negatives = np.add.reduceat((weights * ~positive)[:, order], starts, axis=1)
    won = (positives * (np.cumsum(negatives, axis=1) - negatives / 2)).sum(1)
    pairs = positives.sum(1) * negatives.sum(1)
    return np.divide(won, pairs, out=np.full(len(weights), np.nan), where=pairs > 0)


def _mean_where_defined(values: Float[np.ndarray, "parts draws"]) -> Draws:
    """The mean over the parts that are numbers; not a number where none is."""
    defined = ~np.isnan(values)
    count = defined.sum(0)
    total = np.where(defined, values, 0).sum(0)
    return np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
