"""``parteq histo predict``: the class of each image, into a CSV file."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from parteq.pipelines.files import replacing
from parteq.pipelines.histo.options import Data, OnData, Out

__all__ = ["Predict"]


@dataclass(kw_only=True)
class Predict(OnData):
    """Predict the class of each image, with probabilities, into a CSV file."""

    example: ClassVar[str] = "parteq histo predict --run RUN --data images/ --out predictions.csv"

    data: Data
    """X.npz, X.csv, pcam:FOLDER, or folder of images; labels are not needed."""
    out: Out = Path("predictions.csv")
    """CSV file to write."""

    def run(self) -> dict[str, Any]:
        """Writes a row an image: its name or number, the class predicted, the calibrated probability of each class."""
        from parteq.apps.histo.task import predict

        device = self.torch_device()
        model, dataset, about = self.open(labelled=False)
        temperature, classes = about.get("temperature", 1.0), about["classes"]
        probabilities = predict(model, dataset, device, temperature=temperature)[0]
        header, images = ("index", range(len(dataset))) if dataset.names is None else ("image", dataset.names)
        # File names that are not UTF-8 are written as the bytes that they are.
        how = "surrogateescape"
        with replacing(self.out) as temporary, temporary.open("w", newline="", encoding="utf-8", errors=how) as file:
            table = csv.writer(file)
            table.writerow([header, "predicted", *(f"probability_{name}" for name in classes)])
            for image, row in zip(images, probabilities.tolist(), strict=True):
                table.writerow([image, classes[row.index(max(row))], *(f"{value:.9g}" for value in row)])
        counts = {"n": len(dataset), "skipped": len(dataset.skipped)}
        return {"out": str(self.out), **counts, "temperature": temperature}
