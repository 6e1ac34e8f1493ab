"""Pairs of cells: what they are made of, how they are labelled, and that no cell is on both sides of a split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parteq.datasets import pairs as module
from parteq.datasets.base import ArrayDataset
from parteq.datasets.errors import DataError
from parteq.datasets.pairs import make_pairs
from parteq.datasets.splits import grouped_split


def cells(
    n: int = 60, height: int = 5, width: int = 5, channels: int = 3, classes: int = 2, **facts: object
) -> ArrayDataset:
    """Cells that tell their number by their pixels: no two are alike, nor like one another turned."""
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (n, channels, height, width), dtype=np.uint8)
    names = [f"c{number}" for number in range(classes)]
    return ArrayDataset(images, np.arange(n) % classes, classes=names, **facts)  # type: ignore[arg-type]


def orbit(image: torch.Tensor) -> list[bytes]:
    """The eight turned and mirrored images of a square one."""
    mirrored = (image, image.flip(-1))
    return [torch.rot90(side, turn, (-2, -1)).contiguous().numpy().tobytes() for side in mirrored for turn in range(4)]


def origins(source: ArrayDataset, halves: torch.Tensor) -> tuple[list[int], list[int]]:
    """Which cell each half is, and which of the eight ways it is turned."""
    table = {
        view: (cell, element) for cell in range(len(source)) for element, view in enumerate(orbit(source[cell][0]))
    }
    found = [table[half.contiguous().numpy().tobytes()] for half in halves]
    return [cell for cell, _ in found], [element for _, element in found]


@pytest.mark.parametrize("classes", [2, 3])
def test_pairs(classes: int) -> None:
    source = cells(classes=classes, groups=np.arange(60) // 12)
    pairs = make_pairs(source, 180, seed=0)
    images, labels = pairs.tensors()
    assert images.shape == (180, 3, 5, 10)
    assert pairs.classes == tuple(f"c{a}|c{b}" for a in range(classes) for b in range(classes))
    assert np.bincount(labels).tolist() == [180 // classes**2] * classes**2
    (left, turned_left), (right, turned_right) = (origins(source, half) for half in images.split(5, dim=-1))
    assert pairs.groups is not None
    assert source.groups is not None
    for number, (one, other) in enumerate(zip(left, right, strict=True)):
        assert one != other
        assert labels[number] == classes * source.labels[one] + source.labels[other]
        assert source.groups[one] == source.groups[other] == pairs.groups[number]
    # Each side has an element of its own, and all sixty-four combinations occur.
    assert set(turned_left) == set(turned_right) == set(range(8))
    assert len(set(zip(turned_left, turned_right, strict=True))) > 50


def test_without_groups_no_cell_is_on_both_sides_of_a_split() -> None:
    source = cells(n=61)
    pairs = make_pairs(source, 100, seed=3)
    assert pairs.groups is not None
    train, held_out = grouped_split(pairs.labels, pairs.groups, 0.3, seed=0)
    sides = []
    for part in (train, held_out):
        images = pairs.subset(part).tensors()[0]
        sides.append({cell for half in images.split(5, dim=-1) for cell in origins(source, half)[0]})
    assert not sides[0] & sides[1]


@given(st.integers(4, 40), st.integers(0, 5))
@settings(max_examples=20)
def test_seeds_and_balance(count: int, seed: int) -> None:
    source = cells()
    one, same, other = (make_pairs(source, count, s) for s in (seed, seed, seed + 1))
    assert one.fingerprint() == same.fingerprint() != other.fingerprint()
    assert np.ptp(np.bincount(one.labels, minlength=4)) <= 1


@pytest.mark.parametrize(("height", "width"), [(4, 7), (7, 4)])
def test_cells_that_are_not_square(height: int, width: int) -> None:
    """They lie in the middle of a square of their background."""
    images = np.full((8, 1, height, width), 9, np.uint8)
    images[:, :, 1:-1, 1:-1] = 200
    pairs = make_pairs(ArrayDataset(images, np.arange(8) % 2), 8, seed=0)
    assert pairs.spatial == (7, 14)
    pixels = pairs.tensors()[0]
    assert set(pixels.unique().tolist()) == {9, 200}
    assert (pixels == 200).sum().item() == 8 * 2 * (height - 2) * (width - 2)


def test_pairs_of_classes_that_never_meet(caplog: pytest.LogCaptureFixture) -> None:
    """Class 2 is alone in its group, and there is only one cell of class 1 in any group."""
    source = ArrayDataset(cells(7).tensors()[0], [0, 0, 1, 0, 1, 2, 2], groups=list("aaabbcc"))
    pairs = make_pairs(source, 16, seed=0)
    assert pairs.classes == ("0|0", "0|1", "1|0", "2|2")
    assert "left out 5 of 9 ordered pairs of classes" in caplog.text
    with pytest.raises(DataError, match="3 pairs are too few: there are 4 ordered pairs"):
        make_pairs(source, 3, seed=0)


def test_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="at least two classes"):
        make_pairs(cells(classes=1), 10, seed=0)
    with pytest.raises(DataError, match="at least two classes"):
        make_pairs(cells().subset([0, 2, 4]), 10, seed=0)
    with pytest.raises(DataError, match="too few"):
        make_pairs(cells(2, groups=[0, 1]), 10, seed=0)
    with pytest.raises(DataError, match="holds volumes"):
        make_pairs(ArrayDataset(np.zeros((4, 1, 3, 3, 3), np.uint8), [0, 1, 0, 1]), 10, seed=0)
    monkeypatch.setattr(module, "byte_limit", lambda: 1000)
    with pytest.raises(DataError, match="more memory than is accepted"):
        make_pairs(cells(), 10, seed=0)
