"""Pickles of arrays are read; whatever else is in a pickle is refused, and never run."""

from __future__ import annotations

import os
import pickle
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parteq.datasets.cryoem.pickles import read_arrays, write_arrays
from parteq.datasets.errors import DataError

ARRAYS = (np.arange(18.0).reshape(2, 3, 3), np.ones((2, 2), dtype=np.float32))


class Hostile:
    """Unpickled as usual, it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("module", ["numpy.core", "numpy._core"])
def test_arrays_of_every_protocol(tmp_path: Path, protocol: int, module: str) -> None:
    path = tmp_path / "a.pkl"
    values = (*ARRAYS, np.asfortranarray(ARRAYS[0]), np.arange(3, dtype=">i4"), np.zeros((0, 2)))
    content = pickle.dumps(values, protocol=protocol)
    # NumPy 2 writes other names; those of protocol 4 have their length in front.
    short, long = b"\x8c\x15numpy.core.multiarray", b"\x8c\x16numpy._core.multiarray"
    if module == "numpy._core":
        content = content.replace(short, long).replace(b"cnumpy.core", b"cnumpy._core")
        content = content.replace(b"\x8c\x12numpy.core.numeric", b"\x8c\x13numpy._core.numeric")
        if protocol > 3:
            # The frame is longer now.
            content = content[:2] + b"\x95" + struct.pack("<Q", len(content) - 11) + content[11:]
    path.write_bytes(content)
    found = read_arrays(path)
    assert len(found) == len(values)
    for one, other in zip(found, values, strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    write_arrays(path, ARRAYS)
    with path.open("rb") as stream:
        assert isinstance(pickle.load(stream), tuple)
    for one, other in zip(read_arrays(path), ARRAYS, strict=True):
        np.testing.assert_array_equal(one, other)
    write_arrays(path, ARRAYS[0])
    np.testing.assert_array_equal(read_arrays(path)[0], ARRAYS[0])


def test_nothing_is_run(tmp_path: Path) -> None:
    path, made = tmp_path / "a.pkl", tmp_path / "made"
    for protocol in range(6):
        path.write_bytes(pickle.dumps((ARRAYS[0], Hostile(made)), protocol=protocol))
        with pytest.raises(DataError, match="is not a pickle of arrays"):
            read_arrays(path)
    assert not made.exists()


def array_of(dtype: bytes, state: bytes) -> bytes:
    """A pickle of an array of one number of 8 bytes whose type is told to have this state."""
    return (
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85C\x01btR(K\x01K\x01\x85cnumpy\ndtype\n"
        + b"(X"
        + struct.pack("<I", len(dtype))
        + dtype
        + b"K\x00K\x01tR"
        + state
        + b"K\x00C\x08ABCDEFGHtb."
    )


STATE = b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b".",
        pickle.dumps(3.5),
        pickle.dumps("text"),
        pickle.dumps({"a": ARRAYS[0]}),
        pickle.dumps(()),
        pickle.dumps((ARRAYS[0], "text")),
        pickle.dumps(np.array([1, "a"], dtype=object)),
        pickle.dumps(np.array(["text"])),
        pickle.dumps(ARRAYS)[:-20],
        # Bytes that pretend to be pointers to objects: NumPy's own type would believe it.
        array_of(b"O8", STATE.replace(b"<", b"|")),
        # A place in the memo that would take gigabytes to reach.
        b"\x80\x03K\x01r\xff\xff\xff\x7f.",
        # Types of arrays of their own, and lengths that are none.
        array_of(b"(9,)f8", STATE),
        array_of(b"f4", STATE),
        array_of(b"f8", STATE).replace(b"K\x01\x85cnumpy\ndtype", b"K\x02\x85cnumpy\ndtype"),
        b"\x80\x03cnumpy\nndarray\n.",
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\n)R.",
        b"\x80\x03cnumpy\ndtype\n)R.",
        b"c_codecs\nencode\n(Vtext\nVrot13\ntR.",
        b"c__builtin__\nbytes\n(I1000000000000\ntR.",
    ],
)
def test_refusals(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(content)
    with pytest.raises(DataError, match="is not a pickle of arrays"):
        read_arrays(path)


def test_the_array_that_the_refused_ones_are_made_from(tmp_path: Path) -> None:
    path = tmp_path / "a.pkl"
    path.write_bytes(array_of(b"f8", STATE))
    assert read_arrays(path)[0].tobytes() == b"ABCDEFGH"
    with pytest.raises(DataError, match="no such file"):
        read_arrays(tmp_path / "none.pkl")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(st.integers(0, 5), st.integers(0, 400), st.binary(min_size=1, max_size=5))
def test_mutated_bytes_raise_nothing_else(tmp_path: Path, protocol: int, offset: int, content: bytes) -> None:
    data = bytearray(pickle.dumps(ARRAYS, protocol=protocol))
    data[offset : offset + len(content)] = content
    path = tmp_path / "a.pkl"
    path.write_bytes(bytes(data))
    with suppress(DataError):
        assert all(array.dtype.kind in "iuf" for array in read_arrays(path))
