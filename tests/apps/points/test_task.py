"""Samples, losses, turns and scores of point clouds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from parteq.apps.points import task
from parteq.apps.points.metrics import classification_scores, regression_scores
from parteq.apps.points.models import create_model
from parteq.apps.points.samples import CloudSamples, samples
from parteq.datasets.errors import DataError
from parteq.datasets.points.base import ArrayClouds


def _clouds(**facts: object) -> ArrayClouds:
    generator = np.random.default_rng(0)
    sizes = [12, 3, 1, 12]
    facts = {"labels": [0, 1, 0, 1], "classes": ["a", "b"]} | facts
    return ArrayClouds(generator.standard_normal((sum(sizes), 3)), sizes, **facts)


def test_samples_have_one_shape() -> None:
    clouds = _clouds()
    data = samples(clouds, 8, 4, torch.from_numpy(clouds.labels))
    assert isinstance(data, TensorDataset)
    positions, counts, features, neighbours, labels = data.tensors
    assert positions.shape == (4, 8, 3)
    assert counts.tolist() == [8, 3, 1, 8]
    assert features.shape == (4, 8, 0)
    assert labels.tolist() == [0, 1, 0, 1]
    assert (neighbours[0] >= 0).all()
    assert (neighbours[1, :3, :2] >= 0).all()
    assert (neighbours[1, :, 2:] == -1).all()
    assert (neighbours[2] == -1).all()
    # The nearest comes first.
    distances = torch.cdist(positions[0], positions[0]).fill_diagonal_(9.0)
    assert torch.equal(neighbours[0, :, 0].long(), distances.argmin(1))
    lazy = CloudSamples(clouds, 8, 4, None)
    assert len(lazy[1]) == 4
    assert task.lengths(data)[0] > 0


def test_losses_and_scores_of_both_tasks() -> None:
    clouds = _clouds(targets=[[1.0], [2.0], [3.0], [4.0]], target_names=["gap_hartree"])
    for name, options in ((None, {"num_classes": 2}), ("gap", {"num_targets": 1, "absolute": True})):
        wanted, target = task.answers(clouds, name)
        model = create_model(neighbours=4, width=0.2, **options)
        data = samples(clouds, 12, 4, wanted)
        task.loss(model, data.tensors).backward()
        scores = task.evaluate(
            model, data, wanted, torch.device("cpu"), factor=target.factor if target else 1.0, rotate="so3", repeats=2
        )
        assert scores["n"] == 4
        assert (scores["accuracy"] <= 1.0) if target is None else (scores["mae"] > 0)
    with pytest.raises(DataError, match="target"):
        task.answers(clouds, "homo")


def test_held_out_losses_tell_what_is_known_not_how_surely(monkeypatch) -> None:
    wanted = torch.arange(60) % 3
    outputs = torch.nn.functional.one_hot((wanted + (torch.arange(60) % 4 == 0)) % 3, 3).double()
    found = []
    for certainty in (1.0, 6.0):
        monkeypatch.setattr(task, "outputs", lambda *_, certainty=certainty: certainty * outputs)
        found.append(task.losses(torch.nn.Identity(), [], wanted, torch.device("cpu")))
    assert torch.allclose(*found, atol=1e-3)


def test_classes_are_matched_by_name() -> None:
    about = {"feature_names": [], "classes": ["b", "c", "a"]}
    assert task.match(_clouds(), about).labels.tolist() == [2, 0, 2, 0]
    unused = _clouds(labels=[2, 0, 2, 0], classes=["a", "never", "b"])
    assert task.match(unused, about).labels.tolist() == [0, 2, 0, 2]
    with pytest.raises(DataError, match="class 'a'"):
        task.match(_clouds(), about | {"classes": ["b"]})
    with pytest.raises(DataError, match="features"):
        task.match(_clouds(), about | {"feature_names": ["charge"]})


@pytest.mark.parametrize("kind", ["z", "so3"])
def test_augmentation_turns_each_cloud_by_its_key(kind: str) -> None:
    turn = task.augmentation(kind)
    positions, keys = torch.eye(3).repeat(50, 1, 1), torch.arange(50)
    rest = (torch.full((50,), 3), torch.zeros(50, 3, 0), torch.zeros(50, 3, 0), keys)
    turned, *_, labels = turn((positions, *rest), keys)
    assert torch.equal(labels, keys)
    torch.testing.assert_close(turned @ turned.mT, positions, atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.linalg.det(turned), torch.ones(50))
    torch.testing.assert_close(turn((positions[7:8], *(part[7:8] for part in rest)), keys[7:8])[0], turned[7:8])
    assert (turned[:, 2, 2] > 0.99).all() == (kind == "z")
    assert turned.mean(0).diagonal()[:2].abs().max() < 0.4
    assert task.augmentation("none") is None
    with pytest.raises(DataError, match="rotation"):
        task.augmentation("y")


def test_half_of_the_points_of_each_cloud_are_left_out() -> None:
    positions = torch.randn(4, 9, 3)
    counts = torch.tensor([9, 8, 3, 1])
    features = positions[..., :1].clone()
    positions[torch.arange(9) >= counts[:, None]] = torch.nan
    batch = (positions, counts, features, torch.zeros(4, 9, 0), torch.arange(4))
    alter = task.augmentation("none", 9)
    kept, left, bearing, *_ = alter(batch, torch.arange(4))
    assert left.tolist() == [5, 4, 2, 1]
    assert kept.shape == (4, 5, 3)
    for cloud, count in enumerate(left.tolist()):
        assert torch.isfinite(kept[cloud, :count]).all()
        assert torch.equal(kept[cloud, :count, 0], bearing[cloud, :count, 0])
        assert len(kept[cloud, :count].unique(dim=0)) == count
    assert not torch.equal(alter(batch, torch.arange(4, 8))[0][0], kept[0])
    assert task.augmentation("none", 5)(batch, torch.arange(4))[1].tolist() == [3, 3, 2, 1]


def test_training_sees_every_point_of_clouds_that_are_thinned_out_for_evaluation() -> None:
    clouds = ArrayClouds(np.arange(4 * 20 * 3.0).reshape(4, 20, 3), labels=[0, 1, 0, 1])
    model = create_model(num_classes=2, layers=1, patches=4, width=0.2)
    wanted = torch.from_numpy(clouds.labels)
    held, checked = (task.samples_for(model, clouds, 6, wanted, training=how) for how in (True, False))
    assert (held.tensors[0].shape, checked.tensors[0].shape) == ((4, 20, 3), (4, 6, 3))
    alter, seen = task.augmentation("none", 6), set()
    for epoch in range(40):
        positions, counts, *_ = alter(held.tensors, torch.arange(4) + 100 * epoch)
        assert (positions.shape, counts.tolist()) == ((4, 3, 3), [3, 3, 3, 3])
        seen |= set(positions[..., 0].flatten().tolist())
    assert len(seen) == 80


def test_scores_over_turns() -> None:
    labels = np.array([0, 0, 0, 1])
    logits = [np.array([[2.0, 1], [2, 0], [2, 0], [2, 0.5]]), np.array([[2.0, 1], [2, 0], [2, 0], [2, 3]])]
    scores = classification_scores(logits, labels)
    area = scores.pop("auc")
    assert scores == {"n": 4, "accuracy": 0.875, "class_accuracy": 0.75, "accuracy_std": 0.125}
    assert area == pytest.approx((2 / 3 + 1) / 2)
    # Of three classes each against the rest, whether or not all of them occur.
    assert classification_scores([np.eye(3)[[0, 1, 2, 0]]], np.array([0, 1, 2, 0]))["auc"] == 1
    assert classification_scores([np.eye(3)[[0, 2, 2, 0]]], np.array([0, 0, 2, 2]))["auc"] == pytest.approx(0.5)
    assert classification_scores([np.zeros((2, 2))], np.array([1, 1]))["auc"] is None
    errors = regression_scores([np.array([1.0, 3.0])], np.array([1.0, 2.0]), 10.0)
    assert errors == {"n": 2, "mae": 5.0, "mae_std": 0.0, "mae_of_mean": 5.0}


def test_what_is_trained_on_is_not_validated_on(tmp_path: Path) -> None:
    data = str(tmp_path / "a.npz")
    np.savez(data, points=np.zeros((4, 9, 3), np.float32), label=np.arange(4) % 2)
    with pytest.raises(DataError, match=r"a\.npz: is what is trained on"):
        task.open_for_training(data, data, seed=0)
