"""QM9, the small molecules of Ramakrishnan et al. (2014), from any of the files it is passed around in.

Whatever the file, the targets bear the same names and have the units that QM9 was published in. A molecule is known by
its row in the whole set of 130,831, where the file tells it: that is its name and, so that no molecule is both trained
on and held out, its family.
"""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from parteq.datasets.errors import DataError
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.elements import ELEMENTS, element_features
from parteq.datasets.points.npz import read_npz_clouds
from parteq.datasets.points.qm9pack import read_qm9pack

__all__ = ["read_qm9"]

# Molecules of the whole set, without those whose geometry is in doubt.
_WHOLE = 130_831
_ELECTRONVOLTS = 27.211386246
# The first twelve targets of PyG's, by the name and unit of publication, and what one such unit is in PyG's.
_PYG_TARGETS = {
    "mu_debye": 1.0,
    "alpha_bohr3": 1.0,
    "homo_hartree": _ELECTRONVOLTS,
    "lumo_hartree": _ELECTRONVOLTS,
    "gap_hartree": _ELECTRONVOLTS,
    "r2_bohr2": 1.0,
    "zpve_hartree": _ELECTRONVOLTS,
    "u0_hartree": _ELECTRONVOLTS,
    "u298_hartree": _ELECTRONVOLTS,
    "h298_hartree": _ELECTRONVOLTS,
    "g298_hartree": _ELECTRONVOLTS,
    "cv_cal_mol_K": 1.0,
}


class _Unused:
    """Stands for the class that PyG names in its files, and which is not needed."""


def read_qm9(path: str | os.PathLike[str]) -> ArrayClouds:
    """Read QM9.

    Args:
        path: an NPZ file as `read_npz_clouds` reads it; `data_v3.pt` as PyG 2.4 and later processes it, or PyG's
            `qm9_v3.pt`; the wheel `qm9pack-….whl`, the folder of its `qm9_part1.csv`, …, or one of those files.

    Returns:
        Molecules with one-hot elements; positions in Å.

    Raises:
        DataError: the file is none of these, is damaged, or holds Python objects: files of older PyG do, which are
            refused, as reading them would run what they say.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(path, "no such file or folder")
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return read_npz_clouds(path)
    if suffix in (".pt", ".pth"):
        return _read_pyg(path)
    if path.is_dir() or suffix in (".whl", ".csv"):
        return read_qm9pack(path)
    raise DataError(path, "is not QM9 as .npz, as PyG's .pt, or as the wheel qm9pack")


def _load(path: Path) -> Any:
    """What torch reads without running code of the file."""
    try:
        with torch.serialization.safe_globals([(_Unused, "torch_geometric.data.data.Data")]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "holds Python objects, which are refused: let PyG 2.4 or later process QM9 anew, or use its qm9_v3.pt"
        raise DataError(path, reason) from error
    except Exception as error:
        # Any type: torch's readers raise OSError, EOFError, RuntimeError, ValueError, …
        raise DataError(path, f"is not a file of torch, or is damaged ({type(error).__name__})") from error


def _read_pyg(path: Path) -> ArrayClouds:
    content = _load(path)
    if isinstance(content, list):
        arrays = _of_list(path, content)
    elif isinstance(content, tuple) and len(content) in (2, 3) and all(isinstance(part, dict) for part in content[:2]):
        arrays = _of_collated(path, content[0], content[1])
    else:
        raise DataError(path, "is not QM9 as PyG 2.4 or later writes it")
    numbers, positions, sizes, targets = arrays
    if targets.ndim != 2 or targets.shape[1] < len(_PYG_TARGETS):
        raise DataError(path, f"has targets of the shape {list(targets.shape)} instead of [N, 19]")
    rows = np.arange(len(sizes)) if len(sizes) == _WHOLE else None
    return ArrayClouds(
        positions,
        sizes,
        features=element_features(numbers, path),
        feature_names=ELEMENTS,
        source=path,
        unit="Å",
        targets=targets[:, : len(_PYG_TARGETS)].astype(np.float64) / np.array(list(_PYG_TARGETS.values())),
        target_names=tuple(_PYG_TARGETS),
        families=rows,
        names=None if rows is None else [str(row) for row in rows],
    )


_Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]


def _of_list(path: Path, molecules: list[Any]) -> _Arrays:
    """Numbers, positions, sizes and targets of the molecules of `qm9_v3.pt`, a dictionary each."""
    try:
        numbers, positions, targets = (torch.cat([m[key] for m in molecules]).numpy() for key in ("z", "pos", "y"))
        sizes = np.array([len(molecule["z"]) for molecule in molecules])
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise DataError(path, f"is a list, but not of molecules as in qm9_v3.pt ({error})") from error
    return numbers, positions, sizes, targets


def _of_collated(path: Path, data: dict[str, Any], slices: dict[str, Any]) -> _Arrays:
    """Numbers, positions, sizes and targets of `data_v3.pt`, whose slices say where each molecule begins."""
    try:
        numbers, positions, targets = (data[key].numpy() for key in ("z", "pos", "y"))
        sizes = np.diff(slices["z"].numpy())
    except (TypeError, KeyError, ValueError, RuntimeError, AttributeError) as error:
        raise DataError(path, f"lacks atoms, positions, targets or slices of QM9 ({error})") from error
    return numbers, positions, sizes, targets
