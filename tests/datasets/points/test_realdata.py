"""The real sets of clouds and molecules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.points.clouds import open_clouds
from parteq.datasets.splits import check_no_leakage

pytestmark = pytest.mark.realdata


def test_parts(shared_data: Path) -> None:
    parts = open_clouds(str(shared_data / "kicad_parts.npz"))
    assert (len(parts), len(parts.classes), parts.unit, set(parts.sizes)) == (2469, 28, "mm", {512})
    train, held_out = parts.split(0.25, seed=0)
    check_no_leakage(train.families, held_out.families)
    assert 0.2 < len(held_out) / len(parts) < 0.3
    # The first part, a switch of 17.6 mm × 36.4 mm, stands on the board.
    first, _ = parts.cloud(0)
    assert first.amin(0).tolist() == pytest.approx([-0.929, -1.925, 0], abs=0.01)


def test_molecules(shared_data: Path) -> None:
    molecules = open_clouds(f"qm9:{shared_data / 'qm9_12k.npz'}")
    assert (len(molecules), molecules.sizes.sum(), molecules.targets is not None) == (12_000, 216_594, True)
    assert molecules.cloud(0)[1] is not None
    assert molecules.target_names[2] == "homo_hartree"


def test_adrenals(shared_data: Path) -> None:
    volumes = open_clouds(f"surfaces:{shared_data / 'adrenal3d_64.npz'}", "val")
    assert (len(volumes), volumes.classes) == (98, ("0", "1"))
    spread = np.concatenate([volumes.cloud(i)[0].numpy() for i in range(98)])
    assert np.abs(spread).max() <= 33
