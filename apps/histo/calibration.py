"""Whether probabilities mean what they say, and the one number that mends most of it: the temperature.

A classifier is calibrated if, of the images it gives a class the probability p, the share p is of that class. Networks
are mostly too sure. Dividing their logits by a temperature T, which changes no decision, is the remedy of Guo et al.,
"On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar

__all__ = ["BINS", "at_temperature", "bin_of", "fit_temperature", "reliability"]

BINS = 15
"""Bins of equal width that confidences are sorted into."""
RANGE = (0.05, 20.0)
"""Of temperatures."""

_TINY = np.finfo(np.float64).tiny

Probabilities = Float[np.ndarray, "samples classes"]
Labels = Int[np.ndarray, " samples"]


def at_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities that logits divided by a temperature give: in proportion to p^(1/T)."""
    logits = np.log(np.maximum(probabilities, _TINY)) / temperature
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature at which the labels of held-out images are most likely.

    One more sample is supposed, of which nothing is known: labels are mixed with the uniform distribution, 1 : n. Else
    a classifier that makes no mistake on a few images would be made certain of everything (compare the targets of
    Platt, "Probabilistic outputs for support vector machines", 1999).

    Args:
        probabilities: of images that were not trained on.
        labels: their classes.

    Returns:
        A number in ``RANGE``.
    """
    count, classes = probabilities.shape
    targets = (count * np.eye(classes)[labels] + 1 / classes) / (count + 1)

    def loss(log_temperature: float) -> float:
        found = at_temperature(probabilities, math.exp(log_temperature))
        return -float((targets * np.log(np.maximum(found, _TINY))).sum(1).mean())

    # There is one minimum, since the loss is convex in 1/T.
    return math.exp(minimize_scalar(loss, bounds=[math.log(end) for end in RANGE], method="bounded").x)


def bin_of(confidence: Float[np.ndarray, " samples"], bins: int) -> Int[np.ndarray, " samples"]:
    """The number of the bin of each confidence, of bins of equal width that hold their upper ends."""
    return np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)


def reliability(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> list[dict[str, float | int]]:
    """The reliability diagram: the mean ``confidence``, the ``accuracy`` and the number ``n`` of images of each bin.

    The confidence of an image is the probability of its most probable class. Bins without images are left out.
    """
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    numbers = bin_of(confidence, bins)
    rows: list[dict[str, float | int]] = []
    for number in np.unique(numbers):
        inside = numbers == number
        means = {"confidence": float(confidence[inside].mean()), "accuracy": float(right[inside].mean())}
        rows.append(means | {"n": int(inside.sum())})
    return rows
