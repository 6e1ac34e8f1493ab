"""Nonlinearities for functions on the group: sample, apply a function of one number, transform back.

A field of :func:`~parteq.core.fields.band_limited` type holds a function on H. Its copy k of the irrep ψ (of size d)
has coefficients c_{ψ,k} that turn as c ↦ ψ(h) c, and stand for

    f(g)  =  Σ_{ψ,k,i}  c_{ψ,k,i} √d ψ_ik(g),          f ↦ f(h⁻¹ ·).

The functions √d ψ_ik are orthonormal over the normalised Haar measure: for one k always, for different k because irreps
of real type take all d columns and those of complex type (size 2 in these groups) or quaternionic type (size 4) take a
single one. With S the functions sampled on a Haar quadrature of weights w that integrates products of two of them,
Sᵀ diag(w) is therefore a left inverse of S, and the nonlinearity is Sᵀ diag(w) σ(S c).

On a finite group the samples are permuted by H and this is exact. On a continuous one σ(f) has no band limit and what
the grid folds back breaks the symmetry: less on a finer grid (``oversampling``), or not at all on a grid that turns
with the features (:class:`AdaptiveFourierNonlinearity`; Inal and Cesa, arXiv 2409.08741).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from parteq.core.coordinates import as_channels, as_fields
from parteq.core.fields import FieldType, Representation, band_limited
from parteq.core.groups import Element, SymmetryGroup, plane_group, space_group
from parteq.core.intertwiners import copies_of_irrep
from parteq.core.nonlinearity import pointwise_function

__all__ = ["AdaptiveFourierNonlinearity", "FourierNonlinearity"]


def _band(type: FieldType) -> int:
    """Return the band of a type that holds functions on its group, or raise ``ValueError``."""
    rho = type.representation
    band = max(rho.group.frequency(irrep) for irrep in rho.irreps)
    expected = [irrep.id for irrep in band_limited(rho.group, band).irreps]
    if [irrep.id for irrep in rho.irreps] != expected or not np.array_equal(rho.basis, np.eye(rho.size)):
        raise ValueError(f"{type} holds no functions on the group: use band_limited(group, band)")
    return band


def _sampled_functions(rho: Representation, band: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sample the functions √d ψ_ik on a Haar quadrature that is exact up to frequency ``band``.

    Returns:
        The functions, shape (elements, components), k counting the copies of ψ; the weights, shape (elements,).
    """
    kinds = list(dict.fromkeys(rho.irreps))
    matrices, weights = rho.group.irreps_on_quadrature(kinds, band)
    values = {irrep.id: at for irrep, at in zip(kinds, matrices, strict=True)}
    names = [irrep.id for irrep in rho.irreps]
    columns = [names[:i].count(name) for i, name in enumerate(names)]
    functions = [
        math.sqrt(irrep.size) * values[irrep.id][:, :, k] for irrep, k in zip(rho.irreps, columns, strict=True)
    ]
    return np.concatenate(functions, axis=1), weights


