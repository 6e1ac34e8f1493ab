"""The linear probe, against scikit-learn and against what it must not touch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from parteq.apps.histo import probe, task
from parteq.apps.histo.probe import fit_probe
from parteq.datasets.errors import DataError
from parteq.datasets.images import ArrayDataset

CPU = torch.device("cpu")


class Pixels(nn.Module):
    """A model whose features are the means of the channels, the last of them always the same."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(4)
        self.classifier = nn.Linear(4, classes)

    def forward(self, images):
        return self.classifier(self.norm(images).mean((2, 3)))


def images(count: int, classes: int, seed: int = 0, labels=None) -> ArrayDataset:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes if labels is None else labels
    pixels = rng.integers(0, 120, (count, 4, 3, 3)) + 40 * (labels[:, None] == np.arange(4))[..., None, None]
    pixels[:, 3] = 7
    names = [f"class {number}" for number in range(classes)]
    return ArrayDataset(pixels.astype(np.uint8), labels, classes=names, groups=np.arange(count) // 2)


@pytest.mark.parametrize("classes", [2, 3])
def test_probabilities_are_those_of_scikit_learn(classes):
    training, test = images(90, classes), images(60, classes, seed=1)
    model = Pixels(classes)
    before = {name: tensor.clone() for name, tensor in model.norm.state_dict().items()}
    result = fit_probe(model, training, CPU, seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.norm.state_dict().items())

    def means(dataset):
        return dataset.tensors()[0].double().mean((2, 3)).numpy()

    scaler = StandardScaler().fit(means(training))
    oracle = LogisticRegression(C=result["strength"], max_iter=10_000).fit(
        scaler.transform(means(training)), training.labels
    )
    expected = oracle.predict_proba(scaler.transform(means(test)))
    assert np.allclose(task.predict(model, test, CPU)[0].numpy(), expected, atol=1e-4)
    found = task.predict(model, training, CPU)[0].numpy()
    assert result["loss"] == pytest.approx(-np.log(found[np.arange(90), training.labels]).mean(), abs=1e-4)


def test_the_strength_is_that_of_the_data():
    easy = images(120, 3)
    rng = np.random.default_rng(2)
    noise = images(120, 3, labels=rng.permutation(easy.labels))
    noise = ArrayDataset(noise.tensors()[0], easy.labels, groups=easy.groups)
    strengths = [fit_probe(Pixels(3), data, CPU, seed=0)["strength"] for data in (noise, easy)]
    assert strengths[0] < strengths[1]


def test_rare_and_absent_classes(caplog):
    labels = np.array([0] * 10 + [1] * 10 + [3])
    model = Pixels(5)
    fit_probe(model, images(21, 5, labels=labels), CPU, seed=0)
    found = task.predict(model, images(30, 5), CPU)[0]
    assert found[:, [2, 4]].max() < 0.05
    assert not caplog.text
    # Every class has one image: none can be held out.
    assert fit_probe(Pixels(5), images(5, 5), CPU, seed=0)["strength"] == 1
    assert "the strength of the penalty is not chosen but 1" in caplog.text


def test_one_class_is_refused():
    with pytest.raises(DataError, match="of one class only"):
        fit_probe(Pixels(2), images(8, 2, labels=np.zeros(8, int)), CPU, seed=0)


def test_held_out_groups_are_whole(monkeypatch):
    seen = []

    def split(labels, groups, fraction, seed):
        train, held_out = probe_split(labels, groups, fraction, seed)
        seen.append(set(groups[train]) & set(groups[held_out]))
        return train, held_out

    probe_split = probe.grouped_split
    monkeypatch.setattr(probe, "grouped_split", split)
    fit_probe(Pixels(2), images(40, 2), CPU, seed=0)
    assert seen == [set()] * probe.SPLITS
