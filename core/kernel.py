"""Partially steerable kernels: the projection P_λ of an unconstrained kernel, as one static basis.

With W an unconstrained kernel, ρ_in and ρ_out the representations on the features and λ a density on H,

    (P_λ W)(x) = ∫_H λ(h) ρ_out(h) W(h⁻¹x) ρ_in(h)⁻¹ dh.

Write W in irreps: output irrep J, input irrep l, filter irrep j. On the coefficients of a triple (J, l, j) H acts by
J ⊗ l ⊗ j, which splits into irreps ψ (:func:`parteq.core.intertwiners.triple_product_basis`). In that basis P_λ is
λ̂(ψ) on each copy of ψ: the kernel is linear in the weights and linear in λ̂, everything else is constant.

The static tensors depend on the irreps of a field and on the filters, never on how many fields there are. All triples
are handled at once, packed into tiles of one shape (:mod:`parteq.core.tiles`):

    mixed    [kind, D, n]      the basis, λ̂ applied, once for each kind of tile             (batched product)
    columns  [tile, D, M]      that basis times the weights, M = pairs of fields           (batched product)
    kernel   [c_out, c_in, x]  the filters and the bases of the two fields                 (three products)

``n`` counts the basis elements in a tile, ``D`` the coefficients. Frequencies of ψ above the density's band have λ̂ = 0
and get no weights. A fixed density projects onto K-invariant vectors; its basis holds those vectors alone, so the
number of weights is the rank of the steerable space.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parteq.core.axis import Axis
from parteq.core.density import Density
from parteq.core.fields import FieldType
from parteq.core.filters import FilterBank, TurnableBank
from parteq.core.groups import Irrep
from parteq.core.precision import without_autocast
from parteq.core.tiles import pack_triples

__all__ = ["PartialKernel"]


class PartialKernel(nn.Module):
    """The kernel P_λ W between two field types on a filter bank, with its weights.

    Calling it returns the kernel, shape (c_out, c_in / groups, points), for ``torch.nn.functional.conv*d``.

    Weights are coordinates of W in an orthonormal basis (before sampling), shape (rows, fields out,
    fields in / groups), so weight decay on them is a norm of W and λ is identifiable. With λ fixed to ``full`` the rows
    are the exactly steerable kernels, with ``none`` all kernels.

    Memory: the static basis takes n × D numbers for each kind of tile, of which there are about as many as distinct
    triples of irreps, plus the sampled filters and an index of every coefficient of one pair of fields; it grows with
    the irreps of one field, not with the number of fields.

    Args:
        in_type: type of the input.
        out_type: type of the output, on the same group.
        bank: the sampled filters.
        density: λ on the same group.
        groups: as in ``torch.nn.Conv2d``, in fields: both field counts must divide by it.
        axis: for groups about an axis, the axis; by default z. The bank must be turnable.

    Raises:
        ValueError: the groups differ, or ``groups`` does not divide the field counts, or is less than 1.
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        bank: FilterBank,
        density: Density,
        groups: int = 1,
        axis: Axis | None = None,
    ) -> None:
        super().__init__()
        if not in_type.group is out_type.group is density.group:
            raise ValueError(f"groups differ: {in_type.group}, {out_type.group}, {density.group}")
        if groups < 1 or in_type.count % groups or out_type.count % groups:
            raise ValueError(f"{groups} groups do not divide {in_type.count} input and {out_type.count} output fields")
        self.in_type, self.out_type, self.groups = in_type, out_type, groups
        self.density = density
        rho_out, rho_in = out_type.representation, in_type.representation
        self.bank = bank
        tiles = pack_triples(density, *self.irreps)
        self.rows = len(tiles.outputs)
        self._buffer("elements", tiles.elements.transpose(0, 2, 1))
        self._buffer("mixing", tiles.mixing)
        self._buffer("kinds", tiles.kinds)
        self._buffer("row_index", tiles.rows)
        self._buffer("column_index", tiles.columns.reshape(-1))
        self._buffer("basis_out", rho_out.basis)
        self._buffer("basis_in", rho_in.basis)
        self.axis = axis
        if axis is None:
            self._buffer("filters", bank.values)
        else:
            if not isinstance(bank, TurnableBank) or not bank.group.about_axis:
                raise ValueError(f"{bank.group} with these filters has no axis to turn")
            self._buffer("filters", bank.mixing)
            self._buffer("harmonics", bank.harmonics)
            self._buffer("generators", bank.generators)
        self.row_output = tiles.outputs
        """For each row of the weights the position, among the irreps of an output field, of the irrep it feeds."""
        self.weight = nn.Parameter(torch.empty(self.rows, out_type.count, in_type.count // groups))
        self.reset_parameters()

    elements: Tensor
    mixing: Tensor
    kinds: Tensor
    row_index: Tensor
    column_index: Tensor
    basis_out: Tensor
    basis_in: Tensor
    filters: Tensor
    harmonics: Tensor
    generators: Tensor

    @property
    def irreps(self) -> tuple[tuple[Irrep, ...], tuple[Irrep, ...], tuple[Irrep, ...]]:
        """The irreps of an output field, of an input field and of the filters: the axes of the coefficients."""
        return self.out_type.representation.irreps, self.in_type.representation.irreps, self.bank.irreps

    def _buffer(self, name: str, array: NDArray[Any]) -> None:
        dtype = torch.get_default_dtype() if np.issubdtype(array.dtype, np.floating) else None
        self.register_buffer(name, torch.tensor(array, dtype=dtype), persistent=False)

    def reset_parameters(self, gain: float = 2.0) -> None:
        """Draw weights so that outputs of unit inputs have variance ``gain`` for the density as it stands.

        A gain of 2 is He's rule. Every output irrep gets the same energy per component: the variance of a row is
        gain × d_J / (fields in × effective rows that feed J), a row of frequency ψ counting as ‖λ̂(ψ)‖² / d.
        """
        with torch.no_grad():
            active = self._mixed_basis().square().sum(1)[self.kinds].reshape(-1)
            active = active.cpu()
            energy = active.new_zeros(self.rows).index_add_(0, self.row_index.cpu(), active)
            feeds = torch.from_numpy(self.row_output)
            totals = active.new_zeros(len(self.irreps[0])).index_add_(0, feeds, energy)
            sizes = active.new_tensor([float(irrep.size) for irrep in self.out_type.representation.irreps])
            fan = totals * self.weight.shape[2]
            variance = torch.where(fan > 1e-9, gain * sizes / fan.clamp_min(1e-9), torch.zeros_like(fan))
            scale = variance.sqrt()[feeds].to(self.weight)
            self.weight.copy_(self._drawn() * scale[:, None, None])

    @property
    def weight_rate(self) -> float:
        """Factor on the learning rate of the weights that lets kernels move as fast as those of a plain convolution.

        An optimiser like Adam moves every weight by about the learning rate. Weights are coordinates in an orthonormal
        basis, so r of them move the n entries of a kernel by √(r/n) of it, root mean square; the factor is √(n/r), with
        r the number of steerable kernels, which alone count while λ is uniform. 1 without symmetry, √8 for D4.
        """
        entries = len(self.basis_out) * len(self.basis_in) * len(self.filters)
        return math.sqrt(entries / max(int(self.invariant_rows().sum()), 1))

    def invariant_rows(self) -> Tensor:
        """Return which rows of the weights are exactly steerable kernels, shape (rows,), boolean.

        They are, in order, the rows that a density fixed to ``full`` has.
        """
        if not self.mixing.numel():
            return torch.ones(self.rows, dtype=torch.bool)
        trivial = (self.mixing.diagonal(dim1=1, dim2=2) == 0).cpu()  # the first entry of λ̂ is the trivial irrep's
        rows = trivial[self.kinds.cpu()].reshape(-1)
        invariant = torch.zeros(self.rows, dtype=torch.bool)
        return invariant.index_fill_(0, self.row_index.cpu()[rows], True)

    def _drawn(self) -> Tensor:
        """Return normal numbers in the shape of the weights, those of invariant rows the same whatever the density.

        So a learned density, uniform at the start, and a fixed full one make the same network of the same seed.
        """
        invariant = self.invariant_rows()
        shape = self.weight.shape[1:]
        drawn = torch.empty(self.rows, *shape)
        drawn[invariant] = torch.randn(int(invariant.sum()), *shape)
        others = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        drawn[~invariant] = torch.randn(int((~invariant).sum()), *shape, generator=others)
        return drawn.to(self.weight)

    def _mixed_basis(self, density: Tensor | None = None) -> Tensor:
        """Return the basis with λ̂ applied, shape (kinds of tile, D, n): what each weight contributes."""
        if not self.mixing.numel():
            return self.elements
        flat = self.density() if density is None else density
        coefficients = torch.nn.functional.pad(flat, (0, 1)).index_select(0, self.mixing.view(-1))
        return torch.bmm(self.elements, coefficients.view_as(self.mixing))

    def _coordinates(self, density: Tensor | None = None) -> Tensor:
        """Return P_λ W in irrep coordinates, shape (filters, components out × components in × pairs of fields).

        Pairs of fields stay the last axis until the end: then whole rows are moved, and every product is of matrices.
        """
        pairs = self.weight.shape[1:].numel()
        tiles = self._mixed_basis(density).index_select(0, self.kinds)
        rows = self.weight.index_select(0, self.row_index).view(len(tiles), tiles.shape[2], pairs)
        columns = torch.bmm(tiles, rows).view(-1, pairs)
        return columns.index_select(0, self.column_index).view(len(self.filters), -1)

    def coefficients(self) -> Tensor:
        """Return P_λ W in irrep coordinates.

        Shape (fields out, components out, fields in / groups, components in, filters).
        """
        shape = (-1, len(self.basis_out), len(self.basis_in), *self.weight.shape[1:])
        return self._coordinates().view(shape).permute(3, 1, 4, 2, 0)

    def forward(self, density: Tensor | None = None) -> Tensor:
        """Return the kernel, shape (c_out, c_in / groups, points).

        Args:
            density: λ̂ to use instead of that of the kernel's own density, flat, as :class:`Density` returns it. Where
                λ differs from input to input, ``torch.vmap(kernel)`` over rows of λ̂ makes a kernel for each.

        Raises:
            ValueError: λ̂ of another length; any λ̂ for a fixed density, whose basis holds the vectors left alone and
                nothing else.
        """
        if density is not None and (not self.mixing.numel() or density.shape != (self.density.layout.offsets[-1],)):
            raise ValueError(f"{tuple(density.shape)} is not the shape of the coefficients that are learned here")
        outs, ins = len(self.basis_out), len(self.basis_in)
        with without_autocast(self.weight):
            tensor = self._coordinates(density).T @ self.sampled_filters()
            tensor = self.basis_out @ tensor.view(outs, -1)
            tensor = torch.bmm(self.basis_in.expand(outs, -1, -1), tensor.view(outs, ins, -1))
        tensor = tensor.view(outs, ins, *self.weight.shape[1:], -1).permute(2, 0, 3, 1, 4)
        return tensor.reshape(self.out_type.channels, -1, tensor.shape[-1])

    def sampled_filters(self) -> Tensor:
        """Return the filters on the points, turned to the axis, shape (filters, points)."""
        if self.axis is None:
            return self.filters
        single = torch.promote_types(self.filters.dtype, torch.float32)  # in half precision `matrix_exp` goes wrong
        with without_autocast(self.filters):
            vector, generators = self.axis.rotation_vector().to(single), self.generators.to(single)
            turn = torch.linalg.matrix_exp(torch.tensordot(vector, generators, dims=1)).to(self.filters)
            sampled: Tensor = self.filters @ turn.T @ self.harmonics
        return sampled
