"""The axis of data, from their moments alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from parteq.apps.points.likelyaxis import likely_axis
from parteq.apps.points.models import create_model
from parteq.apps.points.samples import samples
from parteq.core.axis import Axis
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.solids import solids


@pytest.mark.parametrize("direction", [(0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (0.6, 0.0, 0.8), (-1.0, 2.0, 0.3)])
def test_the_axis_of_turned_solids_is_found_wherever_it_points(direction: tuple[float, float, float]) -> None:
    truth = torch.tensor(direction) / np.linalg.norm(direction)
    axis = likely_axis(samples(solids(600, 0, np.array(direction), 96), 96, 0, None))
    assert axis[2] >= 0
    assert abs(float(axis @ truth)) > np.cos(np.radians(2))


def test_clouds_alike_in_size_in_every_direction_show_it_by_which_end_is_up() -> None:
    rng = np.random.default_rng(0)
    clouds = rng.standard_normal((400, 64, 3))
    clouds /= np.linalg.norm(clouds, axis=2, keepdims=True)
    clouds[:, ::4] *= 1 + 0.9 * clouds[:, ::4, 2:]  # dense below, far out above
    turns = Rotation.from_euler("z", rng.uniform(0, 360, (400, 1)), degrees=True)
    tilt = Rotation.from_rotvec([1.4, 0.3, 0.0])
    sizes = rng.integers(32, 65, 400)
    turned = np.einsum("bij,bnj->bni", (tilt * turns).as_matrix(), clouds) * rng.uniform(1, 9, (400, 1, 1))
    parts = np.concatenate([cloud[:size] + 5 for cloud, size in zip(turned, sizes, strict=True)])
    axis = likely_axis(samples(ArrayClouds(parts, sizes), 64, 0, None))
    assert abs(axis.numpy() @ tilt.as_matrix()[:, 2]) > np.cos(np.radians(5))


def test_only_an_axis_that_is_learned_is_turned() -> None:
    for asked in (None, (0.0, 0.0, 1.0)):
        model = create_model(num_classes=2, group="so2", axis=asked, layers=1, patches=8, width=0.2)
        model.set_axis(torch.tensor([0.0, 1.0, 0.0]))
        (axis,) = (module for module in model.modules() if isinstance(module, Axis))
        assert axis().tolist() == ([0.0, 1.0, 0.0] if asked is None else [0.0, 0.0, 1.0])
