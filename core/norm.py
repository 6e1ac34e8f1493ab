"""Batch normalisation of fields.

Removing a mean commutes with the group only where the group does nothing, so the mean of the trivial irreps alone is
removed; a variance may be divided out if all components that the group mixes share it. Components therefore form
*blocks* with one variance, one learned scale and, if trivial, one learned bias each:

- each irrep of a plain direct sum;
- a whole field where the group permutes components (the regular representation), its trivial part being the mean over
  the components;
- each irrep in its own coordinates Qᵀx for any other basis Q. The layer is then no function of each channel by itself.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from parteq.core.coordinates import IrrepCoordinates, as_channels, as_fields
from parteq.core.distributed import total, world_size
from parteq.core.fields import FieldType

__all__ = ["FieldBatchNorm"]


class FieldBatchNorm(nn.Module):
    """Equivariant batch normalisation of (batch, c, *grid); on trivial representations it is ``torch.nn.BatchNorm*d``.

    Args:
        type: type of the input and of the output.
        momentum: weight of the newest batch in the running statistics.
        epsilon: added to variances, in squared units of the features.

    The running statistics are buffers of the state dict: ``running_mean`` (fields, trivial irreps) and
    ``running_variance`` (fields, blocks). Irreps that are not trivial have their mean square as variance.
    """

    averages: Tensor
    block_of_component: Tensor
    invariant_directions: Tensor
    freedom: Tensor
    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, type: FieldType, momentum: float = 0.1, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.in_type = self.out_type = type
        self.momentum, self.epsilon = momentum, epsilon
        rho = type.representation
        self.permutes = rho.permutes and sum(irrep.is_trivial() for irrep in rho.irreps) == 1
        trivial = np.array([irrep.is_trivial() for irrep in rho.irreps])
        first = np.array(rho.irrep_offsets[:-1])[trivial]
        diagonal = np.array_equal(rho.basis, np.eye(rho.size))
        self.coordinates = None if rho.permutes or diagonal else IrrepCoordinates(type)
        if rho.permutes and not diagonal:
            block = np.zeros(rho.size, dtype=np.int64)
        else:
            block = np.repeat(np.arange(len(rho.irreps)), [irrep.size for irrep in rho.irreps])
        directions = (np.eye(rho.size) if self.coordinates else rho.basis)[:, first].T.copy()
        member = np.arange(block[-1] + 1)[:, None] == block
        sizes = member.sum(1, keepdims=True)
        # How many of the numbers in a block their own mean takes away, for the unbiased running variance.
        taken = member @ np.square(directions).sum(0)

        # Of a field that permutes: its trivial coordinate over the mean of its n components, √n of either sign.
        self.root = float(directions.sum())
        default = torch.get_default_dtype()
        self.register_buffer("averages", torch.from_numpy(member / sizes).to(default), persistent=False)
        self.register_buffer("block_of_component", torch.from_numpy(block), persistent=False)
        self.register_buffer("invariant_directions", torch.from_numpy(directions).to(default), persistent=False)
        self.register_buffer("freedom", torch.from_numpy(taken / sizes[:, 0]).to(default), persistent=False)
        self.weight = nn.Parameter(torch.ones(type.count, len(sizes)))
        self.bias = nn.Parameter(torch.zeros(type.count, len(first)))
        self.register_buffer("running_mean", torch.zeros(type.count, len(first)))
        self.register_buffer("running_variance", torch.ones(type.count, len(sizes)))

    def forward(self, features: Tensor) -> Tensor:
        """Normalise (batch, c, *grid) by the statistics of the batch in training, by the running ones in evaluation.

        Raises:
            ValueError: in training, with a single number per channel, which has no variance.
        """
        if self.permutes and not (self.training and world_size() > 1):
            return self._forward_permuted(features)
        wide = features.to(self.weight.dtype)
        values = as_fields(wide, self.in_type) if self.coordinates is None else self.coordinates(wide)
        if self.training:
            mean, variance = self._batch_statistics(values)
        else:
            mean, variance = self.running_mean, self.running_variance
        scale, shift = self._affine(mean, variance)
        output = (values * scale[..., None] + shift[..., None]).to(features.dtype)
        if self.coordinates is None:
            return as_channels(output, like=features)
        return self.coordinates.inverse(output, like=features)

    def _forward_permuted(self, features: Tensor) -> Tensor:
        """Normalise fields whose components permute: torch's batch norm with a field as its channel, in one pass."""
        values = as_fields(features, self.in_type)
        mean = self.running_mean[:, 0] / self.root
        output = functional.batch_norm(
            values.flatten(2),
            mean,
            self.running_variance[:, 0],
            self.weight[:, 0],
            self.bias[:, 0] / self.root,
            self.training,
            self.momentum,
            self.epsilon,
        )
        if self.training:
            self.running_mean.copy_(mean[:, None] * self.root)
        return as_channels(output.view_as(values), like=features)

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift of each channel in evaluation, shape (c,) both, to fold into the layer before.

        Raises:
            ValueError: the basis of the representation is neither plain nor permuted, so channels are mixed.
        """
        if self.coordinates is not None:
            raise ValueError(f"the norm of {self.in_type} mixes channels and has no scale for each")
        scale, shift = self._affine(self.running_mean, self.running_variance)
        return scale.flatten(), shift.flatten()

    def plain(self, dimension: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
        """Return the ``torch.nn`` norm that computes the same in evaluation, on grids of 2 or 3 dimensions.

        Raises:
            ValueError: as in :meth:`scale_and_shift`.
        """
        scale, shift = self.scale_and_shift()
        # Its running statistics are mean 0 and variance 1.
        norm = (nn.BatchNorm2d if dimension == 2 else nn.BatchNorm3d)(len(scale), eps=0.0).to(scale).eval()
        with torch.no_grad():
            norm.weight.copy_(scale)
            norm.bias.copy_(shift)
        return norm

    def _affine(self, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """Return scale and shift of every component, shape (fields, components)."""
        scale = (self.weight * (variance + self.epsilon).rsqrt()).index_select(1, self.block_of_component)
        return scale, self._spread(self.bias) - scale * self._spread(mean)

    def _spread(self, invariants: Tensor) -> Tensor:
        """Return the components, shape (fields, components), of trivial irreps (fields, trivial irreps)."""
        return _times(invariants, self.invariant_directions.T)

    def _batch_statistics(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of values (batch, fields, components, positions) and take note of them."""
        mine = values.shape[0] * values.shape[3]
        if mine * world_size() < 2:  # asked without waiting for the device
            raise ValueError("batch statistics need more than one value per channel")
        count = total(torch.tensor(float(mine), device=values.device))
        mean = _times(total(values.sum(dim=(0, 3))) / count, self.invariant_directions)
        centred = values - self._spread(mean)[..., None]
        variance = _times(total(centred.square().sum(dim=(0, 3))) / count, self.averages)
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_variance.lerp_(variance * count / (count - self.freedom), self.momentum)
        return mean, variance

    def extra_repr(self) -> str:
        """Name the type."""
        return str(self.in_type)


def _times(values: Tensor, rows: Tensor) -> Tensor:
    """Return values @ rowsᵀ, kept out of the hands of automatic mixed precision: statistics need all their digits."""
    return (values[:, None] * rows).sum(dim=-1)
