"""The data set interface: subsets, tensors, fingerprints, checks; and the depth conversion under it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from parteq.datasets import base
from parteq.datasets.base import ArrayDataset
from parteq.datasets.depth import to_uint8
from parteq.datasets.errors import DataError


def random_set(n: int = 10, **facts: object) -> ArrayDataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 3, 4, 5), dtype=np.uint8)
    return ArrayDataset(images, np.arange(n) % 3, **facts)  # type: ignore[arg-type]


def test_items_and_facts() -> None:
    data = random_set(groups=list("aabbccddee"), classes=("x", "y", "z"))
    image, label = data[4]
    assert (image.shape, image.dtype, label) == ((3, 4, 5), torch.uint8, 1)
    assert (len(data), data.channels, data.spatial, data.classes) == (10, 3, (4, 5), ("x", "y", "z"))
    assert data.labels.dtype == np.int64
    assert torch.equal(data[-1][0], data[9][0])
    with pytest.raises(IndexError):
        data[10]
    assert len(list(data)) == 10  # type: ignore[call-overload]


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 200), max_size=8))
def test_subset_of_subset(first: list[int], second: list[int]) -> None:
    data = random_set(groups=np.arange(10))
    data.names = tuple("abcdefghij")
    part = data.subset(first)
    assert part.classes == data.classes
    second = [i % len(first) for i in second] if first else []
    part = part.subset(second)
    images, labels = part.tensors()
    expected = [first[i] for i in second]
    assert torch.equal(images, data.tensors()[0][expected])
    assert labels.tolist() == data.labels[expected].tolist()
    assert part.groups is not None
    assert part.groups.tolist() == expected
    assert part.names == tuple("abcdefghij"[i] for i in expected)


def test_batches_and_copies() -> None:
    data = random_set(groups=list("aabbccddee"), names=list("abcdefghij"))
    part = data.subset([7, 1, 4])
    images, labels = part.tensors()
    batch = part.__getitems__([2, 0])
    assert torch.equal(torch.stack([image for image, _ in batch]), images[[2, 0]])
    assert [label for _, label in batch] == labels[[2, 0]].tolist()
    copied = part.in_memory()
    assert torch.equal(copied.tensors()[0], images)
    assert (copied.classes, copied.names, copied.source) == (part.classes, ("h", "b", "e"), part.source)
    assert copied.fingerprint() == part.fingerprint()


def test_subset_takes_masks_and_shares_pixels() -> None:
    data = random_set()
    part = data.subset(data.labels == 1)
    assert part.labels.tolist() == [1, 1, 1]
    assert part._array is data._array  # type: ignore[attr-defined]


def test_volumes_and_views() -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 6, 2), dtype=np.uint8)
    data = ArrayDataset(np.moveaxis(stored, -1, 1), [0, 1, 1])
    assert (data.channels, data.spatial) == (2, (4, 5, 6))
    assert np.array_equal(data[1][0].permute(1, 2, 3, 0), stored[1])


def test_fingerprint_tells_content_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_set()
    images, labels = data.tensors()
    same = ArrayDataset(images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2), labels, source="elsewhere")
    assert data.fingerprint() == same.fingerprint() == data.subset(range(10)).fingerprint()
    changed = images.clone()
    changed[7, 2, 3, 4] ^= 1
    others = [
        ArrayDataset(changed, labels),
        ArrayDataset(images, labels.flip(0)),
        ArrayDataset(images, labels, groups=np.arange(10)),
        ArrayDataset(images, labels, classes="abc"),
        ArrayDataset(images.reshape(10, 3, 5, 4), labels),
        data.subset(range(9)),
        data.subset([]),
    ]
    assert len({each.fingerprint() for each in (data, *others)}) == 1 + len(others)
    monkeypatch.setattr(base, "_FINGERPRINT_BYTES", 100)
    # Only the first image fits: the last may change unseen, the number of images may not.
    assert data.fingerprint() == ArrayDataset(changed, labels).fingerprint() != data.subset(range(9)).fingerprint()


@pytest.mark.parametrize(
    ("labels", "facts", "reason"),
    [
        ([0, -1], {}, "negative label -1"),
        ([0.0, 1.0], {}, "labels are float64"),
        ([[0], [1]], {}, r"labels have the shape \[2, 1\]"),
        ([0, 10**12], {}, "label 1000000000000: at most 10000 classes"),
        ([0, 2], {"classes": ("a", "b")}, "2 class names, but labels up to 2"),
        ([0, 1], {"classes": ("a", "a")}, "two classes are named 'a'"),
        ([0, 1], {"classes": ("a", "")}, "class 1 has an empty name"),
        ([0, 1], {"groups": [1]}, r"groups have the shape \[1\] for 2 labels"),
        ([0, 1], {"groups": [0.5, 1.0]}, "groups are float64"),
        ([0, 1], {"groups": np.frombuffer(b"\xff" * 8, "<U1")}, "groups are not text"),
        ([0, 1, 2], {}, "2 images, but 3 labels"),
    ],
)
def test_refused(labels: list[int], facts: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=f"^memory: {reason}"):
        ArrayDataset(np.zeros((2, 1, 3, 3), np.uint8), labels, **facts)  # type: ignore[arg-type]


def test_no_images_and_wrong_arrays() -> None:
    with pytest.raises(DataError, match="holds no images"):
        ArrayDataset(np.zeros((0, 1, 3, 3), np.uint8), np.zeros(0, int))
    with pytest.raises(ValueError, match="images must be uint8"):
        ArrayDataset(np.zeros((2, 3, 3), np.uint8), [0, 1])


@given(hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0, 1)))
def test_floats_round_to_nearest(values: np.ndarray) -> None:
    assert np.abs(to_uint8(values, "x") / 255 - values).max() <= 0.5 / 255 + 1e-6


def test_depths() -> None:
    assert np.array_equal(to_uint8(np.arange(65536, dtype=np.uint16), "x"), np.rint(np.arange(65536) / 257))
    assert np.array_equal(to_uint8(np.arange(65536).astype(">u2"), "x"), np.rint(np.arange(65536) / 257))
    assert to_uint8(np.array([False, True]), "x").tolist() == [0, 255]
    levels = np.arange(256, dtype=np.uint8)
    assert to_uint8(levels, "x") is levels
    assert np.array_equal(to_uint8((levels / 255).astype(np.float16), "x"), levels)
    assert to_uint8(np.asfortranarray(np.eye(3, 4)), "x").shape == (3, 4)


@pytest.mark.parametrize("dtype", ["i8", "i2", "u4", "c16", "U3", "M8[s]"])
def test_refused_depths(dtype: str) -> None:
    with pytest.raises(DataError, match=r"^x: pixels are"):
        to_uint8(np.zeros(3, dtype), "x")


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.001, 1.001, 255.0])
def test_floats_outside_refused(value: float) -> None:
    with pytest.raises(DataError, match="not all within 0…1"):
        to_uint8(np.array([0.5, value]), "x")
