"""The task: tell classes of images apart. From a data set to training and validation sets, loss and scores."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import Dataset, TensorDataset

from parteq.apps.histo.appearance import as_unit
from parteq.apps.histo.augment import orbit, transform
from parteq.apps.histo.calibration import reliability
from parteq.apps.histo.metrics import classification_metrics
from parteq.core.calibration import at_temperature, losses_and_errors
from parteq.core.distributed import gather, rank, world_size
from parteq.core.export import fast_forward
from parteq.core.training import Batch, at_a_time, read_batches
from parteq.datasets.errors import DataError
from parteq.datasets.images import ArrayDataset, ImageDataset, available_splits, open_images
from parteq.datasets.splits import (
    check_apart,
    check_no_leakage,
    check_one_release,
    grouped_split,
    stratified_subset,
)

__all__ = [
    "as_unit",
    "evaluate",
    "in_order",
    "loss",
    "losses",
    "match",
    "normalization",
    "open_for_evaluation",
    "open_for_training",
    "outputs",
    "predict",
    "samples",
    "warn_of_absent",
]

log = logging.getLogger(__name__)

VALIDATION_SHARE = 0.2
# Few images to train on are not to wait for the rest of a large set, all of it held out, after each epoch.
LIMITED_VALIDATION = 1000
IN_MEMORY_BYTES = 2**29
NORMALIZATION_IMAGES = 10_000


def open_for_training(
    data: str, val: str | None, limit: int | None, seed: int, *, skip_bad: bool = False
) -> tuple[ImageDataset, ImageDataset]:
    """Opens the images to train on and those to validate on.

    Args:
        data: what to train on, see `open_images`.
        val: what to validate on. None for the validation split of ``data`` where it has one, else a fifth of its
            images, whole groups where there are groups; with a limit at most as many, or a thousand.
        limit: keep this many images to train on, each class its share.
        seed: of the choices.
        skip_bad: go on without files that cannot be used.

    Raises:
        DataError: if the two do not belong together, or share a group.
    """
    training = open_images(data, "train", skip_bad=skip_bad)
    try:
        if val is not None:
            if not available_splits(data):
                check_apart(data, val)
            validation = open_for_evaluation(val, "val", skip_bad=skip_bad)
        elif "val" in available_splits(data):
            validation = open_images(data, "val", skip_bad=skip_bad)
        else:
            train, held_out = grouped_split(training.labels, training.groups, VALIDATION_SHARE, seed)
            training, validation = training.subset(train), training.subset(held_out)
            if limit is not None and len(validation) > (most := max(limit, LIMITED_VALIDATION)):
                validation = validation.subset(stratified_subset(validation.labels, most, seed))
        if limit is not None:
            classes = len(np.unique(training.labels))
            if not classes <= limit <= len(training):
                there = f"{training.source} has {len(training)} images to train on, of {classes} classes"
                raise DataError(f"--limit {limit}", f"{there}: take no more than all, no fewer than one of each")
            training = training.subset(stratified_subset(training.labels, limit, seed))
    except ValueError as error:
        raise DataError(training.source, str(error)) from error
    validation = match(validation, training.classes, training.channels, len(training.spatial))
    _say_what_is_missing(training, validation)
    check_one_release(training.release, validation.release, validation.source)
    _check_leakage(training, validation)
    return _in_memory(training), _in_memory(validation)


def _check_leakage(training: ImageDataset, validation: ImageDataset) -> None:
    """Refuses groups that are trained and validated on, and warns of images that are. Raises DataError."""
    alike = training.source.resolve() == validation.source.resolve() or training.spatial == validation.spatial
    check_no_leakage(training.groups, validation.groups, validation.source, alike=alike)
    if copies := len(training.digests() & validation.digests()):
        log.warning("%s: %d of the images to validate on are trained on as well", validation.source, copies)


def _say_what_is_missing(training: ImageDataset, validation: ImageDataset) -> None:
    """Refuses training images of one class, and warns of classes that are not trained or not validated on."""
    present = np.unique(training.labels)
    if len(present) < 2:
        name = training.classes[present[0]]
        raise DataError(training.source, f"all training images are of class {name!r}: it takes two classes or more")
    absent = [name for label, name in enumerate(training.classes) if label not in present]
    if absent:
        log.warning("%s: no images to train on of %s", training.source, ", ".join(map(repr, absent)))
    validated = np.unique(validation.labels)
    if len(validated) < 2:
        name = validation.classes[validated[0]]
        log.warning("%s: all validation images are of class %r: no AUC", validation.source, name)
    warn_of_absent(validation, "to validate on")


def warn_of_absent(dataset: ImageDataset, purpose: str) -> None:
    """Warns of classes of which a data set has no images. Where only one occurs, what does not exist is told instead.

    Args:
        dataset: with the classes of the model.
        purpose: what the images are for, in words.
    """
    present = np.unique(dataset.labels)
    absent = [repr(name) for label, name in enumerate(dataset.classes) if label not in present]
    if absent and len(present) > 1:
        reason = "the scores are over the classes that occur"
        warnings.warn(f"{dataset.source}: no images {purpose} of {', '.join(absent)}: {reason}", stacklevel=2)


def open_for_evaluation(data: str, split: str, *, labelled: bool = True, skip_bad: bool = False) -> ImageDataset:
    """Opens a split of a data set that is divided, or the whole of one that is not; see `open_images`."""
    return open_images(data, split if available_splits(data) else "train", labelled=labelled, skip_bad=skip_bad)


def match(dataset: ImageDataset, classes: Sequence[str] | None, channels: int, dimensions: int) -> ImageDataset:
    """Numbers the labels of a data set as a model does, by the names of the classes; None for unlabelled images.

    Raises:
        DataError: if a class occurs that the model does not know, or the channels or dimensions differ.
    """
    if len(dataset.spatial) != dimensions or dataset.channels != channels:
        found, wanted = _kind(dataset.channels, len(dataset.spatial)), _kind(channels, dimensions)
        raise DataError(dataset.source, f"holds {found}; the model takes {wanted}")
    if classes is None:
        return dataset
    occurring = [dataset.classes[number] for number in np.unique(dataset.labels)]
    if unknown := [name for name in occurring if name not in classes]:
        raise DataError(dataset.source, f"has the class {unknown[0]!r}; the model tells apart {', '.join(classes)}")
    if dataset.classes != tuple(classes):
        number = np.array([classes.index(name) if name in classes else -1 for name in dataset.classes])
        dataset = dataset.subset(np.arange(len(dataset)))
        dataset.labels, dataset.classes = number[dataset.labels], tuple(classes)
    return dataset


def _kind(channels: int, dimensions: int) -> str:
    """Such as "grey images"."""
    colour = {1: "grey ", 3: "RGB "}.get(channels, "")
    return f"{colour}{'volumes' if dimensions == 3 else 'images'}{'' if colour else f' of {channels} channels'}"


def _in_memory(dataset: ImageDataset) -> ImageDataset:
    """The same data set, its images decoded once and for all where they fit into half a gigabyte."""
    fits = len(dataset) * dataset.channels * math.prod(dataset.spatial) <= IN_MEMORY_BYTES
    return dataset.in_memory() if fits else dataset


def samples(dataset: ImageDataset) -> Dataset[Any]:
    """The data set as `parteq.core.training.fit` reads it fastest: as tensors if it is in memory."""
    return TensorDataset(*dataset.tensors()) if isinstance(dataset, ArrayDataset) else dataset


def normalization(dataset: ImageDataset) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel, of images in 0…1; of large sets, those of a sample."""
    step = math.ceil(len(dataset) / NORMALIZATION_IMAGES)
    sums = torch.zeros(2, dataset.channels, dtype=torch.float64)
    numbers = 0
    for images, _ in in_order(dataset.subset(np.arange(0, len(dataset), step))):
        pixels = as_unit(images).double().transpose(0, 1).flatten(1)
        sums += torch.stack([pixels.sum(1), pixels.square().sum(1)])
        numbers += pixels.shape[1]
    mean, square = sums / numbers
    # A channel without contrast is left at its scale.
    deviation = (square - mean**2).clamp(min=0).sqrt()
    return mean.tolist(), torch.where(deviation < 1e-4, 1.0, deviation).tolist()


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """The mean cross-entropy of a batch of images and labels, in nats."""
    images, labels = batch
    return cross_entropy(model(as_unit(images)).float(), labels)


