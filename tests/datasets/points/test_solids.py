from __future__ import annotations

import numpy as np

from parteq.datasets.points.solids import SOLIDS, solids


def test_solids_come_both_ways_up_about_the_axis() -> None:
    axis = np.array([1.0, -2.0, 2.0]) / 3
    clouds = solids(60, 0, axis, points=200)
    assert len(clouds.classes) == 2 * len(SOLIDS)
    assert np.bincount(clouds.labels).tolist() == [10] * 6
    widening: dict[str, list[float]] = {name: [] for name in clouds.classes}
    for number, label in enumerate(clouds.labels):
        points = clouds.cloud(number)[0].numpy()
        height = (points - points.mean(0)) @ axis
        radius = np.linalg.norm(points - points.mean(0) - height[:, None] * axis, axis=1)
        widening[clouds.classes[label]].append(float(np.corrcoef(height, radius)[0, 1]))
    for name, sign in (("bowl", 1), ("cone", -1), ("table", -1)):
        assert (sign * np.array(widening[name]) > 0).all()
        assert (sign * np.array(widening[f"{name} upside down"]) < 0).all()


def test_equal_seeds_draw_equally() -> None:
    first, again, other = (solids(6, seed, np.array([0.0, 0, 1])) for seed in (0, 0, 1))
    assert np.array_equal(first.cloud(3)[0], again.cloud(3)[0])
    assert not np.array_equal(first.cloud(3)[0], other.cloud(3)[0])
