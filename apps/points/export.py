"""A network of points as a function of one tensor, which is what exported files take."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from parteq.apps.points.models import PointNetwork

__all__ = ["Standalone"]


class Standalone(nn.Module):
    """Clouds (clouds, points, 3 + F), all of the same number of points, to outputs; neighbours are found inside."""

    def __init__(self, model: PointNetwork) -> None:
        super().__init__()
        self.model = model

    def forward(self, clouds: Float[Tensor, "clouds points columns"]) -> Float[Tensor, "clouds outputs"]:
        """Positions come first, then the features of each point."""
        output: Tensor = self.model(clouds[..., :3], None, clouds[..., 3:])
        return output
