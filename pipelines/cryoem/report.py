"""The report of a training on particles, and its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from parteq.pipelines.cryoem.pictures import draw_scale_bar, draw_views, pose_error_figure
from parteq.pipelines.figures import GREY, STYLE, TURNS, WIDTH, png
from parteq.pipelines.report import Picture, Section, degree_section, write_report

if TYPE_CHECKING:
    from parteq.apps.cryoem.inference import PoseInference
    from parteq.apps.cryoem.pose_metrics import PoseErrors
    from parteq.datasets.cryoem.particles import Particles
    from parteq.pipelines.run import Run

__all__ = ["write_training_report"]


def write_training_report(
    run: Run,
    model: PoseInference,
    volume: Float[np.ndarray, "box box box"],
    rotations: Float[np.ndarray, "n 3 3"],
    confidence: Float[np.ndarray, " n"],
    errors: PoseErrors | None,
    finding: str,
    particles: Particles,
) -> None:
    """Writes `report.html` and its pictures into the run directory.

    Args:
        run: of the training.
        model: as trained.
        volume: the map.
        rotations: R of each particle, refined.
        confidence: in each rotation.
        errors: of the rotations, where the truth is known.
        finding: whether all this is to be trusted.
        particles: that were trained on.
    """
    from parteq.core.measure import measure_degree

    config = model.config
    history = run.history()
    sections = [
        Section("Is it to be trusted?", finding=finding),
        Section(
            "Training",
            pictures=[
                Picture(
                    "learning_curve",
                    png(_course(history)),
                    "The loss, and where poses are known the error of those that the encoder proposes; below the "
                    "dashed line, 20°, a training counts as converged.",
                )
            ],
        ),
        Section(
            "The map",
            "Seen along its axes: slices through the centre above, projections below. Its hand is arbitrary.",
            pictures=[Picture("map", png(_map(volume, config["pixel_size"])), "The map that the poses make.")],
        ),
        Section(
            "Poses",
            f"{len(rotations):,} particles, mean confidence {confidence.mean():.2f}.",
            pictures=[
                Picture(
                    "poses", png(_poses(rotations, confidence)), "View directions, coloured by how sure each pose is."
                )
            ],
        ),
    ]
    if errors is not None:
        figure = png(pose_error_figure(errors, particles.rotations(), confidence))
        sections.append(
            Section(
                "Against the truth",
                "Of the refined poses, after aligning frame, hand and origin of the map. No pose of the file was used.",
                tables=[[{"": key.replace("_", " "), "value": value} for key, value in errors.summary().items()]],
                pictures=[
                    Picture(
                        "errors",
                        figure,
                        "Rotation errors, and where on the sphere of views they are. On the dashed line the confidence "
                        "is right, below it too high.",
                    )
                ],
            )
        )
    if config["degree"] == "learned":
        sections.append(degree_section(measure_degree(model.encoder.cpu())))
    how = "poses that are known" if config["supervised"] else "images alone"
    lead = (
        f"{len(particles):,} particles, learned from {how}: encoder {config['encoder']}, degree {config['degree']}, "
        f"loss {config['loss']}, at {config['box']} pixels of {config['pixel_size']:.2f} Å."
    )
    write_report(run.report, run.path.name, lead, sections)


def _course(history: Sequence[dict[str, Any]]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.6), layout="constrained")
        loss, error = figure.subplots(1, 2)
        epochs = [record["epoch"] for record in history]
        loss.plot(epochs, [record["loss"] for record in history], color=GREY)
        loss.set(xlabel="epoch", ylabel="loss")
        known = [(r["seconds"], r["rotation_error_median_deg"]) for r in history if "rotation_error_median_deg" in r]
        if known:
            error.plot(*zip(*known, strict=True), color=TURNS)
            error.axhline(20, color=GREY, linestyle="--", linewidth=1)
            error.set(xlabel="seconds", ylabel="median rotation error (°)", ylim=(0, None))
        else:
            error.set_axis_off()
        return figure


def _map(volume: Float[np.ndarray, "box box box"], pixel_size_in_angstroms: float) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.68 * WIDTH), layout="constrained")
        middle = len(volume) // 2
        for column, (axes, name) in enumerate(zip(figure.subplots(2, 3).T, "zyx", strict=True)):
            for panel, picture in zip(axes, (volume.take(middle, column), volume.sum(column)), strict=True):
                panel.imshow(picture, cmap="gray", origin="lower")
                panel.set_axis_off()
            axes[0].set_title(f"along {name}")
            if column == 0:
                draw_scale_bar(axes[1], len(volume), pixel_size_in_angstroms)
        return figure


def _poses(rotations: Float[np.ndarray, "n 3 3"], confidence: Float[np.ndarray, " n"]) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        grid = figure.add_gridspec(1, 2, width_ratios=(1.5, 1))
        sphere: Any = figure.add_subplot(grid[0], projection="mollweide")
        order = np.argsort(-confidence)  # those that are least sure on top
        draw_views(figure, sphere, rotations[order], confidence[order], 1.0).set_label("confidence")
        bars = figure.add_subplot(grid[1])
        bars.hist(confidence, bins=20, range=(0, 1), color=TURNS)
        bars.set(xlabel="confidence", ylabel="particles")
        return figure
