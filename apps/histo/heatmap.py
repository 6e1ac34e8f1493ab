"""A heat map: the probability of each class in each tile of a slide."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from sklearn.metrics import roc_auc_score
from torch import nn
from tqdm import tqdm

from parteq.apps.histo import task
from parteq.core.export import fold
from parteq.datasets.tiling import Tiling

__all__ = ["HeatMap", "heat_map"]

log = logging.getLogger(__name__)

_TILES = 128  # read at a time


@dataclass(frozen=True, eq=False)
class HeatMap:
    """What a model makes of the tiles of a slide.

    Attributes:
        tiling: N tiles.
        classes: names.
        probabilities: of each class in each tile [N, classes], calibrated where the model's temperature was known.
        labels: class numbers [N], None if unknown.
    """

    tiling: Tiling
    classes: tuple[str, ...]
    probabilities: Float[np.ndarray, "tiles classes"]
    labels: Int[np.ndarray, " tiles"] | None

    def auc(self, number: int) -> float | None:
        """The area under the curve of a class against the others; None, with a warning, if there is only one side."""
        if self.labels is None:
            return None
        truth = self.labels == number
        if truth.all() or not truth.any():
            warnings.warn(f"no auc: all or none of the tiles are {self.classes[number]!r}", stacklevel=2)
            return None
        return float(roc_auc_score(truth, self.probabilities[:, number]))

    def surface(self, values: Float[np.ndarray, " tiles"]) -> Float[np.ndarray, "height width"]:
        """A value for each tile laid over the picture: the mean where tiles overlap, NaN where there are none."""
        total = np.zeros(self.tiling.picture.shape[:2])
        count = np.zeros_like(total)
        for value, (left, top, right, bottom) in zip(values, self.tiling.in_picture(), strict=True):
            total[top:bottom, left:right] += value
            count[top:bottom, left:right] += 1
        return np.divide(total, count, out=np.full_like(total, np.nan), where=count > 0)

    def to_geojson(self, colours: Sequence[tuple[int, int, int]]) -> dict[str, Any]:
        """The tiles as QuPath reads them: a polygon each, its likeliest class, the probabilities as measurements.

        Args:
            colours: red, green and blue in 0…255 of each class.
        """
        width, height = self.tiling.size
        unit_square = np.array([(0, 0), (1, 0), (1, 1), (0, 1), (0, 0)])
        features = []
        for corner, row in zip(self.tiling.corners, self.probabilities, strict=True):
            likeliest = int(row.argmax())
            outline = (corner + unit_square * (width, height)).round(3).tolist()
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": [outline]},
                    "properties": {
                        "objectType": "tile",
                        "classification": {"name": self.classes[likeliest], "color": list(colours[likeliest])},
                        "measurements": {
                            f"probability {name}": round(float(value), 6)
                            for name, value in zip(self.classes, row, strict=True)
                        },
                    },
                }
            )
        return {"type": "FeatureCollection", "features": features}


def heat_map(
    model: nn.Module,
    tiling: Tiling,
    classes: Sequence[str],
    device: torch.device,
    *,
    temperature: float = 1.0,
    progress: bool = False,
) -> HeatMap:
    """Applies a model to each tile of a slide; only so many tiles are in memory as it looks at together.

    Logits are divided by the temperature. Tiles in folders that are named as the classes bear labels, if all do.
    """
    tiles = tiling.tiles
    parts = torch.arange(len(tiles)).split(_TILES)
    bar = tqdm(parts, "tiles", delay=2, unit="batch", disable=None if progress else True, leave=False)
    model = fold(model)  # once for all parts
    rows = [task.predict(model, tiles.subset(part.numpy()), device, temperature=temperature)[0] for part in bar]
    folders = [PurePath(name).parent.name for name in tiles.names or ()]
    known = bool(folders) and set(folders) <= set(classes)
    if any(folders) and not known:
        strange = ", ".join(sorted(set(folders) - set(classes))[:3])
        log.warning("no auc: tiles in folders that are no classes of the model: %s", strange)
    labels = np.array([list(classes).index(folder) for folder in folders]) if known else None
    return HeatMap(tiling, tuple(classes), torch.cat(rows).numpy(), labels)
