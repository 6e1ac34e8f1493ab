"""Folders of images by class: layouts, depths and colours; corrupt, transparent, huge and hostile files."""

from __future__ import annotations

import logging
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from parteq.datasets.errors import DataError
from parteq.datasets.folder import FolderDataset, splits_in_folder
from parteq.datasets.images import open_images

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 8, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (6, 8), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray | Image.Image = COLOUR, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def refusal(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        FolderDataset(root).tensors()
    assert str(caught.value).isprintable()
    return str(caught.value)


def test_classes_and_formats(tmp_path: Path) -> None:
    for suffix in ("png", "PNG", "tif", "tiff", "bmp"):
        save(tmp_path / "b" / f"lossless-{suffix}.{suffix}")
    save(tmp_path / "a" / "x.jpg", quality=95)
    save(tmp_path / "a" / "y.jpeg", quality=95)
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "README.md").write_text("not a class")
    data = open_images(str(tmp_path))
    assert (data.classes, data.labels.tolist()) == (("a", "b"), [0, 0, 1, 1, 1, 1, 1])
    assert (data.channels, data.spatial, data.groups) == (3, (6, 8), None)
    images, _ = data.tensors()
    for image in images[2:]:
        assert np.array_equal(image.permute(1, 2, 0), COLOUR)
    assert data.subset([3])[0][1] == 1
    assert data.fingerprint() != data.subset(range(6)).fingerprint()


def test_splits(tmp_path: Path) -> None:
    for place in ("train/a", "train/b", "train/c", "valid/a", "valid/c", "test/d"):
        save(tmp_path / place / "x.png")
    assert splits_in_folder(tmp_path) == ("train", "val", "test")
    assert FolderDataset(tmp_path).labels.tolist() == [0, 1, 2]
    assert FolderDataset(tmp_path, "val").labels.tolist() == [0, 2]
    assert FolderDataset(tmp_path, "test").labels.tolist() == [3]
    assert FolderDataset(tmp_path, "val").classes == ("a", "b", "c", "d")
    (tmp_path / "val" / "a").mkdir(parents=True)
    assert "both 'val' and 'valid' hold the 'val' split" in refusal(tmp_path)


def test_names_and_no_labels(tmp_path: Path) -> None:
    for place in ("test/b/x.png", "test/a/y.png", "test/loose.png", "train/a/z.png"):
        save(tmp_path / place)
    assert FolderDataset(tmp_path, "test").names == ("test/a/y.png", "test/b/x.png")
    data = FolderDataset(tmp_path, "test", labelled=False)
    assert data.names == ("test/loose.png", "test/a/y.png", "test/b/x.png")
    assert data.subset([2, 0]).names == ("test/b/x.png", "test/loose.png")
    assert (data.classes, data.labels.tolist()) == (("unlabelled",), [0, 0, 0])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="has no images in it or in its folders"):
        FolderDataset(tmp_path / "empty", labelled=False)


def test_undivided(tmp_path: Path) -> None:
    """Classes that are named like splits are classes, where they hold images and not folders."""
    save(tmp_path / "train" / "x.png")
    save(tmp_path / "test" / "x.png")
    assert splits_in_folder(tmp_path) == ()
    assert FolderDataset(tmp_path).classes == ("test", "train")
    with pytest.raises(DataError, match="has no 'val' split; it has one undivided set"):
        FolderDataset(tmp_path, "val")