def losses(model: nn.Module, dataset: ImageDataset, device: torch.device) -> Float[Tensor, "2 images"]:
    """Losses and errors of each image, see `parteq.core.calibration.losses_and_errors` and `outputs`."""
    return losses_and_errors(outputs(model, dataset, device)[0], torch.from_numpy(dataset.labels).long())


def predict(
    model: nn.Module,
    dataset: ImageDataset,
    device: torch.device,
    elements: tuple[int, ...] = (0,),
    *,
    temperature: float = 1.0,
) -> Float[Tensor, "elements images classes"]:
    """The probabilities a model gives to each image under each of some elements of D4; see `outputs`.

    Logits are divided by the temperature, see `parteq.core.calibration`.
    """
    return (outputs(model, dataset, device, elements) / temperature).softmax(-1)


def outputs(
    model: nn.Module,
    dataset: ImageDataset,
    device: torch.device,
    elements: tuple[int, ...] = (0,),
) -> Float[Tensor, "elements images outputs"]:
    """What a model makes of each image under each of some elements of D4, in evaluation mode, float64 on the CPU.

    Several processes share the work; each gets the whole answer. Large images go through in small batches.
    """
    forward = fast_forward(model, len(dataset.spatial), device)
    # Of fewer images than processes some are predicted twice, so that every process has one.
    count = max(len(dataset), world_size())
    mine = np.arange(rank(), count, world_size()) % len(dataset)
    rows = []
    with torch.inference_mode():
        for images, _ in in_order(dataset.subset(mine)):
            pixels = as_unit(images.to(device))
            given = [forward(transform(pixels, element)) for element in elements]
            rows.append(torch.stack(given, dim=1).double().cpu())
    return gather(torch.cat(rows), count)[: len(dataset)].transpose(0, 1)


