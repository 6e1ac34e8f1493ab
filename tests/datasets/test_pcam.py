"""PatchCamelyon's HDF5: lazy reading across processes, and files that are damaged, dishonest or hostile."""

from __future__ import annotations

import gzip
import hashlib
import logging
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from parteq.datasets import hdf5, pcam
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
        (PIXELS / 255, LABELS, "instead of integers"),
        (PIXELS[:0], LABELS[:0], "holds no images"),
        (PIXELS, LABELS.ravel(), "'y' has the shape"),
        (PIXELS, LABELS + 1, "labels other than 0 and 1"),
        (PIXELS, LABELS * 0.5, "instead of integers"),
        (np.uint8(3), LABELS, "instead of uint8 [N, 96, 96, 3]"),
        (h5py.Empty("u1"), LABELS, "is not an array"),
    ],
)
def test_wrong_arrays_refused(tmp_path: Path, x: Any, y: Any, reason: str) -> None:
    assert reason in refusal(save(tmp_path, x=x, y=y))


def test_missing(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").endswith("no such folder")
    assert "split_train_x.h5: no such file" in refusal(tmp_path)
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
    monkeypatch.setattr(hdf5, "_MAX_CHUNK_BYTES", 96 * 96 * 3)
    assert "too large" in refusal(save(tmp_path, chunks=(2, 96, 96, 3)))


def pack(folder: Path, split: str = "train") -> list[Path]:
    """Replace the files of a split by packed ones."""
    packed = []
    for part in "xy":
        path = folder / f"{name(split, part)}.h5"
        packed.append(path.with_name(f"{path.name}.gz"))
        packed[-1].write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    return packed


def test_packed_files_are_unpacked_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    x = pack(save(tmp_path))[0]
    assert available_splits(f"pcam:{tmp_path}") == ("train",)
    with caplog.at_level(logging.INFO, "parteq"):
        images, labels = PCamDataset(tmp_path).tensors()
    assert np.array_equal(images.permute(0, 2, 3, 1), PIXELS)
    assert labels.tolist() == LABELS.ravel().tolist()
    md5 = hashlib.md5(x.read_bytes()).hexdigest()
    assert f"unpacked {x}; its MD5 sum {md5} is not one of those published" in caplog.messages
    written = x.with_suffix("").stat().st_mtime_ns
    PCamDataset(tmp_path)
    assert x.with_suffix("").stat().st_mtime_ns == written
    assert not list(tmp_path.glob(".*"))


def test_packed_files_that_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = pack(save(tmp_path))[0]
    whole = x.read_bytes()
    x.write_bytes(whole[:-1000])
    assert f"{x}: is not a gzip file, or is cut off or damaged" in refusal(tmp_path)
    x.write_bytes(gzip.compress(b"not HDF5"))
    assert "does not hold the kind of file" in refusal(tmp_path)
    x.write_bytes(whole)
    monkeypatch.setattr(pcam, "_OVERHEAD_BYTES", 0)
    monkeypatch.setitem(pcam.PATCHES, "train", 3)
    assert "unpacks to more than 82,944 bytes, which is refused" in refusal(tmp_path)
    assert not x.with_suffix("").exists()


def test_number_and_balance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """As many patches as published are half positive; fewer may be anything, and a line says so."""
    y = tmp_path / f"{name('train', 'y')}.h5"
    save(tmp_path, y=np.ones_like(LABELS))
    with caplog.at_level(logging.INFO, "parteq"):
        assert PCamDataset(tmp_path).labels.tolist() == [1] * N
    assert caplog.messages == [f"{y}: 6 patches, where 262,144 were published"]
    monkeypatch.setitem(pcam.PATCHES, "train", N)
    assert refusal(tmp_path) == f"{y}: 6 of 6 labels are positive; of those published half are"
    save(tmp_path)
    caplog.clear()
    assert len(PCamDataset(tmp_path)) == N
    assert not caplog.messages


def sparse(folder: Path, split: str = "train", count: int = 262_144, **storage: Any) -> Path:
    """A split of the published layout and number of patches that takes no room: only the last patch is written."""
    with h5py.File(folder / f"{name(split, 'x')}.h5", "w") as file:
        file.create_dataset("x", (count, 96, 96, 3), "u1", **storage)[-1] = 1
    with h5py.File(folder / f"{name(split, 'y')}.h5", "w") as file:
        file["y"] = (np.arange(count) % 2).astype(np.uint8).reshape(count, 1, 1, 1)
    return folder


def test_full_row_count_costs_nothing(tmp_path: Path) -> None:
    """The published training set's 262,144 patches."""
    data = PCamDataset(sparse(tmp_path, chunks=(64, 96, 96, 3)))
    assert len(data) == 262_144
    image, label = data[len(data) - 1]
    assert (label, int(image.min())) == (1, 1)
    assert data.subset([0, len(data) - 2, len(data) - 1]).tensors()[0].amax((1, 2, 3)).tolist() == [0, 0, 1]
    assert sum(path.stat().st_blocks for path in tmp_path.iterdir()) * 512 < 2**24


EPOCH = """
import resource, sys
import torch
from parteq.core.training import Settings, _batches
from parteq.datasets.images import open_images
data = open_images("pcam:" + sys.argv[1])
seen = 0
for (images, labels), _, _ in _batches(data, Settings(batch_size=64, workers=int(sys.argv[2])), 0, torch.device("cpu")):
    seen += len(labels)
    assert images.shape[1:] == (3, 96, 96)
assert seen == len(data) == 262_144
# Not ru_maxrss of the process itself, which knows that of the one it was forked from.
high = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(high.split()[1]) / 2**20, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("chunks", "workers"), [(None, 0), (None, 2), ((64, 96, 96, 3), 2)])
def test_an_epoch_streams_under_two_gibibytes(tmp_path: Path, chunks: tuple[int, ...] | None, workers: int) -> None:
    """All patches once, in random order, as training reads them; resident memory of parent and workers together."""
    sparse(tmp_path, chunks=chunks)
    command = [sys.executable, "-c", EPOCH, str(tmp_path), str(workers)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200, check=True)
    parent, worker = map(float, result.stdout.split())
    assert parent + workers * worker < 2


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
