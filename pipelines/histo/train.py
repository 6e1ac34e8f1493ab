"""``parteq histo train``: a classifier of images from the beginning, and how symmetric they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.histo.training import ClassifierTraining

if TYPE_CHECKING:
    from parteq.apps.histo.models import Classifier
    from parteq.core.training import Settings
    from parteq.datasets.images import ImageDataset

__all__ = ["Train"]

LARGEST_WIDTH = 64


@dataclass(kw_only=True)
class Train(ClassifierTraining):
    """Train a classifier of images, and learn how symmetric they are."""

    example: ClassVar[str] = "parteq histo train --data cells.npz --group d4 --degree learned --limit 400 --out RUN"

    model: Literal["mobilenetv2", "densenet", "resnet"] = "resnet"
    """Architecture."""
    group: Annotated[Literal["c4", "c8", "d4", "so2", "o2", "none"], tyro.conf.arg(metavar="GROUP")] = "d4"
    """c4, c8, d4, so2, o2 or none."""
    degree: Annotated[Literal["learned", "full", "none"], tyro.conf.arg(metavar="DEGREE")] = "learned"
    """How much of it: learned, full or none."""
    width: float = 1.0
    """Factor on the number of channels."""

    def settings(self) -> Settings:
        """The settings of the training loop; numbers that cannot be meant are refused."""
        if not 0 < self.width <= LARGEST_WIDTH:
            raise DataError(f"--width {self.width}", f"must be above 0 and at most {LARGEST_WIDTH}")
        return super().settings()

    def new_model(self, training: ImageDataset) -> Classifier:
        """A model with random weights."""
        from parteq.apps.histo.models import create_model
        from parteq.apps.histo.task import normalization

        model = create_model(
            self.model,
            num_classes=len(training.classes),
            in_chans=training.channels,
            group=self.group,
            degree=self.degree,
            width=self.width,
            spatial_dims=len(training.spatial),
        )
        model.set_normalization(*normalization(training))
        return model
