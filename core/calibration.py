"""The temperature of a classifier: the one number that makes most networks as sure as they may be.

A classifier is calibrated if, of the samples it gives a class the probability p, the share p is of that class. Networks
are mostly too sure. Dividing their logits by a temperature T, which changes no decision, is the remedy of Guo et al.,
"On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor
from torch.nn.functional import cross_entropy

__all__ = ["RANGE", "Labels", "Probabilities", "at_temperature", "fit_temperature", "losses_and_errors"]

RANGE = (0.05, 20.0)
"""Of temperatures."""

_TINY = np.finfo(np.float64).tiny

Probabilities = Float[np.ndarray[Any, Any], "samples classes"]
Labels = Int[np.ndarray[Any, Any], " samples"]


def at_temperature(probabilities: Probabilities, temperature: float) -> Probabilities:
    """The probabilities that logits divided by a temperature give: in proportion to p^(1/T)."""
    logits = np.log(np.maximum(probabilities, _TINY)) / temperature
    odds = np.exp(logits - logits.max(1, keepdims=True))
    shares: Probabilities = odds / odds.sum(1, keepdims=True)
    return shares


def fit_temperature(probabilities: Probabilities, labels: Labels) -> float:
    """The temperature at which the labels of held-out samples are most likely.

    One more sample is supposed, of which nothing is known: labels are mixed with the uniform distribution, 1 : n. Else
    a classifier that makes no mistake on a few samples would be made certain of everything (compare the targets of
    Platt, "Probabilistic outputs for support vector machines", 1999).

    Args:
        probabilities: of samples that were not trained on.
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


def losses_and_errors(
    outputs: Float[Tensor, "samples classes"], labels: Int[Tensor, " samples"]
) -> Float[Tensor, "2 samples"]:
    """Of each sample the cross-entropy, in nats, at the temperature that `fit_temperature` finds, and 1 if misjudged.

    So two networks are compared by what they know, not by how sure they are of it.

    Args:
        outputs: logits for samples that were not trained on.
        labels: their classes.
    """
    logits = outputs.double().cpu()
    wanted = labels.cpu()
    temperature = fit_temperature(logits.softmax(-1).numpy(), wanted.numpy())
    losses = cross_entropy(logits / temperature, wanted, reduction="none")
    return torch.stack([losses, (logits.argmax(-1) != wanted).double()])
