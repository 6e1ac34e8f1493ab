"""Partially steerable kernels: the projection P_λ of an unconstrained kernel, as one static basis.

With W an unconstrained kernel, ρ_in and ρ_out the representations on the features and λ a density on H,

    (P_λ W)(x) = ∫_H λ(h) ρ_out(h) W(h⁻¹x) ρ_in(h)⁻¹ dh.

Write W in irreps: output irrep J, input irrep l, filter irrep j. On the coefficients of a triple (J, l, j) H acts by
J ⊗ l ⊗ j, which splits into irreps ψ (:func:`parteq.core.intertwiners.triple_product_basis`). In that basis P_λ is
λ̂(ψ) on each copy of ψ: the kernel is linear in the weights and linear in λ̂, everything else is constant.

The static tensors depend on the distinct irreps of a field and on the filters, never on how many fields there are. All
triples are handled at once, padded to the largest:

    mixed   [type, n, D]    λ̂ᵀ applied to the basis of each distinct triple       (batched product)
    coeffs  [triple, D, M]  that basis times the weights, M = pairs of fields       (batched product)
    kernel  [c_out, c_in, x]  the filters and the bases of the two fields           (two products)

``n`` counts basis elements of a triple, ``D`` = d_J d_l d_j. Frequencies of ψ above the density's band have λ̂ = 0 and
get no weights. A fixed density projects onto K-invariant vectors; its basis holds those vectors alone, so the number of
weights is the rank of the steerable space.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from parteq.core.axis import Axis
from parteq.core.cache import cached_arrays
from parteq.core.density import BlockLayout, Density, FixedDensity
from parteq.core.fields import FieldType
from parteq.core.filters import FilterBank, TurnableBank
from parteq.core.groups import Element, FloatArray, Irrep, SymmetryGroup
from parteq.core.intertwiners import triple_product_basis

__all__ = ["PartialKernel"]


@dataclass(frozen=True, eq=False)
class _TripleBasis:
    """The irrep-adapted basis of every distinct triple of irreps, padded to one shape.

    Attributes:
        elements: basis elements, shape (types, n, dJ, dl, dj), zero where padded.
        mixing: for each pair of elements of a type, the entry of λ̂ that couples them in the flat vector of a density;
            one past the last entry where none does. Shape (types, n, n).
        counts: number of true elements of each type.
    """

    elements: FloatArray
    mixing: NDArray[np.int64]
    counts: NDArray[np.int64]


def _triple_bases(
    group: SymmetryGroup, outs: list[Irrep], ins: list[Irrep], filters: list[Irrep], band: int
) -> _TripleBasis:
    """Build the bases of all triples (output, input, filter) of distinct irreps, in row-major order."""
    identities = [irrep.id for irrep in group.irreps(band)]
    layout = BlockLayout.of(group, band)
    offsets, nothing = layout.offsets[:-1], layout.offsets[-1]
    pads = [max(irrep.size for irrep in irreps) for irreps in (outs, ins, filters)]
    elements, mixing = [], []
    for out in outs:
        for into in ins:
            for filt in filters:
                parts = triple_product_basis(group, out, into, filt, band)
                count = sum(irrep.size for irrep, _ in parts)
                tensor = np.zeros((count, *pads))
                index = np.full((count, count), nothing)
                start = 0
                for irrep, copy in parts:
                    d = irrep.size
                    block = copy.T.reshape(d, out.size, into.size, filt.size)
                    tensor[start : start + d, : out.size, : into.size, : filt.size] = block
                    entry = offsets[identities.index(irrep.id)]
                    index[start : start + d, start : start + d] = entry + np.arange(d * d).reshape(d, d)
                    start += d
                elements.append(tensor)
                mixing.append(index)
    counts = np.array([len(tensor) for tensor in elements])
    most = max(1, int(counts.max()))
    padded = np.zeros((len(elements), most, *pads))
    padded_index = np.full((len(elements), most, most), nothing)
    for i, (tensor, index) in enumerate(zip(elements, mixing, strict=True)):
        padded[i, : len(tensor)] = tensor
        padded_index[i, : len(tensor), : len(tensor)] = index
    return _TripleBasis(padded, padded_index, counts)


def _reduce_to_invariants(basis: _TripleBasis, coefficients: FloatArray) -> _TripleBasis:
    """Keep the combinations of basis elements that a projection λ̂ (a fixed density) leaves alone."""
    table = np.append(coefficients, 0.0)[basis.mixing]
    kept = []
    for projection, elements, count in zip(table, basis.elements, basis.counts, strict=True):
        kept.append(np.einsum("rn,nabc->rabc", _range_of_projection(projection[:count, :count]), elements[:count]))
    counts = np.array([len(tensor) for tensor in kept])
    padded = np.zeros((len(kept), max(1, int(counts.max())), *basis.elements.shape[2:]))
    for i, tensor in enumerate(kept):
        padded[i, : len(tensor)] = tensor
    return _TripleBasis(padded, np.zeros((len(kept), 0, 0), dtype=int), counts)


def _range_of_projection(projection: FloatArray) -> FloatArray:
    """Return orthonormal rows that span the range of an orthogonal projection: pivoted Gram-Schmidt on its columns, the
    same on every machine (ties go to the first column)."""
    remaining, rows = projection.copy(), []
    for _ in range(round(float(np.trace(projection)))):
        norms = np.round((remaining**2).sum(axis=0), 6)
        row = remaining[:, int(np.argmax(norms))]
        row = row / np.linalg.norm(row)
        rows.append(row)
        remaining = remaining - np.outer(row, row @ remaining)
    return np.array(rows).reshape(len(rows), len(projection))


def _distinct(irreps: tuple[Irrep, ...]) -> tuple[list[Irrep], list[int]]:
    """Return the distinct irreps in order of appearance, and the index of each of ``irreps`` among them."""
    by_id = {irrep.id: irrep for irrep in irreps}
    order = list(by_id)
    return list(by_id.values()), [order.index(irrep.id) for irrep in irreps]


def _padded_basis(irreps: tuple[Irrep, ...], basis: FloatArray) -> FloatArray:
    """Return the columns of ``basis`` spread to equal, zero-padded blocks for each irrep.

    Shape (rows, irreps × d_max).
    """
    widest = max(irrep.size for irrep in irreps)
    spread = np.zeros((len(basis), len(irreps), widest))
    start = 0
    for i, irrep in enumerate(irreps):
        spread[:, i, : irrep.size] = basis[:, start : start + irrep.size]
        start += irrep.size
    return spread.reshape(len(basis), -1)


def _padded_action(irreps: tuple[Irrep, ...], widest: int, element: Element) -> FloatArray:
    """Return the block-diagonal action on irreps padded to equal width, zero on the padding."""
    matrix = np.zeros((len(irreps), widest, len(irreps), widest))
    for i, irrep in enumerate(irreps):
        matrix[i, : irrep.size, i, : irrep.size] = irrep(element)
    return matrix.reshape(len(irreps) * widest, -1)


class PartialKernel(nn.Module):
    """The kernel P_λ W between two field types on a filter bank, with its weights.

    Calling it returns the kernel, shape (c_out, c_in / groups, points), for ``torch.nn.functional.conv*d``.

    Weights are coordinates of W in an orthonormal basis (before sampling), shape (rows, fields out,
    fields in / groups), so weight decay on them is a norm of W and λ is identifiable. With λ fixed to ``full`` the rows
    are the exactly steerable kernels, with ``none`` all kernels.

    Memory: the static basis takes Σ over distinct triples of irreps of n × d_J d_l d_j numbers, plus the sampled
    filters; it grows with the irreps of one field, not with the number of fields.

    Args:
        in_type: type of the input.
        out_type: type of the output, on the same group.
        bank: the sampled filters.
        density: λ on the same group.
        groups: as in ``torch.nn.Conv2d``, in fields: both field counts must divide by it.
        axis: for groups about an axis, the axis; by default z. The bank must be turnable.

    Raises:
        ValueError: the groups differ, or ``groups`` does not divide the field counts.
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
        if in_type.count % groups or out_type.count % groups:
            raise ValueError(f"{groups} groups do not divide {in_type.count} input and {out_type.count} output fields")
        self.in_type, self.out_type, self.groups = in_type, out_type, groups
        self.density = density
        rho_out, rho_in = out_type.representation, in_type.representation
        self.bank = bank
        self._sides = (len(rho_out.irreps), len(rho_in.irreps), len(bank.irreps))
        distinct = [_distinct(irreps) for irreps in (rho_out.irreps, rho_in.irreps, bank.irreps)]
        basis = self._basis(distinct[0][0], distinct[1][0], distinct[2][0], density)
        self._pads = basis.elements.shape[2:]
        lengths = [len(irreps) for irreps, _ in distinct]
        type_index = np.ravel_multi_index(np.ix_(*(index for _, index in distinct)), lengths).reshape(-1)
        counts = basis.counts[type_index]
        self.rows = int(counts.sum())
        most = basis.elements.shape[1]
        row_index = np.full((len(type_index), most), self.rows)
        row_index[np.arange(most) < counts[:, None]] = np.arange(self.rows)

        self._buffer("elements", basis.elements.reshape(len(basis.elements), most, -1))
        self._buffer("mixing", basis.mixing)
        self._buffer("type_index", type_index)
        self._buffer("row_index", row_index.reshape(-1))
        self._buffer("spread_out", _padded_basis(rho_out.irreps, rho_out.basis))
        self._buffer("spread_in", _padded_basis(rho_in.irreps, rho_in.basis))
        self.axis = axis
        if axis is None:
            self._buffer("filters", _padded_basis(bank.irreps, bank.values.T).T)
        else:
            if not isinstance(bank, TurnableBank) or not bank.group.about_axis:
                raise ValueError(f"{bank.group} with these filters has no axis to turn")
            self._buffer("filters", _padded_basis(bank.irreps, bank.mixing.T).T)
            self._buffer("harmonics", bank.harmonics)
            self._buffer("generators", bank.generators)
        self.row_output = np.repeat(np.arange(len(type_index)) // (self._sides[1] * self._sides[2]), counts)
        """For each row of the weights the position, among the irreps of an output field, of the irrep it feeds."""
        self.weight = nn.Parameter(torch.empty(self.rows, out_type.count, in_type.count // groups))
        self.reset_parameters()

    elements: Tensor
    mixing: Tensor
    type_index: Tensor
    row_index: Tensor
    spread_out: Tensor
    spread_in: Tensor
    filters: Tensor
    harmonics: Tensor
    generators: Tensor

    @staticmethod
    def _basis(outs: list[Irrep], ins: list[Irrep], filters: list[Irrep], density: Density) -> _TripleBasis:
        group = density.group
        fixed = density.exact if isinstance(density, FixedDensity) else None
        digest = "learned" if fixed is None else hashlib.sha256(np.round(fixed, 9).tobytes()).hexdigest()
        names = [[irrep.id for irrep in irreps] for irreps in (outs, ins, filters)]
        key = f"triple basis|{group!r}|{names}|band {density.band}|{digest}"

        def build() -> dict[str, NDArray[Any]]:
            basis = _triple_bases(group, outs, ins, filters, density.band)
            if fixed is not None:
                basis = _reduce_to_invariants(basis, fixed)
            return {"elements": basis.elements, "mixing": basis.mixing, "counts": basis.counts}

        return _TripleBasis(**cached_arrays(key, build))

    @property
    def irreps(self) -> tuple[tuple[Irrep, ...], tuple[Irrep, ...], tuple[Irrep, ...]]:
        """The irreps of an output field, of an input field and of the filters: the axes of the coefficients."""
        return self.out_type.representation.irreps, self.in_type.representation.irreps, self.bank.irreps

    def _buffer(self, name: str, array: NDArray[Any]) -> None:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        self.register_buffer(
            name, tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor, persistent=False
        )

    def reset_parameters(self, gain: float = 2.0) -> None:
        """Draw weights so that outputs of unit inputs have variance ``gain`` for the density as it stands.

        A gain of 2 is He's rule. Every output irrep gets the same energy per component: the variance of a row is
        gain × d_J / (fields in × effective rows that feed J), a row of frequency ψ counting as ‖λ̂(ψ)‖² / d.
        """
        with torch.no_grad():
            active = self._mixed_basis().square().sum(-1)[self.type_index].reshape(-1)
            energy = torch.zeros(self.rows + 1).index_copy_(0, self.row_index.cpu(), active.cpu())[: self.rows]
            feeds = torch.from_numpy(self.row_output)
            totals = torch.zeros(self._sides[0]).index_add_(0, feeds, energy)
            sizes = torch.tensor([float(irrep.size) for irrep in self.out_type.representation.irreps])
            fan = totals * self.weight.shape[2]
            variance = torch.where(fan > 1e-9, gain * sizes / fan.clamp_min(1e-9), torch.zeros_like(fan))
            scale = variance.sqrt()[feeds].to(self.weight)
            self.weight.copy_(self._drawn() * scale[:, None, None])

    def invariant_rows(self) -> Tensor:
        """Return which rows of the weights are exactly steerable kernels, shape (rows,), boolean.

        They are, in order, the rows that a density fixed to ``full`` has.
        """
        if not self.mixing.numel():
            return torch.ones(self.rows, dtype=torch.bool)
        trivial = (self.mixing.diagonal(dim1=1, dim2=2) == 0).cpu()  # the first entry of λ̂ is the trivial irrep's
        rows = trivial[self.type_index.cpu()].reshape(-1)
        invariant = torch.zeros(self.rows + 1, dtype=torch.bool)
        return invariant.index_copy_(0, self.row_index.cpu(), rows)[: self.rows]

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

    def _mixed_basis(self) -> Tensor:
        """Return the basis with λ̂ applied, shape (types, n, D): what each weight contributes."""
        if not self.mixing.numel():
            return self.elements
        coefficients = torch.nn.functional.pad(self.density(), (0, 1))
        return coefficients[self.mixing].transpose(1, 2) @ self.elements

    def coefficients(self) -> Tensor:
        """Return P_λ W in irrep coordinates.

        Shape (fields out, irreps out × d, fields in / groups, irreps in × d, filter blocks × d), each irrep padded with
        zeros to the widest of its side.
        """
        mixed = self._mixed_basis()
        rows = torch.nn.functional.pad(self.weight.flatten(1), (0, 0, 0, 1))
        rows = rows.index_select(0, self.row_index).view(len(self.type_index), mixed.shape[1], -1)
        triples = mixed.index_select(0, self.type_index).transpose(1, 2) @ rows
        (outs, ins, filters), (d_out, d_in, d_filter) = self._sides, self._pads
        fields_out, fields_in = self.weight.shape[1:]
        tensor = triples.view(outs, ins, filters, d_out, d_in, d_filter, fields_out, fields_in)
        tensor = tensor.permute(6, 0, 3, 7, 1, 4, 2, 5)
        return tensor.reshape(fields_out, outs * d_out, fields_in, ins * d_in, filters * d_filter)

    def forward(self) -> Tensor:
        """Return the kernel, shape (c_out, c_in / groups, points)."""
        tensor = self.coefficients() @ self.sampled_filters()
        fields_out, fields_in = self.weight.shape[1:]
        tensor = self.spread_out @ tensor.flatten(2)
        tensor = tensor.view(fields_out * len(self.spread_out), fields_in, len(self.spread_in[0]), -1)
        tensor = self.spread_in @ tensor
        return tensor.reshape(len(tensor), fields_in * len(self.spread_in), -1)

    def sampled_filters(self) -> Tensor:
        """Return the filters on the points, turned to the axis, shape (filter blocks × d, points)."""
        if self.axis is None:
            return self.filters
        turn = torch.linalg.matrix_exp(torch.tensordot(self.axis.rotation_vector(), self.generators, dims=1))
        sampled: Tensor = self.filters @ turn.T @ self.harmonics
        return sampled

    def action(self, element: Element) -> tuple[Tensor, Tensor, Tensor]:
        """Return the matrices by which an element acts on the three coefficient axes: output, input, filters."""
        return tuple(  # type: ignore[return-value]
            torch.from_numpy(_padded_action(irreps, widest, element)).to(self.weight)
            for irreps, widest in zip(self.irreps, self._pads, strict=True)
        )
