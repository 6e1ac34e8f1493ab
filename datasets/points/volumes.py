"""The surfaces of volumes, as points: shapes in medicine come as masks of voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.measure import marching_cubes
from tqdm import tqdm

from parteq.datasets.base import ImageDataset
from parteq.datasets.errors import DataError
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.meshes import sample_surface

__all__ = ["surface_clouds"]


def surface_clouds(volumes: ImageDataset, points: int = 1024, seed: int = 0) -> ArrayClouds:
    """Draw points uniformly on the surface of each volume's mask, found by marching cubes at half of its largest value.

    What is drawn of a volume depends on its position in the set and the seed.

    Args:
        volumes: masks of one channel, uint8 [D, H, W] each; not zero inside.
        points: of each cloud.
        seed: equal seeds draw equally.

    Returns:
        Clouds in units of voxels about the middle of the volume, with x along W, y along H and z along D; labels,
        classes and families (`groups`) are those of the volumes.

    Raises:
        DataError: images instead of volumes, several channels, or an empty mask.
    """
    if len(volumes.spatial) != 3 or volumes.channels != 1:
        shape = [volumes.channels, *volumes.spatial]
        raise DataError(volumes.source, f"holds images of the shape {shape}: surfaces need volumes of one channel")
    clouds = np.empty((len(volumes), points, 3), np.float32)
    for number in tqdm(range(len(volumes)), "finding surfaces", delay=2, disable=None, leave=False):
        mask = volumes[number][0][0].numpy()
        if not mask.any():
            raise DataError(volumes.source, f"volume {number} is empty")
        clouds[number] = _draw(mask, points, np.random.default_rng([seed, number]))
    return ArrayClouds(
        clouds,
        source=volumes.source,
        labels=volumes.labels,
        classes=volumes.classes,
        families=volumes.groups,
        names=volumes.names,
        unit="voxel",
    )


def _draw(mask: NDArray[np.uint8], points: int, generator: np.random.Generator) -> NDArray[np.float32]:
    """Points [points, 3] on the surface of one mask."""
    # A border, so that what touches the edge of the volume is closed there.
    padded = np.pad(mask.astype(np.float32), 1)
    vertices, faces, _, _ = marching_cubes(padded, padded.max() / 2)
    middle = (np.array(padded.shape) - 1) / 2
    return sample_surface((vertices - middle)[:, ::-1], faces, points, generator)
