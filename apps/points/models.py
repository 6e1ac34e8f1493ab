"""Networks of point clouds with a learnable degree of equivariance.

A cloud is put about its centroid and, unless absolute size is to be kept in sight by every layer, scaled to unit
spread. Then

- *local* layers (:mod:`parteq.apps.points.local`), if any: convolutions over the nearest neighbours give every point
  features of its surroundings;
- *sums* of what is invariant in these, after a nonlinearity, over the points;
- *moments*: one convolution from all points to the centroid, Σ_j K(x_j) f_j, of these features and of the bare points,
  with filters on shells that cover the cloud, and what is invariant in it;
- a plain classifier of sums, moments, the logarithm of the cloud's spread and that of its number of points.

Moments of shapes, which are all of one size, are functions on the group, to degree 3, made invariant by a nonlinearity
and a linear map. Those of absolute clouds, such as molecules, add up over points like the sums, and their lengths are
taken: outputs are then exactly invariant under the group with ``degree`` "full", where the others are but for what the
Fourier nonlinearity folds back. With "learned" one density, shared by all layers, breaks what the data break.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from parteq.apps.points.builder import PointBuilder
from parteq.apps.points.local import LocalLayers
from parteq.apps.points.patches import Patches
from parteq.core.axis import Axis
from parteq.core.norm import FieldBatchNorm
from parteq.core.points import PartialPointConv

__all__ = ["PointNetwork", "create_model"]

_INVARIANTS = 64
_FUNCTIONS, _LENGTHS = 96, 64  # channels of moments
_SIZES = 16  # hidden numbers that say how large a cloud is
_MIDDLING = 20.0  # points, the unit of their number
# Shells and degree of the filters of local layers: molecules differ by distances, surfaces by the directions they face.
_DISTANCES, _DIRECTIONS = (12, 1), (4, 2)
_REACH = 2.2  # of the shells about the centroid, in units of the spread


class PointNetwork(nn.Module):
    """A network of point clouds; see the module.

    Attributes:
        config: the arguments of :func:`create_model` that rebuild the model, JSON-able.
        neighbours: how many nearest neighbours local layers see; 0 without local layers.
        whole: whether every point counts, such as an atom, so that clouds cannot be thinned out.
    """

    length: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, config: dict[str, Any], builder: PointBuilder) -> None:
        super().__init__()
        self.config = config
        self.neighbours: int = config["neighbours"] if config["layers"] and not config["patches"] else 0
        self.whole = bool(config["absolute"] or config["in_features"])
        width, features = config["width"], config["in_features"]
        bare = builder.invariants(1 + features)

        looking = config["attributes"] if config["kernel"] == "implicit" else ()
        self.sees_features = "features" in looking
        invariants = builder.invariants(_INVARIANTS)

        self.patches, around = None, bare
        if config["patches"] and config["layers"]:
            self.patches = Patches(builder, bare, config["patches"], width, self.sees_features * features)
            around, looking = self.patches.out_type, ()
        self.local: LocalLayers | None = None
        if config["layers"]:
            resolution = _DISTANCES if config["absolute"] else _DIRECTIONS
            sizes = (config["layers"], config["neighbours"], *resolution, width)
            self.local = LocalLayers(builder, around, *sizes, looking, config["radii"])
            self.to_summands = builder.linear(self.local.out_type, invariants)
            self.activate_summands = builder.rectify(invariants)
            self.norm_sums = FieldBatchNorm(invariants)

        if config["absolute"]:
            moments = builder.mixture(_LENGTHS * width, 2)
            kinds, self.activate = builder.lengths(moments)
        else:
            kinds = moments = builder.functions(_FUNCTIONS * width)
            self.activate = builder.rectify(moments)
        degree = 2 if config["absolute"] else 3
        self.about_centre = builder.filters(_REACH, 6, degree, self.sees_features * features)
        self.moments = builder.convolve(bare, moments, self.about_centre)
        # Few nodes are described by fewer numbers.
        self.nodes_about_centre = builder.filters(_REACH, 3, 2, 0) if self.patches else self.about_centre
        self.local_moments = (
            builder.convolve(self.local.out_type, moments, self.nodes_about_centre) if self.local else None
        )
        self.to_invariants = builder.linear(kinds, invariants)
        self.activate_invariants = builder.rectify(invariants)

        self.sizes = nn.Sequential(nn.Linear(2, _SIZES), nn.ReLU())
        outputs = config["num_classes"] + config["num_targets"]
        self.head = nn.Linear(_INVARIANTS * (2 if self.local else 1) + _SIZES, outputs)

        self.register_buffer("length", torch.ones(2))
        self.register_buffer("target_mean", torch.zeros(config["num_targets"]))
        self.register_buffer("target_std", torch.ones(config["num_targets"]))

    def set_lengths(self, spread: float, spacing: float) -> None:
        """Set the typical spread of a cloud and the typical distance to the furthest neighbour, in the data's unit."""
        self.length.copy_(torch.tensor([spread, spacing]))

    def set_axis(self, direction: Tensor) -> None:
        """Turn the axis that is learned, if one is, to this direction, (3,), not −z."""
        for module in self.modules():
            if isinstance(module, Axis) and isinstance(module.direction, nn.Parameter):
                module.direction.data.copy_(direction)

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
        counted = present.to(positions.dtype)
        share = counted / counted.sum(1, keepdim=True)
        offsets = positions - (positions * share[..., None]).sum(1, keepdim=True)
        spread = (offsets.square().sum(-1) * share).sum(1).sqrt().clamp_min(1e-6 * self.length[0])
        ones = torch.ones(clouds, points, 1, dtype=positions.dtype, device=positions.device)
        bare = ones if features is None else torch.cat([ones, features], dim=2)

        unit = self.length[0].expand(clouds) if self.config["absolute"] else spread
        offsets = offsets / unit[:, None, None]
        seen = bare[..., 1:].flatten(0, 1) if self.sees_features else None
        weights = counted / _MIDDLING if self.config["absolute"] else share
        filters = self.about_centre(offsets.flatten(0, 1), seen) * (points * weights).flatten()[:, None]
        moments, found = _at_centre(self.moments, bare, filters), []
        if self.local is not None:
            nodes, there, around = positions, present, bare
            if self.patches is not None:
                chosen, there, around = self.patches(offsets, present, bare)
                nodes, neighbours = offsets.gather(1, chosen[..., None].expand(-1, -1, 3)), None
                taken = there.to(positions.dtype)
                weights = (taken / taken.mean(1, keepdim=True)).flatten()[:, None]
                filters = self.nodes_about_centre(nodes.flatten(0, 1)) * weights
            # What is not there costs nothing, but where shapes must not depend on data.
            rows = None if counts is None or torch.compiler.is_exporting() else there.flatten().nonzero()[:, 0]
            surroundings = self._surroundings(nodes, there, around, neighbours, rows)
            summands = self.activate_summands(self.to_summands(surroundings))
            found.append(self.norm_sums(_padded(summands, rows, there).sum(1)))
            assert self.local_moments is not None
            moments = moments + _at_centre(self.local_moments, _padded(surroundings, rows, there), filters)
        found.append(self.activate_invariants(self.to_invariants(self.activate(moments))))
        number = counted.sum(1) / _MIDDLING
        sizes = torch.stack([(spread / self.length[0]).log(), number.log()], dim=1)
        output: Tensor = self.head(torch.cat([*found, self.sizes(sizes)], dim=1))
        targets = output[:, self.config["num_classes"] :] * self.target_std + self.target_mean
        return torch.cat([output[:, : self.config["num_classes"]], targets], dim=1)

    def _surroundings(
        self, positions: Tensor, present: Tensor, features: Tensor, neighbours: Tensor | None, rows: Tensor | None
    ) -> Tensor:
        """Return the features of each point that is there after the local layers, (points that are there, c)."""
        assert self.local is not None
        if neighbours is None:
            neighbours = nearest(positions, present, self.config["neighbours"])
        clouds, points = present.shape
        missing, others = neighbours < 0, neighbours.long().clamp_min(0).flatten(1)
        if self.config["absolute"]:
            reach = self.length[1].expand(clouds, points)
        else:
            ends = positions.gather(1, others[..., None].expand(-1, -1, 3)).view(*missing.shape, 3)
            squares = (ends - positions[:, :, None]).square().sum(-1).masked_fill(missing, 0.0)
            furthest = (squares.amax(2).sqrt() * present).sum(1) / present.sum(1)
            reach = furthest.clamp_min(1e-6 * self.length[1])[:, None].expand(clouds, points)
        number = torch.arange(clouds * points, device=positions.device)
        if rows is not None:
            number = present.flatten().cumsum(0) - 1
        table = number.view(clouds, points).gather(1, others).view_as(missing).masked_fill(missing, -1)
        parts = [part.flatten(0, 1) for part in (positions, features, table, reach)]
        found: Tensor = self.local(*(parts if rows is None else [part[rows] for part in parts]))
        return found


