"""Positions in 32 bits keep the shape of clouds far from the origin."""

from __future__ import annotations

import numpy as np

from parteq.datasets.points.positions import as_float32


def test_far_clouds_keep_their_shape() -> None:
    shape = np.random.default_rng(0).standard_normal((2, 50, 3))
    points = np.concatenate([shape[0] + 5e6, shape[1] + 3.0])
    kept = as_float32(points, [50, 50])
    assert kept.dtype == np.float32
    np.testing.assert_allclose(kept[:50] - kept[:50].mean(0), shape[0] - shape[0].mean(0), atol=1e-6)
    np.testing.assert_array_equal(kept[50:], points[50:].astype(np.float32))  # others stay where they are


def test_a_single_point_stays() -> None:
    np.testing.assert_array_equal(as_float32(np.array([[5e6, 0.0, 1.0]]), [1]), np.float32([[5e6, 0, 1]]))