class FourierNonlinearity(nn.Module):
    """A function of one number, applied to functions on the group that are sampled on a fixed grid.

    Maps (batch, c, *grid) to the same shape. Memory: the samples take (grid elements) / (components) times the input.

    Args:
        type: type of the input and of the output, carrying ``band_limited(group, band)``.
        function: see :func:`~parteq.core.nonlinearity.pointwise_function`.
        oversampling: the grid integrates frequencies up to ``oversampling`` × 2 band (rounded up so that the
            angles divide by four, quarter turns belong to the grid and are exact). 1 is the least that holds the band.

    Raises:
        ValueError: the type carries something else, or ``oversampling`` is below 1.
    """

    synthesis: Tensor
    analysis: Tensor

    def __init__(self, type: FieldType, function: str = "relu", oversampling: float = 2.0) -> None:
        super().__init__()
        if oversampling < 1:
            raise ValueError(f"oversampling {oversampling} is below 1: the grid could not hold the band")
        self.in_type = self.out_type = type
        self.function = pointwise_function(function)
        samples, weights = _sampled_functions(type.representation, math.ceil(2 * _band(type) * oversampling) | 3)
        default = torch.get_default_dtype()
        self.register_buffer("synthesis", torch.from_numpy(samples).to(default), persistent=False)
        analysis = torch.from_numpy(samples.T * weights).contiguous().to(default)
        self.register_buffer("analysis", analysis, persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c, *grid) to the same shape."""
        samples = self.synthesis @ as_fields(features, self.in_type)
        return as_channels(self.analysis @ self.function(samples), like=features)


class AdaptiveFourierNonlinearity(nn.Module):
    """A Fourier nonlinearity whose grid turns with the features, so that any grid is equivariant to rounding.

    At every position the features predict a rotation g with g(hx) = h g(x), and the function is sampled at g q for q in
    the grid Q: turn the coefficients by ρ(g)ᵀ, apply the fixed nonlinearity, turn back by ρ(g). Groups: SO(2), O(2) (in
    the plane, about an axis, and the cone), SO(3), O(3).

    *Prediction.* Learned combinations of all frequency-1 vectors at the position: one, v, for SO(2) and O(2); two, v
    and u, for SO(3) and O(3) (there the vectors that inversion turns over, which scalar images give at the first
    layer). v̂ is a column of ψ₁(g); in space Gram-Schmidt makes another of u, and a cross product completes the frame.

    *Flips.* g is a rotation even where H has flips s; h g(x) and g(hx) may then differ by an element of Q on the right
    side of g: s itself, or inversion times the half turn about z. Q is closed under these, so the sampled set is the
    same, and no sign, which could not be learned, has to be predicted.

    *Degenerate features.* A vector shorter than 10⁻³ of the features at its position, root mean square (or than 10⁻¹⁰),
    counts as zero, and a fixed direction takes its place. There only, the error is that of the fixed grid; some such
    choice is unavoidable, since features with a symmetry of their own determine no g. It also bounds the gradient of v̂.

    *Turning.* ψ_l(g) for l > 1 is Aᵀ (ψ₁ ⊗ ψ_{l-1})(g) A, with A the copy of ψ_l in the product.

    Args:
        type: type of the input and of the output, carrying ``band_limited(group, band)`` with band at least 1.
        function: see :func:`~parteq.core.nonlinearity.pointwise_function`.
        oversampling: as in :class:`FourierNonlinearity`; the coarsest grid will do.

    Raises:
        ValueError: the type carries something else, the group is finite (a fixed grid is exact there), the band is 0.
    """

    def __init__(self, type: FieldType, function: str = "relu", oversampling: float = 1.0) -> None:
        super().__init__()
        group, band = type.group, _band(type)
        if not group.continuous or band < 1:
            raise ValueError(f"{type} needs no turning grid, or has no vectors to turn it: use FourierNonlinearity")
        self.in_type = self.out_type = type
        self.fixed = FourierNonlinearity(type, function, oversampling)
        irreps = type.representation.irreps
        frequencies = [group.frequency(irrep) for irrep in irreps]
        self.copies = [frequencies.count(frequency) for frequency in range(band + 1)]
        """How many irreps of each frequency a field holds; they stand side by side."""
        self.size = max(irrep.size for irrep, l in zip(irreps, frequencies, strict=True) if l == 1)
        rotations = plane_group("so2") if self.size == 2 else space_group("so3")
        for frequency, product in enumerate(_products_with_vectors(rotations, band), start=2):
            buffer = torch.from_numpy(product).to(torch.get_default_dtype())
            self.register_buffer(f"product_{frequency}", buffer, persistent=False)
        # Of the vectors of O(3), (0, 1) and (1, 1) in escnn, those of odd parity come second.
        self.vectors = irreps.count(irreps[frequencies.index(1) + self.copies[1] - 1])
        self.directions = nn.Parameter(torch.randn(self.size - 1, type.count * self.vectors))

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c, *grid) to the same shape."""
        coefficients = as_fields(features, self.in_type).permute(0, 3, 1, 2)  # batch, positions, fields, components
        turns = self._turns(self._frame(coefficients))
        aligned = self._turned(coefficients, turns)
        output = self.fixed.function(aligned @ self.fixed.synthesis.T) @ self.fixed.analysis.T
        output = self._turned(output, [turn.mT for turn in turns])
        return as_channels(output.permute(0, 2, 3, 1), like=features)

    def _frame(self, coefficients: Tensor) -> Tensor:
        """Return ψ₁(g) at every position, shape (batch, positions, size, size)."""
        stop = self.copies[0] + self.copies[1] * self.size
        candidates = coefficients[..., stop - self.vectors * self.size : stop]
        candidates = candidates.reshape(*candidates.shape[:2], -1, self.size)
        vectors = functional.normalize(self.directions, dim=1) @ candidates
        least = (1e-6 * coefficients.square().mean(dim=(2, 3))[..., None]).clamp_min(1e-20)
        axes = torch.eye(self.size, dtype=vectors.dtype, device=vectors.device)
        first = _unit(vectors[:, :, 0], least, axes[0])
        if self.size == 2:
            return torch.stack([first, torch.stack([-first[..., 1], first[..., 0]], dim=-1)], dim=-1)
        # Without a second vector the coordinate axis furthest from the first takes its place.
        spare = _perpendicular(axes[first.abs().argmin(dim=-1)], first)
        second = _unit(_perpendicular(vectors[:, :, 1], first), least, spare / spare.norm(dim=-1, keepdim=True))
        # escnn orders the components of ψ₁ as y, z, x; the cross product takes the place of z.
        return torch.stack([second, torch.linalg.cross(first, second), first], dim=-1)

    def _turns(self, frame: Tensor) -> list[Tensor]:
        """Return ψ_l(g) for l = 1 … band, given ψ₁(g); each of shape (batch, positions, d, d)."""
        turns = [frame]
        for frequency in range(2, len(self.copies)):
            product: Tensor = getattr(self, f"product_{frequency}")
            turns.append(torch.einsum("pqm,xypr,xyqs,rsn->xymn", product, frame, turns[-1], product))
        return turns

    def _turned(self, coefficients: Tensor, turns: list[Tensor]) -> Tensor:
        """Return ψ_l(g)ᵀ c for all coefficients, shape (batch, positions, fields, components)."""
        sizes = [copies * turn.shape[-1] for copies, turn in zip(self.copies[1:], turns, strict=True)]
        scalars, *parts = torch.split(coefficients, [self.copies[0], *sizes], dim=-1)
        turned = [
            (part.reshape(*part.shape[:2], -1, turn.shape[-1]) @ turn).view(part.shape)
            for part, turn in zip(parts, turns, strict=True)
        ]
        return torch.cat([scalars, *turned], dim=-1)


