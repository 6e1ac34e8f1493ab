"""The pictures: learning curves, calibration, densities on the circle, measured equivariance.

They are made without pyplot, so without state.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from parteq.core.measure import LayerDegree
from parteq.datasets.images import ImageDataset

__all__ = ["densities", "equivariance", "examples", "learning_curve", "png", "reliability", "turns", "twins"]

WIDTH = 7.6  # of every figure, in inches
TURNS, FLIPS, GREY = "#0072b2", "#d55e00", "#8a8f98"
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "text.parse_math": False,  # names of files and classes are what they are
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "grid.color": "#e3e6ea",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "xtick.color": "#4a4f57",
    "ytick.color": "#4a4f57",
}


def _style() -> AbstractContextManager[None]:
    return matplotlib.rc_context(STYLE)


def png(figure: Figure) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = BytesIO()
    with _style():
        figure.savefig(buffer, format="png", dpi=160)
    return buffer.getvalue()


def learning_curve(history: Sequence[dict[str, Any]], unit: str = "") -> Figure:
    """Loss and scores against the epoch, as `metrics.jsonl` records them.

    Args:
        history: a record an epoch.
        unit: of a property, where one is predicted.
    """
    units = any("val_mae" in record for record in history)
    with _style():
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        loss, score = figure.subplots(1, 2)
        curves = (
            (loss, "loss", "training", GREY),
            (loss, "val_nll", "validation", TURNS),
            (score, "val_accuracy", "accuracy", TURNS),
            (score, "val_auc", "AUC", FLIPS),
            (score, "val_mae", f"mean absolute error{unit and f' ({unit})'}", TURNS),
        )
        for axes, key, label, colour in curves:
            points = [(record["epoch"], record[key]) for record in history if key in record]
            if points:
                axes.plot(*zip(*points, strict=True), color=colour, label=label, marker="." if len(points) < 3 else "")
        loss.set(xlabel="epoch", title="loss (standard deviations)" if units else "loss (nats)", ylim=(0, None))
        score.set(xlabel="epoch", title="on the validation data", ylim=(0, None) if units else (None, 1))
        for axes in (loss, score):
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(True)
            if axes.lines:
                axes.legend()
    return figure


def reliability(scores: Mapping[str, Any]) -> Figure:
    """Accuracy against confidence, as predicted and, where there is one, at the temperature.

    Args:
        scores: as of `parteq.apps.histo.task.evaluate`.
    """
    diagrams = [("as predicted", scores["reliability"], scores["ece"])]
    if scores["temperature"] is not None:
        title = f"at temperature {scores['temperature']:.2f}"
        diagrams.append((title, scores["reliability_calibrated"], scores["ece_calibrated"]))
    with _style():
        figure = Figure(figsize=(WIDTH, 3.2), layout="constrained")
        panels = figure.subplots(1, 2, sharex=True, sharey=True)
        for axes, (title, bins, error) in zip(panels, diagrams, strict=False):
            confidence, accuracy, number = (
                np.array([row[key] for row in bins]) for key in ("confidence", "accuracy", "n")
            )
            axes.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=1)
            axes.vlines(confidence, accuracy, confidence, color=FLIPS, linewidth=1)
            areas = 8 + 250 * number / number.sum()
            # A dot at (1, 1) reaches over the frame.
            axes.scatter(confidence, accuracy, areas, color=TURNS, alpha=0.8, linewidth=0, clip_on=False)
            axes.set(title=f"{title}: calibration error {error:.3f}", xlabel="confidence", ylim=(-0.03, 1.03))
            axes.grid(True)
        panels[0].set_ylabel("accuracy")
        for axes in panels[len(diagrams) :]:
            axes.remove()
    return figure


def turns(turn_deg: Sequence[float], turn_accuracy: Sequence[float], holds_to_deg: float) -> Figure:
    """Accuracy against the turn of the images, and the turn up to which it holds."""
    with _style():
        figure = Figure(figsize=(WIDTH / 2, 2.8), layout="constrained")
        axes = figure.subplots()
        axes.plot(turn_deg, turn_accuracy, color=TURNS)
        axes.axvline(holds_to_deg, color=GREY, linestyle="--", linewidth=1)
        axes.set(title=f"holds to ±{holds_to_deg:.0f}°", xlabel="turn (degrees)", ylabel="accuracy")
        axes.set(xticks=range(0, 181, 45), ylim=(-0.03, 1.03))
        axes.grid(True)
    return figure


def twins(histories: Mapping[str, Sequence[dict[str, Any]]]) -> Figure:
    """Validation accuracy against the epoch, of several trainings by name."""
    with _style():
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        axes = figure.subplots()
        for (name, history), colour in zip(histories.items(), (TURNS, FLIPS, GREY), strict=True):
            axes.plot([r["epoch"] for r in history], [r["val_accuracy"] for r in history], color=colour, label=name)
        axes.set(xlabel="epoch", ylabel="accuracy")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(True)
        axes.legend(title="symmetry kept")
    return figure


def examples(dataset: ImageDataset, columns: int = 8) -> Figure:
    """A row of images, spread over the data set, below the names of their classes."""
    with _style():
        figure = Figure(figsize=(WIDTH, 1.2), layout="constrained")
        chosen = np.linspace(0, len(dataset) - 1, columns).round().astype(int)
        for axes, index in zip(figure.subplots(1, columns), chosen, strict=True):
            image, label = dataset[int(index)]
            axes.imshow(image.movedim(0, -1).numpy().squeeze(), cmap="gray", vmin=0, vmax=255)
            axes.set_title(dataset.classes[label], fontsize=7, fontweight="normal")
            axes.set_axis_off()
    return figure


def densities(layers: Sequence[LayerDegree]) -> Figure:
    """λ of each layer on the circle of turns, 0° on top and anticlockwise; on the dashed circle it is uniform.

    The radius is √λ, so that areas are probabilities. Finite groups are drawn as bars, continuous ones as curves, λ at
    the flips in a second colour.
    """
    shown = [layer for layer in layers if layer.angles_deg]
    columns = 5
    rows = math.ceil(len(shown) / columns) or 1
    highest = max((max(layer.density + layer.density_flipped) for layer in shown), default=1.0)
    with _style():
        figure = Figure(figsize=(WIDTH, 1.8 * rows + 0.55), layout="constrained")
        for number, layer in enumerate(shown):
            axes = figure.add_subplot(rows, columns, number + 1, projection="polar")
            _draw_density(axes, layer, 1.1 * math.sqrt(max(highest, 1.3)))
        handles = figure.axes[0].get_legend_handles_labels() if figure.axes else ([], [])
        figure.legend(*handles, loc="outside lower center", ncols=3)
    return figure


def _draw_density(axes: Any, layer: LayerDegree, limit: float) -> None:
    """One layer's λ on polar axes."""
    circle = np.linspace(0, 2 * np.pi, 181)
    axes.plot(circle, np.ones_like(circle), color=GREY, linestyle="--", linewidth=1, label="uniform: full symmetry")
    angles = np.radians(layer.angles_deg)
    finite = len(angles) <= 16
    # Flips lie over turns at the same angles: a thin line with an open end over a broad one.
    for density, colour, label, broad in (
        (layer.density, TURNS, "turns", True),
        (layer.density_flipped, FLIPS, "flips, then turns", False),
    ):
        # The band-limited values of a fixed density may fall below zero.
        values = np.sqrt(np.maximum(density, 0))
        if not len(values):
            continue
        if finite:
            axes.vlines(angles, 0, values, color=colour, linewidth=5 if broad else 1.3, alpha=0.45 if broad else 1)
            end = {"markersize": 5.5} if broad else {"markersize": 8, "markerfacecolor": "none"}
            axes.plot(angles, values, color=colour, linestyle="", marker="o", label=label, **end)
        else:
            axes.plot(np.append(angles, angles[0]), np.append(values, values[0]), color=colour, label=label)
            axes.fill(angles, values, color=colour, alpha=0.15)
    axes.set_theta_zero_location("N")
    axes.set_xticks(np.radians([0, 90, 180, 270]), [])
    axes.set_yticks([])
    axes.set_ylim(0, limit)
    axes.spines["polar"].set_visible(False)
    subgroup = layer.nearest_subgroup.split(" (")[0]  # where its mirrors are would not fit
    axes.set_title(f"{layer.name}\n{subgroup}", fontsize=7.5, pad=6)


