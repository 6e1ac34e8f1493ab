"""PatchCamelyon's HDF5: lazy reading across processes, and files that are damaged, dishonest or hostile."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from parteq.datasets import pcam
from parteq.datasets.errors import DataError
from parteq.datasets.images import available_splits, open_images
from parteq.datasets.pcam import PCamDataset

N = 6
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 96, 96, 3), dtype=np.uint8)
LABELS = (np.arange(N) % 2).astype(np.uint8).reshape(N, 1, 1, 1)


def name(split: str, part: str) -> str:
    return f"camelyonpatch_level_2_split_{split}_{part}"


def save(folder: Path, split: str = "train", x: Any = PIXELS, y: Any = LABELS, **storage: Any) -> Path:
    for part, array, options in (("x", x, storage), ("y", y, {})):
        with h5py.File(folder / f"{name(split, part)}.h5", "w") as file:
            file.create_dataset(part, data=array, **options)
    return folder


def refusal(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        PCamDataset(folder).tensors()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_reads(tmp_path: Path) -> None:
    save(save(tmp_path), "valid", PIXELS[:4], LABELS[:4])
    spec = f"pcam:{tmp_path}"
    data = open_images(spec)
    assert available_splits(spec) == ("train", "val")
    assert (len(data), data.channels, data.spatial, data.groups) == (N, 3, (96, 96), None)
    assert data.classes == ("normal", "tumor")
    image, label = data[3]
    assert label == 1
    assert np.array_equal(image.permute(1, 2, 0), PIXELS[3])
    assert len(open_images(spec, "val")) == 4
    (tmp_path / f"{name('valid', 'y')}.h5").unlink()
    assert open_images(spec, "val", labelled=False).labels.tolist() == [0, 0, 0, 0]
    with pytest.raises(DataError, match=r"split_test_x\.h5: no such file"):
        open_images(spec, "test")


@given(st.lists(st.integers(0, N - 1), max_size=12))
@settings(max_examples=50)
def test_any_order_of_rows(tmp_path_factory: pytest.TempPathFactory, rows: list[int]) -> None:
    folder = tmp_path_factory.getbasetemp() / "pcam-rows"
    if not folder.is_dir():
        folder.mkdir()
        save(folder, chunks=(2, 96, 96, 3), compression="gzip")
    images, labels = PCamDataset(folder).subset(rows).tensors()
    assert np.array_equal(images.permute(0, 2, 3, 1), PIXELS[rows])
    assert labels.tolist() == LABELS[rows].ravel().tolist()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_handle_for_each_process(tmp_path: Path) -> None:
    data = PCamDataset(save(tmp_path))
    assert data._pixels._file is None
    expected = data.tensors()[0]
    assert data._pixels._process == os.getpid()
    # The workers are forked while the parent's handle is open.
    loader = DataLoader(data, batch_size=2, num_workers=2, multiprocessing_context="fork")
    assert torch.equal(torch.cat([images for images, _ in loader]), expected)
    copy = pickle.loads(pickle.dumps(data))
    assert copy._pixels._file is None
    assert torch.equal(copy[5][0], expected[5])
    assert copy.fingerprint() == data.fingerprint()


def test_slides_are_groups(tmp_path: Path) -> None:
    meta = save(tmp_path) / f"{name('train', 'meta')}.csv"
    slides = [f"camelyon16_train_tumor_{i // 2:03}" for i in range(N)]
    lines = [",coord_y,coord_x,wsi", *(f"{i},1,2,{slide}" for i, slide in enumerate(slides))]
    meta.write_text("\n".join(lines))
    groups = PCamDataset(tmp_path).groups
    assert groups is not None
    assert groups.tolist() == slides
    for content, reason in {
        "a,b\n1,2\n": "no column 'wsi'",
        "": "no column 'wsi'",
        "\n".join(lines[:-1]): "5 lines for 6 patches",
        "\n".join([*lines, lines[-1]]): "more lines than patches",
        "wsi,b\n" + "x" * 300 + ",1\n": "no usable slide name",
        "b,wsi\n1\n": "no usable slide name",
        "wsi\n" + "x" * 200_000: "not a readable CSV",
    }.items():
        meta.write_text(content)
        assert reason in refusal(tmp_path)
    meta.write_bytes(b"wsi\n\xff\xfe\n")
    assert "not a readable CSV" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        (PIXELS[:5], LABELS, "'y' has the shape"),
        (PIXELS[..., 0], LABELS, "instead of uint8 [N, 96, 96, 3]"),
        (PIXELS[:, :32, :32], LABELS, "instead of uint8 [N, 96, 96, 3]"),
        (PIXELS.astype(np.uint16), LABELS, "instead of uint8 [N, 96, 96, 3]"),
        (PIXELS / 255, LABELS, "instead of uint8"),
        (PIXELS[:0], LABELS[:0], "holds no images"),
        (PIXELS, LABELS.ravel(), "'y' has the shape"),
        (PIXELS, LABELS + 1, "labels other than 0 and 1"),
        (PIXELS, LABELS * 0.5, "instead of uint8"),
        (np.uint8(3), LABELS, "instead of uint8 [N, 96, 96, 3]"),
        (h5py.Empty("u1"), LABELS, "is not an array"),
    ],
)
def test_wrong_arrays_refused(tmp_path: Path, x: Any, y: Any, reason: str) -> None:
    assert reason in refusal(save(tmp_path, x=x, y=y))


def test_missing_and_compressed(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").endswith("no such folder")
    assert "split_train_x.h5: no such file" in refusal(tmp_path)
    packed = tmp_path / f"{name('train', 'x')}.h5.gz"
    packed.write_bytes(b"\x1f\x8b")
    assert f"gunzip {packed.name}" in refusal(tmp_path)
    save(tmp_path)
    with h5py.File(tmp_path / f"{name('train', 'x')}.h5", "w") as file:
        file["pixels"] = PIXELS
    assert "has no array 'x'; it has ['pixels']" in refusal(tmp_path)
    with h5py.File(tmp_path / f"{name('train', 'x')}.h5", "w") as file:
        file.create_group("x")
    assert "'x' is not an array" in refusal(tmp_path)
    with pytest.raises(DataError, match=f"looks like PatchCamelyon: write pcam:{tmp_path}"):
        open_images(str(tmp_path))


@pytest.mark.parametrize("kind", ["external link", "soft link", "virtual", "external storage"])
def test_data_in_other_files_refused(tmp_path: Path, kind: str) -> None:
    """A data file from a stranger must not make other files of this machine readable."""
    save(tmp_path)
    secret = tmp_path / "secret.h5"
    with h5py.File(secret, "w") as file:
        file["x"] = PIXELS
    (tmp_path / "raw").write_bytes(PIXELS.tobytes())
    with h5py.File(tmp_path / f"{name('train', 'x')}.h5", "w") as file:
        if kind == "external link":
            file["x"] = h5py.ExternalLink(str(secret), "x")
        elif kind == "soft link":
            file["elsewhere"] = h5py.ExternalLink(str(secret), "/")
            file["x"] = h5py.SoftLink("/elsewhere/x")
        elif kind == "virtual":
            layout = h5py.VirtualLayout(PIXELS.shape, "u1")
            layout[...] = h5py.VirtualSource(str(secret), "x", PIXELS.shape)
            file.create_virtual_dataset("x", layout)
        else:
            external = [(str(tmp_path / "raw"), 0, PIXELS.nbytes)]
            file.create_dataset("x", PIXELS.shape, "u1", external=external)
    assert "which is refused" in refusal(tmp_path)


def test_absurd_sizes_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sparse files may claim any number of patches at no cost."""
    save(tmp_path)
    for part, shape in (("x", (10**10, 96, 96, 3)), ("y", (10**10, 1, 1, 1))):
        with h5py.File(tmp_path / f"{name('train', part)}.h5", "w") as file:
            file.create_dataset(part, shape, "u1", chunks=(1, *shape[1:]))
    assert "instead of uint8 [N, 96, 96, 3]" in refusal(tmp_path)
    monkeypatch.setattr(pcam, "_MAX_CHUNK_BYTES", 96 * 96 * 3)
    assert "too large" in refusal(save(tmp_path, chunks=(2, 96, 96, 3)))


