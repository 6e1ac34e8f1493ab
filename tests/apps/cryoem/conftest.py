"""A small asymmetric particle, its images at known poses, and models to learn from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from parteq.apps.cryoem.disc import Disc
from parteq.apps.cryoem.inference import PoseInference, create_model
from parteq.apps.cryoem.matching import Matching
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.projection import fourier_volume, project, shift_images

BOX = 16


def blobs(box: int) -> Tensor:
    """A few Gaussians of different weights at no symmetric places, some voxels wide."""
    axis = torch.arange(box) - box // 2
    z, y, x = torch.meshgrid(axis, axis, axis, indexing="ij")
    scale = box / 16
    places = [(0, 0, 0, 1.0), (4, 1, 0, 1.5), (0, -3, 2, 1.0), (-2, 3, -4, 2.0), (1, 1, 4, 0.7)]
    return sum(
        weight * torch.exp(-((x - a * scale) ** 2 + (y - b * scale) ** 2 + (z - c * scale) ** 2) / (3 * scale**2))
        for a, b, c, weight in places
    )


@pytest.fixture(scope="session")
def particle() -> dict[str, Any]:
    """Volume, 60 rotations and shifts in pixels, images, and their samples on a disc."""
    volume = blobs(BOX)
    generator = np.random.default_rng(0)
    rotations = torch.from_numpy(uniform_rotations(60, generator)).float()
    shifts = torch.from_numpy(generator.uniform(-0.5, 0.5, (60, 2))).float()
    images = shift_images(project(volume, rotations), shifts)
    disc = Disc(BOX, BOX)
    samples = disc.samples(images)
    # What the samples are of: see `Disc.samples`.
    potential = volume / BOX
    return {
        "volume": volume, "rotations": rotations, "shifts": shifts, "images": images, "disc": disc,
        "samples": samples, "transfer": torch.ones_like(samples.real),
        "transform": fourier_volume(potential), "matching": Matching(potential, disc),
    }  # fmt: skip


def small_model(**changes: Any) -> PoseInference:
    """A model for the particle."""
    config = {
        "encoder": "d4", "degree": "full", "loss": "l2", "supervised": False, "decoder": "voxel", "box": BOX,
        "size": BOX, "particles": 60, "width": 0.5, "pixel_size": 1.0, "scale": 1.0,
    }  # fmt: skip
    torch.manual_seed(0)
    return create_model(**{**config, **changes})


def angles_in_degrees(first: Tensor, second: Tensor) -> Tensor:
    """The angles between rotations."""
    chord = (first - second).flatten(1).norm(dim=1) / 8**0.5
    return (2 * torch.asin(chord.clamp(max=1))).rad2deg()
