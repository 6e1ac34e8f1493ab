"""``parteq points predict``: the class or property of each cloud, into a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from parteq.pipelines.files import replacing
from parteq.pipelines.points.options import OnClouds

__all__ = ["Predict"]


@dataclass(kw_only=True)
class Predict(OnClouds):
    """Predict the class of each cloud, with probabilities, or its property, into a CSV file."""

    example: ClassVar[str] = "parteq points predict --run RUN --data clouds.h5 --out predictions.csv"

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")] = Path("predictions.csv")
    """CSV file to write."""

    def run(self) -> dict[str, Any]:
        """Writes a row a cloud: its name or number, and what is predicted, properties in the unit of the data."""
        from parteq.apps.points.task import outputs, samples_for

        device = self.torch_device()
        model, clouds, about = self.open(labelled=False)
        found = outputs(model, samples_for(model, clouds, about["spatial"][0], None), device)
        header, names = ("index", range(len(clouds))) if clouds.names is None else ("cloud", clouds.names)
        classes, target = about["classes"], about["target"]
        with replacing(self.out) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            if target is not None:
                table.writerow([header, target["name"]])
                table.writerows([name, f"{value:.8g}"] for name, value in zip(names, found[:, 0].tolist(), strict=True))
            else:
                table.writerow([header, "predicted", *(f"probability_{name}" for name in classes)])
                for name, row in zip(names, found.softmax(1).tolist(), strict=True):
                    table.writerow([name, classes[row.index(max(row))], *(f"{value:.9g}" for value in row)])
        return {"out": str(self.out), "n": len(clouds)}
