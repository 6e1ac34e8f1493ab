"""Splits keep classes in proportion and groups together, for any labels and groups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from parteq.datasets.errors import DataError
from parteq.datasets.splits import check_no_leakage, grouped_split, stratified_subset

LABELS = st.lists(st.integers(0, 5), min_size=1, max_size=80).map(np.array)
SEEDS = st.integers(0, 2**32 - 1)


@given(LABELS, st.integers(0, 100), SEEDS)
def test_stratified_subset(labels: np.ndarray, n: int, seed: int) -> None:
    classes, counts = np.unique(labels, return_counts=True)
    if not len(classes) <= n <= len(labels):
        with pytest.raises(ValueError, match=f"cannot draw {n} of {len(labels)} samples"):
            stratified_subset(labels, n, seed)
        return
    chosen = stratified_subset(labels, n, seed)
    assert len(chosen) == n
    assert np.all(np.diff(chosen) > 0)
    assert np.array_equal(chosen, stratified_subset(labels, n, seed))
    drawn = np.array([(labels[chosen] == c).sum() for c in classes])
    assert drawn.min() >= 1
    share = n * counts / counts.sum()
    # Never more than one above the proportion, unless to have one at all; below it only to pay for such classes.
    assert np.all(drawn <= np.maximum(np.ceil(share), 1))
    if share.min() >= 1:
        assert np.all(drawn >= np.floor(share))


def test_subsets_differ_by_seed() -> None:
    labels = np.arange(1000) % 10
    assert not np.array_equal(stratified_subset(labels, 100, 0), stratified_subset(labels, 100, 1))


@given(LABELS, st.data(), st.floats(0.05, 0.95), SEEDS)
def test_grouped_split(labels: np.ndarray, data: st.DataObject, fraction: float, seed: int) -> None:
    number = st.lists(st.integers(0, 12), min_size=len(labels), max_size=len(labels))
    groups = data.draw(st.one_of(st.none(), number.map(np.array)))
    try:
        train, held_out = grouped_split(labels, groups, fraction, seed)
    except ValueError:
        # Then indeed no group can be spared: each has all images of some class (without groups, each is its own).
        own = np.arange(len(labels)) if groups is None else groups
        for name in np.unique(own):
            assert set(labels[own == name]) - set(labels[own != name])
        return
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(labels)))
    assert len(held_out) > 0
    assert set(labels[train]) == set(labels)
    again = grouped_split(labels, groups, fraction, seed)
    assert np.array_equal(again[0], train)
    if groups is None:
        assert abs(len(held_out) - fraction * len(labels)) <= max(len(set(labels)), 1)
    else:
        check_no_leakage(groups[train], groups[held_out])


@given(SEEDS, st.sampled_from([0.1, 0.2, 0.35, 0.5]))
def test_shares_of_realistic_groups(seed: int, fraction: float) -> None:
    """Patients of very different size and mix: the held-out part has its share of the images and of each class."""
    rng = np.random.default_rng(seed)
    groups = rng.choice(60, 3000, p=rng.dirichlet(np.full(60, 1.0)))
    mix = rng.uniform(0.05, 0.95, 60)
    labels = (rng.random(3000) < mix[groups]).astype(int)
    _, held_out = grouped_split(labels, groups, fraction, seed)
    shares = np.bincount(labels[held_out]) / np.bincount(labels)
    assert np.abs(shares - fraction).max() < 0.05


def test_splits_differ_by_seed_and_take_names() -> None:
    groups = np.array([f"patient {i}" for i in range(40)]).repeat(5)
    labels = np.arange(200) % 2
    held = {tuple(grouped_split(labels, groups, 0.25, seed)[1]) for seed in range(5)}
    assert len(held) == 5
    assert all(len(part) == 50 for part in held)


def test_impossible_splits() -> None:
    with pytest.raises(ValueError, match="1 groups cannot be split"):
        grouped_split([0, 1, 0], [7, 7, 7], 0.5, 0)
    with pytest.raises(ValueError, match="each has the last images of some class"):
        grouped_split([0, 1, 2], [0, 1, 2], 0.5, 0)
    with pytest.raises(ValueError, match="no class has one to spare"):
        grouped_split([0, 1, 2], None, 0.5, 0)
    with pytest.raises(ValueError, match="2 groups for 3 labels"):
        grouped_split([0, 1, 2], [0, 1], 0.5, 0)
    for fraction in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="between 0 and 1"):
            grouped_split([0, 0], None, fraction, 0)


def test_one_group_larger_than_the_share() -> None:
    _, held_out = grouped_split([0] * 10, [0] * 4 + [1] * 6, 0.1, 0)
    assert held_out.tolist() == [0, 1, 2, 3]


@given(st.lists(st.integers(0, 20)), st.lists(st.integers(0, 20)))
def test_leakage(first: list[int], second: list[int]) -> None:
    if set(first) & set(second):
        with pytest.raises(DataError, match=f"^x.npz: {len(set(first) & set(second))} groups are in both"):
            check_no_leakage(first, second, "x.npz")
    else:
        check_no_leakage(first, second)
    check_no_leakage(None, second)
    check_no_leakage(first, None)


def test_leakage_names_groups() -> None:
    with pytest.raises(DataError, match=r"held-out images: p1, p2; if they are not the same"):
        check_no_leakage(["p1", "p2", "p3"], ["p2", "p1"])
    with pytest.raises(DataError, match="held-out images: 9, 10;"):
        check_no_leakage([10, 9, 8], ["9", "10"])


def test_numbers_are_names_only_between_sets_that_are_alike() -> None:
    """Two sets that count their patients from 1 share no patient; two that name them alike do."""
    check_no_leakage([1, 2, 12], [12, 13], alike=False)
    check_no_leakage(["7", "-1"], [7, -1], alike=False)
    for shared in ("p12", "20481234"):
        with pytest.raises(DataError, match="1 groups are in both"):
            check_no_leakage([shared, "1"], ["1", shared], alike=False)


@given(LABELS, SEEDS)
def test_numbers_of_classes_do_not_matter(labels: np.ndarray, seed: int) -> None:
    n = len(set(labels))
    assume(n <= len(labels))
    assert np.array_equal(stratified_subset(labels, n, seed), stratified_subset(labels * 10 + 3, n, seed))
