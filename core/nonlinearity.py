"""Nonlinearities that commute with the group: pointwise where it permutes components, else gates and norms.

All take and give (batch, c, *grid) with an empty grid for flat features. :mod:`parteq.core.fourier` has the ones for
functions on a continuous group.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg import block_diag
from torch import Tensor, nn
from torch.nn import functional

from parteq.core.coordinates import IrrepCoordinates
from parteq.core.fields import FieldType, Representation

__all__ = [
    "POINTWISE_FUNCTIONS",
    "GatedNonlinearity",
    "NormNonlinearity",
    "PointwiseNonlinearity",
    "pointwise_function",
]

POINTWISE_FUNCTIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "elu": nn.ELU, "relu6": nn.ReLU6, "silu": nn.SiLU}


def pointwise_function(name: str) -> nn.Module:
    """Return the function of one number called ``relu``, ``elu``, ``relu6`` or ``silu``, as a torch module.

    Raises:
        ValueError: ``name`` is none of these.
    """
    try:
        return POINTWISE_FUNCTIONS[name]()
    except KeyError:
        raise ValueError(f"unknown function {name!r}: use {', '.join(POINTWISE_FUNCTIONS)}") from None


class PointwiseNonlinearity(nn.Module):
    """A function of each channel by itself, for representations that permute their components.

    Args:
        type: type of the input and of the output.
        function: see :func:`pointwise_function`.

    Raises:
        ValueError: the representation mixes components, so that no pointwise function is equivariant.
    """

    def __init__(self, type: FieldType, function: str = "relu") -> None:
        super().__init__()
        if not type.representation.permutes:
            raise ValueError(f"{type} does not permute its components: use a gated, norm or Fourier nonlinearity")
        self.in_type = self.out_type = type
        self.function = pointwise_function(function)

    def forward(self, features: Tensor) -> Tensor:
        """Apply the function to (batch, c, *grid)."""
        output: Tensor = self.function(features)
        return output

    def plain(self) -> nn.Module:
        """Return the plain torch layer that computes the same."""
        return self.function


class GatedNonlinearity(nn.Module):
    """Each non-trivial irrep times a number between 0 and 1, each trivial one through a function.

    The layer before must give ``in_type``: every field is one of ``type`` followed by a gate, an invariant channel, for
    each non-trivial irrep in it. An irrep is multiplied by the logistic function of its gate (Weiler et al., arXiv
    1807.02547). Any basis of the representation will do.

    Args:
        type: type of the output.
        function: what is applied to the trivial irreps; see :func:`pointwise_function`.
    """

    gate_of_component: Tensor

    def __init__(self, type: FieldType, function: str = "relu") -> None:
        super().__init__()
        rho = type.representation
        moved = np.array([not irrep.is_trivial() for irrep in rho.irreps])
        gates = int(moved.sum())
        invariant = rho.group.irreps(0)[0]
        gated = Representation(
            f"{rho.name}+{gates} gates",
            rho.group,
            (*rho.irreps, *[invariant] * gates),
            block_diag(rho.basis, np.eye(gates)),
            rho.permutes and not gates,
        )
        self.in_type, self.out_type = FieldType(gated, type.count), type
        self.function = pointwise_function(function)
        self.before, self.after = IrrepCoordinates(self.in_type), IrrepCoordinates(type)
        # Trivial irreps point one past the last gate, where a 1 is put.
        gate = torch.from_numpy(np.where(moved, np.cumsum(moved) - 1, gates))
        self.register_buffer("gate_of_component", gate[self.after.copy_of_component], persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, channels of ``in_type``, *grid) to (batch, channels of ``out_type``, *grid)."""
        coordinates = self.before(features)
        size = self.out_type.representation.size
        values, gates = coordinates[:, :, :size], coordinates[:, :, size:].sigmoid()
        gates = functional.pad(gates, (0, 0, 0, 1), value=1.0).index_select(2, self.gate_of_component)
        output = torch.where(self.after.invariant, self.function(values), values * gates)
        return self.after.inverse(output, like=features)


class NormNonlinearity(nn.Module):
    """Each non-trivial irrep shortened, each trivial one shifted and rectified:

        x  ↦  relu(|x| + b) x / |x|     or     relu(x + b),

    with a learned b for each irrep of each field (Worrall et al., arXiv 1612.04642). |x| is √(x² + ε²), so that value
    and gradient stay finite at 0. Any basis of the representation will do.

    Args:
        type: type of the input and of the output.
        initial_bias: b at the start. At 0 non-trivial irreps would pass unchanged.
        epsilon: ε, in the unit of the features.
    """

    def __init__(self, type: FieldType, initial_bias: float = -0.1, epsilon: float = 1e-3) -> None:
        super().__init__()
        self.in_type = self.out_type = type
        self.epsilon = epsilon
        self.coordinates = IrrepCoordinates(type)
        self.bias = nn.Parameter(torch.full((type.count, len(type.representation.irreps)), initial_bias))

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c, *grid) to the same shape."""
        at = self.coordinates
        values = at(features)
        sizes = 1 / at.averages.amax(1, keepdim=True)
        length = (sizes * (at.averages @ values.square()) + self.epsilon**2).sqrt()
        length = length.index_select(2, at.copy_of_component)
        bias = self.bias.index_select(1, at.copy_of_component)[..., None]
        size, direction = (
            torch.where(at.invariant, values, length),
            torch.where(at.invariant, torch.ones_like(values), values / length),
        )
        return at.inverse(functional.relu(size + bias) * direction, like=features)
