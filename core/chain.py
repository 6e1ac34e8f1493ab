"""Chains of densities: what the densities of a network's layers cost together.

Prices in nats, each optional and each 0 for uniform densities:

- *to uniform*, Σ KL(λ ‖ uniform): symmetry is kept unless the data pay for breaking it. Divided by the number of
  training samples this is a description length: breaking C4 to the identity costs log 4 nats once, not once a sample;
- *roughness*, Σ ½∫|∇λ|²: of two densities as far from uniform, the smoother is cheaper;
- *to predecessor*, Σ KL(λ_next ‖ λ_previous) over the links of the chain: a later layer may break symmetry further, but
  symmetry that is broken is hardly regained, and breaking it late is cheaper than early (Veefkind and Cesa, arXiv
  2406.03946, section 4.3);
- *alignment*, Σ log ∫λ² − log λ(e): 0 where λ is uniform on a subgroup, more where it sits on another coset of one.

Hard inheritance is a property of a density (``parent`` of :class:`~parteq.core.density.SoftmaxDensity`); sharing is
passing one density to several layers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from parteq.core.density import LearnedDensity
from parteq.core.measure import partial_layers

__all__ = ["Chain", "degree_penalty"]


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

    def to_uniform(self) -> Tensor:
        """Return Σ KL(λ ‖ uniform)."""
        return _total(density.divergence_from_uniform() for density in self.densities)

    def roughness(self) -> Tensor:
        """Return Σ ½∫|∇λ|²."""
        return _total(density.roughness() for density in self.densities)

    def to_predecessor(self) -> Tensor:
        """Return Σ KL(λ_next ‖ λ_previous) over the links."""
        return _total(self.densities[after].divergence(self.densities[before]) for before, after in self.links)

    def alignment(self) -> Tensor:
        """Return Σ log ∫λ² − log λ(e)."""
        return _total(density.misalignment() for density in self.densities)


def _total(prices: object) -> Tensor:
    terms = list(prices)  # type: ignore[call-overload]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def degree_penalty(model: nn.Module, samples: int, price: float = 100.0, smoothness: float = 8.0) -> Tensor:
    """Return what a model's learned densities add to the mean loss of a sample.

    Args:
        model: any model; without learned densities the penalty is 0.
        samples: number of training samples.
        price: nats of loss, over the whole training set, for a nat of divergence from uniform in one layer.
        smoothness: how much dearer a density is for its roughness, which keeps what is learned about one turn true of
            turns nearby; finite groups have no roughness.
    """
    chain = Chain.of(model)
    return (chain.to_uniform() + smoothness * chain.roughness()) * (price / samples)
