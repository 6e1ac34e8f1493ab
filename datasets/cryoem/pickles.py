"""Pickles that hold NumPy arrays and nothing else, read without running anything that is in them.

A pickle is a program, and one that names the functions it calls. Here the only ones it may name are those that are
written for arrays, and even these are not NumPy's own, which believe what they are told of sizes and kinds of numbers,
but stand-ins that check it. What may be inside: arrays of integers and floats, tuples, lists and numbers.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from parteq.datasets.errors import DataError

__all__ = ["read_arrays", "write_arrays"]

_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"),
    *("GET", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2", "LONG1", "FLOAT", "BINFLOAT"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}


class _DType:
    """Stands for `numpy.dtype`: integers and floats alone."""

    def __init__(self, kind: str, *_: object) -> None:
        self.dtype = np.dtype(str(kind))
        if self.dtype.kind not in "iuf":
            raise pickle.UnpicklingError(f"an array of {self.dtype} is not one of numbers")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("an array has no byte order")
        self.dtype = self.dtype.newbyteorder(order)


class _Array:
    """Stands for `numpy.ndarray`, which is made empty and then told what it holds."""

    values: NDArray[Any]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, stored = state
        self.values = _array(stored, dtype, shape, "F" if is_fortran else "C").values


def _array(stored: object, dtype: object, shape: object, order: object) -> _Array:
    """An array from its bytes; stands for `numpy.core.numeric._frombuffer`."""
    if not (isinstance(stored, bytes | bytearray) and isinstance(dtype, _DType) and isinstance(shape, tuple)):
        raise pickle.UnpicklingError("an array is not made of bytes")
    if not all(type(length) is int and length >= 0 for length in shape) or order not in ("C", "F"):
        raise pickle.UnpicklingError(f"an array has the impossible shape {shape}")
    if math.prod(shape) * dtype.dtype.itemsize != len(stored):
        raise pickle.UnpicklingError(f"an array of shape {list(shape)} has {len(stored)} bytes")
    array = _Array()
    array.values = np.frombuffer(stored, dtype.dtype).reshape(shape, order="F" if order == "F" else "C")
    return array


class _Empty:
    """Stands for `numpy.core.multiarray._reconstruct` and the class it is called with."""

    def __new__(cls, *_: object) -> Any:
        return _Array()


def _encoded(text: str, encoding: str) -> bytes:
    """Bytes, as pickles of protocols 0 to 2 write them; stands for `_codecs.encode`."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are written as latin1, not as {encoding}")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """Stands for `bytes` without arguments."""
    return b""


_STAND_INS: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _Empty,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encoded,
    ("__builtin__", "bytes"): _no_bytes,
}
for _core in ("numpy.core", "numpy._core"):
    _STAND_INS |= {
        (f"{_core}.multiarray", "_reconstruct"): _Empty,
        (f"{_core}.numeric", "_frombuffer"): _array,
    }


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """The stand-in of a name. Raises UnpicklingError for any other."""
        if (module, name) not in _STAND_INS:
            raise pickle.UnpicklingError(f"it names {module}.{name}, and is not run")
        return _STAND_INS[module, name]


def read_arrays(path: Path) -> tuple[NDArray[Any], ...]:
    """The arrays of a pickle that holds one, or a tuple or list of them.

    Raises:
        DataError: no such file; not a pickle, or damaged; anything but arrays of numbers.
    """
    if not path.is_file():
        raise DataError(path, "no such file")
    data = path.read_bytes()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            # A place in the memo beyond what any pickle of this length needs would take memory without end.
            if opcode.name not in _OPCODES or (opcode.name in _PUTS and int(argument or 0) > len(data)):
                raise pickle.UnpicklingError(f"it holds {opcode.name}, which arrays do not need")
        found = _Unpickler(io.BytesIO(data)).load()
    except Exception as error:
        # Any type: unpickling hostile bytes raises whatever the calls in them do.
        raise DataError(path, f"is not a pickle of arrays ({error})") from error
    parts = found if isinstance(found, tuple | list) else (found,)
    if not parts or not all(isinstance(part, _Array) and hasattr(part, "values") for part in parts):
        raise DataError(path, "is not a pickle of arrays")
    return tuple(part.values for part in parts)


def write_arrays(path: Path, arrays: NDArray[Any] | tuple[NDArray[Any], ...]) -> None:
    """Writes a pickle of one array, or of a tuple of them."""
    with path.open("wb") as stream:
        pickle.dump(arrays, stream, protocol=4)
