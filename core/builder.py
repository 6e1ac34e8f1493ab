"""The layers that the architectures are put together from, on one group: each convolution with a density of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from parteq.core.density import Density, make_density
from parteq.core.depthwise import PartialDepthwise2d, PartialDepthwise3d
from parteq.core.fields import FieldType, Representation, band_limited, regular, trivial
from parteq.core.fourier import FourierNonlinearity
from parteq.core.groups import SymmetryGroup
from parteq.core.layers import PartialConv2d, PartialConv3d
from parteq.core.nonlinearity import PointwiseNonlinearity
from parteq.core.norm import FieldBatchNorm
from parteq.core.pool import AntiAliasedPool

__all__ = ["Builder", "ResidualBlock"]

_BAND = 2  # of the fields of continuous groups: irreps up to this frequency
_DENSITY_BAND = 4  # of their densities: the quarter turns are the finest symmetry told apart
_FREE_BAND = 8  # of all that kernels can hold: output 2, input 2, filters 4


class ResidualBlock(nn.Module):
    """The sum of a body and a shortcut, through a nonlinearity; an identity in place of either leaves it out."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, nonlinearity: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.nonlinearity = body, shortcut, nonlinearity

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c_in, *grid) to (batch, c_out, *grid)."""
        output: Tensor = self.nonlinearity(self.body(features) + self.shortcut(features))
        return output


@dataclass(frozen=True)
class Builder:
    """Makes layers on ``group``, whose convolutions have the ``degree`` given and which rectify with ``function``."""

    group: SymmetryGroup
    degree: str
    function: str = "relu"

    @property
    def representation(self) -> Representation:
        """What a field carries: functions on the group, band-limited where it is continuous."""
        return _functions(self.group)

    def fields(self, channels: float, size: int = 3) -> FieldType:
        """Return a type whose *exactly equivariant* layers have as many weights as plain ones of ``channels``.

        A plain kernel of edge ``size`` has size² weights (size³ in space) for each pair of channels, an equivariant one
        as many for each pair of fields as its basis has elements.
        """
        fields = channels * math.sqrt(size**self.group.dimension / _steerable_kernels(self.group, size))
        return FieldType(self.representation, max(1, round(fields)))

    def invariants(self, channels: int) -> FieldType:
        """Return a type of invariant channels."""
        return FieldType(trivial(self.group), channels)

    def convolve(self, before: FieldType, after: FieldType, size: int, **options: Any) -> nn.Module:
        """Return a convolution, with the options given; its norm brings the bias."""
        return _convolution(self.group)(before, after, size, self.density(), bias=False, **options)

    def depthwise(self, type: FieldType, size: int) -> nn.Module:
        """Return a convolution of each field by itself.

        Where the group permutes the components of a field (the finite groups), each component is convolved by itself;
        where it mixes them, all components of a field with each other. For a field of d components that is d × size²
        multiplications a pixel (D4: 72 for 3×3) or d² × size² (SO(2): 225, O(2): 900). Mixing the 8 components of D4 as
        well would take 576 and be the larger part of the whole block, in which the convolutions of one pixel on either
        side mix them anyway.
        """
        if type.representation.permutes:
            channelwise = PartialDepthwise2d if self.group.dimension == 2 else PartialDepthwise3d
            return channelwise(type, size, self.density(), bias=False)
        return _convolution(self.group)(type, type, size, self.density(), groups=type.count, bias=False)

    def nonlinearity(self, type: FieldType) -> nn.Module:
        """Return the rectifier that suits a type."""
        return (PointwiseNonlinearity if type.representation.permutes else FourierNonlinearity)(type, self.function)

    def activate(self, type: FieldType) -> list[nn.Module]:
        """Return a norm and a rectifier."""
        return [FieldBatchNorm(type), self.nonlinearity(type)]

    def unit(self, before: FieldType, after: FieldType, size: int, **options: Any) -> nn.Sequential:
        """Return a convolution, with the options given, a norm and a rectifier."""
        return nn.Sequential(self.convolve(before, after, size, **options), *self.activate(after))

    def pool(self) -> nn.Module:
        """Return what halves the image and keeps turns by 90° and mirrors exact, whatever its size."""
        return AntiAliasedPool(self.group.dimension)

    def density(self) -> Density:
        """Return a density of the degree given, for one layer."""
        return make_density(self.group, self.degree, _FREE_BAND if self.degree == "none" else _DENSITY_BAND)


def _convolution(group: SymmetryGroup) -> type[PartialConv2d] | type[PartialConv3d]:
    return PartialConv2d if group.dimension == 2 else PartialConv3d


@cache
def _functions(group: SymmetryGroup) -> Representation:
    return band_limited(group, _BAND) if group.continuous else regular(group)


@cache
def _steerable_kernels(group: SymmetryGroup, size: int) -> int:
    """Return how many exactly equivariant kernels of edge ``size`` there are between two fields."""
    one = FieldType(_functions(group), 1)
    with torch.random.fork_rng([]):  # a seed makes the same model whether or not this is remembered
        layer = _convolution(group)(one, one, size, make_density(group, "full", _DENSITY_BAND))
    return layer.kernel.rows
