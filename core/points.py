"""Partially equivariant convolutions of points in space: messages along the edges of a graph.

A node i gathers from its neighbours j

    out_i  =  mean_j  K(x_j − x_i) f_j + b,          K(x) = Σ_s K_s Y_s(x),

where the Y_s are the filters (:mod:`parteq.core.pointfilters`) and the K_s, matrices from the input to the output
channels, are P_λ W in the basis of the filters (:mod:`parteq.core.kernel`). The kernel is never made edge by edge: as
it is linear in the filters, the neighbours are first summed up against each filter,

    moments_is = mean_j Y_s(x_j − x_i) f_j,          out_i = Σ_s K_s moments_is + b,

two matrix products in all, with (edges) × (filters) × (channels in) and (nodes) × (filters) × (channels in) ×
(channels out) multiplications.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import MessagePassing
from torch_geometric.utils import to_dense_batch

from parteq.core.axis import Axis
from parteq.core.density import Density
from parteq.core.fields import FieldType
from parteq.core.kernel import PartialKernel
from parteq.core.layers import PartialLayer
from parteq.core.pointfilters import EdgeFilters

if TYPE_CHECKING:

    class Propagation(nn.Module):
        """PyG's message passing, as far as it is used here; it comes without types that hold."""

        def propagate(self, edge_index: Tensor, size: tuple[int, int], **arguments: Any) -> Tensor:
            """Collect messages, aggregate and update."""
else:
    Propagation = MessagePassing

__all__ = ["PartialPointConv"]

_MOMENTS = 2**19  # numbers at a time


class _PointConv(Propagation):
    """Messages along edges, summed up against the filters, under one weight."""

    @abstractmethod
    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """Return the kernel, shape (c_out, c_in × filters), and the bias of each channel, (c_out,), if any."""

    def forward(
        self,
        features: Tensor,
        edge_index: Tensor,
        filters: Tensor,
        *,
        nodes: int | None = None,
        neighbours: int | None = None,
    ) -> Tensor:
        """Map features of the sources to features of the targets.

        Args:
            features: (sources, c_in).
            edge_index: source and target of each edge, shape (2, edges).
            filters: values of the filters at each edge, shape (edges, filters).
            nodes: number of targets, where they are not the sources.
            neighbours: number of edges into each target, if it is the same for all and they stand target by target;
                otherwise the edges may come in any order, and are sorted.

        Returns:
            (targets, c_out); a target without edges gets the bias.

        Raises:
            ValueError: there are not so many edges as ``neighbours`` says.
        """
        sources = features.shape[0]  # which exported programs leave open, unlike len()
        size = (sources, sources if nodes is None else nodes)
        if neighbours is not None and edge_index.shape[1] != size[1] * neighbours:
            raise ValueError(f"{edge_index.shape[1]} edges are not {neighbours} into each of {size[1]} nodes")
        return self.propagate(edge_index, size, x=features, filters=filters, neighbours=neighbours)

    def message(self, x_j: Tensor) -> Tensor:
        """Return the features of the sources, (edges, c_in)."""
        return x_j

    def aggregate(
        self, inputs: Tensor, index: Tensor, filters: Tensor, neighbours: int | None, dim_size: int | None = None
    ) -> Tensor:
        """Return the output of each target, shape (targets, c_out)."""
        weight, bias = self.weight_and_bias()
        if neighbours is not None:
            by_target = inputs.unflatten(0, (-1, neighbours)), filters.unflatten(0, (-1, neighbours))
            return _convolve(*by_target, weight / neighbours, bias)
        assert dim_size is not None
        if torch.compiler.is_compiling():
            # Shapes may not depend on the graph. Inductor adds each product up as it makes it, so they need no room; on
            # a CPU that takes longer than what is below.
            counts = filters.new_zeros(dim_size).index_add(0, index, torch.ones_like(filters[:, 0]))
            values = filters / counts.index_select(0, index)[:, None]
            products = (inputs[:, :, None] * values[:, None]).flatten(1)
            sums = products.new_zeros(dim_size, products.shape[1]).index_add(0, index, products)
            return functional.linear(sums, weight, bias)
        output = inputs.new_zeros(dim_size, len(weight))
        degrees = index.bincount(minlength=dim_size)
        levels = degrees.float().frexp().exponent
        # Targets of like degree together, so that one of very many edges does not make room for as many at all others.
        for level in levels[degrees > 0].unique().tolist():
            chosen = (levels == level).nonzero()[:, 0]
            edges = (levels[index] == level).nonzero()[:, 0]
            edges = edges[index[edges].argsort(stable=True)]
            place = torch.searchsorted(chosen, index[edges])
            padded, _ = to_dense_batch(inputs[edges], place, batch_size=len(chosen))
            values, _ = to_dense_batch(filters[edges] / degrees[index[edges], None], place, batch_size=len(chosen))
            output = output.index_copy(0, chosen, _convolve(padded, values, weight, None).to(output))
        return output if bias is None else output + bias


