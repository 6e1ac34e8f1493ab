"""The axis that turns of the data are about, from their moments, before anything is trained.

If the data are as likely as the same turned by g, for all g of a group K, then the mean m of anything that turns with a
cloud does not change under K: m = E[T(x)] = E[T(gx)] = ρ(g) m. Where K is the turns about n, so

    X_n m  =  Σ_k n_k X_k m  =  0,        X_k the derivative of ρ by the angle of a turn about the k-th axis,

and of a sample, whose mean is m but for noise, n makes ‖X_n m‖² = nᵀ A n least, A_jk = ⟨X_j m, X_k m⟩: it is the
eigenvector of A with the smallest eigenvalue. Of second moments alone, with eigenvalues a, b, c, those of A are
2 (b − c)², 2 (c − a)² and 2 (a − b)²: the axis is the eigenvector whose two companions have nearly equal eigenvalues.

Here m are the harmonics of degree 1 and 2 on shells about the centroid; higher degrees would also see what square
things have in common that stand alike, fourfold, though nothing was turned. Where the data turn in every way m = 0, A
is noise, and one axis is as good as another.

A learned axis begins here, because gradients find but the nearest of several that are locally best.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.data import Dataset

from parteq.core.groups import space_group
from parteq.core.pointfilters import RadialHarmonics
from parteq.core.training import read_batches

__all__ = ["likely_axis"]

_CLOUDS, _BATCH = 4096, 32
_REACH, _SHELLS, _DEGREE = 2.2, 6, 2  # in units of the spread of a cloud


def likely_axis(data: Dataset[Any]) -> Float[Tensor, "3"]:
    """Return a unit vector, its z not negative, about which turns alter the mean moments of clouds least.

    Args:
        data: samples, see :mod:`~parteq.apps.points.samples`; up to 4,096 of them, spread evenly, are looked at.
    """
    filters = RadialHarmonics(_REACH, _SHELLS, _DEGREE)
    bank = filters.bank(space_group("so3"))
    total = len(data)  # type: ignore[arg-type]
    chosen = torch.linspace(0, total - 1, min(total, _CLOUDS)).round().long()
    means = torch.zeros(bank.harmonics.shape[1], dtype=torch.float64)
    for positions, counts, *_ in read_batches(data, list(chosen.split(_BATCH))):
        present = torch.arange(positions.shape[1]) < counts[:, None]
        share = (present / counts[:, None])[..., None].double()
        offsets = positions - (positions * share).sum(1, keepdim=True)
        spread = (offsets.square() * share).sum((1, 2), keepdim=True).sqrt()
        vectors = (offsets / spread.clamp_min(torch.finfo(torch.float32).tiny)).float()
        means += share.flatten() @ filters(vectors.flatten(0, 1)).double()
    changes = torch.from_numpy(bank.generators @ (bank.harmonics @ means.numpy()))  # X_k m
    axis = torch.linalg.eigh(changes @ changes.T).eigenvectors[:, 0].float()
    return -axis if axis[2] < 0 else axis