def _unit(vectors: Tensor, least_square: Tensor, otherwise: Tensor) -> Tensor:
    """Return vectors over their length, or ``otherwise`` where the squared length is no more than ``least_square``."""
    length = vectors.square().sum(dim=-1, keepdim=True)
    sound = length > least_square
    return torch.where(sound, vectors, otherwise) * torch.where(sound, length, torch.ones_like(length)).rsqrt()


def _perpendicular(vectors: Tensor, axis: Tensor) -> Tensor:
    """Return what is left of vectors without their part along a unit ``axis``."""
    return vectors - (vectors * axis).sum(dim=-1, keepdim=True) * axis


@cache
def _products_with_vectors(rotations: SymmetryGroup, band: int) -> list[NDArray[np.float64]]:
    """Return the copy of ψ_l in ψ₁ ⊗ ψ_{l-1} for l = 2 … band, shape (d₁, d_{l-1}, d_l) each."""
    vector = rotations.algebra.irrep(1)
    products = []
    for frequency in range(2, band + 1):
        lower, irrep = rotations.algebra.irrep(frequency - 1), rotations.algebra.irrep(frequency)

        def product(h: Element, lower: Representation = lower) -> NDArray[np.float64]:
            return np.kron(vector(h), lower(h))

        size = vector.size * lower.size
        copy = copies_of_irrep(rotations, product, size, frequency, irrep)[0]
        products.append(copy.reshape(vector.size, lower.size, irrep.size))
    return products
