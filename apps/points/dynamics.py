"""A network of particles: from where they are and how they move to a vector at each of them, turning as they turn.

Every particle is a node that bears one field, 1 ⊕ vector ⊕ vector: a constant, its position and its velocity. Layers
add a convolution over all other particles of the system to a linear map of the particle's own field, and go through
norms and gates; a linear map of the last fields and of the first gives the vector. Positions are taken from the origin,
so what stands about it, such as a plane that pulls, can be learned as far as the density breaks the symmetry; with
``degree`` "full" predictions turn with the system, exactly.

A group about an axis acts on vectors in a frame whose z is the axis: vectors are taken into it, and back in the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import block_diag
from torch import Tensor, nn

from parteq.apps.points.builder import PointBuilder
from parteq.core.density import Density
from parteq.core.fields import FieldType, Representation, representation
from parteq.core.groups import Element, FloatArray, SymmetryGroup

__all__ = ["VectorNetwork", "create_vector_network"]

_CHANNELS = 16
_REACH = 4.0  # of the outermost shell
_SHELLS = 4
_FREQUENCY = 2


class _Layer(nn.Module):
    """A convolution over the others plus a linear map of oneself, a norm and gates."""

    def __init__(self, convolve: nn.Module, linear: nn.Module, activate: nn.Module) -> None:
        super().__init__()
        self.convolve, self.linear, self.activate = convolve, linear, activate

    def forward(self, features: Tensor, edges: Tensor, filters: Tensor, neighbours: int) -> Tensor:
        """Map features (nodes, c_in) to (nodes, c_out)."""
        from_others = self.convolve(features, edges, filters, neighbours=neighbours)
        output: Tensor = self.activate(from_others + self.linear(features))
        return output


class VectorNetwork(nn.Module):
    """Predicts a vector at each particle; see the module.

    Args:
        builder: makes layers on the group.
        layers: how many.
        width: factor on the number of channels.
    """

    scale: Tensor

    def __init__(self, builder: PointBuilder, layers: int, width: float) -> None:
        super().__init__()
        self.axis = builder.axis
        self.filters = builder.filters(_REACH, _SHELLS, _FREQUENCY, 0)
        state = FieldType(_vectors(builder.group, 2, constants=1), 1)
        vector = FieldType(_vectors(builder.group, 1), 1)
        self.layers = nn.ModuleList()
        type = state
        for _ in range(layers):
            after = builder.irreps(_CHANNELS * width)
            before, activate = builder.gate(after)
            convolve = builder.convolve(type, before, self.filters)
            self.layers.append(_Layer(convolve, builder.linear(type, before), activate))
            type = after
        self.from_hidden = builder.linear(type, vector)
        self.from_state = builder.linear(state, vector)
        self.register_buffer("scale", torch.ones(()))

    @property
    def density(self) -> Density:
        """λ, which all layers share."""
        return self.from_state.density

    def forward(
        self, positions: Float[Tensor, "systems particles 3"], velocities: Float[Tensor, "systems particles 3"]
    ) -> Float[Tensor, "systems particles 3"]:
        """Map positions and velocities of two particles or more to a vector at each, in units of ``scale``."""
        systems, particles, _ = positions.shape
        frame = torch.eye(3).to(positions)
        if self.axis is not None:
            frame = self.axis.rotation()
        edges = _all_pairs(systems, particles).to(positions.device)
        flat = positions.flatten(0, 1)
        filters = self.filters(flat[edges[0]] - flat[edges[1]])
        state = torch.cat([torch.ones_like(flat[:, :1]), flat @ frame, velocities.flatten(0, 1) @ frame], dim=1)
        hidden = state
        for layer in self.layers:
            hidden = layer(hidden, edges, filters, particles - 1)
        output = (self.from_hidden(hidden) + self.from_state(state)) @ frame.T
        return self.scale * output.view(systems, particles, 3)


def _vectors(group: SymmetryGroup, count: int, constants: int = 0) -> Representation:
    """The representation of so many constants, followed by vectors x, y, z."""

    def act(element: Element) -> FloatArray:
        matrix: FloatArray = block_diag(np.eye(constants), *[group.matrix(element)] * count)
        return matrix

    return representation(f"{constants} constants + {count} vectors", group, act, constants + 3 * count, band=1)


def _all_pairs(systems: int, particles: int) -> Tensor:
    """Source and target of all edges between different particles of a system, (2, edges), target by target."""
    target, source = (~torch.eye(particles, dtype=torch.bool)).nonzero().T
    first = particles * torch.arange(systems)[:, None]
    return torch.stack([(source + first).flatten(), (target + first).flatten()])


def create_vector_network(
    *,
    group: str = "so3",
    degree: str = "learned",
    axis: Sequence[float] | None = (0.0, 0.0, 1.0),
    layers: int = 2,
    width: float = 1.0,
) -> VectorNetwork:
    """Return a network of particles.

    Args:
        group: the group, see :func:`~parteq.core.groups.space_group`.
        degree: ``learned``, ``full`` or ``none``.
        axis: of a group about an axis; ``None`` learns it.
        layers: convolutions, one after the other.
        width: factor on the number of channels; at equal width every group has about the same number of weights when
            the degree is full.

    Raises:
        ValueError: an unknown group or degree, an axis without direction, or no layer.
    """
    if layers < 1 or not width > 0:
        raise ValueError(f"a network of particles needs a layer and channels, not {layers} and a width of {width}")
    return VectorNetwork(PointBuilder(group, degree, axis), layers, width)
