"""Tissue on glass: found, and its share in any box."""

from __future__ import annotations

import numpy as np
import pytest

from parteq.datasets.tissue import covered_share, tissue_mask
from tests.slides import GLASS, stained


def colours(glass: float) -> np.ndarray:
    return (stained(90, 120, glass=glass) / 255).astype(np.float32)


@pytest.mark.parametrize("glass", [0.1, 0.5, 0.9])
def test_tissue_is_found(glass: float) -> None:
    image = colours(glass)
    truth = np.ptp(image, axis=-1) > 0.1
    mask = tissue_mask(image)
    assert mask.dtype == bool
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    assert np.array_equal(tissue_mask(np.rot90(image)), np.rot90(mask))


def test_glass_alone_and_tissue_alone() -> None:
    noise = np.random.default_rng(0).normal(0, 1.5, (60, 80, 3))
    assert not tissue_mask(((GLASS + noise) / 255).astype(np.float32)).any()
    assert not tissue_mask(np.full((60, 80, 3), GLASS / 255, np.float32)).any()
    assert not tissue_mask(np.zeros((60, 80, 3), np.float32)).any()
    assert tissue_mask(((np.array([225, 150, 190]) + noise) / 255).astype(np.float32)).all()


def test_ink_is_no_tissue() -> None:
    image = colours(0.5)
    image[10:30, 20:60] = (0.1, 0.02, 0.02)
    assert not tissue_mask(image)[13:27, 23:57].any()


def test_covered_share() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((12, 17)) < 0.4
    corners = np.stack([rng.uniform(0, 17 - 4.3, 20), rng.uniform(0, 12 - 2.6, 20)], axis=1)
    fine = mask.repeat(100, axis=0).repeat(100, axis=1)
    expected = [
        fine[round(100 * y) : round(100 * y + 260), round(100 * x) : round(100 * x + 430)].mean() for x, y in corners
    ]
    assert covered_share(mask, corners, (4.3, 2.6)) == pytest.approx(expected, abs=0.01)
    assert covered_share(mask, np.zeros((1, 2)), (17, 12)) == pytest.approx([mask.mean()])
