"""Pictures of maps over images: the heat map of a slide, the class activation map of an image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from parteq.apps.histo.explain import Explanation
from parteq.apps.histo.heatmap import HeatMap
from parteq.pipelines.figures import STYLE, WIDTH

__all__ = ["cam_figure", "class_colours", "heat_figure"]

# Told apart by the colour-blind too (Okabe and Ito, "Color universal design", 2008).
_CLASSES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#f0e442", "#000000")
_PROBABILITY, _EVIDENCE = "RdYlBu_r", "inferno"
_OUTLINE = "#111111"
_OPACITY = 0.62
_PANEL = 3.25  # inches, the width of either picture


def class_colours(count: int) -> list[tuple[int, int, int]]:
    """Red, green and blue in 0…255 of each class."""
    colours = [to_rgb(_CLASSES[number % len(_CLASSES)]) for number in range(count)]
    return [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colours]


def heat_figure(heat: HeatMap, number: int, auc: float | None, title: str) -> Figure:
    """The slide, and over it the probability of a class; tiles that are labelled with it are outlined."""
    name, picture = heat.classes[number], heat.tiling.picture
    surface = heat.surface(heat.probabilities[:, number])
    handles: list[Any] = []
    with matplotlib.rc_context(STYLE):
        figure, (slide, overlay) = _panels(picture)
        # Grey below, so that colour means probability alone, and darker than the page.
        overlay.imshow(np.repeat(picture.mean(-1, keepdims=True) * 0.5 + 0.4, 3, axis=-1), interpolation="none")
        shown = overlay.imshow(surface, cmap=_PROBABILITY, vmin=0, vmax=1, alpha=_OPACITY, interpolation="none")
        if heat.labels is not None and (heat.labels == number).any():
            labelled = np.nan_to_num(heat.surface((heat.labels == number).astype(np.float64))) > 0.5
            for axes in (slide, overlay):
                axes.contour(np.pad(labelled, 1), [0.5], colors=_OUTLINE, linewidths=0.9, extent=_frame(picture))
            handles.append(Line2D([], [], color=_OUTLINE, linewidth=0.9, label=f"labelled {name}"))
        if np.isnan(surface).any():
            handles.append(Patch(facecolor="#e6e6e6", edgecolor="#b0b0b0", label="no tile"))
        if heat.tiling.mpp is not None:
            _scale_bar(slide, heat.tiling.mpp[0] * heat.tiling.extent[0] / picture.shape[1], picture.shape)
        _finish(figure, overlay, shown, f"probability of {name}", title, _tiles_in_words(heat, auc), handles)
    return figure


def _tiles_in_words(heat: HeatMap, auc: float | None) -> str:
    """How many tiles, of what size, and the AUC where it is known."""
    tiling = heat.tiling
    height, width = tiling.tiles.spatial
    words = f"{len(tiling.tiles):,} tiles of {width} × {height} pixels"
    if tiling.mpp is not None:
        words += f" at {tiling.size[0] * tiling.mpp[0] / width:.3g} µm/px"
    return words if auc is None else f"{words}, AUC {auc:.3f}"


def cam_figure(
    image: Float[np.ndarray, "height width 3"], explanation: Explanation, classes: Sequence[str], title: str
) -> Figure:
    """An image, and over it the evidence for a class."""
    name, probability = classes[explanation.number], float(explanation.probabilities[explanation.number])
    cam = explanation.cam.numpy()
    with matplotlib.rc_context(STYLE):
        figure, (_, overlay) = _panels(image)
        overlay.imshow(np.repeat(image.mean(-1, keepdims=True), 3, axis=-1), interpolation="none")
        # Opaque where there is evidence, clear where there is none.
        highest = float(cam.max()) or 1.0
        shown = overlay.imshow(cam, cmap=_EVIDENCE, vmin=0, vmax=highest, alpha=0.75 * cam / highest)
        text = f"probability of {name}: {probability:.3f}"
        if not cam.max() > 0:
            text += "; nothing in the image speaks for it"
        _finish(figure, overlay, shown, f"evidence for {name} (logits)", title, text, [])
    return figure


def _panels(picture: Float[np.ndarray, "height width 3"]) -> tuple[Figure, Any]:
    """A figure with two places of the shape of a picture, in the first the picture."""
    aspect = picture.shape[0] / picture.shape[1]
    # Very long slides are shown smaller rather than on a very long page.
    height = min(max(_PANEL * aspect, 1.6), 2.4 * _PANEL)
    figure = Figure(figsize=(WIDTH, height + 1.05), layout="constrained")
    axes = figure.subplots(1, 2)
    axes[0].imshow(picture, interpolation="none" if max(picture.shape) < 256 else "antialiased")
    for place in axes:
        place.set_axis_off()
    return figure, axes


def _frame(picture: Float[np.ndarray, "height width 3"]) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of the centres of a picture's pixels with one more all around."""
    return -1.0, picture.shape[1] + 0.0, -1.0, picture.shape[0] + 0.0


def _scale_bar(axes: Any, micrometres_per_pixel: float, shape: Sequence[int]) -> None:
    """A bar of a round length, about a fifth of the picture."""
    wanted = 0.2 * shape[1] * micrometres_per_pixel
    power = 10 ** math.floor(math.log10(wanted))
    length = max(step * power for step in (1, 2, 5) if step * power <= wanted)
    label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    left, bottom, pixels = 0.03 * shape[1], 0.97 * shape[0], length / micrometres_per_pixel
    axes.plot([left, left + pixels], [bottom, bottom], color="black", linewidth=2.5, solid_capstyle="butt")
    axes.annotate(label, (left, bottom), (0, 4), textcoords="offset points", fontsize=8, color="black")


def _finish(figure: Figure, axes: Any, shown: Any, scale: str, title: str, text: str, handles: list[Any]) -> None:
    """Colour bar, title, a line below the title, and a legend."""
    bar: Any = figure.colorbar(shown, ax=axes, shrink=0.8, pad=0.02, label=scale)
    bar.solids.set_alpha(1)
    bar.outline.set_visible(False)
    figure.suptitle(f"{title}\n", fontsize=10, fontweight="bold", x=0.01, horizontalalignment="left")
    figure.text(0.01, 0.985 - 0.26 / figure.get_figheight(), text, fontsize=8.5, verticalalignment="top")
    if handles:
        figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))
