"""The pictures of networks of points: λ against tilt, and scores against tilt."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from parteq.apps.points.tilts import tilt_map, tilt_profile
from parteq.core.density import LearnedDensity
from parteq.pipelines.figures import GREY, STYLE, TURNS, WIDTH

__all__ = ["against_tilt", "densities_against_tilt"]

_TILTS = np.linspace(0.0, 180.0, 37)
_LONGITUDES, _LATITUDES = np.linspace(-np.pi, np.pi, 31), np.linspace(-np.pi / 2, np.pi / 2, 16)


def densities_against_tilt(densities: Sequence[LearnedDensity], axis: Sequence[float]) -> Figure:
    """λ, averaged over turns about the axis that was measured: of the first on the sphere, of all against tilt."""
    direction = np.array(axis)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        ball = figure.add_subplot(1, 2, 1, projection="mollweide")
        values = tilt_map(densities[0], direction, _LONGITUDES, _LATITUDES)
        colours = ball.pcolormesh(_LONGITUDES, _LATITUDES, values, shading="gouraud", vmin=0.0, rasterized=True)
        figure.colorbar(
            colours, ax=ball, location="bottom", pad=0.03, label="λ against uniform, on the sphere of tilts", shrink=0.8
        )
        ball.set(xticks=[], yticks=[])
        axes = figure.add_subplot(1, 2, 2)
        axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1, label="uniform: full symmetry")
        for number, density in enumerate(densities):
            label = "λ" if len(densities) == 1 else f"λ {number + 1}"
            axes.plot(_TILTS, tilt_profile(density, direction, _TILTS), label=label)
        axes.set(xlabel="tilt (degrees)", ylabel="λ against uniform", xticks=range(0, 181, 30))
        axes.set_ylim(0, None)
        axes.grid(True)
        axes.legend(loc="upper right")
    return figure


def against_tilt(tilts_in_degrees: Sequence[float], scores: Sequence[float], name: str) -> Figure:
    """A score against the tilt of the clouds that it was taken on."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(tilts_in_degrees, scores, color=TURNS, marker="o", markersize=3.5)
        axes.set(xlabel="tilt (degrees)", ylabel=name)
        axes.set_ylim(0, None)
        axes.grid(True)
    return figure
