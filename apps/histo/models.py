"""Image classifiers with a learnable degree of equivariance.

A model maps images in 0…1 to logits: normalisation, a stem that lifts the colour channels to fields, residual stages
with anti-aliased pooling between them, and an *invariant head*: a last equivariant layer onto invariant channels, their
mean over the image, and a linear classifier. With ``degree`` "full" the logits are invariant under the group (exactly
so for turns by 90° and mirrors); with "learned" each convolution has a density of its own and may break what the data
break; with "none", or the group "none", it is an ordinary network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from parteq.core.density import make_density
from parteq.core.fields import FieldType, band_limited, regular, trivial
from parteq.core.fourier import FourierNonlinearity
from parteq.core.groups import SymmetryGroup, plane_group, space_group
from parteq.core.layers import PartialConv2d, PartialConv3d
from parteq.core.nonlinearity import PointwiseNonlinearity
from parteq.core.norm import FieldBatchNorm
from parteq.core.pool import AntiAliasedPool

__all__ = ["GROUPS", "MODELS", "SteerableResNet", "create_model"]

GROUPS = ("c4", "c8", "d4", "so2", "o2", "none")
"""The groups offered by name; any other of the plane (or space, for volumes) works as well."""

_BAND = 2  # of the fields of continuous groups: irreps up to this frequency
_DENSITY_BAND = 4  # of their densities: the quarter turns are the finest symmetry told apart
_FREE_BAND = 8  # of all that kernels can hold: output 2, input 2, filters 4
_INVARIANT_CHANNELS = 32


class Normalize(nn.Module):
    """Subtract ``mean`` and divide by ``std``, one number a channel, kept in the checkpoint."""

    mean: Tensor
    std: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.full((channels,), 0.5))
        self.register_buffer("std", torch.full((channels,), 0.25))

    def forward(self, images: Tensor) -> Tensor:
        """Normalise (batch, channels, *grid)."""
        shape = (-1, *[1] * (images.dim() - 2))
        return (images - self.mean.view(shape)) / self.std.view(shape)


class ResidualBlock(nn.Module):
    """Two convolutions and a shortcut, which is the identity where the types agree."""

    def __init__(self, body: nn.Module, shortcut: nn.Module, nonlinearity: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut, self.nonlinearity = body, shortcut, nonlinearity

    def forward(self, features: Tensor) -> Tensor:
        """Map (batch, c_in, *grid) to (batch, c_out, *grid)."""
        output: Tensor = self.nonlinearity(self.body(features) + self.shortcut(features))
        return output


class _Builder:
    """Makes the layers of a model on one group, each convolution with a density of its own."""

    def __init__(self, group: SymmetryGroup, degree: str) -> None:
        self.group, self.degree = group, degree
        self.convolution = PartialConv2d if group.dimension == 2 else PartialConv3d
        self.representation = band_limited(group, _BAND) if group.continuous else regular(group)

    def fields(self, channels: float) -> FieldType:
        """Return a type whose *exactly equivariant* layers have as many weights as plain ones of ``channels``.

        A plain 3×3 kernel (3×3×3 in space) has 9 weights (27) for each pair of channels, an equivariant one as many for
        each pair of fields as its basis has elements.
        """
        one = FieldType(self.representation, 1)
        steerable = self.convolution(one, one, 3, make_density(self.group, "full", _DENSITY_BAND), bias=False)
        fields = channels * math.sqrt(3**self.group.dimension / steerable.kernel.rows)
        return FieldType(self.representation, max(1, round(fields)))

    def invariants(self, channels: int) -> FieldType:
        """Return a type of invariant channels."""
        return FieldType(trivial(self.group), channels)

    def convolve(self, before: FieldType, after: FieldType, size: int) -> nn.Module:
        """Return a convolution; its norm brings the bias."""
        band = _FREE_BAND if self.degree == "none" else _DENSITY_BAND
        return self.convolution(before, after, size, make_density(self.group, self.degree, band), bias=False)

    def nonlinearity(self, type: FieldType) -> nn.Module:
        """Return the rectifier that suits a type."""
        return (PointwiseNonlinearity if type.representation.permutes else FourierNonlinearity)(type, "relu")

    def unit(self, before: FieldType, after: FieldType, size: int) -> nn.Sequential:
        """Return a convolution, a norm and a rectifier."""
        return nn.Sequential(self.convolve(before, after, size), FieldBatchNorm(after), self.nonlinearity(after))

    def block(self, before: FieldType, after: FieldType) -> ResidualBlock:
        """Return a residual block."""
        body = nn.Sequential(*self.unit(before, after, 3), self.convolve(after, after, 3), FieldBatchNorm(after))
        same = before.count == after.count and before.representation is after.representation
        shortcut = nn.Identity() if same else nn.Sequential(self.convolve(before, after, 1), FieldBatchNorm(after))
        return ResidualBlock(body, shortcut, self.nonlinearity(after))


class SteerableResNet(nn.Module):
    """A small residual network on fields.

    Args:
        builder: makes layers on the group.
        in_chans: colour channels.
        num_classes: logits.
        channels: plain-equivalent channels of the stages (see ``fields`` of the builder).
        features_only: return the mean invariant features instead of logits.
        config: what :func:`create_model` was called with.
    """

    def __init__(
        self,
        builder: _Builder,
        *,
        in_chans: int,
        num_classes: int,
        channels: Sequence[float],
        features_only: bool,
        config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.config = config
        self.features_only = features_only
        self.normalize = Normalize(in_chans)
        types = [builder.fields(width) for width in channels]
        self.stem = builder.unit(builder.invariants(in_chans), types[0], 5)
        stages: list[nn.Module] = []
        for before, after in zip([types[0], *types], types, strict=False):
            stages += [builder.block(before, after), AntiAliasedPool(builder.group.dimension)]
        self.stages = nn.Sequential(*stages)
        self.head = builder.unit(types[-1], builder.invariants(_INVARIANT_CHANNELS), 3)
        self.classifier = nn.Linear(_INVARIANT_CHANNELS, num_classes)

    def set_normalization(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and standard deviation of each channel, of images in 0…1."""
        self.normalize.mean.copy_(torch.as_tensor(mean))
        self.normalize.std.copy_(torch.as_tensor(std))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, channels, *grid) in 0…1 to logits (batch, classes)."""
        features = self.head(self.stages(self.stem(self.normalize(images)))).flatten(2).mean(2)
        return features if self.features_only else self.classifier(features)


def _resnet(builder: _Builder, width: float, **options: Any) -> nn.Module:
    return SteerableResNet(builder, channels=[width * base for base in (10, 13, 16)], **options)


MODELS: dict[str, Callable[..., nn.Module]] = {"resnet": _resnet}
"""The architectures by name."""


def create_model(
    name: str = "resnet",
    *,
    num_classes: int,
    in_chans: int = 3,
    group: str = "d4",
    degree: str = "learned",
    width: float = 1.0,
    spatial_dims: int = 2,
    features_only: bool = False,
) -> nn.Module:
    """Return a classifier by name.

    Args:
        name: one of ``MODELS``.
        num_classes: logits.
        in_chans: colour channels.
        group: the group, see :func:`~parteq.core.groups.plane_group` (for volumes ``space_group``).
        degree: ``learned``, ``full`` or ``none``.
        width: factor on the number of channels; at equal width every group has about the same number of weights when
            the degree is full.
        spatial_dims: 2 for images, 3 for volumes.
        features_only: return features instead of logits.

    Raises:
        ValueError: an unknown name, group or degree, or images of neither 2 nor 3 dimensions.
    """
    if spatial_dims not in (2, 3):
        raise ValueError(f"images have 2 or 3 dimensions, not {spatial_dims}")
    if name not in MODELS:
        raise ValueError(f"unknown model {name!r}: use {', '.join(MODELS)}")
    config = {
        "name": name,
        "num_classes": num_classes,
        "in_chans": in_chans,
        "group": group,
        "degree": degree,
        "width": width,
        "spatial_dims": spatial_dims,
        "features_only": features_only,
    }
    symmetry = (plane_group if spatial_dims == 2 else space_group)(group)
    builder = _Builder(symmetry, degree)
    return MODELS[name](
        builder, width, in_chans=in_chans, num_classes=num_classes, features_only=features_only, config=config
    )
