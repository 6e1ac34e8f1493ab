"""The pictures of networks of points: λ against tilt, and scores against tilt."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from torch import nn

from parteq.core.measure import LayerDegree, partial_layers
from parteq.core.tilts import tilt_map
from parteq.pipelines.figures import GREY, STYLE, TURNS, WIDTH, png
from parteq.pipelines.report import Picture

__all__ = ["against_tilt", "densities_against_tilt", "tilts_picture"]

_LONGITUDES, _LATITUDES = np.linspace(-np.pi, np.pi, 31), np.linspace(-np.pi / 2, np.pi / 2, 16)


def densities_against_tilt(model: nn.Module, layers: Sequence[LayerDegree]) -> Figure:
    """λ, averaged over turns about the axis that was measured: of the first layer on the sphere, of all against tilt.

    Args:
        model: on SO(3) or O(3).
        layers: what was measured of it.
    """
    density, axis = next(iter(partial_layers(model).values())).density, np.array(layers[0].axis)
    curves = list(dict.fromkeys((tuple(layer.tilt_deg), tuple(layer.density_over_tilt)) for layer in layers))
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        ball = figure.add_subplot(1, 2, 1, projection="mollweide")
        values = tilt_map(density, axis, _LONGITUDES, _LATITUDES)
        lowest = min(0.0, values.min())
        colours = ball.pcolormesh(_LONGITUDES, _LATITUDES, values, shading="gouraud", vmin=lowest, rasterized=True)
        figure.colorbar(
            colours, ax=ball, location="bottom", pad=0.03, label="λ against uniform, on the sphere of tilts", shrink=0.8
        )
        ball.plot(np.arctan2(axis[1], axis[0]), np.arcsin(np.clip(axis[2], -1, 1)), "+", color="black", markersize=9)
        ball.set(xticks=[], yticks=[])
        axes = figure.add_subplot(1, 2, 2)
        axes.axhline(1.0, color=GREY, linestyle="--", linewidth=1, label="uniform: full symmetry")
        for number, (tilts, means) in enumerate(curves):
            axes.plot(tilts, means, label="λ" if len(curves) == 1 else f"λ {number + 1}")
        axes.set(xlabel="tilt (degrees)", ylabel="λ against uniform", xticks=range(0, 181, 30))
        axes.set_ylim(lowest, None)
        axes.grid(True)
        axes.legend(loc="upper right")
    return figure


def tilts_picture(model: nn.Module, layers: Sequence[LayerDegree], name: str = "degree") -> Picture | None:
    """λ against tilt for a report; None of groups that have no such."""
    if not layers[0].tilt_deg:
        return None
    caption = (
        "λ by where turns take the axis that was measured, averaged over turns about it, on the sphere (z on top), and "
        "against the tilt. The axis is at +. 1 everywhere means that the symmetry is full; the higher the peak, the "
        "less is a tilted cloud taken for the same."
    )
    return Picture(name, png(densities_against_tilt(model, layers)), caption)


def against_tilt(tilts_in_degrees: Sequence[float], scores: Sequence[float], name: str) -> Figure:
    """A score against the tilt of the clouds that it was taken on."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(tilts_in_degrees, scores, color=TURNS, marker="o", markersize=3.5)
        axes.set(xlabel="tilt (degrees)", ylabel=name)
        # Accuracy is seen whole, errors from 0; neither runs along the frame.
        highest = 1.0 if name == "accuracy" else max(scores)
        axes.set_ylim(-0.03 * highest, 1.03 * highest)
        axes.grid(True)
    return figure
