"""What the commands on images share: their options, and a trained classifier together with images to apply it to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from parteq.pipelines.command import RunCommand

if TYPE_CHECKING:
    from parteq.datasets.images import ImageDataset

__all__ = ["Data", "OnData", "Out"]

Data = Annotated[str, tyro.conf.arg(metavar="DATA")]
Out = Annotated[Path, tyro.conf.arg(metavar="PATH")]


@dataclass(kw_only=True)
class OnData(RunCommand):
    """A command that applies a trained classifier to images."""

    data: Data
    """X.npz, pcam:FOLDER, or folder of class folders."""
    split: Literal["train", "val", "test"] = "test"
    """Part of divided data."""

    def open(self, *, labelled: bool = True) -> tuple[Any, ImageDataset, dict[str, Any]]:
        """The model, the images with labels numbered as the model does (or without), and what is known of the model."""
        from parteq.apps.histo.task import match, open_for_evaluation

        checkpoint = self.checkpoint("histo")
        model: Any = checkpoint.model()
        about, config = checkpoint.about(), model.config
        dataset = open_for_evaluation(self.data, self.split, labelled=labelled)
        classes = about["classes"] if labelled else None
        return model, match(dataset, classes, config["in_chans"], config["spatial_dims"]), about
