"""The linear probe: a linear classifier on features that stay as they are, fitted to convergence.

Multinomial logistic regression with an L2 penalty on standardised features; how strong the penalty is, held-out images
of the training set decide. What is found is folded into the model's own classifier.
"""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.linear_model import LogisticRegression
from torch import nn

from parteq.apps.histo.task import outputs
from parteq.datasets.errors import DataError
from parteq.datasets.images import ImageDataset
from parteq.datasets.splits import grouped_split

__all__ = ["fit_probe"]

log = logging.getLogger(__name__)

STRENGTHS = tuple(float(strength) for strength in np.logspace(-4, 3, 15))
"""What is tried as C, the inverse of the penalty."""
SPLITS = 5
HELD_OUT = 0.2

Features = Float[np.ndarray, "images features"]
Labels = Int[np.ndarray, " images"]


def fit_probe(model: Any, training: ImageDataset, device: torch.device, seed: int) -> dict[str, float]:
    """Fits the classifier of a model to its features of some images; nothing else of the model changes.

    Args:
        model: with ``classifier``, an `nn.Linear`.
        training: labelled images, numbered as the model numbers classes. A class without images gets a probability
            near zero.
        device: where features are computed.
        seed: of the splits by which the strength of the penalty is chosen.

    Returns:
        ``loss``, the mean cross-entropy of the training images in nats, and ``strength``, the C chosen.

    Raises:
        DataError: if all images are of one class.
    """
    labels = training.labels
    classes = np.unique(labels)
    if len(classes) < 2:
        raise DataError(training.source, "has images of one class only: there is nothing to tell apart")
    backbone = copy.deepcopy(model)
    backbone.classifier = nn.Identity()
    features = outputs(backbone, training, device)[0].numpy()
    mean, deviation = features.mean(0), features.std(0)
    # A feature that is the same for all images says nothing, and gets no weight.
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)
    features = (features - mean) * scale
    strength = _strength(features, labels, training.groups, seed)
    fitted = _fit(features, labels, strength)
    weight, bias = fitted.coef_, fitted.intercept_
    if len(classes) == 2:  # scikit-learn gives the difference of the two
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    weight = weight * scale
    bias = bias - weight @ mean
    linear = model.classifier
    with torch.no_grad():
        linear.weight.zero_()
        linear.bias.fill_(bias.min() - np.log(len(labels)))
        linear.weight[classes] = torch.from_numpy(weight).to(linear.weight)
        linear.bias[classes] = torch.from_numpy(bias).to(linear.bias)
    return {"loss": -_log_likelihood(fitted, features, labels), "strength": strength}


def _strength(features: Features, labels: Labels, groups: Shaped[np.ndarray, " images"] | None, seed: int) -> float:
    """The strength under which held-out images, whole groups of them, are likeliest."""
    try:
        splits = [grouped_split(labels, groups, HELD_OUT, seed + number) for number in range(SPLITS)]
    except ValueError as error:
        log.warning("the strength of the penalty is not chosen but 1: %s", error)
        return 1.0
    scores = []
    for strength in STRENGTHS:
        fits = [_fit(features[train], labels[train], strength) for train, _ in splits]
        likelihoods = [
            _log_likelihood(fitted, features[held_out], labels[held_out])
            for fitted, (_, held_out) in zip(fits, splits, strict=True)
        ]
        scores.append(np.mean(likelihoods))
    return STRENGTHS[int(np.argmax(scores))]


def _fit(features: Features, labels: Labels, strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=10_000).fit(features, labels)


def _log_likelihood(fitted: LogisticRegression, features: Features, labels: Labels) -> float:
    """The mean of the logarithm of the probability given to the true class. No class may be new."""
    rows = fitted.predict_log_proba(features)
    return float(rows[np.arange(len(labels)), np.searchsorted(fitted.classes_, labels)].mean())
