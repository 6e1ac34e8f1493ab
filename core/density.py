"""Densities over a group: how much of each symmetry a layer keeps.

A density λ ≥ 0 on H, ∫λ = 1, enters a layer only through its Fourier coefficients

    λ̂(ψ) = ∫ λ(h) ψ(h) dh        (a matrix of the size of the irrep ψ).

Uniform λ keeps the full symmetry (λ̂ = 0 but for the trivial irrep), λ = δ_e keeps none (λ̂ = 1), λ uniform on a
subgroup K keeps K (λ̂ projects onto the K-invariant vectors). Learned densities lie between:

- ``softmax``: log λ is band-limited and normalised by an oversampled Haar quadrature;
- ``squared``: λ = |a|² with a band-limited at half the band, normalised exactly by Parseval.

Every density offers its coefficients up to its ``band``. λ̂ is held as one flat vector, the blocks of the irreps one
after the other, each row-major; :class:`BlockLayout` says where.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup
from parteq.core.intertwiners import copies_of_irrep

__all__ = ["Density", "FixedDensity", "LearnedDensity", "SoftmaxDensity", "SquaredDensity", "make_density"]


@dataclass(frozen=True)
class BlockLayout:
    """Where the block of each irrep of frequency at most ``band`` stands in a flat vector of coefficients."""

    sizes: tuple[int, ...]
    """Sizes d of the irreps, in the order of ``group.irreps(band)``."""

    @classmethod
    def of(cls, group: SymmetryGroup, band: int) -> BlockLayout:
        """Return the layout of all irreps of ``group`` up to ``band``."""
        return cls(tuple(irrep.size for irrep in group.irreps(band)))

    @property
    def offsets(self) -> list[int]:
        """Start of each block; one more entry gives the total length."""
        return [0, *np.cumsum([size**2 for size in self.sizes]).tolist()]

    def split(self, flat: Tensor) -> list[Tensor]:
        """Return the d × d blocks of a flat vector."""
        blocks = torch.split(flat, [size**2 for size in self.sizes])
        return [block.view(size, size) for block, size in zip(blocks, self.sizes, strict=True)]


def _irrep_values(group: SymmetryGroup, band: int, elements: Sequence[Element]) -> FloatArray:
    """Return the flattened irreps at each element, shape (elements, sum of d²)."""
    irreps = group.irreps(band)
    return np.stack([np.concatenate([irrep(h).reshape(-1) for irrep in irreps]) for h in elements])


@lru_cache(maxsize=64)
def _irreps_on_quadrature(group: SymmetryGroup, band: int, quadrature_band: int) -> tuple[FloatArray, FloatArray]:
    """Return the weights of a Haar quadrature and the flattened irreps on it, shapes (points,) and (points, Σ d²).

    Irreps are multiplied factor by factor, ψ(ab) = ψ(a) ψ(b), which spares evaluating them at every product.
    """
    rule = group.factors(quadrature_band)
    weights = reduce(np.multiply.outer, [weights for _, weights in rule]).reshape(-1)
    columns = []
    for irrep in group.irreps(band):
        factors = [np.stack([irrep(h) for h in elements]) for elements, _ in rule]
        values = reduce(
            lambda left, right: np.einsum("pij,qjk->pqik", left, right).reshape(-1, *left.shape[1:]), factors
        )
        columns.append(values.reshape(len(values), -1))
    return weights, np.concatenate(columns, axis=1)


def _multiplicity(irrep: Irrep) -> float:
    """Return d / c: how often functions on the group hold the irrep (c = 1, 2, 4 for real, complex, quaternionic)."""
    return float(irrep.size / irrep.sum_of_squares_constituents)


class Density(nn.Module, ABC):
    """A density over ``group`` with coefficients up to ``band``.

    Calling it returns λ̂ as a flat tensor (see :class:`BlockLayout`). Layers own their density; passing one object to
    several layers shares it.
    """

    def __init__(self, group: SymmetryGroup, band: int) -> None:
        super().__init__()
        self.group = group
        self.band = band
        self.layout = BlockLayout.of(group, band)

    @property
    @abstractmethod
    def learned(self) -> bool:
        """Whether training changes the density."""

    @abstractmethod
    def forward(self) -> Tensor:
        """Return λ̂, flat."""

    @abstractmethod
    def divergence_from_uniform(self) -> Tensor:
        """Return KL(λ ‖ uniform) in nats, at least 0."""

    def mean_matrix(self) -> Tensor:
        """Return M = ∫ λ(h) R(h) dh, with R(h) the action on points, shape (dimension, dimension).

        Its singular values are 0 where λ is uniform on SO(3), (1, 0, 0) where it is uniform on the turns about an axis,
        and 1 where λ = δ. λ is known up to a turn from the right, λ(h g), so it is the *left* singular vector that is
        the axis.
        """
        group = self.group
        mean = torch.zeros(group.dimension, group.dimension)
        for irrep, block in zip(group.irreps(self.band), self.coefficients(), strict=True):
            for copy in copies_of_irrep(group, group.matrix, group.dimension, 1, irrep):
                embedding = torch.from_numpy(copy).to(block)
                mean = mean.to(block) + embedding @ block @ embedding.T
        return mean

    @abstractmethod
    def aligned_values_at(self, elements: Sequence[Element]) -> list[float]:
        """Return λ(h g) at elements h, where g is a point at which λ is largest.

        This describes the same layer, peaked at the identity.
        """

    def coefficients(self) -> list[Tensor]:
        """Return λ̂(ψ) as one d × d tensor for each irrep of ``group.irreps(band)``."""
        return self.layout.split(self())


class FixedDensity(Density):
    """A density that is uniform on a subgroup: all of H (``full``), the identity alone (``none``), or any K between.

    Args:
        group: the group H.
        band: highest frequency of its coefficients.
        quadrature: elements of H and weights (summing to 1) that average over K up to ``band``; ``None`` is all of H.
    """

    flat: Tensor

    def __init__(
        self, group: SymmetryGroup, band: int, quadrature: tuple[Sequence[Element], FloatArray] | None = None
    ) -> None:
        super().__init__(group, band)
        if quadrature is None:
            self.exact = np.concatenate([np.full(i.size**2, float(i.is_trivial())) for i in group.irreps(band)])
        else:
            elements, weights = quadrature
            self.exact = weights @ _irrep_values(group, band, elements)
        self.register_buffer("flat", torch.from_numpy(self.exact).to(torch.get_default_dtype()), persistent=False)

    @property
    def learned(self) -> bool:
        """A fixed density is never learned."""
        return False

    def forward(self) -> Tensor:
        """Return λ̂, flat."""
        return self.flat

    def aligned_values_at(self, elements: Sequence[Element]) -> list[float]:
        """Return λ as far as its band goes, Σ_ψ (d / c) tr λ̂(ψ)ᵀ ψ(h), at each element; it peaks at the identity."""
        multiplicity = np.concatenate([np.full(i.size**2, _multiplicity(i)) for i in self.group.irreps(self.band)])
        values = _irrep_values(self.group, self.band, elements) @ (multiplicity * self.exact)
        return [float(value) for value in values]

    def divergence_from_uniform(self) -> Tensor:
        """Return log ∫ λ² in nats, within the band.

        For λ uniform on a subgroup of finite index this is KL(λ ‖ uniform), the logarithm of the index.
        """
        multiplicity = np.concatenate([np.full(i.size**2, _multiplicity(i)) for i in self.group.irreps(self.band)])
        return torch.tensor(np.log((multiplicity * self.exact**2).sum()))


class LearnedDensity(Density):
    """A density with parameters, evaluated on a Haar quadrature of the group.

    Args:
        group: the group H.
        band: highest frequency of its coefficients λ̂.
        oversampling: the quadrature integrates frequencies up to ``oversampling`` × (band + 1). The default, 12 (6 on
            the three angles of SO(3) and O(3), where points are dear), integrates peaks twenty times uniform well.
    """

    weights: Tensor
    irrep_values: Tensor

    def __init__(self, group: SymmetryGroup, band: int, oversampling: int | None = None) -> None:
        super().__init__(group, band)
        if oversampling is None:
            oversampling = 12 if group.dimension == 2 or group.about_axis else 6
        self.quadrature_band = oversampling * (band + 1)
        weights, values = _irreps_on_quadrature(group, band, self.quadrature_band)
        default = torch.get_default_dtype()
        self.register_buffer("weights", torch.tensor(weights, dtype=default), persistent=False)
        self.register_buffer("irrep_values", torch.tensor(values, dtype=default), persistent=False)

    def element(self, index: int) -> Element:
        """Return the group element at one point of the quadrature."""
        rule = self.group.factors(self.quadrature_band)
        places = np.unravel_index(index, [len(elements) for elements, _ in rule])
        product = rule[0][0][places[0]]
        for (elements, _), place in zip(rule[1:], places[1:], strict=True):
            product = product @ elements[place]
        return product

    @property
    def learned(self) -> bool:
        """Always: this is what training changes."""
        return True

    @abstractmethod
    def log_density(self, irrep_values: Tensor) -> Tensor:
        """Return log λ (against Haar measure) where the flattened irreps take the values given, shape (points,)."""

    def density(self) -> Tensor:
        """Return λ on the quadrature of the group, shape (points,); its weighted sum is 1."""
        return self.log_density(self.irrep_values).exp()

    def density_at(self, elements: Sequence[Element]) -> Tensor:
        """Return λ at any elements of the group, shape (elements,)."""
        values = _irrep_values(self.group, self.band, elements)
        return self.log_density(torch.from_numpy(values).to(self.irrep_values)).exp()

    def forward(self) -> Tensor:
        """Return λ̂, flat: the quadrature of λ ψ."""
        return (self.weights * self.density()) @ self.irrep_values

    @torch.no_grad()
    def aligned_values_at(self, elements: Sequence[Element]) -> list[float]:
        """Return λ(h g) at elements h, where g is the point of the quadrature at which λ is largest."""
        peak = self.element(int(self.density().argmax()))
        return [float(value) for value in self.density_at([h @ peak for h in elements])]

    def entropy(self) -> Tensor:
        """Return −∫ λ log λ in nats: 0 for uniform λ, negative otherwise."""
        return -self.divergence_from_uniform()

    def divergence_from_uniform(self) -> Tensor:
        """Return KL(λ ‖ uniform) = ∫ λ log λ in nats, at least 0."""
        log_density = self.log_density(self.irrep_values)
        return (self.weights * log_density.exp() * log_density).sum()

    def divergence(self, other: LearnedDensity) -> Tensor:
        """Return KL(λ ‖ λ_other) in nats, for densities on the same quadrature.

        Raises:
            ValueError: the densities live on different groups or quadratures.
        """
        if other.group is not self.group or other.weights.shape != self.weights.shape:
            raise ValueError("densities on different groups or bands cannot be compared")
        mine, theirs = self.log_density(self.irrep_values), other.log_density(other.irrep_values)
        return (self.weights * mine.exp() * (mine - theirs)).sum()

    def autocorrelation(self) -> Tensor:
        """Return the coefficients λ̂(ψ) λ̂(ψ)ᵀ, flat, of (λ ⋆ λ)(h) = ∫ λ(hg) λ(g) dg.

        The kernel absorbs a turn of λ on its input side, so λ is known only up to a coset; this is not touched by it.
        """
        return torch.cat([(block @ block.T).reshape(-1) for block in self.coefficients()])

    def roughness(self) -> Tensor:
        """Return ½ Σ_ψ k² (d / c) ‖λ̂(ψ)‖², k the frequency of ψ: half the Dirichlet energy ∫|∇λ|² on SO(2).

        Finite groups have no frequencies, and no roughness.
        """
        irreps = self.group.irreps(self.band)
        weights = [0.5 * self.group.frequency(irrep) ** 2 * _multiplicity(irrep) for irrep in irreps]
        blocks = zip(weights, self.coefficients(), strict=True)
        return torch.stack([weight * block.square().sum() for weight, block in blocks]).sum()

    def misalignment(self) -> Tensor:
        """Return log ∫λ² − log λ(e): 0 for λ uniform on a subgroup, large for λ on a coset that lacks the identity."""
        log_density = self.log_density(self.irrep_values)
        identity = torch.cat([torch.eye(size).reshape(-1) for size in self.layout.sizes]).to(self.irrep_values)
        return torch.logsumexp(2 * log_density + self.weights.log(), dim=0) - self.log_density(identity[None])[0]

    def sample(self, count: int, generator: torch.Generator | None = None) -> list[Element]:
        """Draw ``count`` elements from the quadrature with the weights λ gives them."""
        mass = (self.weights * self.density()).detach()
        index = torch.multinomial(mass, count, replacement=True, generator=generator)
        return [self.element(i) for i in index.tolist()]

    def _amplitudes(self, scale: Tensor) -> nn.Parameter:
        parameter = nn.Parameter(torch.zeros_like(scale))
        parameter.is_density = True  # type: ignore[attr-defined]  # optimisers give densities their own settings
        return parameter


class SoftmaxDensity(LearnedDensity):
    """λ = exp f / ∫ exp f with f band-limited; ``logits`` are the Fourier coefficients of f, 0 at the start (uniform).

    Coefficients are those of the orthonormal functions √d ψ_ab(h).

    Args:
        group: the group H.
        band: highest frequency of f and of λ̂.
        oversampling: as in :class:`LearnedDensity`.
        parent: a density of the same group and band to inherit from: λ = λ_parent exp f / ∫ λ_parent exp f, so that
            what the parent broke stays broken. The parent stays where it is registered, usually in the layer before.
    """

    basis_scale: Tensor

    def __init__(
        self, group: SymmetryGroup, band: int, oversampling: int | None = None, parent: LearnedDensity | None = None
    ) -> None:
        super().__init__(group, band, oversampling)
        self._parents = () if parent is None else (parent,)  # a tuple: not a submodule a second time
        scale = torch.cat([torch.full((size**2,), float(size) ** 0.5) for size in self.layout.sizes])
        scale[0] = 0.0  # the constant is no freedom: normalisation removes it
        self.register_buffer("basis_scale", scale, persistent=False)
        self.logits = self._amplitudes(scale)

    def log_density(self, irrep_values: Tensor) -> Tensor:
        """Return log λ at the points whose flattened irreps are given."""
        return self._unnormalised(irrep_values) - torch.logsumexp(
            self._unnormalised(self.irrep_values) + self.weights.log(), dim=0
        )

    def _unnormalised(self, irrep_values: Tensor) -> Tensor:
        inherited = sum(parent.log_density(irrep_values) for parent in self._parents)
        return irrep_values @ (self.basis_scale * self.logits) + inherited


class SquaredDensity(LearnedDensity):
    """λ = |a|² / ‖a‖² with a band-limited at ``band`` // 2, so λ̂ is band-limited and the norm exact (Parseval).

    ``amplitudes`` are the coefficients of a in the orthonormal functions √d ψ_ab(h), the constant one being 1 more.
    """

    basis_scale: Tensor

    def __init__(self, group: SymmetryGroup, band: int, oversampling: int | None = None) -> None:
        super().__init__(group, band, oversampling)
        half = {irrep.id for irrep in group.irreps(band // 2)}
        kept = [float(irrep.id in half) for irrep in group.irreps(band)]
        scale = torch.cat(
            [
                torch.full((size**2,), keep * float(size) ** 0.5)
                for size, keep in zip(self.layout.sizes, kept, strict=True)
            ]
        )
        self.register_buffer("basis_scale", scale, persistent=False)
        self.amplitudes = self._amplitudes(scale)
        # At a = 1 exactly the gradient of λ is 2a: non-zero, so learning starts without a kick.

    def log_density(self, irrep_values: Tensor) -> Tensor:
        """Return log λ at the points whose flattened irreps are given."""
        constant = torch.zeros_like(self.amplitudes)
        constant[0] = 1.0
        amplitudes = (self.amplitudes + constant) * (self.basis_scale > 0)
        values = irrep_values @ (self.basis_scale * amplitudes)
        # The irreps of complex type span their functions twice over, so the norm is taken by (exact) quadrature.
        norm = self.weights @ (self.irrep_values @ (self.basis_scale * amplitudes)).square()
        tiny = torch.finfo(values.dtype).tiny
        return (values.square() / norm).clamp_min(tiny).log()


_LEARNED: dict[str, Callable[[SymmetryGroup, int], LearnedDensity]] = {
    "softmax": SoftmaxDensity,
    "squared": SquaredDensity,
}


def make_density(group: SymmetryGroup, degree: str, band: int) -> Density:
    """Return a density by name.

    Args:
        group: the group H.
        degree: ``full`` (uniform), ``none`` (identity alone), ``softmax`` or ``squared`` (learned; ``learned`` is
            ``softmax``).
        band: highest frequency of λ̂; finite groups take all their irreps whatever it says.

    Raises:
        ValueError: ``degree`` is none of these.
    """
    if degree == "full":
        return FixedDensity(group, band)
    if degree == "none":
        return FixedDensity(group, band, ([group.algebra.identity], np.ones(1)))
    try:
        return _LEARNED["softmax" if degree == "learned" else degree](group, band)
    except KeyError:
        raise ValueError(f"unknown degree {degree!r}: use learned, softmax, squared, full or none") from None
