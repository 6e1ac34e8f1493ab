"""Triples of irreps packed into tiles of one shape, so that one batched product handles them all.

Triples (J, l, j) differ in size: n basis elements by D = d_J d_l d_j coefficients. Were each padded to the largest,
most of a product would be of zeros. So triples go down the diagonal of tiles as large as the largest of them,

    tile = diag(triple, triple, …),    n_max × D_max,

largest triples first and equal ones in a row. Many tiles are then alike; only their different *kinds* are stored.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.core.density import Density
from parteq.core.groups import FloatArray, Irrep
from parteq.core.triples import triple_basis

__all__ = ["Tiles", "pack_triples"]

Indices = NDArray[np.int64]
Sides = tuple[tuple[Irrep, ...], tuple[Irrep, ...], tuple[Irrep, ...]]


@dataclass(frozen=True, eq=False)
class Tiles:
    """The bases of all triples of irreps of an output field, an input field and the filters, in tiles.

    Basis elements are numbered triple by triple, triples in row-major order of (output, input, filter).

    Attributes:
        elements: each kind of tile, shape (kinds, n, D), zero off the diagonal.
        mixing: for each pair of rows of a kind the entry of λ̂ that couples them in the flat vector of a density; one
            past the last entry where none does. Shape (kinds, n, n), or (kinds, 0, 0) for fixed densities.
        kinds: the kind of each tile, shape (tiles,).
        rows: the basis element in each row of the tiles, shape (tiles × n,); 0 where a row is all zeros.
        columns: the column of the tiles that holds the coefficient of a component of the filters, of the output and of
            the input, shape (filters, out, in).
        outputs: for each basis element the position, among the irreps of the output, of the irrep it feeds.
    """

    elements: FloatArray
    mixing: Indices
    kinds: Indices
    rows: Indices
    columns: Indices
    outputs: Indices


def pack_triples(
    density: Density, outs: tuple[Irrep, ...], ins: tuple[Irrep, ...], filters: tuple[Irrep, ...]
) -> Tiles:
    """Put the triples of the irreps of an output field, an input field and the filters, with repetition, into tiles."""
    sides = (outs, ins, filters)
    distinct = [list({irrep.id: irrep for irrep in side}.values()) for side in sides]
    basis = triple_basis(density, *distinct)
    sizes = itertools.product(*([irrep.size for irrep in irreps] for irreps in distinct))
    elements = [
        padded[:count, :d_out, :d_in, :d_filter].reshape(count, d_out * d_in * d_filter)
        for padded, count, (d_out, d_in, d_filter) in zip(basis.elements, basis.counts, sizes, strict=True)
    ]
    mixing = [padded[:count, :count] for padded, count in zip(basis.mixing, basis.counts, strict=True)]

    types = _types(sides, distinct)
    shapes = np.array([elements[i].shape for i in types.flat])
    tiles, first = _place(types.reshape(-1), shapes)
    kinds = {kind: i for i, kind in enumerate(dict.fromkeys(tiles))}

    counts = shapes[:, 0]
    numbers = np.arange(counts.sum())
    rows = np.zeros(len(tiles) * counts.max(), dtype=np.int64)
    rows[numbers + np.repeat(first[:, 0] - (np.cumsum(counts) - counts), counts)] = numbers
    return Tiles(
        elements=_diagonal([[elements[i] for i in kind] for kind in kinds], 0.0),
        mixing=_diagonal([[mixing[i] for i in kind] for kind in kinds], density.layout.offsets[-1]),
        kinds=np.array([kinds[tile] for tile in tiles]),
        rows=rows,
        columns=_columns(sides, first[:, 1].reshape(types.shape)),
        outputs=np.repeat(np.arange(types.size) // types[0].size, counts),
    )


def _types(sides: Sides, distinct: list[list[Irrep]]) -> Indices:
    """Return the number of each triple among the triples of distinct irreps, shape (outs, ins, filters)."""
    index = [
        [[each.id for each in irreps].index(irrep.id) for irrep in side]
        for irreps, side in zip(distinct, sides, strict=True)
    ]
    return np.asarray(np.ravel_multi_index(np.ix_(*index), [len(irreps) for irreps in distinct]))


def _place(types: Indices, shapes: Indices) -> tuple[list[tuple[int, ...]], Indices]:
    """Fill tiles with triples of the shapes given one after the other, the widest first.

    Returns:
        The types in each tile, and for each triple its first row and its first column among those of all tiles.
    """
    capacity = shapes.max(axis=0)
    used = capacity  # of the last tile; as if there were a full one before the first
    tiles: list[list[int]] = []
    first = np.zeros_like(shapes)
    for triple in np.lexsort((types, -shapes[:, 1])):
        if (used + shapes[triple] > capacity).any():
            tiles.append([])
            used = np.zeros_like(capacity)
        tiles[-1].append(int(types[triple]))
        first[triple] = (len(tiles) - 1) * capacity + used
        used = used + shapes[triple]
    return [tuple(tile) for tile in tiles], first


def _diagonal(tiles: list[list[NDArray[Any]]], filling: float) -> NDArray[Any]:
    """Return tiles with the blocks given down their diagonals as one array, ``filling`` elsewhere."""
    shapes = np.array([np.sum([block.shape for block in blocks], axis=0) for blocks in tiles])
    array = np.full((len(tiles), *shapes.max(axis=0)), filling, dtype=tiles[0][0].dtype)
    for tile, blocks in zip(array, tiles, strict=True):
        row = column = 0
        for block in blocks:
            tile[row : row + len(block), column : column + block.shape[1]] = block
            row, column = row + len(block), column + block.shape[1]
    return array


def _columns(sides: Sides, first: Indices) -> Indices:
    """Return the column of each coefficient, shape (filters, out, in), from that of the first of each triple."""
    sizes = [[irrep.size for irrep in side] for side in sides]
    irreps = np.ix_(*(np.repeat(np.arange(len(size)), size) for size in sizes))
    out, into, filt = np.ix_(*(np.concatenate([np.arange(d) for d in size]) for size in sizes))
    _, d_in, d_filter = np.ix_(*(np.repeat(size, size) for size in sizes))
    columns: Indices = first[irreps] + (out * d_in + into) * d_filter + filt
    return columns.transpose(2, 0, 1)
