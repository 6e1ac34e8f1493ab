"""``parteq histo explain``: where in an image a classifier sees a class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.histo.options import Out
from parteq.pipelines.histo.pictures import Picturing

__all__ = ["Explain"]

MOST_PIXELS = 2**21


@dataclass(kw_only=True)
class Explain(Picturing):
    """Show where in an image the evidence for a class is (Grad-CAM)."""

    example: ClassVar[str] = "parteq histo explain --run RUN --image P.png --out cam.png"

    image: Annotated[Path, tyro.conf.arg(metavar="IMAGE")]
    """PNG, JPEG, TIFF or BMP file."""
    out: Out = Path("cam.png")
    """PNG file to write; by default the likeliest class is explained."""

    def run(self) -> dict[str, Any]:
        """Explains the image."""
        from parteq.apps.histo.explain import explain
        from parteq.apps.histo.task import as_unit, match
        from parteq.datasets.base import ImageDataset, unlabelled
        from parteq.datasets.imagefiles import ImageFiles
        from parteq.pipelines.figures import png
        from parteq.pipelines.overlays import cam_figure

        self.check_out()
        device, checkpoint = self.torch_device(), self.checkpoint("histo")
        about = checkpoint.about()
        model: Any = checkpoint.model().to(device)
        classes, number = about["classes"], self.number(about["classes"])
        dataset: ImageDataset = ImageFiles(self.image, [self.image], *unlabelled(1), names=[self.image.name])
        if math.prod(dataset.spatial) > MOST_PIXELS:
            raise DataError(self.image, f"has more than {MOST_PIXELS:,} pixels: map it with `parteq histo heatmap`")
        dataset = match(dataset, None, model.config["in_chans"], model.config["spatial_dims"])
        image, temperature = as_unit(dataset[0][0]), about.get("temperature", 1.0)
        try:
            explanation = explain(model, image.to(device), number, temperature=temperature)
        except ValueError as error:
            raise DataError(self.image, str(error)) from error
        title = f"{self.image.name}, {_size(dataset.spatial)} pixels"
        title += "" if list(dataset.spatial) == about["spatial"] else f" (trained on {_size(about['spatial'])})"
        colours = image.expand(3, -1, -1).movedim(0, -1).numpy()
        self.write(png(cam_figure(colours, explanation, classes, title)))
        probabilities = explanation.probabilities.tolist()
        return {
            "out": str(self.out),
            "class": classes[explanation.number],
            "probability": probabilities[explanation.number],
            "predicted": classes[probabilities.index(max(probabilities))],
            "probabilities": dict(zip(classes, probabilities, strict=True)),
            "temperature": temperature,
        }


def _size(spatial: Sequence[int]) -> str:
    """Width × height."""
    return " × ".join(map(str, reversed(spatial)))
