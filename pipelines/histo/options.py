"""What the commands on images share: their options, and a trained classifier together with images to apply it to."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from parteq.pipelines.command import Command, RunCommand

if TYPE_CHECKING:
    from parteq.datasets.images import ImageDataset

__all__ = ["Data", "Images", "Micrometres", "OnData", "Out"]

Data = Annotated[str, tyro.conf.arg(metavar="DATA")]
Micrometres = Annotated[float | None, tyro.conf.arg(metavar="UM", help_behavior_hint="")]
Out = Annotated[Path, tyro.conf.arg(metavar="PATH")]


@dataclass(kw_only=True)
class Images(Command):
    """A command that reads a set of images, see `parteq.datasets.images.open_images`."""

    data: Data
    """X.npz, X.csv, pcam:FOLDER, or folder of class folders."""
    skip_bad: bool = False
    """Leave out image files that cannot be used."""


@dataclass(kw_only=True)
class OnData(Images, RunCommand):
    """A command that applies a trained classifier to images."""

    split: Literal["train", "val", "test"] = "test"
    """Part of divided data."""

    def open(self, *, labelled: bool = True) -> tuple[Any, ImageDataset, dict[str, Any]]:
        """The model, the images with labels numbered as the model does (or without), and what is known of the model."""
        from parteq.apps.histo.task import match, open_for_evaluation
        from parteq.datasets.splits import check_one_release

        checkpoint = self.checkpoint("histo")
        model: Any = checkpoint.model()
        about, config = checkpoint.about(), model.config
        dataset = open_for_evaluation(self.data, self.split, labelled=labelled, skip_bad=self.skip_bad)
        classes = about["classes"] if labelled else None
        if labelled:
            check_one_release(about.get("release"), dataset.release, dataset.source)
        dataset = match(dataset, classes, config["in_chans"], config["spatial_dims"])
        if list(dataset.spatial) != about["spatial"]:
            sizes = (" × ".join(map(str, size)) for size in (dataset.spatial, about["spatial"]))
            warnings.warn(
                "{}: images of {} pixels; the model was trained on {}".format(self.data, *sizes), stacklevel=1
            )
        return model, dataset, about
