"""Partially equivariant layers: convolutions in the plane and in space, and linear maps.

Each layer is a :class:`~parteq.core.kernel.PartialKernel`, a bias on the invariant part of the output, and the plain
torch operation that applies them. ``groups`` equal to the number of fields gives the depthwise form, ``kernel_size`` 1
the pointwise form.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from parteq.core.axis import Axis
from parteq.core.density import Density
from parteq.core.fields import FieldType
from parteq.core.filters import (
    FilterBank,
    grid_points,
    harmonic_bank,
    pixel_bank,
    point_bank,
    resolved_frequencies,
)
from parteq.core.groups import SymmetryGroup
from parteq.core.kernel import PartialKernel

__all__ = ["PartialConv2d", "PartialConv3d", "PartialLayer", "PartialLinear"]


class PartialLayer(nn.Module, ABC):
    """What all partially equivariant layers share: a kernel, its density, and a bias the group leaves alone.

    The bias has one number for each trivial irrep of each output field.
    """

    bias_directions: Tensor

    def __init__(self, kernel: PartialKernel, bias: bool) -> None:
        super().__init__()
        self.kernel = kernel
        rho = kernel.out_type.representation
        invariant = [s for irrep, s in zip(rho.irreps, rho.irrep_offsets, strict=False) if irrep.is_trivial()]
        directions = torch.from_numpy(rho.basis[:, invariant].T.copy()).to(torch.get_default_dtype())
        self.register_buffer("bias_directions", directions, persistent=False)
        self.bias = nn.Parameter(torch.zeros(kernel.out_type.count, len(invariant))) if bias else None

    @property
    def in_type(self) -> FieldType:
        """Type of the input."""
        return self.kernel.in_type

    @property
    def out_type(self) -> FieldType:
        """Type of the output."""
        return self.kernel.out_type

    @property
    def density(self) -> Density:
        """The density λ on the layer's group."""
        return self.kernel.density

    def expanded_bias(self) -> Tensor | None:
        """Return the bias of every channel, shape (c_out,), or ``None``."""
        return None if self.bias is None else (self.bias @ self.bias_directions).flatten()

    @abstractmethod
    def plain(self) -> nn.Module:
        """Return the plain torch layer that computes the same, with the weights as they stand."""

    def extra_repr(self) -> str:
        """Name the two field types."""
        return f"{self.in_type} -> {self.out_type}"


class PartialLinear(PartialLayer):
    """A partially equivariant linear map, (…, c_in) → (…, c_out)."""

    def __init__(self, in_type: FieldType, out_type: FieldType, density: Density, bias: bool = True) -> None:
        kernel = PartialKernel(in_type, out_type, point_bank(density.group), density)
        super().__init__(kernel, bias)

    def forward(self, features: Tensor) -> Tensor:
        """Map features of shape (…, c_in) to (…, c_out)."""
        return functional.linear(features, self.kernel()[..., 0], self.expanded_bias())

    def plain(self) -> nn.Linear:
        """Return the ``torch.nn.Linear`` that computes the same."""
        weight, bias = self.kernel()[..., 0], self.expanded_bias()
        return _filled(nn.Linear(weight.shape[1], weight.shape[0], bias is not None), weight, bias)


