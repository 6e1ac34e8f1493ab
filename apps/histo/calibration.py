"""Whether probabilities mean what they say: the reliability diagram. What mends it is in `parteq.core.calibration`."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from parteq.core.calibration import Labels, Probabilities

__all__ = ["BINS", "bin_of", "reliability"]

BINS = 15
"""Bins of equal width that confidences are sorted into."""


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