def equivariance(layers: Sequence[LayerDegree]) -> Figure:
    """The measured equivariance error of each layer under each turn, first layer light, last dark."""
    shown = [layer for layer in layers if layer.angles_deg]
    shades = matplotlib.colormaps["viridis_r"](np.linspace(0.15, 1, max(1, len(shown))))
    highest = max((max(layer.equivariance_error + layer.equivariance_error_flipped) for layer in shown), default=0)
    kinds = [("turned", "equivariance_error"), ("flipped, then turned", "equivariance_error_flipped")]
    kinds = [(title, key) for title, key in kinds if any(getattr(layer, key) for layer in shown)] or kinds[:1]
    with _style():
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        for axes, (title, key) in zip(np.atleast_1d(figure.subplots(1, len(kinds), sharey=True)), kinds, strict=True):
            for layer, shade in zip(shown, shades, strict=True):
                angles, errors = [*layer.angles_deg, 360.0], getattr(layer, key)
                marker = "o" if len(angles) <= 17 else ""
                axes.plot(angles, [*errors, *errors[:1]], color=shade, marker=marker, markersize=3.5, label=layer.name)
            axes.set(title=title, xlabel="angle (degrees)", xticks=range(0, 361, 90))
            axes.set_ylim(-0.005, max(0.2, 1.05 * highest))
            axes.grid(True)
        figure.axes[0].set_ylabel("equivariance error")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside right center", fontsize=7)
    return figure
