"""Networks of point clouds with a learnable degree of equivariance.

A cloud is put about its centroid and, unless absolute size is to be kept in sight by every layer, scaled to unit
spread. Then

- *local* layers: convolutions over the nearest neighbours give every point features of its surroundings;
- *moments*: one convolution from all points to the centroid, Σ_j K(x_j) f_j, of the features and of the bare points,
  with filters up to degree 3 on shells that cover the cloud, onto functions on the group;
- a nonlinearity of such functions, and a linear map onto invariant channels;
- a plain classifier of these, the logarithm of the cloud's spread and that of its number of points.

With ``degree`` "full" outputs are exactly invariant under the group but for what Fourier nonlinearities fold back; with
"learned" one density, shared by all layers, breaks what the data break.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from parteq.apps.points.builder import PointBuilder
from parteq.core.pointfilters import EdgeFilters
from parteq.core.points import PartialPointConv

__all__ = ["GROUPS", "PointNetwork", "create_model"]

GROUPS = ("so3", "o3", "so2", "o2", "cone", "d4", "octahedral", "icosahedral", "none")
"""The groups offered by name; any other of space works as well."""

_INVARIANTS = 64
_SIZES = 16  # hidden numbers that say how large a cloud is
_MIDDLING = 20.0  # points, the unit of their number
_REACH = 2.2  # of the shells about the centroid, in units of the spread


class _LocalLayer(nn.Module):
    """A convolution over neighbours, and what comes after it."""

    def __init__(self, convolve: PartialPointConv, activate: nn.Module) -> None:
        super().__init__()
        self.convolve, self.activate = convolve, activate

    def forward(self, features: Tensor, edges: Tensor, filters: Tensor, neighbours: int) -> Tensor:
        """Map features (nodes, c_in) to (nodes, c_out)."""
        output: Tensor = self.activate(self.convolve(features, edges, filters, neighbours=neighbours))
        return output


class PointNetwork(nn.Module):
    """A network of point clouds; see the module.

    Attributes:
        config: the arguments of :func:`create_model` that rebuild the model, JSON-able.
        neighbours: how many nearest neighbours local layers see; 0 without local layers.
    """

    length: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, config: dict[str, Any], builder: PointBuilder) -> None:
        super().__init__()
        self.config = config
        self.neighbours: int = config["neighbours"] if config["layers"] else 0
        width, features = config["width"], config["in_features"]
        bare = builder.invariants(1 + features)

        # Of both ends of an edge, if the kernel looks at them.
        self.attributes = features if config["kernel"] == "implicit" else 0
        self.nearby: EdgeFilters | None = None
        self.local = nn.ModuleList()
        type = bare
        if config["layers"]:
            self.nearby = builder.filters(1.0, 3, 2, 2 * self.attributes)
            for _ in range(config["layers"]):
                after = builder.irreps(24 * width)
                before, activation = builder.gate(after)
                self.local.append(_LocalLayer(builder.convolve(type, before, self.nearby), activation))
                type = after

        functions = builder.functions(96 * width)
        self.about_centre = builder.filters(_REACH, 6, 3, self.attributes)
        self.moments = builder.convolve(bare, functions, self.about_centre)
        self.local_moments = builder.convolve(type, functions, self.about_centre) if self.local else None
        self.activate = builder.rectify(functions)
        invariants = builder.invariants(_INVARIANTS)
        self.to_invariants = builder.linear(functions, invariants)
        self.activate_invariants = builder.rectify(invariants)
        self.sizes = nn.Sequential(nn.Linear(2, _SIZES), nn.ReLU())
        outputs = config["num_classes"] + config["num_targets"]
        self.head = nn.Linear(_INVARIANTS + _SIZES, outputs)

        self.register_buffer("length", torch.ones(2))
        self.register_buffer("target_mean", torch.zeros(config["num_targets"]))
        self.register_buffer("target_std", torch.ones(config["num_targets"]))

    def set_lengths(self, spread: float, spacing: float) -> None:
        """Set the typical spread of a cloud and the typical distance to the furthest neighbour, in the data's unit."""
        self.length.copy_(torch.tensor([spread, spacing]))

    def set_target_scale(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Set the mean and standard deviation of each target."""
        self.target_mean.copy_(torch.as_tensor(mean))
        self.target_std.copy_(torch.as_tensor(std))

    def forward(
        self,
        positions: Float[Tensor, "clouds points 3"],
        counts: Int[Tensor, " clouds"] | None = None,
        features: Float[Tensor, "clouds points features"] | None = None,
        neighbours: Int[Tensor, "clouds points k"] | None = None,
    ) -> Float[Tensor, "clouds outputs"]:
        """Map clouds to logits, or to targets in their own units.

        Args:
            positions: of the points, in the data's unit; what is beyond a cloud's count is not looked at.
            counts: number of points of each cloud; all of them where it is ``None``.
            features: invariant features of each point, if the model takes any.
            neighbours: for each point the nearest others, −1 where there are no more; found here if not given.
        """
        clouds, points, _ = positions.shape
        if counts is None:
            present = torch.ones(clouds, points, dtype=torch.bool, device=positions.device)
        else:
            present = torch.arange(points, device=positions.device) < counts[:, None]
        share = present / present.sum(1, keepdim=True)
        offsets = positions - (positions * share[..., None]).sum(1, keepdim=True)
        spread = (offsets.square().sum(-1) * share).sum(1).sqrt().clamp_min(1e-6 * self.length[0])
        unit = self.length[0].expand(clouds) if self.config["absolute"] else spread

        ones = torch.ones(clouds, points, 1, dtype=positions.dtype, device=positions.device)
        bare = ones if features is None else torch.cat([ones, features], dim=2)
        seen = bare[..., 1:].flatten(0, 1) if self.attributes else None
        filters = self.about_centre((offsets / unit[:, None, None]).flatten(0, 1), seen)
        filters = filters * (points * share).flatten()[:, None]
        to_centre = torch.stack(
            [
                torch.arange(clouds * points, device=positions.device),
                torch.arange(clouds, device=positions.device).repeat_interleave(points),
            ]
        )
        at_centre = {"nodes": clouds, "neighbours": points}
        functions = self.moments(bare.flatten(0, 1), to_centre, filters, **at_centre)
        if self.local_moments is not None:
            surroundings = self._surroundings(positions, present, bare, neighbours)
            functions = functions + self.local_moments(surroundings, to_centre, filters, **at_centre)
        functions = self.activate(functions)
        invariants = self.activate_invariants(self.to_invariants(functions))
        number = present.sum(1) / _MIDDLING
        sizes = torch.stack([(spread / self.length[0]).log(), number.log()], dim=1)
        output: Tensor = self.head(torch.cat([invariants, self.sizes(sizes)], dim=1))
        targets = output[:, self.config["num_classes"] :] * self.target_std + self.target_mean
        return torch.cat([output[:, : self.config["num_classes"]], targets], dim=1)

    def _surroundings(self, positions: Tensor, present: Tensor, bare: Tensor, neighbours: Tensor | None) -> Tensor:
        """Return the features of each point after the local layers, (clouds × points, c), 0 where no point is."""
        clouds, points = present.shape
        if neighbours is None:
            neighbours = nearest(positions, present, self.neighbours)
        neighbours = neighbours.long()
        first = torch.arange(0, clouds * points, points, device=positions.device)[:, None, None]
        target = (torch.arange(points, device=positions.device)[None, :, None] + first).expand_as(neighbours)
        # Edges that are missing keep their place, so that all points have equally many, and weigh nothing.
        real = (neighbours >= 0) & present[..., None]
        source = torch.where(real, neighbours + first, target)
        edges = torch.stack([source.flatten(), target.flatten()])
        flat = positions.flatten(0, 1)
        vectors = (flat[edges[0]] - flat[edges[1]]).view(clouds, points, -1, 3)
        weight = real / real.sum(2, keepdim=True).clamp_min(1)
        if self.config["absolute"]:
            reach = self.length[1].expand(clouds)
        else:
            furthest = (vectors.square().sum(-1) * real).amax(2).sqrt()
            reach = (furthest.sum(1) / present.sum(1)).clamp_min(1e-6 * self.length[1])
        seen = bare[..., 1:].flatten(0, 1)
        ends = torch.cat([seen[edges[0]], seen[edges[1]]], dim=1) if self.attributes else None
        assert self.nearby is not None
        filters = self.nearby((vectors / reach[:, None, None, None]).flatten(0, 2), ends)
        filters = filters * (neighbours.shape[2] * weight).flatten()[:, None]
        features = bare.flatten(0, 1)
        for layer in self.local:
            features = layer(features, edges, filters, neighbours.shape[2]) * present.flatten()[:, None]
        return features


def nearest(
    positions: Float[Tensor, "clouds points 3"], present: Tensor, count: int
) -> Int[Tensor, "clouds points count"]:
    """Return the nearest other points of each point, −1 where there are no more; all distances are compared."""
    far = torch.finfo(positions.dtype).max
    centred = positions - positions.mean(1, keepdim=True)
    squares = centred.square().sum(-1)
    distances = (squares[:, :, None] + squares[:, None] - 2 * centred @ centred.mT).masked_fill(~present[:, None], far)
    same = torch.eye(positions.shape[1], dtype=torch.bool, device=positions.device)
    found = distances.masked_fill(same, far).topk(min(count, positions.shape[1]), dim=2, largest=False)
    return torch.where(found.values < far, found.indices, -1)


def create_model(
    *,
    num_classes: int = 0,
    num_targets: int = 0,
    in_features: int = 0,
    group: str = "so3",
    degree: str = "learned",
    axis: Sequence[float] | None = (0.0, 0.0, 1.0),
    kernel: str = "analytic",
    layers: int = 0,
    neighbours: int = 16,
    width: float = 1.0,
    absolute: bool = False,
) -> PointNetwork:
    """Return a network of point clouds.

    Args:
        num_classes: logits.
        num_targets: real numbers to predict.
        in_features: invariant features of each point.
        group: the group, see :func:`~parteq.core.groups.space_group`.
        degree: ``learned``, ``full`` or ``none``.
        axis: of a group about an axis; ``None`` learns it.
        kernel: ``analytic`` or ``implicit``; the latter looks at features of the points as well.
        layers: local layers.
        neighbours: nearest neighbours that they see.
        width: factor on the number of channels; at equal width every group has about the same number of weights when
            the degree is full.
        absolute: measure clouds with one length for all, as molecules, rather than each by its own spread.

    Raises:
        ValueError: an unknown group, degree or kernel, an axis without direction, or a number that cannot be meant.
    """
    if num_classes + num_targets < 1 or min(num_classes, num_targets, in_features, layers) < 0 or neighbours < 1:
        raise ValueError("a network of points needs classes or targets, and numbers that are not negative")
    config = {
        "num_classes": num_classes,
        "num_targets": num_targets,
        "in_features": in_features,
        "group": group,
        "degree": degree,
        "axis": None if axis is None else [float(value) for value in axis],
        "kernel": kernel,
        "layers": layers,
        "neighbours": neighbours,
        "width": width,
        "absolute": absolute,
    }
    return PointNetwork(config, PointBuilder(group, degree, axis, kernel))
