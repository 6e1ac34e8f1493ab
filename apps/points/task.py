"""The tasks: tell classes of clouds apart, or predict a property. From a data set to samples, loss and scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import roma
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, l1_loss
from torch.utils.data import Dataset

from parteq.apps.points.metrics import classification_scores, regression_scores
from parteq.apps.points.models import PointNetwork
from parteq.apps.points.samples import samples
from parteq.core.calibration import losses_and_errors
from parteq.core.chain import degree_penalty
from parteq.core.distributed import gather, rank, world_size
from parteq.core.training import Augment, Batch, Penalty, read_batches, uniform
from parteq.datasets.errors import DataError
from parteq.datasets.points.base import PointClouds
from parteq.datasets.points.clouds import available_splits, open_clouds
from parteq.datasets.points.rotations import parse_rotation
from parteq.datasets.points.targets import Target, find_target
from parteq.datasets.splits import check_apart, check_no_leakage

__all__ = [
    "DENSITY_THRESHOLD",
    "answers",
    "augmentation",
    "evaluate",
    "lengths",
    "loss",
    "losses",
    "match",
    "open_for_evaluation",
    "open_for_training",
    "outputs",
    "penalty",
    "samples",
    "samples_for",
]

_VALIDATION_SHARE = 0.2
_LENGTH_CLOUDS = 1000
DENSITY_THRESHOLD = 0.75
"""Of `Settings`: one density serves all layers and learns fast, so what a step makes of it by chance shakes all."""
_SPARE = 4  # times the points that evaluation takes of a cloud


def open_for_training(data: str, val: str | None, seed: int) -> tuple[PointClouds, PointClouds]:
    """Opens the clouds to train on and those to validate on.

    Args:
        data: what to train on, see `open_clouds`.
        val: what to validate on. None for the validation split of ``data`` where it has one, else a fifth of its
            clouds, whole families where there are families.
        seed: of the split.

    Raises:
        DataError: if the two do not belong together, are the same, or share a family.
    """
    training = open_clouds(data, "train")
    if val is not None:
        if not available_splits(data):
            check_apart(data, val)
        validation = open_for_evaluation(val, "val")
    elif "val" in available_splits(data):
        validation = open_clouds(data, "val")
    else:
        training, validation = training.split(_VALIDATION_SHARE, seed)
    check_no_leakage(training.families, validation.families, validation.source)
    return training, validation


def open_for_evaluation(data: str, split: str) -> PointClouds:
    """Opens a split of a data set that is divided, or the whole of one that is not.

    Raises:
        DataError: it is divided otherwise, or cannot be read.
    """
    return open_clouds(data, split if available_splits(data) else "train")


def match(clouds: PointClouds, about: dict[str, Any], *, labelled: bool = True) -> PointClouds:
    """Numbers the labels of a data set as a model does, by the names of the classes.

    Args:
        clouds: the data set.
        about: what is known of the model: ``model``, ``classes``, ``feature_names``.
        labelled: whether labels are asked for.

    Raises:
        DataError: if there is a class that the model does not know, there are no labels, or points bear other features.
    """
    if list(clouds.feature_names) != about["feature_names"]:
        have, want = (", ".join(names) or "none" for names in (clouds.feature_names, about["feature_names"]))
        raise DataError(clouds.source, f"has points with the features {have}; the model takes {want}")
    classes = about["classes"]
    if not labelled or not classes:
        return clouds
    return clouds.numbered_as(classes)


def answers(clouds: PointClouds, target: str | None) -> tuple[Tensor, Target | None]:
    """What is to be said of each cloud: labels, int64 [N], or the target of this name, float32 [N, 1].

    Raises:
        DataError: if there is no such thing.
    """
    if target is not None:
        found = find_target(clouds, target)
        assert clouds.targets is not None
        return torch.from_numpy(clouds.targets[:, found.column, None]).float(), found
    if clouds.labels is None:
        known = ", ".join(clouds.target_names)
        raise DataError(clouds.source, "has no labels" + (f"; name one of its targets: {known}" if known else ""))
    return torch.from_numpy(clouds.labels), None


def samples_for(
    model: PointNetwork, clouds: PointClouds, points: int, wanted: Tensor | None, *, training: bool = False
) -> Dataset[Any]:
    """The samples of clouds that a network takes: of so many points, or of all where every point counts.

    Of those to train on more points are held, which `augmentation` draws from.
    """
    held = points * _SPARE if training and not model.neighbours else points
    return samples(clouds, None if model.whole else held, model.neighbours, wanted)


def lengths(data: Dataset[Any]) -> tuple[float, float]:
    """The typical spread of a cloud, and the typical distance of a point to the furthest of its neighbours."""
    count = min(len(data), _LENGTH_CLOUDS)  # type: ignore[arg-type]
    spreads, reaches = [], []
    for index in range(count):
        positions, size, _, neighbours, *_ = data[index]
        points = positions[: int(size)].double()  # squares of what 32 bits hold are beyond them
        spreads.append((points - points.mean(0)).square().sum(-1).mean().sqrt())
        if neighbours.shape[1]:
            # Neighbours come nearest first; small clouds have fewer than asked for.
            furthest = neighbours[: int(size), min(neighbours.shape[1], int(size) - 1) - 1].long()
            reaches.append((points - points[furthest]).norm(dim=1).mean())
    middle = torch.stack(spreads).median()
    return float(middle), float(torch.stack(reaches).median()) if reaches else float(middle)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean cross-entropy in nats, or the mean absolute error in standard deviations of the target."""
    positions, counts, features, neighbours, wanted = batch
    return _loss_of(model, model(positions, counts, features, neighbours).float(), wanted).mean()


