"""Densities with parameters: ``softmax``, whose logarithm is band-limited, and ``squared``, whose root is."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from parteq.core.density.base import Density, irreps_at
from parteq.core.groups import Element, FloatArray, SymmetryGroup
from parteq.core.precision import without_autocast
from parteq.core.subgroups import Subgroup

__all__ = ["LearnedDensity", "SoftmaxDensity", "SquaredDensity"]

_ROUNDING = 1e-3  # of a singular value near 0, where it has no slope


@lru_cache(maxsize=64)
def _factors(group: SymmetryGroup, band: int) -> list[tuple[list[Element], FloatArray]]:
    """Return the factors of a Haar integral; those who ask for one point of it after the other get the same ones."""
    return group.factors(band)


@lru_cache(maxsize=64)
def _irreps_on_quadrature(group: SymmetryGroup, band: int, quadrature_band: int) -> tuple[FloatArray, FloatArray]:
    """Return the weights of a Haar quadrature and the flattened irreps on it, shapes (points,) and (points, Σ d²)."""
    values, weights = group.irreps_on_quadrature(group.irreps(band), quadrature_band)
    return weights, np.concatenate([matrices.reshape(len(matrices), -1) for matrices in values], axis=1)


class LearnedDensity(Density):
    """A density with parameters, evaluated on a Haar quadrature of the group.

    Each parameter is a flat vector laid out as λ̂ is (:class:`~parteq.core.density.base.BlockLayout`), the coefficients
    of a function that λ is made of; all 0 is uniform λ. ``keep``, ``settle`` and ``reset`` rest on that.

    Args:
        group: the group H.
        band: highest frequency of its coefficients λ̂.
        oversampling: the quadrature integrates frequencies up to ``oversampling`` × (band + 1). The default, 12 (6 on
            the three angles of SO(3) and O(3), where points are dear), integrates peaks twenty times uniform well.
    """

    weights: Tensor
    irrep_values: Tensor
    held_uniform: Tensor
    uniform: Tensor

    def __init__(self, group: SymmetryGroup, band: int, oversampling: int | None = None) -> None:
        super().__init__(group, band)
        if oversampling is None:
            oversampling = 12 if group.dimension == 2 or group.about_axis else 6
        self.quadrature_band = oversampling * (band + 1)
        weights, values = _irreps_on_quadrature(group, band, self.quadrature_band)
        default = torch.get_default_dtype()
        self.register_buffer("weights", torch.tensor(weights, dtype=default), persistent=False)
        self.register_buffer("irrep_values", torch.tensor(values, dtype=default), persistent=False)
        self.register_buffer("held_uniform", torch.tensor(False), persistent=False)
        uniform = torch.zeros(values.shape[1], dtype=default)
        uniform[0] = 1.0  # the trivial irrep comes first
        self.register_buffer("uniform", uniform, persistent=False)

    def element(self, index: int) -> Element:
        """Return the group element at one point of the quadrature."""
        rule = _factors(self.group, self.quadrature_band)
        places = np.unravel_index(index, [len(elements) for elements, _ in rule])
        product = rule[0][0][places[0]]
        for (elements, _), place in zip(rule[1:], places[1:], strict=True):
            product = product @ elements[place]
        return product

    @abstractmethod
    def log_density(self, irrep_values: Tensor) -> Tensor:
        """Return log λ (against Haar measure) where the flattened irreps take the values given, shape (points,)."""

    def density(self) -> Tensor:
        """Return λ on the quadrature of the group, shape (points,); its weighted sum is 1."""
        return self.log_density(self.irrep_values).exp()

    def mass(self) -> Tensor:
        """Return λ times the weights of the quadrature, shape (points,); its sum is 1."""
        return self.weights * self.density()

    def values_where(self, irrep_values: Tensor) -> Tensor:
        """Return λ where the flattened irreps take the values given, shape (points,)."""
        return self.log_density(irrep_values.to(self.irrep_values)).exp()

    def forward(self) -> Tensor:
        """Return λ̂, flat: the quadrature of λ ψ; that of uniform λ while it is ``held_uniform``."""
        with without_autocast(self.weights):
            coefficients = self.mass() @ self.irrep_values
        return torch.where(self.held_uniform, self.uniform, coefficients)

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

    def departure(self, smoothness: float = 0.0, cheap_band: int = 0, clear: float = 1.0) -> Tensor:
        """Return Σ_ψ (1 + s max(k − k₀, 0)) / √c Σ_i φ(σ_i) over all irreps ψ but the trivial one, k their frequencies.

        The σ_i are the singular values of λ̂(ψ), and φ(σ) = log(1 + σ/τ) / log(1 + 1/τ) from 0 to 1 as σ
        is. 0 for uniform λ; λ uniform on a subgroup pays 1 / √c for each direction that the subgroup leaves alone and
        the group does not. The slope at 0 keeps a direction exactly symmetric unless breaking it pays (a lasso over
        singular values), so what is kept has the structure of a subgroup. That φ is concave (Candès, Wakin and Boyd,
        J. Fourier Anal. Appl. 14, 2008) makes few directions, broken clearly, cheaper than many broken a little:
        weights can make up for a small σ, so its size alone says nothing. Finite groups have no frequencies. Singular
        values are rounded off below 10⁻³.

        Args:
            smoothness: s, how much dearer each frequency is than the one below it.
            cheap_band: k₀, the frequency up to which none is dearer.
            clear: τ, the singular value from which on a direction counts as broken: where it is small, breaking a
                little costs nearly as much as breaking altogether; where it is large, φ is linear.
        """
        terms = []
        for irrep, block in zip(self.group.irreps(self.band), self.coefficients(), strict=True):
            if not irrep.is_trivial():
                # Through the square, whose eigenvalues have slopes everywhere; there are none in half precision.
                wide = block.to(torch.promote_types(block.dtype, torch.float32))
                squares = torch.linalg.eigvalsh(wide.mT @ wide).clamp_min(0.0)
                values = (squares + _ROUNDING**2).sqrt() - _ROUNDING
                dearer = 1 + smoothness * max(self.group.frequency(irrep) - cheap_band, 0)
                weight = dearer / math.sqrt(irrep.sum_of_squares_constituents)
                terms.append(weight * torch.log1p(values / clear).sum() / math.log1p(1 / clear))
        return torch.stack(terms).sum() if terms else self.weights.new_zeros(())

    def misalignment(self) -> Tensor:
        """Return log ∫λ² − log λ(e): 0 for λ uniform on a subgroup, large for λ on a coset that lacks the identity."""
        log_density = self.log_density(self.irrep_values)
        identity = torch.cat([torch.eye(size).reshape(-1) for size in self.layout.sizes]).to(self.irrep_values)
        return torch.logsumexp(2 * log_density + self.weights.log(), dim=0) - self.log_density(identity[None])[0]

    @property
    def is_untouched(self) -> bool:
        """Whether all parameters are 0, as at the start: λ is exactly uniform, but for what it inherits."""
        return not any(bool(parameter.any()) for parameter in self.parameters())

    @torch.no_grad()
    def reset(self) -> None:
        """Set all parameters to 0, as at the start."""
        for parameter in self.parameters():
            parameter.zero_()

    @torch.no_grad()
    def keep(self, subgroup: Subgroup) -> None:
        """Make λ(k h) = λ(h) for all k of a subgroup, by the mean over it of log λ (of the root of λ, if ``squared``).

        Kernels are then exactly equivariant under the subgroup. What is inherited from a parent stays as it is.
        """
        elements, weights = subgroup.quadrature(self.band)
        mean = torch.from_numpy(weights @ irreps_at(self.group, self.band, elements))
        for parameter in self.parameters():
            blocks = zip(self.layout.split(mean.to(parameter)), self.layout.split(parameter), strict=True)
            parameter.copy_(torch.cat([(projection @ block).reshape(-1) for projection, block in blocks]))

    @torch.no_grad()
    def settle(self, reach: float) -> None:
        """Set to 0 what one step of training could have made: singular values of parameters' blocks below ``reach`` √d.

        An optimiser like Adam moves all entries of a d × d block by about the learning rate, which is √d to 2 √d of it
        in singular values. What noise makes in one step the next undoes, but meanwhile the weights see a λ that shakes.
        With this, steps must agree to break a direction; as long as they do not, it is held exactly symmetric. It is
        hard thresholding of singular values, as in Jain, Meka and Dhillon (NIPS 2010).

        Args:
            reach: in units of the parameters; a part of the learning rate up to about 1. 0 leaves all as it is.
        """
        for parameter in self.parameters():
            if not parameter.isfinite().all():
                continue  # has no singular values; nor will the loss be finite, which is an error of the training
            settled = []
            for block in self.layout.split(parameter):
                left, values, right = torch.linalg.svd(block)
                values = torch.where(values < reach * math.sqrt(len(block)), 0.0, values)
                settled.append(((left * values) @ right).reshape(-1))
            parameter.copy_(torch.cat(settled))

    def sample(self, count: int, generator: torch.Generator | None = None) -> list[Element]:
        """Draw ``count`` elements from the quadrature with the weights λ gives them."""
        index = torch.multinomial(self.mass().detach(), count, replacement=True, generator=generator)
        return [self.element(i) for i in index.tolist()]


class SoftmaxDensity(LearnedDensity):
    """λ = exp f / ∫ exp f with f band-limited; ``logits`` are the Fourier coefficients of f, 0 at the start (uniform).

    Coefficients are those of the orthonormal functions √d ψ_ab(h).

    Args:
        group: the group H.
        band: highest frequency of f and of λ̂.
        oversampling: as in :class:`LearnedDensity`.
        parent: a density of the same group and band to inherit from: λ = λ_parent exp f / ∫ λ_parent exp f, so that
            what the parent broke stays broken. The parent stays where it is registered, usually in the layer before.

    Raises:
        ValueError: the parent is on another group, or of another band or quadrature.
    """

    basis_scale: Tensor

    def __init__(
        self, group: SymmetryGroup, band: int, oversampling: int | None = None, parent: LearnedDensity | None = None
    ) -> None:
        super().__init__(group, band, oversampling)
        if parent is not None and (
            parent.group is not group or parent.band != band or parent.quadrature_band != self.quadrature_band
        ):
            raise ValueError(f"a density on {group} inherits from one of the same group, band and quadrature")
        self._parents = () if parent is None else (parent,)  # a tuple: not a submodule a second time
        scale = torch.cat([torch.full((size**2,), float(size) ** 0.5) for size in self.layout.sizes])
        scale[0] = 0.0  # the constant is no freedom: normalisation removes it
        self.register_buffer("basis_scale", scale, persistent=False)
        self.logits = nn.Parameter(torch.zeros_like(scale))

    def log_density(self, irrep_values: Tensor) -> Tensor:
        """Return log λ at the points whose flattened irreps are given."""
        return self._unnormalised(irrep_values) - torch.logsumexp(
            self._unnormalised(self.irrep_values) + self.weights.log(), dim=0
        )

    def mass(self) -> Tensor:
        """Return λ times the weights of the quadrature, shape (points,); its sum is 1."""
        return torch.softmax(self._unnormalised(self.irrep_values) + self.weights.log(), dim=0)

    def _unnormalised(self, irrep_values: Tensor) -> Tensor:
        own = irrep_values @ (self.basis_scale * self.logits)
        return sum((parent.log_density(irrep_values) for parent in self._parents), start=own)


class SquaredDensity(LearnedDensity):
    """λ = |a|² / ‖a‖² with a band-limited at half the band, rounded up, so that the quadrature of the norm is exact.

    ``amplitudes`` are the coefficients of a in the orthonormal functions √d ψ_ab(h), the constant one being 1 more.
    """

    basis_scale: Tensor

    def __init__(self, group: SymmetryGroup, band: int, oversampling: int | None = None) -> None:
        super().__init__(group, band, oversampling)
        half = {irrep.id for irrep in group.irreps((band + 1) // 2)}
        kept = [float(irrep.id in half) for irrep in group.irreps(band)]
        scale = torch.cat(
            [
                torch.full((size**2,), keep * float(size) ** 0.5)
                for size, keep in zip(self.layout.sizes, kept, strict=True)
            ]
        )
        self.register_buffer("basis_scale", scale, persistent=False)
        self.amplitudes = nn.Parameter(torch.zeros_like(scale))
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
