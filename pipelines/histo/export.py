"""``parteq histo export``: a trained classifier as a plain network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from parteq.pipelines.command import RunCommand, Text
from parteq.pipelines.histo.options import Out

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Export"]


@dataclass(kw_only=True)
class Export(RunCommand):
    """Export a trained classifier as a plain network, for torch or ONNX."""

    example: ClassVar[str] = "parteq histo export --run RUN --format onnx-int8 --out model.onnx"

    out: Out
    """File to write."""
    format: Literal["torch", "onnx", "onnx-int8"] = "onnx"
    """A torch.export program (.pt2), ONNX, ONNX in integers of 8 bits."""
    calibrate: Text = None
    """Images to calibrate integers on; else those trained on."""

    def run(self) -> dict[str, Any]:
        """Folds the model and writes it; the written file is run and compared, and run on turned images."""
        import torch

        from parteq.pipelines.export import export
        from parteq.pipelines.histo.examples import examples

        checkpoint = self.checkpoint("histo")
        model: Any = checkpoint.model()
        about = checkpoint.about()
        if self.calibrate is None and self.format != "onnx-int8":
            size = (8, model.config["in_chans"], *about["spatial"])
            images = torch.rand(size, generator=torch.Generator().manual_seed(self.seed))
        else:
            images = examples(checkpoint, self.run_path, self.calibrate, "--calibrate")
        results = export(model, images, self.format, self.out, _description(about))
        return {
            **results,
            "orbit_max_abs_difference": self._over_orbit(images, model.config["group"]),
            "classes": about["classes"],
            "temperature": about.get("temperature"),
        }

    def _over_orbit(self, images: Tensor, group: str) -> float:
        """How far the logits of the file move as images are turned and mirrored by elements of the group."""
        from parteq.apps.histo.augment import orbit, transform
        from parteq.core.training import at_a_time
        from parteq.pipelines.export import load

        logits, most = load(self.out, self.format), 0.0
        for part in images[:32].split(at_a_time(images.shape[1:])):
            turns = [transform(part, element) for element in orbit(group, images.dim() - 2)]
            # Of images that are no squares those turns that keep the shape; the file takes no other.
            found = [logits(turned.contiguous()) for turned in turns if turned.shape == part.shape]
            most = max(most, *(float((turned - found[0]).abs().max()) for turned in found))
        return most


def _description(about: dict[str, Any]) -> dict[str, str]:
    """What the file says of itself to those who have nothing else: text by name, lists as JSON."""
    channels, spatial = about["model"]["in_chans"], " × ".join(map(str, about["spatial"]))
    order = {1: "grey", 3: "RGB"}.get(channels, f"{channels} channels")
    temperature, mpp = about.get("temperature"), about.get("mpp")
    said = {
        "classes": json.dumps(about["classes"], ensure_ascii=False),
        "input": f"images: float32 N × {channels} × {spatial}, {order} in 0…1, not normalised",
        "output": "logits: float32 N × classes; softmax(logits / temperature) are probabilities",
        "temperature": None if temperature is None else repr(temperature),
        "mpp": None if mpp is None else repr(mpp),
    }
    return {name: text for name, text in said.items() if text is not None}