def test_grey_and_deep(tmp_path: Path) -> None:
    levels = np.linspace(0, 65535, 48).astype(np.uint16).reshape(6, 8)
    save(tmp_path / "a" / "1.png", levels)
    save(tmp_path / "a" / "2.tif", levels)
    save(tmp_path / "a" / "3.png", GREY)
    save(tmp_path / "a" / "4.png", GREY > 127)
    data = FolderDataset(tmp_path)
    images = data.tensors()[0][:, 0].numpy()
    assert data.channels == 1
    for image in images[:2]:
        assert np.array_equal(image, np.rint(levels / 257))
    assert np.array_equal(images[2], GREY)
    assert np.array_equal(images[3], (GREY > 127) * 255)
    save(tmp_path / "b" / "1.png", COLOUR)
    mixed = FolderDataset(tmp_path)
    assert mixed.channels == 3
    assert np.array_equal(mixed[0][0], np.repeat(np.rint(levels / 257)[None], 3, 0))
    assert np.array_equal(mixed[2][0], np.repeat(GREY[None], 3, 0))


def test_opaque_alpha_and_palettes(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png", np.dstack([COLOUR, np.full((6, 8), 255, np.uint8)]))
    palette = Image.fromarray(COLOUR).quantize(16)
    save(tmp_path / "a" / "2.png", palette)
    data = FolderDataset(tmp_path)
    assert np.array_equal(data[0][0].permute(1, 2, 0), COLOUR)
    assert np.array_equal(data[1][0].permute(1, 2, 0), np.asarray(palette.convert("RGB")))


def test_transparency_refused(tmp_path: Path) -> None:
    alpha = np.full((6, 8), 255, np.uint8)
    alpha[2, 3] = 254
    path = save(tmp_path / "a" / "1.png", np.dstack([COLOUR, alpha]))
    assert refusal(tmp_path) == f"{path}: is partly transparent: save it without an alpha channel"
    save(path, np.dstack([GREY, alpha]))
    assert "partly transparent" in refusal(tmp_path)
    save(path, Image.fromarray(COLOUR).quantize(16), transparency=3)
    assert "partly transparent" in refusal(tmp_path)


def test_sizes_that_differ(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    path = save(tmp_path / "b" / "2.png", COLOUR[:, :7])
    message = refusal(tmp_path)
    assert message.startswith(f"{path}: ")
    assert "8 × 6 pixels (a/1.png) and 7 × 6 here; make them equal, or --skip-bad" in message


def test_changed_behind_our_back(tmp_path: Path) -> None:
    path = save(tmp_path / "a" / "1.png")
    data = FolderDataset(tmp_path)
    save(path, COLOUR[:3])
    with pytest.raises(DataError, match="changed its size"):
        data[0]
    path.unlink()
    with pytest.raises(DataError, match="no such file"):
        data[0]


def test_nothing_there(tmp_path: Path) -> None:
    assert "no class folders" in refusal(tmp_path)
    save(tmp_path / "loose.png")
    assert "no class folders" in refusal(tmp_path)
    save(tmp_path / "a" / "x.png")
    (tmp_path / "b").mkdir()
    message = refusal(tmp_path)
    assert message.startswith(f"{tmp_path / 'b'}: class folder without images")
    assert message.endswith("remove it, or --skip-bad")
    with pytest.raises(DataError, match="no such folder"):
        FolderDataset(tmp_path / "no")


def test_refused_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a" / "1.tif"
    for image in (
        Image.fromarray(GREY.astype(np.float32)),
        Image.fromarray(GREY.astype(np.int32)),
        Image.fromarray(COLOUR).convert("CMYK"),
    ):
        save(path, image)
        assert f"is a {image.mode} image" in refusal(tmp_path)
    save(path, Image.fromarray(COLOUR), save_all=True, append_images=[Image.fromarray(COLOUR)])
    assert "several pages" in refusal(tmp_path)
    Image.fromarray(COLOUR).save(path, format="GIF")
    assert "not a readable image" in refusal(tmp_path)


def png_claiming(width: int, height: int) -> bytes:
    """A PNG whose header claims a size and whose data are missing."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


@pytest.mark.parametrize(
    ("side", "reason"), [(9_000, "too large"), (12_000, "Decompression"), (60_000, "Decompression")]
)
def test_bombs_refused(tmp_path: Path, side: int, reason: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(png_claiming(side, side) + b"\0\0\0\0IDAT\x35\xaf\x06\x1e")
    assert reason in refusal(tmp_path)


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "root"
    save(root / "a" / "1.png")
    outside = save(tmp_path / "outside" / "2.png")
    (root / "a" / "inside.png").symlink_to("1.png")
    (root / "b").symlink_to("a")
    assert len(FolderDataset(root)) == 4
    (root / "a" / "3.png").symlink_to(outside)
    assert refusal(root) == f"{root / 'a' / '3.png'}: is a link that leaves the data folder, which is refused"
    (root / "a" / "3.png").unlink()
    (root / "c").symlink_to(outside.parent)
    assert refusal(root).startswith(f"{root / 'c'}: is a link")
    (root / "c").unlink()
    (root / "a" / "4.png").symlink_to("nowhere.png")
    assert "is not a regular file" in refusal(root)


def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    os.mkfifo(tmp_path / "a" / "2.png")
    assert "is not a regular file" in refusal(tmp_path)


def test_odd_names_stay_on_one_line(tmp_path: Path) -> None:
    bad = save(tmp_path / "a" / "1.png").with_name("line\nbreak.png")
    bad.write_bytes(b"no image")
    assert "line\\nbreak.png: is not a readable image" in refusal(tmp_path)


def test_skipping(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Bad files are listed and left out, and what is left stays aligned."""
    images = RNG.integers(0, 256, (8, 6, 8, 3), dtype=np.uint8)
    files = [
        save(tmp_path / "ab"[number % 2] / f"s{number % 4}_x{number}_y0.png", images[number]) for number in range(8)
    ]
    whole = FolderDataset(tmp_path)
    files[0].write_bytes(files[0].read_bytes()[:-60])
    files[3].write_bytes(b"no image")
    save(files[6], COLOUR[:, :5])
    with pytest.raises(DataError, match=r"is not a readable image|differ in size"):
        FolderDataset(tmp_path)
    with caplog.at_level(logging.WARNING, "parteq"):
        data = FolderDataset(tmp_path, skip_bad=True)
    assert set(data.skipped) == {files[0], files[3], files[6]}
    for file, reason in (
        (files[0], "truncated"),
        (files[3], "not a readable"),
        (files[6], "5 × 6 pixels; most are 8 × 6"),
    ):
        assert any(str(file) in line and reason in line for line in caplog.messages)
    assert caplog.messages[-1] == f"{tmp_path}: skipped 3 of 8 images"
    good = [number for number, file in enumerate(sorted(files)) if file not in data.skipped]
    expected = whole.subset(good)
    assert (data.names, data.labels.tolist()) == (expected.names, expected.labels.tolist())
    assert data.groups is not None
    assert expected.groups is not None
    assert data.groups.tolist() == expected.groups.tolist()
    assert np.array_equal(data.tensors()[0].permute(0, 2, 3, 1), images[[files.index(sorted(files)[i]) for i in good]])
    assert data.subset([0]).skipped == data.in_memory().skipped == data.skipped
    assert FolderDataset(tmp_path, labelled=False, skip_bad=True).names == data.names


def test_nothing_left_after_skipping(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    save(tmp_path / "b" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match=f"^{tmp_path}: no image of class 'b' can be used"):
        FolderDataset(tmp_path, skip_bad=True)
    (tmp_path / "a" / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="no image of class 'a' can be used"):
        FolderDataset(tmp_path, skip_bad=True)


def test_skipping_class_folders_without_images(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for place in ("train/a/1.png", "train/c/1.png", "test/a/1.png", "test/b/1.png"):
        save(tmp_path / place)
    for place in ("train/b", "train/empty", "test/empty"):
        (tmp_path / place).mkdir()
    with caplog.at_level(logging.WARNING, "parteq"):
        data = FolderDataset(tmp_path, skip_bad=True)
    # A class is one that any split has images of.
    assert (data.classes, data.labels.tolist()) == (("a", "b", "c"), [0, 2])
    reason = "class folder without images (.bmp, .jpeg, .jpg, .png, .tif, .tiff)"
    assert caplog.messages == [f"skipped {tmp_path}/train/{name}: {reason}" for name in ("b", "empty")]
    for file in tmp_path.rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match="has no class folders with images in them"):
        FolderDataset(tmp_path, skip_bad=True)


@given(data=st.data())
@settings(max_examples=150)
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Whatever is cut off or changed: pixels, or DataError that names the file."""
    folder = tmp_path_factory.getbasetemp() / "folder-fuzz"
    suffix = data.draw(st.sampled_from(["png", "jpg", "tif", "bmp"]))
    good = folder / f"good.{suffix}"
    if not good.exists():
        save(good)
    raw = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    bad = folder / suffix / "class" / f"bad.{suffix}"
    bad.parent.mkdir(parents=True, exist_ok=True)
    bad.write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    refused = ""
    try:
        result = FolderDataset(folder / suffix)
        images, _ = result.tensors()
    except DataError as error:
        refused = str(error)
    if refused:
        assert refused.startswith(f"{bad}: ")
        assert refused.isprintable()
    else:
        assert images.shape == (1, result.channels, *result.spatial)


def test_images_below_a_class_are_not_dropped(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/deep/2.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / name)
    with pytest.raises(DataError, match="is the folder of a class"):
        FolderDataset(tmp_path)
    assert len(FolderDataset(tmp_path, labelled=False)) == 3


def test_sixteen_bits_that_are_not_used(tmp_path: Path) -> None:
    for name, brightest in (("a/1.png", 4000), ("b/1.png", 300)):
        (tmp_path / name).parent.mkdir()
        Image.fromarray(np.full((4, 4), brightest, np.uint16)).save(tmp_path / name)
    with pytest.raises(DataError, match="reach only 4000 of 65535"):
        FolderDataset(tmp_path)
    Image.fromarray(np.full((4, 4), 60000, np.uint16)).save(tmp_path / "b" / "1.png")
    assert len(FolderDataset(tmp_path)) == 2


def save_deep(path: Path, pixels: np.ndarray) -> None:
    """A PNG file of uint16 [H, W, C], C of 2, 3 or 4, which Pillow does not write."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    lines = b"".join(b"\0" + line.tobytes() for line in pixels.astype(">u2"))
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    )


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_sixteen_bits_of_colour(tmp_path: Path, channels: int) -> None:
    """Those of a camera of 12 bits would be crushed to 16 levels."""
    pixels = np.full((4, 4, channels), 65535, np.uint16)
    colours = {2: 1, 3: 3, 4: 3}[channels]
    pixels[..., :colours] = 0
    for brightest, levels in ((4095, None), (65535, 255)):
        pixels[0, 0, :colours] = brightest
        for name in "ab":
            save_deep(tmp_path / name / "1.png", pixels)
        if levels is None:
            with pytest.raises(DataError, match="16-bit pixels reach only 4095 of 65535"):
                FolderDataset(tmp_path)
        else:
            assert FolderDataset(tmp_path).tensors()[0].max() == levels


def test_sixteen_bits_among_eight(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    save_deep(tmp_path / "b" / "1.png", np.full((6, 8, 3), 4095, np.uint16))
    assert "16-bit pixels reach only 4095 of 65535" in refusal(tmp_path)


def test_sixteen_bits_in_planes(tmp_path: Path) -> None:
    """Pillow would take the first half of the red plane for all three colours."""
    for name in "ab":
        (tmp_path / name).mkdir()
        planes = np.full((3, 6, 8), 60000, np.uint16)
        tifffile.imwrite(tmp_path / name / "1.tif", planes, photometric="rgb", planarconfig="separate")
    assert "holds each channel by itself, in 16 bits" in refusal(tmp_path)
