"""Stacks of particle images in MRC files: read by number, written one batch after another.

Images are read with positioned reads, not through a mapping: the pages of a mapping count as memory of the process,
and a file that is cut short while it is mapped ends the process without a word.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Float32
from numpy.typing import ArrayLike, NDArray

from parteq.datasets.cryoem.mrc import HEADER_BYTES, header_bytes, read_header
from parteq.datasets.errors import DataError
from parteq.datasets.files import replacing

__all__ = ["ImageStack", "StackWriter"]

_OPEN_FILES = 16
_LARGEST = 1e15  # of a pixel: its square, and sums of those over a stack, are numbers of 32 bits


class ImageStack:
    """N square images of one size, in one or more MRC files. Nothing but headers is read until `read`.

    May be pickled, and sent to the workers of a data loader.

    Args:
        paths: the files.
        file_numbers: [N], which of the files each image is in.
        image_numbers: [N], its place there, from 0.
        signs: [N], what each image is multiplied by, such as −1 where particles are dark; None for 1.

    Raises:
        DataError: a file is missing or no MRC file, or has fewer images; images are not square, of several sizes, or
            stored along other axes.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        file_numbers: ArrayLike,
        image_numbers: ArrayLike,
        signs: ArrayLike | None = None,
    ) -> None:
        self._headers = [read_header(path) for path in paths]
        self._file_numbers = np.asarray(file_numbers, dtype=np.int64)
        self._image_numbers = np.asarray(image_numbers, dtype=np.int64)
        self._signs = np.ones(len(self._image_numbers)) if signs is None else np.asarray(signs)
        self._signs = self._signs.astype(np.float32)
        self._handles: OrderedDict[int, int] = OrderedDict()
        self._check()

    def _check(self) -> None:
        for header in self._headers:
            if header.is_transposed:
                axes = [axis + 1 for axis in header.axes]
                raise DataError(header.path, f"its header maps the axes to {axes}: images are read as [1, 2, 3] alone")
            _, height, width = header.shape
            if height != width:
                raise DataError(header.path, f"its images have {height} rows of {width} pixels: they must be square")
            if width != self.box:
                raise DataError(
                    header.path, f"its images have {width} pixels, those of {self._headers[0].path.name} {self.box}"
                )
        lengths = np.array([header.shape[0] for header in self._headers])
        wrong = np.flatnonzero((self._image_numbers < 0) | (self._image_numbers >= lengths[self._file_numbers]))
        if len(wrong):
            header = self._headers[self._file_numbers[wrong[0]]]
            number = self._image_numbers[wrong[0]] + 1
            raise DataError(header.path, f"has {header.shape[0]} images, and number {number} is asked for")

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> ImageStack:
        """All images of one file. Raises DataError."""
        length = read_header(path).shape[0]
        return cls([Path(path)], np.zeros(length), np.arange(length))

    def __len__(self) -> int:
        return len(self._image_numbers)

    @property
    def box(self) -> int:
        """Rows and columns of an image."""
        return self._headers[0].shape[2]

    @property
    def pixel_size_in_angstroms(self) -> float | None:
        """What the header of the first file says, None if nothing."""
        return self._headers[0].pixel_size_in_angstroms

    def read(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> Float32[np.ndarray, "n box box"]:
        """Some of the images, in the order asked for.

        Raises:
            DataError: an image holds pixels that are NaN, infinite or so large that their squares are; a file was cut
                short or taken away in the meantime.
        """
        files, numbers = self._file_numbers[indices], self._image_numbers[indices]
        images = np.empty((len(numbers), self.box, self.box), dtype=np.float32)
        # In the order of the disk, each file opened once.
        for position in np.lexsort((numbers, files)):
            images[position] = self._image(int(files[position]), int(numbers[position]))
        # Also false for NaN.
        usable = (np.abs(images) < _LARGEST).all(axis=(1, 2))
        if not usable.all():
            first = int(np.argmin(usable))
            reason = f"image {numbers[first] + 1} holds pixels that are NaN, infinite or beyond {_LARGEST:g}"
            raise DataError(self._headers[files[first]].path, reason)
        images *= self._signs[indices, None, None]
        return images

    def _image(self, file: int, number: int) -> NDArray[np.number]:
        header = self._headers[file]
        size = self.box**2 * header.dtype.itemsize
        try:
            stored = os.pread(self._handle(file), size, header.offset + number * size)
        except OSError as error:
            raise DataError(header.path, error.strerror or str(error)) from error
        if len(stored) != size:
            raise DataError(header.path, "was cut short while it was read")
        return np.frombuffer(stored, header.dtype).reshape(self.box, self.box)

    def _handle(self, file: int) -> int:
        """A handle of a file; those used least recently are closed."""
        if file in self._handles:
            self._handles.move_to_end(file)
        else:
            if len(self._handles) == _OPEN_FILES:
                os.close(self._handles.popitem(last=False)[1])
            self._handles[file] = os.open(self._headers[file].path, os.O_RDONLY)
        return self._handles[file]

    def subset(self, indices: Sequence[int] | NDArray[np.integer] | slice) -> ImageStack:
        """The stack of some of the images."""
        stack = object.__new__(ImageStack)
        parts = self._file_numbers[indices], self._image_numbers[indices], self._signs[indices]
        stack.__setstate__((self._headers, *parts))
        return stack

    def close(self) -> None:
        """Closes the files; they open again when needed."""
        while self._handles:
            os.close(self._handles.popitem()[1])

    def __del__(self) -> None:
        if hasattr(self, "_handles"):
            self.close()

    def __getstate__(self) -> tuple[Any, ...]:
        return self._headers, self._file_numbers, self._image_numbers, self._signs

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._headers, self._file_numbers, self._image_numbers, self._signs = state
        self._handles = OrderedDict()


class StackWriter:
    """Writes a stack of float32 images, batch by batch. Use as a context manager.

    The file is there, whole, once the block has ended; if it raises, whatever was there before stays.

    Args:
        path: the file to write.
        box: rows and columns of an image.
        pixel_size_in_angstroms: for the header.

    Raises:
        DataError: the folder does not exist or cannot be written to, or the disk is full.
    """

    def __init__(self, path: str | os.PathLike[str], box: int, pixel_size_in_angstroms: float) -> None:
        self.path = Path(path)
        self.box = box
        self.pixel_size_in_angstroms = pixel_size_in_angstroms
        self._count = 0
        self._sums = np.zeros(2)
        self._extremes = (float("inf"), float("-inf"))

    def __enter__(self) -> StackWriter:
        with ExitStack() as closing:
            temporary = closing.enter_context(replacing(self.path))
            self._stream: BinaryIO = closing.enter_context(temporary.open("w+b"))
            self._stream.write(bytes(HEADER_BYTES))
            closing.push(self._finish)
            self._closing = closing.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.__exit__(kind, error, trace)

    def append(self, images: Float32[np.ndarray, "n box box"]) -> None:
        """Adds images at the end."""
        pixels = np.ascontiguousarray(images, dtype="<f4")
        if pixels.ndim != 3 or pixels.shape[1:] != (self.box, self.box):
            raise ValueError(f"images of shape {list(pixels.shape)} do not fit a stack of box {self.box}")
        if not len(pixels):
            return
        if not (np.abs(pixels) < _LARGEST).all():
            raise DataError(self.path, f"is not written: pixels have come out as NaN, infinite or beyond {_LARGEST:g}")
        self._stream.write(pixels.tobytes())
        self._count += len(pixels)
        self._sums += pixels.sum(dtype=np.float64), np.square(pixels, dtype=np.float64).sum()
        low, high = self._extremes
        self._extremes = min(low, float(pixels.min())), max(high, float(pixels.max()))

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Writes the header, now that it is known, unless something failed."""
        if kind is not None:
            return
        if not self._count:
            raise DataError(self.path, "no image to write")
        mean, mean_square = self._sums / (self._count * self.box**2)
        header = header_bytes(
            (self._count, self.box, self.box),
            self.pixel_size_in_angstroms,
            is_volume=False,
            extremes=self._extremes,
            mean=float(mean),
            deviation=float(max(mean_square - mean**2, 0.0) ** 0.5),
        )
        self._stream.seek(0)
        self._stream.write(header)
