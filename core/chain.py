"""Chains of densities: what the densities of a network's layers cost together.

Prices, each optional and each 0 for uniform densities:

- *departure*, Σ (1 + s max(k − k₀, 0)) / √c Σ φ(σ_i(λ̂(ψ))) over layers, irreps and singular values: symmetry is kept
  direction by direction, and exactly, unless the data pay for breaking it; paid once, not once a sample;
- *to uniform*, Σ KL(λ ‖ uniform): a description length, but flat where λ is uniform, so that noise breaks a little of
  everything;
- *to predecessor*, Σ KL(λ_next ‖ λ_previous) over the links of the chain: a later layer may break symmetry further, but
  symmetry that is broken is hardly regained, and breaking it late is cheaper than early (Veefkind and Cesa, arXiv
  2406.03946, section 4.3);
- *alignment*, Σ log ∫λ² − log λ(e): 0 where λ is uniform on a subgroup, more where it sits on another coset of one.

Hard inheritance is a property of a density (``parent`` of :class:`~parteq.core.density.SoftmaxDensity`); sharing is
passing one density to several layers.

Prices alone do not say *what* a broken symmetry is used for: a layer that must break it for one thing would use it for
all, and the weights make up for a density that is nearly uniform. So in a share of the training steps the densities are
held uniform (:func:`full_symmetry`): the weights then learn what can be known with the full symmetry, and λ is left
with what cannot.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from parteq.core.density import LearnedDensity
from parteq.core.measure import partial_layers
from parteq.core.norm import FieldBatchNorm

__all__ = ["Chain", "degree_penalty", "full_symmetry", "learning_densities"]


class Chain:
    """Densities and which precedes which.

    Args:
        densities: learned densities; each is counted once.
        links: pairs (previous, next) of positions in ``densities``, skips included; by default each with the one
            before.
    """

    def __init__(self, densities: Sequence[LearnedDensity], links: Sequence[tuple[int, int]] | None = None) -> None:
        self.densities = list(densities)
        self.links = [(i, i + 1) for i in range(len(self.densities) - 1)] if links is None else list(links)

    @classmethod
    def of(cls, model: nn.Module) -> Chain:
        """Return the chain of a model's learned densities in the order of its layers."""
        found = [layer.density for layer in partial_layers(model).values()]
        return cls(list(dict.fromkeys(density for density in found if isinstance(density, LearnedDensity))))

    def departure(self, smoothness: float = 0.0, cheap_band: int = 0, clear: float = 1.0) -> Tensor:
        """Return Σ of the densities' departures from uniform, see :meth:`LearnedDensity.departure`."""
        return _total(density.departure(smoothness, cheap_band, clear) for density in self.densities)

    def to_uniform(self) -> Tensor:
        """Return Σ KL(λ ‖ uniform)."""
        return _total(density.divergence_from_uniform() for density in self.densities)

    def to_predecessor(self) -> Tensor:
        """Return Σ KL(λ_next ‖ λ_previous) over the links."""
        return _total(self.densities[after].divergence(self.densities[before]) for before, after in self.links)

    def alignment(self) -> Tensor:
        """Return Σ log ∫λ² − log λ(e)."""
        return _total(density.misalignment() for density in self.densities)


def _total(prices: object) -> Tensor:
    terms = list(prices)  # type: ignore[call-overload]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def degree_penalty(
    model: nn.Module,
    samples: int,
    price: float = 2.0,
    smoothness: float = 20.0,
    cheap_band: int = 1,
    clear: float = 1.0,
) -> Tensor:
    """Return what a model's learned densities add to the mean loss of a sample.

    Args:
        model: any model; without learned densities the penalty is 0.
        samples: number of training samples.
        price: nats of loss, over the whole training set, for breaking one direction of one irrep of one layer.
        smoothness: how much dearer each frequency is than the one below it, which keeps what is learned about one turn
            true of turns nearby; finite groups have no frequencies.
        cheap_band: the frequency up to which none is dearer. The first is what tells up from down.
        clear: how large a singular value of λ̂ is that counts as broken. 1 suits many small densities, each of a layer;
            one density on SO(3) or O(3) for all layers has many directions to tell apart and wants 0.05.

    Raises:
        ValueError: there is no training sample.
    """
    if samples < 1:
        raise ValueError(f"the price is shared by the training samples, of which there are {samples}")
    departure = Chain.of(model).departure(smoothness, cheap_band, clear)
    device = next((parameter.device for parameter in model.parameters()), departure.device)
    return departure.to(device) * (price / samples)


def learning_densities(model: nn.Module) -> list[LearnedDensity]:
    """Return a model's learned densities that are not frozen, each once, in the order of its layers."""
    return [d for d in Chain.of(model).densities if any(p.requires_grad for p in d.parameters())]


@contextmanager
def full_symmetry(model: nn.Module) -> Iterator[None]:
    """Hold the densities that a model is learning uniform, whatever they are; they get no gradient meanwhile.

    What layers give has other statistics then than in the network as it is evaluated, so norms go by those of the batch
    but do not remember them.
    """
    learning = learning_densities(model)
    kinds = (FieldBatchNorm, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    norms = [module for module in model.modules() if learning and isinstance(module, kinds)]
    momenta, held = [norm.momentum for norm in norms], [density.held_uniform for density in learning]
    # New tensors: the old ones may be waiting in a graph for its backward pass.
    for density in learning:
        density.held_uniform = torch.ones_like(density.held_uniform)
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        for density, before in zip(learning, held, strict=True):
            density.held_uniform = before
