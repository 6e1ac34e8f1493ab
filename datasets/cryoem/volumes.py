"""The volume that images are made of: a map or an atomic model, on the grid asked for."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from parteq.datasets.cryoem.mrc import read_volume
from parteq.datasets.cryoem.potential import MODEL_SUFFIXES, potential_of_model
from parteq.datasets.cryoem.resampling import resample
from parteq.datasets.errors import DataError

__all__ = ["is_model", "open_volume"]


def is_model(path: Path) -> bool:
    """Whether a file is an atomic model, by its name."""
    return path.name.lower().endswith(MODEL_SUFFIXES)


def open_volume(
    path: Path,
    box: int | None = None,
    pixel_size_in_angstroms: float | None = None,
    *,
    assembly: str | None = None,
    b_factor: float | None = None,
    align: bool = False,
) -> tuple[Float32[np.ndarray, "box box box"], float]:
    """A volume on a grid of `box` voxels of this size, and the size of its voxels in Å.

    A map is resampled. Where only one of the two is given, the other follows from the field of view, which stays as
    it is. A map whose header gives no voxel size is taken to fill the field of view asked for.

    Args:
        path: an MRC map, or an atomic model in PDB or mmCIF form.
        box: voxels along an edge; needed for a model.
        pixel_size_in_angstroms: size of a voxel; needed for a model.
        assembly: of a model, see `potential_of_model`.
        b_factor: of a model.
        align: of a model.

    Raises:
        DataError: the file cannot be used, or a model comes without grid or does not fit it.
    """
    if is_model(path):
        if box is None or pixel_size_in_angstroms is None:
            raise DataError(path, "is an atomic model: say on which grid to put it, with --box and --pixel-size")
        volume = potential_of_model(
            path, box, pixel_size_in_angstroms, assembly=assembly, b_factor=b_factor, align=align
        )
        return volume, pixel_size_in_angstroms
    volume, said = read_volume(path)
    old_box = volume.shape[-1]
    if said is not None:
        old_pixel_size = said
    elif pixel_size_in_angstroms is None:
        old_pixel_size = 1.0
        warnings.warn(f"{path} says no voxel size, nor does --pixel-size: 1 Å is assumed", stacklevel=2)
    else:
        old_pixel_size = pixel_size_in_angstroms * (box or old_box) / old_box
        told = f"it is taken to fill the box, with voxels of {old_pixel_size:.4g} Å"
        warnings.warn(f"{path} says no voxel size: {told}", stacklevel=2)
    field_of_view = old_box * old_pixel_size
    if box is None:
        box = old_box if pixel_size_in_angstroms is None else 2 * round(field_of_view / pixel_size_in_angstroms / 2)
    new_pixel_size = pixel_size_in_angstroms or field_of_view / box
    return resample(volume, old_pixel_size, box, new_pixel_size), new_pixel_size
