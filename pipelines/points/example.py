"""Point clouds in the demo: solids that stand on a tilted table, and a network that finds out which way is up."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from parteq.pipelines.figures import GREY, STYLE, TURNS, WIDTH, png

if TYPE_CHECKING:
    from parteq.pipelines.report import Section

__all__ = ["clouds_section"]

log = logging.getLogger(__name__)

CLOUDS, HELD_OUT, POINTS, EPOCHS = 750, 300, 128, 12
UP = np.array([0.5, -0.4, 0.77])


def clouds_section(folder: Path, seed: int, device: str, quiet: bool) -> tuple[dict[str, Any], Section]:
    """Trains on clouds, and tells the axis that was found."""
    from parteq.apps.points.models import PointNetwork
    from parteq.core.measure import measure_degree, summarize_degree
    from parteq.datasets.points.clouds import open_clouds
    from parteq.datasets.points.solids import solids
    from parteq.pipelines.points.evaluate import Evaluate
    from parteq.pipelines.points.pictures import tilts_picture
    from parteq.pipelines.points.train import Train
    from parteq.pipelines.report import Picture, Section
    from parteq.pipelines.run import Run

    files = [folder / f"solids-{part}.npz" for part in ("train", "test")]
    for path, count, draw in zip(files, (CLOUDS, HELD_OUT), (2 * seed, 2 * seed + 1), strict=True):
        clouds = solids(count, draw, UP, POINTS)
        positions = np.stack([clouds.cloud(number)[0].numpy() for number in range(count)])
        np.savez(path, points=positions, label=np.asarray(clouds.labels), classes=np.array(clouds.classes))
    scores, models = [], {}
    for degree in ("learned", "full"):
        log.info("solids, degree %s", degree)
        out = folder / f"solids-{degree}"
        options: dict[str, Any] = {"seed": seed, "device": device, "quiet": quiet}
        Train(data=str(files[0]), out=out, degree=degree, layers=0, epochs=EPOCHS, **options).run()
        row: dict[str, Any] = {"degree": {"learned": "learned", "full": "all of SO(3)"}[degree]}
        for rotate in ("none", "so3"):
            found = Evaluate(run_path=out, data=str(files[1]), rotate=rotate, **options).run()
            row["turned at random" if rotate == "so3" else "as they stand"] = found["accuracy"]
        scores.append(row)
        model = Run.open(out).checkpoint().model()
        assert isinstance(model, PointNetwork)
        models[degree] = model
    layers = measure_degree(models["learned"])
    axis = np.array(layers[0].axis)
    off = float(np.degrees(np.arccos(min(1.0, abs(float(axis @ UP)) / float(np.linalg.norm(UP))))))
    text = (
        f"{CLOUDS} bowls, cones and tables, half of them upside down, each turned about an axis that is tilted and "
        "that the network is not told. The classes are the solid and which way up it is; to all of SO(3), from which "
        "the network starts, a bowl and a bowl upside down are one."
    )
    finding = f"{summarize_degree(layers)} The axis is {off:.1f}° off the true one."
    shown = open_clouds(str(files[1]))
    pictures = [
        Picture(
            "solids",
            png(_figure([shown.cloud(n)[0].numpy() for n in range(6)], list(shown.classes), axis)),
            "One of each class; the line is the axis found.",
        ),
    ]
    pictures += filter(None, [tilts_picture(models["learned"], layers, "solids-tilt")])
    results = {"solids_axis_off_deg": off, "solids_accuracy": scores[0]["as they stand"]}
    return results, Section("Point clouds: which way is up", text, finding=finding, tables=[scores], pictures=pictures)


def _figure(clouds: list[Float[np.ndarray, "points 3"]], names: list[str], axis: Float[np.ndarray, "3"]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        for place, (cloud, name) in enumerate(zip(clouds, names, strict=True)):
            panel = figure.add_subplot(2, 3, place + 1, projection="3d")
            panel.scatter(*cloud.T, s=3, color=TURNS)
            panel.plot(*(np.outer([-1.5, 1.5], axis)).T, color=GREY)
            panel.set(xlim=(-1, 1), ylim=(-1, 1), zlim=(-1, 1), title=name)
            panel.set_box_aspect((1, 1, 1), zoom=1.3)
            panel.set_axis_off()
        return figure
