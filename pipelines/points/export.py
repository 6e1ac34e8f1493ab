"""``parteq points export``: a trained network of points as a plain network."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Number, RunCommand
from parteq.pipelines.points.options import MOST_POINTS

__all__ = ["Export"]


@dataclass(kw_only=True)
class Export(RunCommand):
    """Export a trained network as a plain network, for torch or ONNX."""

    example: ClassVar[str] = "parteq points export --run RUN --format onnx --out model.onnx"

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write."""
    format: Literal["torch", "onnx"] = "onnx"
    """A torch.export program (.pt2), or ONNX."""
    points: Number = None
    """Of the clouds it takes; else of the largest trained on."""

    def run(self) -> dict[str, Any]:
        """Folds the network and writes it; the written file is run and compared on random clouds of several sizes.

        It takes ``images``, positions float32 N×points×3 and, of a network with features, those beside them,
        N×points×(3+F), and finds neighbours itself; rows of NaN fill up smaller clouds. It gives ``logits``, N×classes,
        or N×1, the target as the data have it, in the unit that its name tells.
        """
        import torch

        from parteq.apps.points.export import Standalone
        from parteq.apps.points.models import PointNetwork
        from parteq.pipelines.export import export

        checkpoint = self.checkpoint("points")
        model, about = cast("PointNetwork", checkpoint.model()), checkpoint.about()
        points = about["spatial"][0] if self.points is None else self.points
        if not model.neighbours < points <= MOST_POINTS:
            raise DataError(f"--points {points}", f"must be above {model.neighbours} and at most {MOST_POINTS}")
        size = (8, points, 3 + model.config["in_features"])
        clouds = torch.randn(size, generator=torch.Generator().manual_seed(self.seed)) * model.length[0]
        for cloud, absent in zip(clouds, range(0, points, -(-points // len(clouds))), strict=False):
            cloud[points - absent :] = torch.nan
        results = export(Standalone(model), clouds, self.format, self.out, _description(about, points))
        target = None if about["target"] is None else about["target"]["name"]
        known = {name: about[name] for name in ("classes", "feature_names")}
        return {**results, "points": points, "target": target, **known}


def _description(about: dict[str, Any], points: int) -> dict[str, str]:
    """What the file says of itself to those who have nothing else: text by name, lists as JSON."""
    features, target = about["feature_names"], about["target"]
    columns = ", ".join(["x, y, z in the unit of the data", *features])
    output = "N × classes; softmax(logits) are probabilities" if target is None else f"N × 1, {target['name']}"
    said = {
        "input": f"images: float32 N × {points} × {3 + len(features)}, {columns}; rows of NaN fill up smaller clouds",
        "output": f"logits: float32 {output}",
    }
    if target is None:
        said["classes"] = json.dumps(about["classes"], ensure_ascii=False)
    return said
