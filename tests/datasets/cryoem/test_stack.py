"""Stacks of images: what is written is read, by number, with few open files and little memory."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from parteq.datasets.cryoem.mrc import header_bytes
from parteq.datasets.cryoem.stack import ImageStack, StackWriter
from parteq.datasets.errors import DataError

IMAGES = np.random.default_rng(1).normal(size=(10, 5, 5)).astype(np.float32)


def write(path: Path, images: np.ndarray) -> Path:
    with StackWriter(path, images.shape[1], 1.2) as writer:
        writer.append(images)
    return path


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    return write(tmp_path / "stack.mrcs", IMAGES)


def open_handles() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "stack.mrcs"
    with StackWriter(path, 5, 1.2) as writer:
        for images in (IMAGES[:3], IMAGES[:0], IMAGES[3:]):
            writer.append(images)
        assert not path.exists()
    images = ImageStack.open(path)
    assert (len(images), images.box) == (10, 5)
    assert images.pixel_size_in_angstroms == pytest.approx(1.2)
    np.testing.assert_array_equal(images.read(slice(None)), IMAGES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["stack.mrcs"]


def test_other_programs_agree(stack: Path) -> None:
    assert mrcfile.validate(stack)
    with mrcfile.open(stack) as file:
        assert file.is_image_stack()
        np.testing.assert_array_equal(file.data, IMAGES)
        assert float(file.voxel_size.x) == pytest.approx(1.2)
        assert float(file.header.rms) == pytest.approx(IMAGES.std(), rel=1e-5)


def test_order_is_that_asked_for(stack: Path) -> None:
    images = ImageStack.open(stack)
    order = np.array([7, 0, 7, 3])
    np.testing.assert_array_equal(images.read(order), IMAGES[order])
    np.testing.assert_array_equal(images.subset(order).read([1, 3]), IMAGES[[0, 3]])
    assert images.read([]).shape == (0, 5, 5)


def test_survives_pickling(stack: Path) -> None:
    images = ImageStack.open(stack)
    images.read([0])
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(images)).read([4]), IMAGES[[4]])


def test_few_files_stay_open(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{number}.mrcs", IMAGES + number) for number in range(40)]
    before = open_handles()
    images = ImageStack(paths, np.arange(40), np.full(40, 2))
    assert open_handles() == before
    np.testing.assert_array_equal(images.read(slice(None)), IMAGES[2] + np.arange(40, dtype=np.float32)[:, None, None])
    assert open_handles() == before + 16
    images.close()
    assert open_handles() == before
    images.read([0])
    del images
    assert open_handles() == before


def most_resident_kib() -> int:
    """The most memory that this process had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def test_a_large_stack_takes_no_memory(tmp_path: Path) -> None:
    """200,000 images of 128², 13 GB of which the file system keeps nothing, in a process of a few hundred MB."""
    path, n, box = tmp_path / "large.mrcs", 200_000, 128
    header = header_bytes((n, box, box), 1.0, is_volume=False, extremes=(0, 0), mean=0, deviation=0)
    with path.open("wb") as stream:
        stream.write(header)
        stream.truncate(1024 + n * box * box * 4)
    Path("/proc/self/clear_refs").write_text("5")  # The most so far is forgotten.
    before = most_resident_kib()
    images = ImageStack.open(path)
    for start in range(0, n, 20_000):
        assert not images.read(range(start, start + 500)).any()
    assert most_resident_kib() - before < 200 * 1024


def test_what_fails_leaves_the_old_file(stack: Path) -> None:
    before = stack.read_bytes()
    with pytest.raises(ValueError, match="do not fit"), StackWriter(stack, 5, 1.0) as writer:
        writer.append(IMAGES[:, :4])
    with pytest.raises(DataError, match="no image to write"), StackWriter(stack, 5, 1.0):
        pass
    with pytest.raises(DataError, match="No such file"), StackWriter(stack.parent / "none" / "a.mrcs", 5, 1.0):
        pass
    assert stack.read_bytes() == before
    assert len(list(stack.parent.iterdir())) == 1


def test_refusals(tmp_path: Path, stack: Path) -> None:
    other = write(tmp_path / "other.mrcs", IMAGES[:, :4, :4])
    flat = tmp_path / "flat.mrcs"
    with mrcfile.new(flat) as file:
        file.set_data(IMAGES[:, :4])
    with pytest.raises(DataError, match=r"have 4 pixels, those of stack\.mrcs 5"):
        ImageStack([stack, other], [0, 1], [0, 0])
    with pytest.raises(DataError, match="must be square"):
        ImageStack.open(flat)
    turned = tmp_path / "turned.mrcs"
    turned.write_bytes(stack.read_bytes()[:64] + np.array([2, 1, 3], "<i4").tobytes() + stack.read_bytes()[76:])
    with pytest.raises(DataError, match=r"turned\.mrcs: its header maps the axes to \[2, 1, 3\]"):
        ImageStack.open(turned)
    with pytest.raises(DataError, match="has 10 images, and number 11 is asked for"):
        ImageStack([stack], [0], [10])
    with pytest.raises(DataError, match="no such file"):
        ImageStack([tmp_path / "none.mrcs"], [0], [0])


def test_pixels_that_are_not_finite(tmp_path: Path) -> None:
    path = write(tmp_path / "nan.mrcs", IMAGES)
    stored = np.memmap(path, "<f4", "r+", offset=1024, shape=IMAGES.shape)
    stored[6, 2, 2], stored[8, 1, 1] = np.nan, 3e38
    stored.flush()
    stack = ImageStack.open(path)
    stack.read([5, 7])
    for number in (6, 8):
        with pytest.raises(DataError, match=f"image {number + 1} holds pixels that are NaN"):
            stack.read([5, number])


def test_dark_images_are_inverted(stack: Path) -> None:
    signs = np.array([1, -1, -1])
    images = ImageStack([stack], np.zeros(3), np.arange(3), signs)
    plain = ImageStack.open(stack).read([0, 1, 2])
    np.testing.assert_array_equal(images.read([2, 0, 1]), (plain * signs[:, None, None])[[2, 0, 1]])
    np.testing.assert_array_equal(images.subset([1]).read([0]), -plain[[1]])


def test_what_is_not_finite_is_not_written(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="NaN, infinite or beyond"),
        StackWriter(tmp_path / "new.mrcs", 4, 1.0) as writer,
    ):
        writer.append(np.full((1, 4, 4), np.nan, np.float32))
    assert not list(tmp_path.glob("new*"))


def test_cut_short_while_read(stack: Path) -> None:
    images = ImageStack.open(stack)
    os.truncate(stack, 1200)
    with pytest.raises(DataError, match="cut short"):
        images.read([9])