def _at_centre(convolve: PartialPointConv, features: Tensor, filters: Tensor) -> Tensor:
    """Return what all points of each cloud, with features (clouds, points, c), add up to at its centroid."""
    clouds, points, _ = features.shape
    cloud = torch.arange(clouds, device=filters.device).repeat_interleave(points)
    edges = torch.stack([torch.arange(clouds * points, device=filters.device), cloud])
    moments: Tensor = convolve(features.flatten(0, 1), edges, filters, nodes=clouds, neighbours=points)
    return moments


def _padded(values: Tensor, rows: Tensor | None, present: Tensor) -> Tensor:
    """Return values of the points that are there, or of all, (…, c), as (clouds, points, c), 0 where none is."""
    if rows is None:
        return values.view(*present.shape, -1) * present[..., None]
    return values.new_zeros(present.numel(), values.shape[1]).index_copy(0, rows, values).view(*present.shape, -1)


def nearest(
    positions: Float[Tensor, "clouds points 3"], present: Tensor, count: int
) -> Int[Tensor, "clouds points count"]:
    """Return the nearest other points of each point, −1 where there are no more; all distances are compared."""
    far = torch.finfo(positions.dtype).max
    # Sums of squares lose the digits of what is far from the origin.
    there = present[..., None].to(positions.dtype)
    centre = (positions * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1.0)
    centred = (positions - centre) * there
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
    attributes: Sequence[str] = ("features",),
    radii: Sequence[float] = (),
    layers: int = 0,
    neighbours: int = 16,
    patches: int = 0,
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
        kernel: ``analytic`` or ``implicit``.
        attributes: what implicit kernels look at beside the relative position: ``features`` of the points, ``bonds``
            between them (in local layers).
        radii: the radius of a point by its feature, in the data's unit; points closer than 1.25 times the sum of
            theirs are bonded.
        layers: local layers.
        neighbours: nearest neighbours that they see, the furthest with weight 0.
        patches: where above 0, local layers work on so many patches of a cloud, instead of all its points.
        width: factor on the number of channels; at equal width every group has about the same number of weights when
            the degree is full.
        absolute: measure clouds with one length for all, as molecules, rather than each by its own spread, and tell
            distances rather than directions apart.

    Raises:
        ValueError: an unknown group, degree or kernel, an axis without direction, or a number that cannot be meant.
    """
    if num_classes + num_targets < 1 or min(num_classes, num_targets, in_features, layers, patches) < 0:
        raise ValueError("a network of points needs classes or targets, and numbers that are not negative")
    if neighbours < 2 or not width > 0:
        raise ValueError("a network of points needs two neighbours or more, and a width greater than 0")
    if unknown := set(attributes) - {"features", "bonds"}:
        raise ValueError(f"unknown attribute {unknown.pop()!r}: use features and bonds")
    if "bonds" in attributes and len(radii) != in_features:
        raise ValueError(f"a network of points needs {in_features} radii to know bonds, not {len(radii)}")
    config = {
        "num_classes": num_classes,
        "num_targets": num_targets,
        "in_features": in_features,
        "group": group,
        "degree": degree,
        "axis": None if axis is None else [float(value) for value in axis],
        "kernel": kernel,
        "attributes": list(attributes),
        "radii": list(radii),
        "layers": layers,
        "neighbours": neighbours,
        "patches": patches,
        "width": width,
        "absolute": absolute,
    }
    return PointNetwork(config, PointBuilder(group, degree, axis, kernel))
