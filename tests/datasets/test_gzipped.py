"""Unpacking: the whole file or none, whatever the packed one claims."""

from __future__ import annotations

import errno
import gzip
import hashlib
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parteq.datasets import gzipped
from parteq.datasets.errors import DataError
from parteq.datasets.gzipped import unpack

DATA = os.urandom(50_000)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    path = tmp_path / "x.h5.gz"
    path.write_bytes(gzip.compress(DATA))
    return path


def refusal(path: Path, largest: int = 10**6, signature: bytes = b"") -> str:
    """Why it is refused; nothing may be left behind."""
    with pytest.raises(DataError) as caught:
        unpack(path, largest, signature)
    assert os.listdir(path.parent) == [path.name]
    assert str(caught.value).isprintable()
    return caught.value.reason


def test_once(packed: Path) -> None:
    assert unpack(packed, len(DATA), DATA[:8]) == hashlib.md5(packed.read_bytes()).hexdigest()
    assert packed.with_suffix("").read_bytes() == DATA
    assert sorted(os.listdir(packed.parent)) == ["x.h5", "x.h5.gz"]
    packed.with_suffix("").write_bytes(b"kept")
    assert unpack(packed, len(DATA)) is None
    assert packed.with_suffix("").read_bytes() == b"kept"


def test_what_a_killed_process_left_is_no_hindrance(packed: Path) -> None:
    (packed.parent / ".x.h5.part").write_bytes(b"half")
    unpack(packed, len(DATA))
    assert packed.with_suffix("").read_bytes() == DATA
    assert sorted(os.listdir(packed.parent)) == ["x.h5", "x.h5.gz"]


def test_damage(packed: Path) -> None:
    whole = packed.read_bytes()
    for raw in (
        whole[:-2000],
        whole[:-1],
        b"",
        b"\x1f\x8b",
        gzip.compress(b""),
        DATA,
        whole + b"junk",
        whole[:-4] + b"\xff" * 4,
    ):
        packed.write_bytes(raw)
        assert refusal(packed).startswith(("is not a gzip file, or is cut off", "is empty"))


def test_lies_and_bombs(packed: Path) -> None:
    assert refusal(packed, len(DATA) - 1) == "unpacks to more than 49,999 bytes, which is refused"
    assert refusal(packed, signature=b"\x89HDF") == "does not hold the kind of file that its name promises"
    packed.write_bytes(gzip.compress(bytes(10**7)))
    assert "unpacks to more than" in refusal(packed)


def test_no_room(packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(packed.parent)
    monkeypatch.setattr(gzipped.shutil, "disk_usage", lambda _: usage._replace(free=2**26))
    assert "0.1 GiB are free" in refusal(packed)
    monkeypatch.undo()

    def full(*_: object) -> str:
        (packed.parent / ".x.h5.part").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(gzipped, "_copy", full)
    assert (
        refusal(packed) == "cannot be unpacked beside itself (No space left on device): use gunzip where there is room"
    )


def test_two_processes(packed: Path) -> None:
    """One unpacks, the other waits and finds the file."""
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        sums = pool.starmap(unpack, [(packed, len(DATA))] * 2)
    assert sorted(map(str, sums)) == sorted([hashlib.md5(packed.read_bytes()).hexdigest(), "None"])
    assert packed.with_suffix("").read_bytes() == DATA


@given(data=st.data())
@settings(max_examples=100)
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "gzip-fuzz"
    folder.mkdir(exist_ok=True)
    raw = bytearray(gzip.compress(DATA[:500]))
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = folder / "x.gz"
    path.write_bytes(raw[: data.draw(st.integers(0, len(raw)))])
    refused = ""
    try:
        unpack(path, 1000)
    except DataError as error:
        refused = str(error)
    if refused:
        assert refused.isprintable()
        assert os.listdir(folder) == ["x.gz"]
    else:
        # The checksum is of the content alone: bytes of the header may change.
        assert (folder / "x").read_bytes() == DATA[:500]
        (folder / "x").unlink()
