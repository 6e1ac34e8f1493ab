"""The two data sets that come with the dependencies: digits, and stained tissue."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.data import immunohistochemistry
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score

from parteq.datasets.digits import sklearn_digits
from parteq.datasets.immunohistochemistry import stained_patches


def test_digits() -> None:
    data = sklearn_digits()
    images, labels = data.tensors()
    assert images.shape == (1797, 1, 8, 8)
    assert sorted(set(images.unique().tolist())) == [round(255 * level / 16) for level in range(17)]
    assert data.classes == tuple("0123456789")
    assert labels.bincount().min() > 170


def test_larger_digits() -> None:
    images = sklearn_digits(16, margin=2).tensors()[0]
    assert images.shape == (1797, 1, 20, 20)
    assert images[:, :, :2].max() == images[..., -2:].max() == 0
    assert torch.equal(images[..., 2:-2, 2:-2], sklearn_digits(16).tensors()[0])
    shrunk = torch.nn.functional.avg_pool2d(sklearn_digits(16).tensors()[0].float(), 2)
    assert torch.nn.functional.mse_loss(shrunk, sklearn_digits().tensors()[0].float()) < 30**2


def test_patches_are_cut_from_the_picture_and_regions_share_no_pixel() -> None:
    picture = immunohistochemistry()
    data = stained_patches(stride=8)
    assert data.groups is not None
    # Where each patch was found in the picture.
    windows = {}
    for top in range(0, 512 - 31, 8):
        for left in range(0, 512 - 31, 8):
            windows[picture[top : top + 32, left : left + 32].tobytes()] = top, left
    region = np.full((512, 512), -1)
    for image, group in zip(data.tensors()[0], data.groups, strict=True):
        top, left = windows[image.permute(1, 2, 0).contiguous().numpy().tobytes()]
        place = region[top : top + 32, left : left + 32]
        assert set(np.unique(place)) <= {-1, group}
        place[...] = group


def test_labels_are_balanced_and_see_the_centre_only() -> None:
    data = stained_patches()
    images, labels = data.tensors()
    assert data.groups is not None
    assert data.classes == ("unstained", "stained")
    assert 1000 < len(data) < 3000
    assert len(set(data.groups.tolist())) >= 40
    assert labels.float().mean() == 0.5
    pixels = images.double().numpy() / 255
    offset = np.arange(32) - 15.5
    disc = offset[:, None] ** 2 + offset**2 <= 16

    def accuracy(features: np.ndarray) -> float:
        model = LogisticRegression(C=100, max_iter=1000)
        return float(cross_val_score(model, features, data.labels, groups=data.groups, cv=GroupKFold(5)).mean())

    # The mean colour says something and not much; the centre says it all.
    assert 0.6 < accuracy(pixels.mean((2, 3))) < 0.85
    assert accuracy(pixels[:, :, disc].mean(2)) > 0.95


def test_patches_are_reproducible_and_sizes_are_checked() -> None:
    assert stained_patches(seed=1).fingerprint() == stained_patches(seed=1).fingerprint()
    assert stained_patches(patch=24, stride=8, block=128).spatial == (24, 24)
    for sizes in ({"patch": 80}, {"centre": 40}, {"block": 600}, {"stride": 0}, {"bands": 0}):
        with pytest.raises(ValueError, match="need 1 ≤ centre"):
            stained_patches(**sizes)
    with pytest.raises(ValueError, match="no patches are left"):
        stained_patches(block=512, stride=500)
