"""Fine-tuning: what of a trained classifier goes on learning, and how fast.

What is not to learn requires no gradient, and layers learn at rates of their own; `parteq.core.training.fit` heeds
both. Densities that were fixed can be set free without changing what the classifier computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import nn

from parteq.apps.histo.models import Classifier, create_model
from parteq.core.chain import learning_densities
from parteq.core.measure import partial_layers

__all__ = ["freeze_backbone", "freeze_degree", "layer_rates", "released", "reorder_classes"]


def released(model: Classifier) -> Classifier:
    """Return the same classifier with densities that learn, also where they were fixed to the full group.

    They start as uniform ones, which is the same, so the logits do not change. The weights of the exactly steerable
    kernels are kept; those of the other kernels are drawn as in a new model. They have no effect while λ is uniform,
    since its coefficients λ̂ are 0 there; but were they 0 as well, neither they nor λ would ever receive a gradient.

    Raises:
        ValueError: if there is no symmetry to give up, for want of a group or because kernels are unconstrained.
    """
    if model.config["group"] == "none" or model.config["degree"] == "none":
        raise ValueError("has no degree to release: no group constrains its kernels")
    free = create_model(**model.config | {"degree": "learned"})
    drawn, weights = free.state_dict(), model.state_dict()
    for name, layer in partial_layers(free).items():
        key = f"{name}.kernel.weight"
        if len(weights[key]) < len(drawn[key]):
            rows = layer.kernel.invariant_rows().nonzero()[:, 0]
            weights[key] = drawn[key].index_copy(0, rows, weights[key])
    free.load_state_dict(drawn | weights)
    return free


def freeze_degree(model: Classifier) -> None:
    """Leave the densities as they are."""
    for density in learning_densities(model):
        density.requires_grad_(False)


def freeze_backbone(model: Classifier) -> None:
    """Leave all but the invariant head and the classifier as it is, running statistics too."""
    for parameter in chain(model.stem.parameters(), model.stages.parameters()):
        parameter.requires_grad_(False)


def reorder_classes(model: Classifier, order: Sequence[int]) -> None:
    """Number the classes anew: class number i is what was class ``order[i]``."""
    with torch.no_grad():
        for parameter in model.classifier.parameters():
            parameter.copy_(parameter[list(order)])


def layer_rates(model: Classifier, decay: float) -> dict[nn.Parameter, float]:
    """Return factors on the learning rates of the backbone: ``decay`` to the power of the distance from the head.

    The head and the classifier learn at the full rate, the last block before them at ``decay`` times that rate, and the
    stem at the lowest. A norm that stands by itself belongs to the block behind it.
    """
    rates: dict[nn.Parameter, float] = {}
    distance = 0
    for block in reversed([model.stem, *model.stages]):
        distance += bool(partial_layers(block))
        rates |= dict.fromkeys(block.parameters(), decay**distance)
    return rates