def _loss_of(model: nn.Module, found: Tensor, wanted: Tensor) -> Float[Tensor, " clouds"]:
    """The loss of each cloud, of what the model says of it."""
    if _are_labels(wanted):
        return cross_entropy(found, wanted, reduction="none")
    scale = _network(model).target_std.to(found)
    return l1_loss(found / scale, wanted.to(found) / scale, reduction="none").mean(1)


def _are_labels(wanted: Tensor) -> bool:
    """Whether these `answers` are classes, not a target."""
    return wanted.dim() == 1


def penalty(count: int) -> Penalty:
    """The price of breaking symmetry, for so many training samples.

    One density serves all layers, and few of its directions are to be broken, but clearly.
    """
    return partial(degree_penalty, samples=count, price=5.0, smoothness=5.0, cheap_band=0, clear=0.05)


def _network(model: nn.Module) -> PointNetwork:
    """The network behind a wrapper for several processes."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, PointNetwork)
    return inner


def augmentation(kind: str, points: int | None = None) -> Augment | None:
    """Turns every cloud of a batch anew: ``none``, about ``z``, or in any way, ``so3``.

    Args:
        kind: of turns.
        points: which evaluation takes of a cloud; take half as many of each, others each time. Of clouds without
            neighbours; None leaves every point.

    Raises:
        DataError: no such kind.
    """
    if kind not in ("none", "z", "so3"):
        raise DataError(f"rotation {kind!r}", "is none of none, z and so3")
    if kind == "none" and points is None:
        return None

    def alter(batch: Batch, keys: Int[Tensor, " batch"]) -> Batch:
        positions, counts, features, neighbours, *rest = batch
        if points is not None:
            chance = uniform(keys, 3 + positions.shape[1])[:, 3:]
            absent = torch.arange(positions.shape[1], device=keys.device) >= counts[:, None]
            most = min(positions.shape[1], points)
            kept = (chance + absent).argsort(1)[:, : (most + 1) // 2, None]
            positions, features = (x.gather(1, kept.expand(-1, -1, x.shape[2])) for x in (positions, features))
            counts, neighbours = (counts.clamp_max(points) + 1) // 2, neighbours[:, : kept.shape[1]]
        if kind != "none":
            positions = positions @ _rotations(kind, uniform(keys, 3)).to(positions).mT
        return (positions, counts, features, neighbours, *rest)

    return alter


def _rotations(kind: str, chance: Float[Tensor, "count 3"]) -> Float[Tensor, "count 3 3"]:
    """Rotations from three uniform numbers each (Shoemake, Graphics Gems III, 1992)."""
    first, second, third = (2 * math.pi * chance[:, 0], 2 * math.pi * chance[:, 1], chance[:, 2])
    if kind == "z":
        return roma.rotvec_to_rotmat(first[:, None] * torch.tensor([0.0, 0.0, 1.0], device=chance.device))
    inner, outer = (1 - third).sqrt(), third.sqrt()
    parts = [inner * first.sin(), inner * first.cos(), outer * second.sin(), outer * second.cos()]
    return roma.unitquat_to_rotmat(torch.stack(parts, dim=1))


def outputs(
    model: nn.Module,
    data: Dataset[Any],
    device: torch.device,
    rotations: Float[Tensor, "clouds 3 3"] | None = None,
    batch_size: int = 128,
) -> Float[Tensor, "clouds outputs"]:
    """What a model says of each cloud, turned if asked for, in evaluation mode; float64 on the CPU.

    Several processes share the work; each gets the whole answer.

    Raises:
        DataError: what it says is not finite.
    """
    was_training = model.training
    model.to(device).eval()
    total = len(data)  # type: ignore[arg-type]
    # Of fewer clouds than processes some are predicted twice, so that every process has one.
    count = max(total, world_size())
    mine = torch.arange(rank(), count, world_size()) % total
    rows = []
    parts = list(mine.split(batch_size))
    with torch.inference_mode():
        for part, batch in zip(parts, read_batches(data, parts), strict=True):
            positions, counts, features, neighbours = (tensor.to(device) for tensor in batch[:4])
            if rotations is not None:
                positions = positions @ rotations[part].to(positions).mT
            rows.append(model(positions, counts, features, neighbours).double().cpu())
    model.train(was_training)
    found = gather(torch.cat(rows), count)[:total]
    if strange := (~found.isfinite().all(1)).nonzero()[:, 0].tolist():
        reason = "a network says of it what is not finite: its coordinates, or its rotation, are out of range"
        raise DataError(f"cloud {strange[0]}", reason)
    return found


def losses(model: nn.Module, data: Dataset[Any], wanted: Tensor, device: torch.device) -> Float[Tensor, "kinds clouds"]:
    """What `loss` is the mean of, cloud by cloud; of classes see `parteq.core.calibration.losses_and_errors`.

    Args:
        model: a network of points.
        data: samples.
        wanted: what is to be said of each, as `answers` gives it.
        device: where.
    """
    found = outputs(model, data, device)
    return losses_and_errors(found, wanted) if _are_labels(wanted) else _loss_of(model, found, wanted)[None]


def evaluate(
    model: nn.Module,
    data: Dataset[Any],
    wanted: Tensor,
    device: torch.device,
    *,
    factor: float = 1.0,
    rotate: str = "none",
    repeats: int = 1,
    seed: int = 0,
) -> dict[str, Any]:
    """The scores of `classification_scores` or `regression_scores`, over repeated random turns.

    Args:
        model: a network of points.
        data: samples.
        wanted: what is to be said of each, as `answers` gives it.
        device: where.
        factor: of a target, into the unit reported.
        rotate: see `parse_rotation`; without rotation one pass is enough and one is made.
        repeats: how many turns of every cloud.
        seed: of the turns.
    """
    draw: Callable[[int, torch.Generator], Tensor] = parse_rotation(rotate)
    generator = torch.Generator().manual_seed(seed)
    turns = [None] if rotate == "none" else [draw(len(wanted), generator) for _ in range(repeats)]
    found: Sequence[Tensor] = [outputs(model, data, device, turn) for turn in turns]
    if _are_labels(wanted):
        return classification_scores([rows.numpy() for rows in found], wanted.numpy())
    return regression_scores([rows[:, 0].numpy() for rows in found], wanted[:, 0].double().numpy(), factor)
