"""Small data and a small trained run, made once for all tests of the pipelines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from parteq.pipelines.cli import main

SMALL = ["--group", "c4", "--width", "0.3", "--batch-size", "16", "--quiet"]
"""Options of a training that takes no time."""


def write_cells(path: Path, count: int, first_group: int, seed: int) -> None:
    """Discs (class 0) and rings (class 1) on noise, four images a group."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    rows, columns = np.mgrid[:12, :12] - 5.5
    radius = np.hypot(rows, columns)
    shapes = np.stack([radius < 4, (radius < 4) & (radius > 2)])[labels]
    images = 90 * shapes[..., None] + rng.integers(0, 100, (count, 12, 12, 3))
    groups = first_group + np.arange(count) // 4
    np.savez(path, images=images.astype(np.uint8), labels=labels, groups=groups, classes=["disc", "ring"])


@pytest.fixture(scope="session")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``train.npz`` and ``test.npz``."""
    folder = tmp_path_factory.mktemp("cells")
    write_cells(folder / "train.npz", 96, first_group=0, seed=0)
    write_cells(folder / "test.npz", 48, first_group=100, seed=1)
    return folder


@pytest.fixture(scope="session")
def trained(cells: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run directory of a classifier trained for three epochs."""
    run = tmp_path_factory.mktemp("runs") / "run"
    words = ["histo", "train", "--data", str(cells / "train.npz"), "--out", str(run), "--epochs", "3", *SMALL]
    assert main(words) == 0
    return run


@pytest.fixture
def parteq(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls the command line in this process: status, what it printed, what it complained."""

    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        return status, *capsys.readouterr()

    return call