def evaluate(
    model: nn.Module,
    dataset: ImageDataset,
    device: torch.device,
    *,
    group: str = "none",
    temperature: float | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The scores of `classification_metrics` with intervals, ``orbit_variance``, and diagrams of `reliability`.

    ``orbit_variance`` is the variance of the predicted probability over the orbit of an image under the model's group
    (those elements that move pixels onto pixels; of volumes only the turns), the mean over images and classes; 0 for
    an invariant model. The diagrams are ``reliability`` and, at the temperature, ``reliability_calibrated``, None
    without one.
    """
    probabilities = predict(model, dataset, device, orbit(group, len(dataset.spatial))).numpy()
    shown, labels = probabilities[0], dataset.labels
    calibrated = None if temperature is None else reliability(at_temperature(shown, temperature), labels)
    return {
        **classification_metrics(shown, labels, dataset.groups, temperature=temperature, seed=seed),
        "orbit_variance": float(probabilities.var(axis=0).mean()),
        "reliability": reliability(shown, labels),
        "reliability_calibrated": calibrated,
    }


def in_order(dataset: ImageDataset) -> Iterator[Batch]:
    """Batches of a data set, unshuffled; large images a few at a time."""
    if len(dataset) == 0:
        return
    parts = torch.arange(len(dataset)).split(at_a_time((dataset.channels, *dataset.spatial)))
    yield from read_batches(samples(dataset), list(parts))
