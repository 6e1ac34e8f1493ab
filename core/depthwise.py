"""Depthwise convolutions of each channel by itself, for fields whose components the group permutes.

``PartialConv2d`` with ``groups`` equal to the number of fields lets the d components of a field see each other, which
takes d² filters a field. Kernels that are diagonal in the components, K(x) = diag k(x), are d, and closed under the
group: a permutation ρ(h) takes them to

    ρ(h) diag k(h⁻¹x) ρ(h)⁻¹ = diag(ρ(h) k(h⁻¹x)),

which is how kernels from one invariant channel to a field turn. So k is such a kernel, and P_λ acts on it as on any
other; exactly equivariant under a regular representation, it is one filter a field, turned by every element.
"""

from __future__ import annotations

from typing import Any

from parteq.core.density import Density
from parteq.core.fields import FieldType, trivial
from parteq.core.layers import PartialConv2d, PartialConv3d, PartialLayer

__all__ = ["PartialDepthwise2d", "PartialDepthwise3d"]


class _Diagonal(PartialLayer):
    """A layer from a type to itself, whose kernel holds the diagonal alone, as a kernel from invariant channels."""

    @property
    def in_type(self) -> FieldType:
        """Type of the input, that of the output."""
        return self.out_type


class PartialDepthwise2d(_Diagonal, PartialConv2d):
    """A partially equivariant convolution of each channel of an image by itself, (batch, c, y, x) → (batch, c, y, x).

    Args:
        type: type of the input and of the output.
        kernel_size: odd or even edge of the kernel in pixels.
        density: λ on a group of the plane; layers given the same object share it.
        options: ``stride``, ``padding``, ``dilation``, ``bias`` and ``padding_mode`` of
            :class:`~parteq.core.layers.PartialConv2d`.

    Raises:
        ValueError: the representation mixes components.
    """

    def __init__(self, type: FieldType, kernel_size: int, density: Density, **options: Any) -> None:
        super().__init__(_invariants(type), type, kernel_size, density, groups=type.count, **options)
        self.groups = type.channels


class PartialDepthwise3d(_Diagonal, PartialConv3d):
    """A partially equivariant convolution of each channel of a volume by itself.

    Arguments and errors as in :class:`PartialDepthwise2d`, and ``axis`` as in
    :class:`~parteq.core.layers.PartialConv3d`.
    """

    def __init__(self, type: FieldType, kernel_size: int, density: Density, **options: Any) -> None:
        super().__init__(_invariants(type), type, kernel_size, density, groups=type.count, **options)
        self.groups = type.channels


def _invariants(type: FieldType) -> FieldType:
    """Return one invariant channel for each field of a type."""
    if not type.representation.permutes:
        raise ValueError(f"{type} does not permute its components: use a convolution with groups={type.count}")
    return FieldType(trivial(type.group), type.count)
