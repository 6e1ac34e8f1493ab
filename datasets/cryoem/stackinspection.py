"""What is to be known of the stacks and images of a set of particles, and what may be wrong with them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from parteq.datasets.cryoem.inspection import Inspection, listed, rows_of
from parteq.datasets.cryoem.mrc import MrcHeader, read_header
from parteq.datasets.cryoem.particles import Particles
from parteq.datasets.cryoem.stack import ImageStack
from parteq.datasets.errors import DataError
from parteq.datasets.splits import evenly_spread

__all__ = ["inspect_file", "inspect_images", "inspect_stacks"]

# Pixel sizes that differ by more than this share are not those of one set of images.
_SAME_PIXEL_SIZE = 0.01
# Standard errors from zero at which the sign of the contrast counts as known.
_SURE = 3.0


def inspect_stacks(particles: Particles, found: Inspection) -> ImageStack | None:
    """Adds which stacks are missing, damaged, too short, or of other sizes than the table says.

    Returns:
        The images that are there, None if there are none.
    """
    found.numbers |= {"stacks": 0, "missing_stacks": 0, "damaged_stacks": 0, "images_out_of_range": 0}
    try:
        paths, files, numbers_in_file = particles.image_places()
    except DataError as error:
        found.problems.append(error.reason)
        return None
    missing = [path for path in paths if not path.is_file()]
    headers: dict[int, MrcHeader] = {}
    damaged = []
    for number, path in enumerate(paths):
        try:
            if path.is_file():
                headers[number] = read_header(path)
        except DataError as error:
            damaged.append(str(error))
    found.flag(missing, f"stacks are missing in {particles.image_folder}: {listed([path.name for path in missing])}")
    found.flag(damaged, f"stacks are damaged: {listed(damaged)}")
    lengths = np.array([headers[n].shape[0] if n in headers else np.iinfo(np.int64).max for n in range(len(paths))])
    beyond = numbers_in_file >= lengths[files]
    found.flag(beyond.any(), f"images are asked for that their stack does not have, in {rows_of(beyond)}")
    _inspect_headers(particles, files, headers, found)
    found.numbers |= {
        "stacks": len(paths),
        "missing_stacks": len(missing),
        "damaged_stacks": len(damaged),
        "images_out_of_range": int(beyond.sum()),
    }
    images = {n: header for n, header in headers.items() if not header.is_transposed}
    usable = np.isin(files, [n for n, header in images.items() if header.shape[1] == header.shape[2]]) & ~beyond
    if not usable.any():
        return None
    # Those of one size, the size of the first.
    size = headers[int(files[usable][0])].shape[2]
    usable &= np.isin(files, [n for n, header in images.items() if header.shape[1:] == (size, size)])
    kept, unique = np.unique(files[usable], return_inverse=True)
    return ImageStack([paths[n] for n in kept], unique, numbers_in_file[usable])


def _inspect_headers(
    particles: Particles, files: NDArray[np.int64], headers: dict[int, MrcHeader], found: Inspection
) -> None:
    """Compares the sizes that headers say with those of the table."""
    flat = [header.path.name for header in headers.values() if header.shape[1] != header.shape[2]]
    found.flag(flat, f"images are not square in {listed(flat)}")
    transposed = [header.path.name for header in headers.values() if header.is_transposed]
    found.flag(transposed, f"headers map the axes to others than 1, 2, 3 in {listed(transposed)}")
    try:
        sizes, box = particles.pixel_size_in_angstroms(), particles.box_in_pixels()
    except DataError:
        # In the list already, from the tables.
        return
    other = [header.path.name for header in headers.values() if header.shape[2] != box]
    found.flag(other, f"images are not of the {box} pixels that the file says, in {listed(other)}")
    # The first particle of each stack speaks for the others in it.
    stacks, first = np.unique(files, return_index=True)
    pairs = [(headers[n], float(sizes[row])) for n, row in zip(stacks.tolist(), first, strict=True) if n in headers]
    wrong = [
        f"{header.pixel_size_in_angstroms:.4g} Å in {header.path.name}, {size:.4g} Å in {particles.source.name}"
        for header, size in pairs
        if header.pixel_size_in_angstroms is not None
        and abs(header.pixel_size_in_angstroms / size - 1) > _SAME_PIXEL_SIZE
    ]
    found.numbers["pixel_size_mismatches"] = len(wrong)
    found.flag(wrong, f"stacks say another pixel size: {listed(wrong)}")


def inspect_images(
    images: ImageStack, n: int, found: Inspection, progress: Callable[[Sequence[int]], Any] = list
) -> None:
    """Adds what some of the images look like: NaN, and whether particles are bright or dark.

    The contrast of an image is the mean inside a disk about its centre, of half the box across, minus the mean
    outside a circle of 90 % of the box, over the standard deviation out there. Its sign is that of the mean over the
    images, if that is more than 3 standard errors away from zero. RELION wants bright particles.

    Args:
        images: all of them.
        n: how many to look at, evenly spread; 0 for all.
        found: to be added to.
        progress: wraps what is iterated over.
    """
    chosen = evenly_spread(len(images), n or len(images))
    damaged, contrasts = [], []
    for index in progress(chosen.tolist()):
        try:
            contrasts.append(_contrast(images.read([index])[0]))
        except DataError as error:
            damaged.append(str(error))
    found.flag(damaged, f"images are damaged: {listed(damaged)}")
    mean = float(np.mean(contrasts)) if contrasts else 0.0
    uncertainty = float(np.std(contrasts) / math.sqrt(len(contrasts))) if contrasts else 0.0
    sure = abs(mean) > _SURE * uncertainty and mean != 0
    found.numbers |= {
        "images_looked_at": len(chosen),
        "damaged_images": len(damaged),
        "contrast": ("bright" if mean > 0 else "dark") if sure else "unclear",
        "contrast_mean": mean,
        "contrast_standard_error": uncertainty,
    }
    found.flag(sure and mean < 0, "particles are darker than the background: RELION wants them bright")


def _contrast(image: Float[np.ndarray, "d d"]) -> float:
    box = len(image)
    radius = np.hypot(*np.meshgrid(*[np.arange(box) - box // 2] * 2)) / box
    inside, outside = image[radius <= 0.25], image[radius >= 0.45]
    difference = inside.mean(dtype=np.float64) - outside.mean(dtype=np.float64)
    return float(difference / (outside.std(dtype=np.float64) or 1.0))


def inspect_file(path: Path, found: Inspection) -> ImageStack:
    """Adds what the header of a stack says that no table belongs to, and returns its images."""
    images = ImageStack.open(path)
    found.numbers |= {
        "n_particles": len(images),
        "box": images.box,
        "pixel_size_angstrom": images.pixel_size_in_angstroms,
        "stacks": 1,
    }
    found.flag(images.pixel_size_in_angstroms is None, "the header says no pixel size")
    found.flag(images.box % 2, f"the box of {images.box} pixels is odd, which some programs refuse")
    return images
