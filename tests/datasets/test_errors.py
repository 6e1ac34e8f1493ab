"""DataError is one printable line, survives pickling, and comes back out of a DataLoader's worker."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch._utils import ExceptionWrapper

from parteq.datasets.errors import DataError


@given(st.text(), st.text())
def test_one_printable_line(path: str, reason: str) -> None:
    assert str(DataError(path, reason)).isprintable()


def test_message_and_pickle() -> None:
    error = pickle.loads(pickle.dumps(DataError(Path("x.npz"), "is\n  damaged")))
    assert str(error) == "x.npz: is damaged"
    assert error.path == Path("x.npz")


def test_from_worker() -> None:
    # What a worker does with an exception, and then the process that waits for it.
    try:
        raise DataError("a b.h5", "is damaged: at 5")
    except DataError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(RuntimeError) as caught:
        pickle.loads(pickle.dumps(wrapper)).reraise()
    assert str(DataError.from_worker(caught.value)) == "a b.h5: is damaged: at 5"
    assert DataError.from_worker(RuntimeError("something else: entirely")) is None
