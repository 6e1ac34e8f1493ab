"""Cryo-EM in the demo: particles of a made-up molecule, simulated, and their poses found from the images alone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from parteq.pipelines.figures import GREY, STYLE, TURNS, WIDTH, png

if TYPE_CHECKING:
    from parteq.pipelines.report import Section

__all__ = ["particles_section"]

log = logging.getLogger(__name__)

BOX, PARTICLES, EPOCHS, ATOMS = 24, 1000, 24, 25
SEMI_AXES = np.array([9.0, 7.0, 6.0])  # in voxels


def particles_section(folder: Path, seed: int, device: str, quiet: bool) -> tuple[dict[str, Any], Section]:
    """Simulates, finds the poses, and tells how well."""
    from parteq.datasets.cryoem.mrc import read_volume, write_volume
    from parteq.datasets.cryoem.stack import ImageStack
    from parteq.pipelines.cryoem.simulate import Simulate
    from parteq.pipelines.cryoem.train import TrainPoses
    from parteq.pipelines.report import Picture, Section
    from parteq.pipelines.run import Run

    truth, particles = folder / "molecule.mrc", folder / "particles"
    write_volume(truth, _molecule(seed), 4.0)
    Simulate(volume=truth, n=PARTICLES, snr=2.0, shift=0.0, ctf="none", out=particles, seed=seed, quiet=quiet).run()
    log.info("particles, from images alone")
    out = folder / "poses"
    found = TrainPoses(
        particles=particles / "particles.star",
        out=out,
        box=BOX,
        epochs=EPOCHS,
        seed=seed,
        device=device,
        quiet=quiet,
    ).run()
    history = Run.open(out).history()
    encoder, refined = history[-1]["rotation_error_median_deg"], found["rotation_error_median_deg"]
    images = ImageStack.open(particles / "particles.mrcs").read(slice(0, 6))
    volume = read_volume(out / "volume.mrc")[0]
    text = (
        f"{PARTICLES:,} projections of a made-up molecule from unknown directions, with twice as much signal as noise. "
        "An encoder that is equivariant under turns and mirrors (D4) and a map learn from the images alone; then poses "
        "are refined against the map. The hand of the map cannot be known from images."
    )
    finding = (
        f"Half of the directions are right to {refined:.1f}°, found by expectation-maximisation and refinement; as the "
        f"encoder alone has them after so short a training, to {encoder:.0f}°."
    )
    caption = (
        "Images; the map found, seen along its axes; the encoder's errors, which below the dashed line, 20°, count as "
        "converged."
    )
    picture = Picture("particles", png(_figure(images, volume, history)), caption)
    results = {"poses_encoder_median_deg": encoder, "poses_refined_median_deg": refined}
    return results, Section("Cryo-EM: poses from images alone", text, finding=finding, pictures=[picture])


def _molecule(seed: int) -> Float[np.ndarray, "box box box"]:
    """Atoms, as blobs of some voxels, at random places of an ellipsoid, no two alike."""
    generator = np.random.default_rng(seed)
    axis = np.arange(BOX) - BOX // 2
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    directions = generator.normal(size=(ATOMS, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    places = directions * generator.uniform(0, 1, (ATOMS, 1)) ** (1 / 3) * SEMI_AXES
    weights = generator.uniform(0.5, 2, ATOMS)
    volume = sum(
        weight * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 2.5)
        for weight, (a, b, c) in zip(weights, places - places.mean(0), strict=True)
    )
    return np.asarray(volume, dtype=np.float32)


def _figure(
    images: Float[np.ndarray, "n box box"],
    volume: Float[np.ndarray, "box box box"],
    history: Sequence[dict[str, Any]],
) -> Figure:
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        grid = figure.add_gridspec(2, 6, height_ratios=(1, 1.2))
        pictures = [*images, *(volume.sum(axis) for axis in range(3))]
        for place, picture in enumerate(pictures):
            panel = figure.add_subplot(grid[place])
            panel.imshow(picture, cmap="gray")
            panel.set_axis_off()
        course = figure.add_subplot(grid[1, 3:])
        errors = [record["rotation_error_median_deg"] for record in history]
        course.plot([record["epoch"] for record in history], errors, color=TURNS)
        course.axhline(20, color=GREY, linestyle="--", linewidth=1)
        course.set(xlabel="epoch", ylabel="median error (°)", ylim=(0, None))
        return figure
