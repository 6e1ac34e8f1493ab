"""The pictures of the commands on particles: poses and their errors, maps and their resolution."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from parteq.apps.cryoem.calibration import calibrate
from parteq.apps.cryoem.matching import CONFIDENT_DEGREES
from parteq.apps.cryoem.pose_metrics import PoseErrors
from parteq.apps.cryoem.resolution import HalfMapResolution, falls_to, resolution_at
from parteq.datasets.splits import evenly_spread
from parteq.pipelines.figures import FLIPS, GREY, STYLE, TURNS, WIDTH

__all__ = ["draw_scale_bar", "draw_views", "pose_error_figure", "resolution_figure"]

_MOST_POINTS = 5000
_HIGHEST_SHOWN = 30.0  # degrees; on the sphere all errors above have one colour


def pose_error_figure(
    errors: PoseErrors,
    true_rotations: Float[np.ndarray, "particles 3 3"],
    confidence: Float[np.ndarray, " particles"] | None = None,
) -> Figure:
    """How errors are distributed, where on the sphere of view directions they are large, and if confidence is right.

    Args:
        errors: of the particles.
        true_rotations: R of each; the view direction is its third row.
        confidence: in each pose; None leaves it out.
    """
    rotation = errors.rotation_in_degrees
    median = float(np.median(rotation))
    with matplotlib.rc_context(STYLE):
        rows = 1 if confidence is None else 2
        figure = Figure(figsize=(WIDTH, 2.9 * rows), layout="constrained")
        grid = figure.add_gridspec(rows, 2, width_ratios=(1, 1.25))
        axes: Any = figure.add_subplot(grid[0, 0])
        # Fine where good estimates lie; whoever has none sees a flat line up to 180°.
        edges = np.linspace(0, 180 if median > 30 else max(3.0, 4 * median), 46)
        parts = {
            "whole": (rotation, TURNS),
            "view direction": (errors.view_direction_in_degrees, FLIPS),
            "in the plane": (errors.in_plane_in_degrees, GREY),
        }
        for name, (values, colour) in parts.items():
            counts = np.histogram(values, edges)[0] / len(values)
            axes.stairs(
                100 * counts, edges, color=colour, linewidth=1.6, label=f"{name}, median {np.median(values):.2g}°"
            )
        axes.set(xlabel="error (degrees)", ylabel="particles (%)", xlim=edges[[0, -1]])
        beyond, title = float((rotation > edges[-1]).mean()), f"{len(rotation):,} particles"
        axes.set_title(title + (f", {beyond:.0%} beyond {edges[-1]:.0f}°" if beyond > 0.005 else ""))
        axes.grid(True)
        axes.legend(fontsize=7.5)
        sphere: Any = figure.add_subplot(grid[0, 1], projection="mollweide")
        order = np.argsort(rotation)  # the largest errors on top
        highest = min(_HIGHEST_SHOWN, max(1.0, float(np.percentile(rotation, 95))))
        bar = draw_views(figure, sphere, true_rotations[order], rotation[order], highest, extend="max")
        bar.set_label("rotation error (degrees)")
        sphere.set_title(f"view directions, hand: {errors.alignment.hand}")
        if confidence is not None:
            panels = figure.add_subplot(grid[1, 0]), figure.add_subplot(grid[1, 1])
            _draw_confidence(*panels, confidence, rotation)
    return figure


def _draw_confidence(
    calibration: Any, counts: Any, confidence: Float[np.ndarray, " n"], rotation: Float[np.ndarray, " n"]
) -> None:
    """The share of right poses against the confidence in them, and the confidence in right and in wrong ones."""
    found = calibrate(confidence, rotation)
    calibration.axline((0, 0), slope=1, color=GREY, linestyle="--", linewidth=1)
    calibration.vlines(found.confidence, found.right, found.confidence, color=FLIPS, linewidth=1)
    sizes = 8 + 250 * found.count / found.count.sum()
    # Whole where all are right, and sure: at (1, 1).
    calibration.scatter(found.confidence, found.right, sizes, color=TURNS, alpha=0.8, linewidth=0, clip_on=False)
    within = f"within {CONFIDENT_DEGREES:.0f}°"
    calibration.set(xlabel="confidence", ylabel=f"share {within}", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    calibration.set_title(f"calibration error {found.error:.3f}")
    calibration.grid(True)
    right = rotation < CONFIDENT_DEGREES
    counts.hist(
        [confidence[right], confidence[~right]], 20, range=(0, 1), stacked=True, color=(TURNS, FLIPS),
        label=(f"{within} ({right.mean():.0%})", f"not ({1 - right.mean():.0%})"),
    )  # fmt: skip
    counts.set(xlabel="confidence", ylabel="particles")
    counts.legend(fontsize=7.5)


def draw_views(
    figure: Figure,
    axes: Any,
    rotations: Float[np.ndarray, "n 3 3"],
    values: Float[np.ndarray, " n"],
    highest: float,
    *,
    extend: str = "neither",
) -> Any:
    """View directions on a map of equal areas, coloured by some value, and a colour bar.

    Args:
        figure: that the colour bar is made in.
        axes: of the projection "mollweide".
        rotations: R of each particle, in the order in which they are drawn; the view direction is its third row.
        values: from zero on.
        highest: of the colours.
        extend: "max" if there may be higher values.

    Returns:
        The colour bar, to be named.
    """
    chosen = evenly_spread(len(rotations), _MOST_POINTS)
    x, y, z = rotations[chosen, 2].T
    shown = axes.scatter(
        np.arctan2(y, x),
        np.arcsin(np.clip(z, -1, 1)),
        s=np.clip(12_000 / len(chosen), 3, 20),
        c=values[chosen],
        cmap="viridis",
        vmin=0,
        vmax=highest,
        linewidth=0,
    )
    axes.set_xticks(np.radians([-120, -60, 0, 60, 120]), [])
    axes.set_yticks(np.radians([-60, -30, 0, 30, 60]), [])
    axes.grid(True, linewidth=0.5)
    bar: Any = figure.colorbar(shown, ax=axes, shrink=0.6, pad=0.03, extend=extend)
    bar.outline.set_visible(False)
    return bar


def draw_scale_bar(axes: Any, box: int, pixel_size_in_angstroms: float) -> None:
    """A bar of 1, 2 or 5 times a power of ten Å, at most 40 % of the width, below the picture of a map."""
    most = 0.4 * box * pixel_size_in_angstroms
    power = 10.0 ** np.floor(np.log10(most))
    length = power * max(step for step in (1, 2, 5) if step * power <= most)
    # Below it, for a map may be bright or dark anywhere.
    across, end = axes.get_xaxis_transform(), -0.5 + length / pixel_size_in_angstroms
    axes.plot([-0.5, end], [-0.04] * 2, "k", linewidth=2.5, solid_capstyle="butt", transform=across, clip_on=False)
    axes.annotate(
        f"{length:g} Å",
        (end, -0.04),
        (4, 0),
        xycoords=across,
        textcoords="offset points",
        fontsize=8,
        verticalalignment="center",
        annotation_clip=False,
    )


def resolution_figure(
    found: HalfMapResolution, volume: Float[np.ndarray, "box box box"], mask: Float[np.ndarray, "box box box"]
) -> Figure:
    """The Fourier shell correlations of half maps, and the map seen along its axes with the outline of the mask."""
    shells = np.arange(1, len(found.unmasked))
    curves = (
        ("in the mask, corrected", found.corrected, TURNS, "-"),
        ("in the mask", found.masked, TURNS, ":"),
        ("whole box", found.unmasked, FLIPS, "-"),
        ("random phases in the mask", found.randomised, GREY, ":"),
    )
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        grid = figure.add_gridspec(2, 3, height_ratios=(1.35, 1))
        axes: Any = figure.add_subplot(grid[0, :])
        for name, curve, colour, line in curves:
            if curve is found.randomised and not curve.any():
                continue  # the halves agree on every shell, and none was made random
            axes.plot(shells, curve[1:], color=colour, linestyle=line, label=name)
        bound = ""  # at Nyquist, the same for both thresholds
        for level in (0.143, 0.5):
            axes.axhline(level, color=GREY, linewidth=0.8, linestyle="--")
            resolution = resolution_at(found.corrected, level, found.box_in_angstroms)
            place = found.box_in_angstroms / resolution
            if not falls_to(found.corrected, level):
                bound = f"≤ {resolution:.1f} Å"
                continue
            axes.plot([place], [level], color=TURNS, marker="o", markersize=4)
            side = ("right", -4) if place > 0.9 * shells[-1] else ("left", 4)
            axes.annotate(
                f"{resolution:.1f} Å",
                (place, level),
                (side[1], 4),
                textcoords="offset points",
                fontsize=8,
                horizontalalignment=side[0],
                bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},
            )
        if bound:
            end = (shells[-1], found.corrected[-1])
            axes.annotate(bound, end, (4, 0), textcoords="offset points", fontsize=8, verticalalignment="center")
        ticks = np.unique(np.linspace(1, shells[-1], 8).round().astype(int))
        axes.set_xticks(ticks, [f"{found.box_in_angstroms / tick:.1f}" for tick in ticks])
        axes.set(xlabel="resolution (Å)", ylabel="correlation of half maps", xlim=(1, shells[-1]))
        axes.set_ylim(min(-0.05, float(found.unmasked.min())), 1.03)
        axes.grid(True)
        axes.legend(fontsize=7.5, loc="center left", frameon=True, framealpha=1, edgecolor="none")
        for number, (axis, name) in enumerate(((0, "z"), (1, "y"), (2, "x"))):
            panel: Any = figure.add_subplot(grid[1, number])
            panel.imshow(volume.sum(axis), cmap="gray", origin="lower")
            panel.contour(mask.max(axis), [0.5], colors=FLIPS, linewidths=0.8)
            panel.set_title(f"map along {name}")
            panel.set_axis_off()
            if number == 0:
                draw_scale_bar(panel, len(volume), found.box_in_angstroms / len(volume))
    return figure
