"""From data sets to training sets, probabilities and scores."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from parteq.apps.histo import task
from parteq.apps.histo.models import create_model
from parteq.core import training
from parteq.core.training import Settings, fit
from parteq.datasets.errors import DataError
from parteq.datasets.images import ArrayDataset

CPU = torch.device("cpu")


def dataset(count: int = 60, groups: bool = True) -> ArrayDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 2, 6, 6), generator=generator, dtype=torch.uint8)
    return ArrayDataset(images, np.arange(count) % 3, groups=np.arange(count) // 3 if groups else None)


class Corner(nn.Module):
    """Looks at the upper left pixel of the first channel."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, 0, 0, 0], 1 - images[:, 0, 0, 0], torch.zeros(len(images))], dim=1)


def save(path, data: ArrayDataset, **more) -> str:
    images, labels = data.tensors()
    np.savez(path, images=images.movedim(1, -1).numpy(), labels=labels.numpy(), groups=data.groups, **more)
    return str(path)


def test_whole_groups_are_held_out(tmp_path):
    training, validation = task.open_for_training(save(tmp_path / "a.npz", dataset()), None, None, seed=1)
    assert len(training) + len(validation) == 60
    assert len(validation) == pytest.approx(12, abs=3)
    assert not set(training.groups) & set(validation.groups)


def test_a_limit_takes_each_class_its_share(tmp_path, monkeypatch):
    data = save(tmp_path / "a.npz", dataset(300))
    training, validation = task.open_for_training(data, None, 30, seed=1)
    assert np.bincount(training.labels).tolist() == [10, 10, 10]
    assert len(validation) == pytest.approx(60, abs=6)
    monkeypatch.setattr(task, "LIMITED_VALIDATION", 12)
    assert len(task.open_for_training(data, None, 30, seed=1)[1]) == 30
    assert len(task.open_for_training(data, None, 3, seed=1)[1]) == 12
    other = task.open_for_training(data, None, 30, seed=2)[0]
    assert not np.array_equal(training.groups, other.groups)


def test_an_impossible_limit_names_the_data(tmp_path):
    data = save(tmp_path / "a.npz", dataset())
    with pytest.raises(DataError, match=r"--limit 2: .*a\.npz has "):
        task.open_for_training(data, None, 2, seed=0)


def test_shared_groups_are_refused(tmp_path):
    data, same = (save(tmp_path / name, dataset()) for name in ("a.npz", "b.npz"))
    with pytest.raises(DataError, match="20 groups are in both"):
        task.open_for_training(data, same, None, seed=0)
    with pytest.raises(DataError, match=r"a\.npz: is what is trained on"):
        task.open_for_training(data, data, None, seed=0)


def test_normalization_is_that_of_the_pixels():
    data = dataset()
    pixels = data.tensors()[0].double() / 255
    mean, deviation = task.normalization(data)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)).tolist())
    assert deviation == pytest.approx(pixels.std((0, 2, 3), correction=0).tolist())


def test_a_channel_without_contrast_keeps_its_scale():
    flat = ArrayDataset(torch.full((4, 1, 5, 5), 51, dtype=torch.uint8), np.arange(4) % 2)
    mean, deviation = task.normalization(flat)
    assert mean == pytest.approx([0.2])
    assert deviation == [1.0]


def test_probabilities_of_an_orbit(monkeypatch):
    data = dataset()
    monkeypatch.setattr(training, "_NUMBERS_AT_A_TIME", 7 * data.spatial[0] * data.spatial[1])
    found = task.predict(Corner(), data, CPU, elements=(0, 1, 4))
    pixels = data.tensors()[0].double() / 255
    assert found.shape == (3, 60, 3)
    assert torch.allclose(found.sum(-1), torch.ones(3, 60, dtype=torch.float64))
    corners = [pixels[:, 0, 0, 0], pixels[:, 0, 0, -1], pixels[:, 0, 0, -1]]
    odds = torch.stack(corners) - (1 - torch.stack(corners))
    assert torch.allclose((found[..., 0] / found[..., 1]).log(), odds, atol=1e-6)


def test_prediction_leaves_the_mode_of_the_model_alone():
    model = Corner().train()
    task.predict(model, dataset(), CPU)
    assert model.training


def test_held_out_losses_tell_what_is_known_not_how_surely():
    class Surer(Corner):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 4 * super().forward(images)

    told, surer = (task.losses(model, dataset(), CPU) for model in (Corner(), Surer()))
    assert torch.allclose(told, surer, atol=1e-3)


def test_orbit_variance():
    data = dataset()
    scores = task.evaluate(Corner(), data, CPU, group="c4")
    probabilities = task.predict(Corner(), data, CPU, (0, 1, 2, 3)).numpy()
    assert scores["orbit_variance"] == pytest.approx(probabilities.var(0).mean())
    flat = ArrayDataset(torch.full((12, 1, 5, 5), 51, dtype=torch.uint8), np.arange(12) % 3)
    assert task.evaluate(Corner(), flat, CPU)["orbit_variance"] == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("group", ["d4", "none"])
def test_volumes_are_turned_and_not_mirrored(group):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (12, 1, 4, 5, 5), generator=generator, dtype=torch.uint8)
    volumes = ArrayDataset(images, np.arange(12) % 2)
    torch.manual_seed(0)
    model = create_model(num_classes=2, in_chans=1, group=group, degree="full", width=0.2, spatial_dims=3)
    turned = task.predict(model, volumes, CPU, (0, 1, 2, 3)).numpy()
    variance = task.evaluate(model, volumes, CPU, group=group)["orbit_variance"]
    assert variance == pytest.approx(turned.var(0).mean())
    if group == "d4":
        assert variance == pytest.approx(0, abs=1e-12)
        assert task.predict(model, volumes, CPU, (0, 4)).var(0).mean() > 1e-10


def test_lazy_data_are_trained_and_scored_alike(monkeypatch):
    data = dataset()
    results = []
    for limit in (task.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(task, "IN_MEMORY_BYTES", limit)
        monkeypatch.setattr(task, "ArrayDataset", ArrayDataset if limit else type(None))
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
        fit(model, task.loss, task.samples(data), Settings(epochs=2), progress=False)
        results.append(task.predict(model, data, CPU))
    assert torch.equal(*results)


def test_classes_are_matched_by_name():
    data = ArrayDataset(np.zeros((4, 1, 5, 5), np.uint8), [0, 1, 1, 0], classes=["b", "a"])
    matched = task.match(data, ["a", "b", "c"], 1, 2)
    assert matched.labels.tolist() == [1, 0, 0, 1]
    assert matched.classes == ("a", "b", "c")
    assert data.labels.tolist() == [0, 1, 1, 0]
    assert task.match(data, None, 1, 2) is data
    unused = ArrayDataset(np.zeros((2, 1, 5, 5), np.uint8), [2, 0], classes=["b", "never", "a"])
    assert task.match(unused, ["a", "b"], 1, 2).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="the class 'a'"):
        task.match(unused, ["b"], 1, 2)
