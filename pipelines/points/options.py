"""What the commands on point clouds share: their options, and a trained network together with clouds for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from parteq.pipelines.command import Command, RunCommand

if TYPE_CHECKING:
    from parteq.apps.points.models import PointNetwork
    from parteq.datasets.points.base import PointClouds

__all__ = ["MOST_POINTS", "Clouds", "OnClouds"]

MOST_POINTS = 65_536
"""Of a cloud that a network takes."""


@dataclass(kw_only=True)
class Clouds(Command):
    """A command that reads point clouds, see `parteq.datasets.points.clouds.open_clouds`."""

    data: Annotated[str, tyro.conf.arg(metavar="DATA")]
    """X.h5, X.npz, modelnet40:FOLDER, qm9:FILE or surfaces:X.npz."""


@dataclass(kw_only=True)
class OnClouds(Clouds, RunCommand):
    """A command that applies a trained network to clouds."""

    split: Literal["train", "val", "test"] = "test"
    """Part of divided data."""

    def open(self, *, labelled: bool = True) -> tuple[PointNetwork, PointClouds, dict[str, Any]]:
        """The network, the clouds with labels numbered as it does (or without), and what is known of the network."""
        from parteq.apps.points.models import PointNetwork
        from parteq.apps.points.task import match, open_for_evaluation

        checkpoint = self.checkpoint("points")
        model, about = checkpoint.model(), checkpoint.about()
        assert isinstance(model, PointNetwork)
        return model, match(open_for_evaluation(self.data, self.split), about, labelled=labelled), about
