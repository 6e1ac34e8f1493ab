"""A network of points as a function of one tensor, which is what exported files take."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from parteq.apps.points.models import PointNetwork

__all__ = ["Standalone"]


class Standalone(nn.Module):
    """Clouds (clouds, points, 3 + F) to outputs; smaller clouds are filled up with NaN. Neighbours are found inside."""

    def __init__(self, model: PointNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, clouds: Float[Tensor, "clouds points columns"]) -> Float[Tensor, "clouds outputs"]:
        """Positions come first, then the features of each point; rows of NaN stand behind all others."""
        present = ~clouds.isnan().any(2)
        filled = torch.where(present[..., None], clouds, 0.0)
        output: Tensor = self.model(filled[..., :3], present.sum(1), filled[..., 3:])
        return output