class PartialPointConv(PartialLayer, _PointConv):
    """A partially equivariant convolution of points, (nodes, c_in) → (nodes, c_out), for graphs of PyG::

        filters = RadialHarmonics(radius=1.5)
        layer = PartialPointConv(in_type, out_type, filters, density)
        source, target = data.edge_index
        data.x = layer(data.x, data.edge_index, filters(data.pos[source] - data.pos[target]))

    Filters are evaluated once for all layers that share them. A batch of graphs is one graph, as always in PyG.

    Args:
        in_type: type of the input.
        out_type: type of the output.
        filters: whose values the layer is called with; a module of its own, not of this layer.
        density: λ on a group of space; layers given the same object share it.
        bias: add a bias to the invariant components.
        axis: the axis of a group about an axis (see :class:`~parteq.core.axis.Axis`, in whose frame features are),
            given or learned, by default z; filters must be turnable.

    Raises:
        ValueError: the density's group acts on the plane, or does not fit the types.
    """

    def __init__(
        self,
        in_type: FieldType,
        out_type: FieldType,
        filters: EdgeFilters,
        density: Density,
        *,
        bias: bool = True,
        axis: Axis | None = None,
    ) -> None:
        if density.group.dimension != 3:
            raise ValueError(f"{density.group} does not act on points in space")
        super().__init__(PartialKernel(in_type, out_type, filters.bank(density.group), density, axis=axis), bias)

    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """Return the kernel with λ applied, and the bias."""
        return self.kernel().flatten(1), self.expanded_bias()

    def plain(self) -> nn.Module:
        """Return a layer with the same arguments that holds the kernel as it stands."""
        return _PlainPointConv(*self.weight_and_bias())


class _PlainPointConv(_PointConv):
    """What a trained :class:`PartialPointConv` computes."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone())
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())

    def weight_and_bias(self) -> tuple[Tensor, Tensor | None]:
        """Return them as they stand."""
        return self.weight, self.bias


def _convolve(messages: Tensor, filters: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the sum over neighbours, (targets, c_out); on a CPU block by block, so that moments stay in its cache.

    Args:
        messages: (targets, neighbours, c_in).
        filters: (targets, neighbours, filters); 0 where there is no edge.
        weight: (c_out, c_in × filters).
        bias: (c_out,), if any.
    """

    def outputs(messages: Tensor, filters: Tensor) -> Tensor:
        return functional.linear((messages.mT @ filters).flatten(1), weight, bias)

    if messages.device.type != "cpu" or torch.compiler.is_compiling() or torch.compiler.is_exporting():
        return outputs(messages, filters)
    size = max(1, _MOMENTS // weight.shape[1])
    return torch.cat([outputs(*block) for block in zip(messages.split(size), filters.split(size), strict=True)])
