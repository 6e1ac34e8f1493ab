"""NPZ: both layouts, and files that are damaged, dishonest or hostile."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parteq.datasets import npz
from parteq.datasets.base import ArrayDataset
from parteq.datasets.errors import DataError
from parteq.datasets.npz import NpzFile, read_npz, splits_in_npz

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (6, 5, 7), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "x.npz"


def save(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """The start of a .npy file that claims to hold such an array."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": descr, "fortran_order": False, "shape": shape})
    return stream.getvalue()


def save_raw(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def test_labels_that_are_not_wanted_are_not_read(path: Path) -> None:
    save(path, images=GREY, labels=np.ones((3, 2)), groups=LABELS, classes=np.zeros(3))
    data = read_npz(path, labelled=False)
    assert (data.classes, data.labels.tolist()) == (("unlabelled",), [0] * 6)
    assert data.groups is not None
    save(path, images=GREY[:0])
    with pytest.raises(DataError, match="holds no images"):
        read_npz(path, labelled=False)


@pytest.mark.parametrize(
    ("shape", "channels", "spatial"),
    [
        ((6, 5, 7), 1, (5, 7)),
        ((6, 5, 7, 1), 1, (5, 7)),
        ((6, 5, 7, 3), 3, (5, 7)),
        ((6, 8, 5, 7), 1, (8, 5, 7)),
        ((6, 8, 5, 7, 2), 2, (8, 5, 7)),
        ((6, 1, 1), 1, (1, 1)),
    ],
)
def test_layouts(path: Path, shape: tuple[int, ...], channels: int, spatial: tuple[int, ...]) -> None:
    images = RNG.integers(0, 256, shape, dtype=np.uint8)
    data = read_npz(save(path, images=images, labels=LABELS))
    assert (data.channels, data.spatial, data.groups, data.source) == (channels, spatial, None, path)
    stored = data.tensors()[0].movedim(1, -1).numpy()
    assert np.array_equal(stored.reshape(shape), images)
    assert data.classes == ("0", "1", "2")


def test_names_groups_depths_and_order(path: Path) -> None:
    facts = {"labels": LABELS[:, None].astype(np.uint8), "groups": list("abcabc"), "classes": ["x", "y", "z", "spare"]}
    data = read_npz(save(path, images=GREY, **facts))
    assert data.groups is not None
    assert data.groups.tolist() == list("abcabc")
    assert data.classes == ("x", "y", "z", "spare")
    byte_names = np.array([b"p", b"q", b"r"])
    for images in (np.asfortranarray(GREY), GREY.astype(np.uint16) * 257, GREY / 255, (GREY / 255).astype(">f4")):
        other = read_npz(save(path, images=images, labels=LABELS, classes=byte_names))
        assert np.array_equal(other.tensors()[0][:, 0], GREY)
        assert other.classes == ("p", "q", "r")


def test_medmnist(path: Path) -> None:
    sets = {
        "train_images": GREY, "train_labels": LABELS[:, None].astype(np.uint8),
        "val_images": GREY[:2], "val_labels": np.array([[1], [0]]),
        "val_groups": np.array([4, 5]),
    }  # fmt: skip
    save(path, **sets)
    assert splits_in_npz(path) == ("train", "val")
    assert len(read_npz(path)) == 6
    val = read_npz(path, "val")
    # The labels of val reach 1 only; the classes are those of all splits.
    assert (val.labels.tolist(), val.classes) == ([1, 0], ("0", "1", "2"))
    assert val.groups is not None
    with pytest.raises(DataError, match="has no 'test' split; it has 'train', 'val'"):
        read_npz(path, "test")


def test_undivided_has_only_train(path: Path) -> None:
    save(path, images=GREY, labels=LABELS)
    assert splits_in_npz(path) == ()
    with pytest.raises(DataError, match="undivided"):
        read_npz(path, "val")


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"labels": LABELS}, "has neither 'images' nor MedMNIST's 'train_images'; it has 'labels'"),
        ({"images": GREY, "label": LABELS}, "has no array 'labels'; it has 'images', 'label'"),
        ({"images": GREY, "labels": LABELS[:5]}, "6 images, but 'labels' has the length"),
        ({"images": GREY, "labels": LABELS, "groups": LABELS[:5]}, "6 images, but 'groups' has the length"),
        ({"images": GREY, "labels": np.eye(6, dtype=int)}, "6 labels an image"),
        ({"images": GREY, "labels": LABELS - 1}, "negative label"),
        ({"images": GREY, "labels": LABELS / 2}, "labels are float64"),
        ({"images": GREY, "labels": np.array(list("abcabc"))}, "labels are <U1"),
        ({"images": GREY, "labels": LABELS + 2**40}, "at most 10000 classes"),
        ({"images": GREY, "labels": LABELS, "classes": ["a\ud800", "b", "c"]}, "'classes' is not text"),
        ({"images": GREY, "labels": LABELS, "classes": ["a", "b"]}, "2 class names, but labels up to 2"),
        ({"images": GREY, "labels": LABELS, "classes": [1, 2, 3]}, "save a list of short strings"),
        ({"images": GREY, "labels": LABELS, "groups": LABELS / 2}, "groups are float64"),
        ({"images": GREY, "labels": LABELS, "groups": np.zeros((6, 2), int)}, "groups have the shape"),
        ({"images": GREY + 0j, "labels": LABELS}, "pixels are complex128"),
        ({"images": GREY.astype(str), "labels": LABELS}, "pixels are <U3"),
        ({"images": GREY.astype(int), "labels": LABELS}, "pixels are int64"),
        ({"images": GREY * np.nan, "labels": LABELS}, "NaN"),
        ({"images": GREY * 1.0, "labels": LABELS}, "not all within 0…1"),
        ({"images": GREY[0], "labels": LABELS}, "images have the shape"),
        ({"images": GREY[:, :0], "labels": LABELS}, "images have the shape"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "holds no images"),
        ({"images": np.zeros((6, 3, 9, 9), np.uint8), "labels": LABELS}, "channels belong last"),
        ({"images": np.zeros((6, 9, 9, 9, 9), np.uint8), "labels": LABELS}, "channels belong last"),
        ({"images": np.zeros((6, 20, 20, 5), np.uint8), "labels": LABELS}, "channels belong last, and are at most 4"),
        ({"images": GREY, "labels": np.array(3)}, "'labels' has the length"),
        ({"images": GREY, "labels": LABELS.astype(object)}, "Python objects, which are never loaded"),
        ({"images": GREY.astype(object), "labels": LABELS}, "Python objects, which are never loaded"),
    ],
)
def test_refused(path: Path, arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read_npz(save(path, **arrays))
    assert reason in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")


def test_not_a_file(tmp_path: Path) -> None:
    for name, content in (("empty.npz", b""), ("text.npz", b"not a zip"), ("array.npz", npy(GREY))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="is not an NPZ file or is truncated"):
            read_npz(tmp_path / name)
    for missing in (tmp_path, tmp_path / "no.npz"):
        with pytest.raises(DataError, match="no such file"):
            read_npz(missing)


def test_small_file_that_claims_much(path: Path) -> None:
    """The header alone is enough to refuse."""
    save_raw(path, images=npy_header("|u1", (10**6, 10**4, 10**4)) + b"few", labels=npy(LABELS))
    with pytest.raises(DataError, match="takes 100000000000000 bytes, 3 are stored"):
        read_npz(path)
    save_raw(path, images=npy_header("|u1", (6, -5, -7)) + GREY.tobytes(), labels=npy(LABELS))
    with pytest.raises(DataError, match="impossible shape"):
        read_npz(path)
    save_raw(path, images=npy_header("<U1000000000", (6, 5, 7)), labels=npy(LABELS))
    with pytest.raises(DataError, match="is damaged"):
        read_npz(path)


def test_zip_bomb(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that really unpacks to more than the limit is refused before anything is unpacked."""
    save(path, images=np.zeros((6, 1000, 1000), np.uint8), labels=LABELS)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(npz, "byte_limit", lambda: 5_999_999)
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: LABELS)
    with pytest.raises(DataError, match="more than is accepted"):
        read_npz(path)


def test_wide_class_names_refused(path: Path) -> None:
    save(path, images=GREY, labels=LABELS, classes=np.array(["x" * 2_000_000, "y", "z"]))
    with pytest.raises(DataError, match="short strings"):
        read_npz(path)


def test_damaged_text_refused(path: Path) -> None:
    for name in ("classes", "groups"):
        text = npy_header("<U1", (6,)) + b"\xff" * 24
        save_raw(path, images=npy(GREY), labels=npy(LABELS), **{name: text})
        with pytest.raises(DataError, match="not text"):
            read_npz(path)
    save(path, images=GREY, labels=LABELS, classes=np.array([b"\xff", b"a", b"b"]))
    with pytest.raises(DataError, match="not text"):
        read_npz(path)


def test_odd_archives_refused(path: Path) -> None:
    future = b"\x93NUMPY\x09\x00" + npy(GREY)[8:]
    save_raw(path, images=future, labels=npy(LABELS))
    with pytest.raises(DataError, match="unsupported NPY version"):
        read_npz(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", npy(GREY))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("images.npy", npy(GREY))
    with pytest.raises(DataError, match="two arrays of the same name"):
        read_npz(path)
    save_raw(path, images=npy(GREY), labels=npy(LABELS))
    raw = bytearray(path.read_bytes())
    # Mark both copies of the first entry's flags as encrypted.
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.index(signature) + offset
        struct.pack_into("<H", raw, at, struct.unpack_from("<H", raw, at)[0] | 1)
    path.write_bytes(raw)
    with pytest.raises(DataError, match="encrypted"):
        read_npz(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_refused(path: Path, method: int) -> None:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("images.npy", npy(GREY))
    with pytest.raises(DataError, match="other than deflate"):
        read_npz(path)


def test_wrong_checksum_refused(path: Path) -> None:
    np.savez(path, images=GREY, labels=LABELS)
    raw = path.read_bytes()
    at = raw.index(GREY.tobytes())
    path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
    with pytest.raises(DataError, match="CRC"):
        read_npz(path)


def test_header_reads_no_data(path: Path) -> None:
    with NpzFile(save(path, images=GREY, labels=LABELS)) as file:
        header = file.header("images")
        assert (header.shape, header.dtype, header.nbytes) == ((6, 5, 7), np.dtype(np.uint8), 210)
        assert sorted(file.names) == ["images", "labels"]


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    folder = tmp_path_factory.mktemp("fuzz")
    contents = []
    facts: dict[str, Any] = {
        "images": GREY,
        "labels": LABELS,
        "groups": np.array(list("abcdef")),
        "classes": list("xyz"),
    }
    for write in (np.savez, np.savez_compressed):
        write(folder / "good.npz", **facts)
        contents.append((folder / "good.npz").read_bytes())
    return folder / "bad.npz", contents


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fuzz(fuzzed: tuple[Path, list[bytes]], data: st.DataObject) -> None:
    """Whatever is cut off or changed: a data set or DataError, nothing else."""
    path, contents = fuzzed
    raw = bytearray(data.draw(st.sampled_from(contents)))
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))])
    refused = ""
    try:
        result = read_npz(path)
    except DataError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
    else:
        assert isinstance(result, ArrayDataset)
        assert result.tensors()[0].shape[0] == len(result) == len(result.labels)
        result.fingerprint()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_fuzzed_headers(fuzzed: tuple[Path, list[bytes]], data: st.DataObject) -> None:
    """The same inside a sound archive, where no checksum tells."""
    path = fuzzed[0]
    members = {"images": npy(GREY), "labels": npy(LABELS), "groups": npy(np.array(list("abcdef")))}
    name = data.draw(st.sampled_from(sorted(members)))
    raw = bytearray(members[name])
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, 79))] = data.draw(st.integers(0, 255))
    refused = ""
    try:
        result = read_npz(save_raw(path, **(members | {name: bytes(raw)})))
    except DataError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
    else:
        assert len(result) == 6
        result.fingerprint()
