"""Images like those that a deployed classifier will see: to calibrate it on, check it, and time it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parteq.datasets.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from parteq.datasets.images import ImageDataset
    from parteq.pipelines.checkpoint import Checkpoint

__all__ = ["examples"]

COUNT, NUMBERS = 256, 2**27
"""How many at most, and how many numbers: half a gigabyte."""


def examples(checkpoint: Checkpoint, run_path: Path, data: str | None, option: str) -> Tensor:
    """Images for a classifier, evenly spread over a data set; float32 n×C×H×W in 0…1.

    Args:
        checkpoint: of the classifier.
        run_path: the run that the checkpoint is of.
        data: where to take them from. None for what the run was trained on.
        option: of the command line that gives ``data``, for the error.

    Raises:
        DataError: if they do not fit the classifier, or what it was trained on is no longer there.
    """
    import numpy as np

    from parteq.apps.histo.task import as_unit, match, open_for_evaluation

    about = checkpoint.about()
    config, spatial = about["model"], tuple(about["spatial"])
    if data is None:
        try:
            dataset = _trained_on(run_path)
        except DataError as error:
            raise DataError(run_path, f"was trained on what is not to be had ({error}): give {option}") from error
    else:
        dataset = open_for_evaluation(data, "train", labelled=False)
    dataset = match(dataset, None, config["in_chans"], config["spatial_dims"])
    if dataset.spatial != spatial:
        sizes = ["×".join(map(str, size)) for size in (dataset.spatial, spatial)]
        raise DataError(dataset.source, f"holds images of {sizes[0]} pixels; the exported file takes {sizes[1]}")
    count = min(COUNT, len(dataset), max(1, NUMBERS // (dataset.channels * math.prod(spatial))))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int)
    return as_unit(dataset.subset(chosen).tensors()[0])


def _trained_on(run_path: Path) -> ImageDataset:
    """The images that a run was trained on.

    Raises:
        DataError: they are not there, or others than they were.
    """
    from parteq.apps.histo.task import open_for_training
    from parteq.pipelines.run import Run

    run = Run.open(run_path)
    recorded: dict[str, Any] = run.data.get("training", {})
    options = {"val": None, "limit": None, "seed": 0, "skip_bad": False} | run.options
    if not isinstance(data := options.get("data"), str):
        raise DataError(run_path, "does not say on what it was trained")
    chosen = options["val"], options["limit"], options["seed"]
    training, _ = open_for_training(data, *chosen, skip_bad=options["skip_bad"])
    if training.fingerprint() != recorded.get("fingerprint"):
        raise DataError(training.source, "holds other images than then")
    return training
