"""Sets of point clouds: batches, subsets, splits, fingerprints, and what is refused."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from parteq.datasets.errors import DataError
from parteq.datasets.points.base import ArrayClouds, whole
from parteq.datasets.points.targets import find_target

RNG = np.random.default_rng(0)
SIZES = np.array([3, 1, 4, 2, 5])
POINTS = RNG.standard_normal((15, 3)).astype(np.float32)
STARTS = np.cumsum(SIZES) - SIZES


def clouds(**facts: Any) -> ArrayClouds:
    return ArrayClouds(POINTS, SIZES, **({"labels": [0, 1, 2, 0, 1]} | facts))


def test_batches_put_clouds_one_behind_the_other() -> None:
    features = RNG.random((15, 2)).astype(np.float32)
    data = clouds(features=features, feature_names=("a", "b"), targets=SIZES[:, None] * 1.0, target_names=["size_m"])
    batch = data.batch([4, 0, 1])
    wanted = np.concatenate([np.arange(10, 15), np.arange(3), [3]])
    assert np.array_equal(batch.positions.numpy(), POINTS[wanted])
    assert batch.features is not None
    assert np.array_equal(batch.features.numpy(), features[wanted])
    assert batch.index.tolist() == [0] * 5 + [1] * 3 + [2]
    assert batch.labels is not None
    assert batch.labels.tolist() == [1, 0, 1]
    assert batch.targets is not None
    assert (batch.targets.tolist(), batch.targets.dtype) == ([[5], [3], [1]], torch.float32)
    positions, _ = data.cloud(2)
    assert np.array_equal(positions.numpy(), POINTS[4:8])
    assert batch.to("cpu").index.equal(batch.index)
    assert len(data.batch([]).positions) == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_reads_whole_batches(workers: int) -> None:
    loader = DataLoader(clouds(), batch_size=2, num_workers=workers, collate_fn=whole)
    batches = list(loader)
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert torch.cat([batch.positions for batch in batches]).numpy() == pytest.approx(POINTS)


def test_subsets_share_points_and_keep_the_facts() -> None:
    data = clouds(families=list("abcab"), names=list("vwxyz"), classes=["p", "q", "r"], unit="mm")
    part = data.subset([3, 1]).subset(np.array([False, True]))
    assert (part.sizes.tolist(), part.names, part.classes, part.unit) == ([1], ("w",), ("p", "q", "r"), "mm")
    assert part.families is not None
    assert part.families.tolist() == ["b"]
    assert np.array_equal(part.batch([0]).positions.numpy(), POINTS[3:4])
    assert len(data.subset([])) == 0
    assert pickle.loads(pickle.dumps(part)).fingerprint() == part.fingerprint() == part.in_memory().fingerprint()


def test_classes_are_known_by_name() -> None:
    data = clouds(classes=["a", "b", "c", "unused"])
    same = data.numbered_as(["c", "x", "a", "b"])
    assert (same.labels is not None and same.labels.tolist(), same.classes) == ([2, 3, 0, 2, 3], ("c", "x", "a", "b"))
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 0, 1]
    with pytest.raises(DataError, match="has the class 'c'; known are a, b"):
        data.numbered_as(["a", "b"])
    with pytest.raises(DataError, match="has no labels"):
        clouds(labels=None).numbered_as(["a"])


def test_fingerprints_tell_sets_apart() -> None:
    other = POINTS.copy()
    other[7, 1] += 1e-3
    sets = [
        clouds(), clouds(labels=None), clouds(classes=["a", "b", "c"]), clouds(families=list("abcab")),
        clouds(unit="mm"), ArrayClouds(other, SIZES, labels=[0, 1, 2, 0, 1]),
    ]  # fmt: skip
    assert len({data.fingerprint() for data in sets}) == len(sets)
    assert clouds().fingerprint() == clouds(source="elsewhere", names=list("abcde")).fingerprint()


def test_splits_keep_families_together() -> None:
    labels, families = np.arange(60) % 3, np.arange(60) // 6
    data = ArrayClouds(RNG.random((60, 4, 3)), labels=labels, families=families)
    train, held_out = data.split(0.3, seed=1)
    assert train.families is not None
    assert held_out.families is not None
    assert not set(train.families) & set(held_out.families)
    assert len(train) + len(held_out) == 60
    with pytest.raises(DataError, match="cannot be split"):
        ArrayClouds(RNG.random((6, 4, 3)), labels=np.zeros(6, int), families=np.zeros(6, int)).split(0.5, seed=0)
    assert len(ArrayClouds(RNG.random((10, 4, 3))).split(0.2, seed=0)[1]) == 2


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"labels": [0, 1]}, "2 labels for 5 clouds"),
        ({"labels": [0, 1, 2, 0, -1]}, "negative label"),
        ({"classes": ["a"]}, "1 class names, but labels up to 2"),
        ({"families": [1, 2]}, "groups have the shape"),
        ({"names": ["a"]}, "1 names for 5 clouds"),
        ({"targets": np.zeros((5, 2)), "target_names": ["a"]}, "targets have the shape"),
        ({"targets": np.full((5, 1), np.nan), "target_names": ["a"]}, "targets are not finite"),
        ({"targets": np.full((5, 1), -1e39), "target_names": ["a"]}, "targets are .* too large for 32 bits"),
        ({"targets": np.zeros((5, 2)), "target_names": ["a", "a"]}, "two targets"),
        ({"features": np.zeros((15, 2))}, "features have the shape"),
        ({"feature_names": ["a"]}, "but there are none"),
        ({"features": np.full((15, 1), np.inf), "feature_names": ["a"]}, "cloud 0 has points that are not finite"),
        ({"features": np.full((15, 1), 1e300), "feature_names": ["a"]}, "cloud 0 has points that are not finite"),
    ],
)
def test_refused(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        clouds(**facts)


def test_refused_points() -> None:
    bad = POINTS.copy()
    bad[8] = np.nan
    with pytest.raises(DataError, match="cloud 3 has points that are not finite"):
        ArrayClouds(bad, SIZES)
    for huge, kind in ((1e25, np.float32), (1e25, float), (1e300, float)):
        with pytest.raises(DataError, match=r"cloud 3 has points .* beyond 1e\+15"):
            ArrayClouds(np.where(np.isnan(bad), huge, bad).astype(kind), SIZES)
    with pytest.raises(DataError, match=r"\[15, 3\] instead of \[16, 3\]"):
        ArrayClouds(POINTS, [*SIZES, 1])
    with pytest.raises(DataError, match="cloud 1 has no points"):
        ArrayClouds(POINTS, [14, 0, 1])
    with pytest.raises(DataError, match="holds no clouds"):
        ArrayClouds(np.empty((0, 8, 3)))


def test_targets_by_name() -> None:
    names = ["homo_hartree", "alpha_bohr3", "alpha-mean_bohr3", "r2_bohr2", "r2_pm2", "plain"]
    data = ArrayClouds(RNG.random((4, 2, 3)), targets=RNG.random((4, 6)), target_names=names)
    homo = find_target(data, "homo")
    assert (homo.name, homo.column, homo.unit, homo.factor) == ("homo_hartree", 0, "meV", pytest.approx(27211.386))
    assert (find_target(data, "alpha").column, find_target(data, "r2_bohr2").column) == (1, 3)
    assert find_target(data, "plain").unit == ""
    with pytest.raises(DataError, match="several target 'r2'"):
        find_target(data, "r2")
    with pytest.raises(DataError, match="no target 'mu'; it has homo_hartree"):
        find_target(data, "mu")