class _PartialConv(PartialLayer):
    """A partially equivariant convolution on a grid; see :class:`PartialConv2d`."""

    dimension: int

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        kernel_size: int,
        density: Density,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        axis: Axis | None = None,
    ) -> None:
        if density.group.dimension != self.dimension:
            raise ValueError(f"{density.group} does not act in {self.dimension} dimensions")
        for name, value in {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}.items():
            if value < 1:
                raise ValueError(f"{name} must be at least 1, it is {value}")
        if padding is not None and padding < 0:
            raise ValueError(f"padding must not be negative, it is {padding}")
        if padding_mode not in (modes := ("zeros", "reflect", "replicate", "circular")):
            raise ValueError(f"unknown padding_mode {padding_mode!r}: use {', '.join(modes)}")
        bank = _bank(density.group, kernel_size, turnable=axis is not None)
        super().__init__(PartialKernel(in_type, out_type, bank, density, groups, axis), bias)
        self.kernel_size, self.stride, self.dilation, self.groups = kernel_size, stride, dilation, groups
        self.padding = dilation * (kernel_size // 2) if padding is None else padding
        self.padding_mode = padding_mode

    def weight(self) -> Tensor:
        """Return the kernel, shape (c_out, c_in / groups, *grid)."""
        kernel: Tensor = self.kernel()
        return kernel.view(*kernel.shape[:2], *[self.kernel_size] * self.dimension)

    def _options(self) -> dict[str, Any]:
        return {"stride": self.stride, "dilation": self.dilation, "groups": self.groups}

    def forward(self, images: Tensor) -> Tensor:
        """Convolve (batch, c_in, *grid) to (batch, c_out, *grid)."""
        padding = self.padding
        if self.padding_mode != "zeros" and padding:
            images = functional.pad(images, [padding] * (2 * self.dimension), mode=self.padding_mode)
            padding = 0
        convolve = functional.conv2d if self.dimension == 2 else functional.conv3d
        output: Tensor = convolve(images, self.weight(), self.expanded_bias(), padding=padding, **self._options())
        return output

    def plain(self) -> nn.Module:
        """Return the ``torch.nn`` convolution that computes the same."""
        make: type[nn.Conv2d] | type[nn.Conv3d] = nn.Conv2d if self.dimension == 2 else nn.Conv3d
        bias = self.expanded_bias()
        layer = make(
            self.in_type.channels,
            self.out_type.channels,
            self.kernel_size,
            padding=self.padding,
            padding_mode=self.padding_mode,
            bias=bias is not None,
            **self._options(),
        )
        return _filled(layer, self.weight(), bias)


class PartialConv2d(_PartialConv):
    """A partially equivariant convolution of images, (batch, c_in, y, x) → (batch, c_out, y, x).

    Args:
        in_type: type of the input.
        out_type: type of the output.
        kernel_size: odd or even edge of the kernel in pixels.
        density: λ on a group of the plane; layers given the same object share it.
        stride: as in ``torch.nn.Conv2d``. A turn by 90° takes the pixels that are kept to pixels that are kept only
            where the last one fits: where the stride divides n + 2 × padding − dilation × (kernel_size − 1) − 1, for an
            image of n pixels. Elsewhere no quarter turn is exact, whatever λ is;
            :class:`~parteq.core.pool.AntiAliasedPool` halves images of any size.
        padding: as in ``torch.nn.Conv2d``; by default half the kernel, which keeps the size if the
            kernel is odd; an even one adds ``dilation`` pixels.
        dilation: as in ``torch.nn.Conv2d``.
        groups: as in ``torch.nn.Conv2d``, counted in fields.
        bias: add a bias to the invariant components.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``.

    Raises:
        ValueError: a group that does not act in the plane, groups that differ, or a number or a mode that cannot be
            meant.

    Groups that map the pixel grid to itself use all pixels and are exact under those turns; others use Gaussian rings
    of circular harmonics (Weiler and Cesa, arXiv 1911.08251).

    >>> from parteq.core.density import make_density
    >>> from parteq.core.fields import FieldType, regular, trivial
    >>> from parteq.core.groups import plane_group
    >>> d4 = plane_group("d4")
    >>> types = FieldType(trivial(d4), 3), FieldType(regular(d4), 8)
    >>> layer = PartialConv2d(*types, 3, make_density(d4, "learned", band=0))
    >>> layer(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 64, 32, 32])
    """

    dimension = 2


class PartialConv3d(_PartialConv):
    """A partially equivariant convolution of volumes, (batch, c_in, z, y, x) → (batch, c_out, z, y, x).

    Arguments as in :class:`PartialConv2d`, and ``axis``: the axis of a group about an axis (see
    :class:`~parteq.core.axis.Axis`, in whose frame features are), given or learned, by default z. The octahedral group
    and its subgroups about z use all voxels; with an axis given, filters are harmonics on shells.
    """

    dimension = 3


@lru_cache(maxsize=256)
def _bank(group: SymmetryGroup, kernel_size: int, turnable: bool) -> FilterBank:
    """Return the filter bank of a kernel: pixels where the group permutes them, else harmonics on rings.

    A bank whose axis turns cannot be of pixels, and has a direction even where the kernel is one voxel.
    """
    if kernel_size == 1 and not turnable:
        return point_bank(group)
    points = grid_points(kernel_size, group.dimension)
    pixels = pixel_bank(group, points)
    if pixels is not None and not turnable:
        return pixels
    # Rings one pixel apart; the last just inside the edge, where turning the grid loses nothing.
    radii = np.arange((kernel_size - 1) % 2 / 2, (kernel_size + 1) / 2, 1.0)
    return harmonic_bank(group, points, radii, 0.6, [resolved_frequencies(radius) for radius in radii])


_Layer = TypeVar("_Layer", bound=nn.Linear | nn.Conv2d | nn.Conv3d)


def _filled(layer: _Layer, weight: Tensor, bias: Tensor | None) -> _Layer:
    """Copy a weight and a bias into a plain layer, of their precision and where they are."""
    layer.to(weight)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return layer
