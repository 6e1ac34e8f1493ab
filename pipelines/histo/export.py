"""``parteq histo export``: a trained classifier as a plain network."""

from __future__ import annotations

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
        results = export(model, images, self.format, self.out)
        return {
            **results,
            "orbit_max_abs_difference": self._over_orbit(images, model.config["group"]),
            "classes": about["classes"],
            "temperature": about.get("temperature"),
        }

    def _over_orbit(self, images: Tensor, group: str) -> float:
        """How far the logits of the file move as images are turned and mirrored by elements of the group."""
        from parteq.apps.histo.augment import orbit, transform
        from parteq.pipelines.export import load

        logits = load(self.out, self.format)
        turns = [transform(images[:32], element) for element in orbit(group, images.dim() - 2)]
        # Of images that are no squares those turns that keep the shape; the file takes no other.
        found = [logits(turned.contiguous()) for turned in turns if turned.shape == turns[0].shape]
        return max(float((turned - found[0]).abs().max()) for turned in found)