def test_full_row_count_costs_nothing(tmp_path: Path) -> None:
    """The published training set's 262,144 patches, in a sparse file."""
    count = 262_144
    for part, shape in (("x", (count, 96, 96, 3)), ("y", (count, 1, 1, 1))):
        with h5py.File(tmp_path / f"{name('train', part)}.h5", "w") as file:
            array = file.create_dataset(part, shape, "u1", chunks=(64, *shape[1:]))
            array[-1] = 1
    data = PCamDataset(tmp_path)
    assert len(data) == count
    image, label = data[count - 1]
    assert (label, int(image.min())) == (1, 1)
    assert data.subset([0, count - 2, count - 1]).tensors()[0].amax((1, 2, 3)).tolist() == [0, 0, 1]


def test_damage_while_reading(tmp_path: Path) -> None:
    """A chunk that cannot be unpacked is found when it is read, and the file is named."""
    path = save(tmp_path, chunks=(1, 96, 96, 3), compression="gzip") / f"{name('train', 'x')}.h5"
    raw = bytearray(path.read_bytes())
    raw[-20_000:-10_000] = bytes(10_000)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="truncated or damaged"):
        PCamDataset(tmp_path).tensors()


@given(data=st.data())
@settings(max_examples=150)
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is cut off or changed: a data set or DataError, nothing else."""
    folder = tmp_path_factory.getbasetemp() / "pcam-fuzz"
    good = folder / "good"
    if not folder.is_dir():
        folder.mkdir()
        flat = np.zeros_like(PIXELS)
        path = save(folder, x=flat, chunks=(2, 96, 96, 3), compression="gzip") / f"{name('train', 'x')}.h5"
        good.write_bytes(path.read_bytes())
    raw = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))
    (folder / f"{name('train', 'x')}.h5").write_bytes(raw[:cut])
    refused = ""
    try:
        images, _ = PCamDataset(folder).tensors()
    except DataError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
    else:
        assert images.shape == (N, 3, 96, 96)
