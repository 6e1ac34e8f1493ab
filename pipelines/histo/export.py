"""``parteq histo export``: a trained classifier as a plain network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from parteq.pipelines.command import RunCommand
from parteq.pipelines.histo.options import Out

__all__ = ["Export"]


@dataclass(kw_only=True)
class Export(RunCommand):
    """Export a trained classifier as a plain network, for torch or ONNX."""

    example: ClassVar[str] = "parteq histo export --run RUN --format onnx --out model.onnx"

    out: Out
    """File to write."""
    format: Literal["torch", "onnx"] = "onnx"
    """A torch.export program (.pt2), or ONNX."""

    def run(self) -> dict[str, Any]:
        """Folds the model and writes it; the written file is run and compared."""
        from parteq.pipelines.export import export

        checkpoint = self.checkpoint("histo")
        model: Any = checkpoint.model()
        return export(model, (model.config["in_chans"], *checkpoint.about()["spatial"]), self.format, self.out)
