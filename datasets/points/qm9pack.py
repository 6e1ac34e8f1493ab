"""QM9 as the wheel `qm9pack` packs it: tables of text, three of molecules and one of polarizabilities.

The polarizability tensors are not in the frame of the coordinates, so that only what does not depend on the frame is
read: the mean of the eigenvalues (a third of the trace), and the eigenvalues in ascending order.
"""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from parteq.datasets.errors import DataError
from parteq.datasets.points.base import ArrayClouds
from parteq.datasets.points.elements import ATOMIC_NUMBERS, ELEMENTS, element_features

__all__ = ["read_qm9pack"]

_PARTS = ("qm9_part1.csv", "qm9_part2.csv", "qm9_part3.csv")
_POLARIZABILITY = "qm9_polarizability.csv"
_COLUMNS = {
    "mu_debye": "Dipole_debye",
    "alpha_bohr3": "Polarizability_bohr3",
    "homo_hartree": "HOMO_au",
    "lumo_hartree": "LUMO_au",
    "gap_hartree": "HOMO_LUMO_gap_au",
    "r2_bohr2": "R2_bohr2",
    "zpve_hartree": "ZPVE_au",
    "u0_hartree": "InternalEnergy_0K_au",
    "u298_hartree": "InternalEnergy_298K_au",
    "h298_hartree": "Enthalphy_298K_au",
    "g298_hartree": "GibbsFreeEnergy_298K_au",
    "cv_cal_mol_K": "Heatcapacity_Cv_cal_mol_K",
}
_EIGENVALUES = ("alpha-mean_bohr3", "alpha-low_bohr3", "alpha-middle_bohr3", "alpha-high_bohr3")
_TENSOR = ("A_xx", "A_xy", "A_xz", "A_xy", "A_yy", "A_yz", "A_xz", "A_yz", "A_zz")
# Characters a table may have before it is taken for something else.
_MAX_BYTES = 2**28


@contextmanager
def _tables(path: Path) -> Iterator[dict[str, IO[str]]]:
    """The tables of the wheel, of the folder, or the one file, open, by name."""
    with ExitStack() as stack:
        found: dict[str, IO[str]] = {}
        if path.suffix.lower() == ".whl":
            archive = stack.enter_context(zipfile.ZipFile(path))
            for entry in archive.infolist():
                name = PurePosixPath(entry.filename).name
                if name in (*_PARTS, _POLARIZABILITY) and entry.file_size <= _MAX_BYTES:
                    found[name] = io.TextIOWrapper(stack.enter_context(archive.open(entry)), "utf-8")
        else:
            files = [path] if path.is_file() else [path / name for name in (*_PARTS, _POLARIZABILITY)]
            found = {file.name: stack.enter_context(file.open(encoding="utf-8")) for file in files if file.is_file()}
        if not found.keys() - {_POLARIZABILITY}:
            raise DataError(path, f"has no {_PARTS[0]} in it")
        yield found


def _numbers(text: str) -> NDArray[np.float64]:
    """The numbers of a nested list, flat; they are written as Fortran does, "0." for 0."""
    return np.array(text.replace("[", " ").replace("]", " ").split(","), np.float64)


def _polarizabilities(table: IO[str]) -> dict[str, list[float]]:
    """Of each molecule by name, the four numbers of `_EIGENVALUES`."""
    names, tensors = [], []
    for row in csv.DictReader(table):
        names.append(row["XYZ_file"])
        tensors.append([float(row[entry]) for entry in _TENSOR])
    eigenvalues = np.linalg.eigvalsh(np.array(tensors).reshape(-1, 3, 3))
    columns = np.column_stack([eigenvalues.mean(1), eigenvalues])
    return dict(zip(names, columns.tolist(), strict=True))


def read_qm9pack(path: str | os.PathLike[str]) -> ArrayClouds:
    """Read the molecules of the wheel `qm9pack`.

    Args:
        path: the wheel (`.whl`), the folder of its tables, or one table of molecules.

    Returns:
        Molecules with one-hot elements; positions in Å; with twelve targets, and the eigenvalues of the polarizability
        where there is the table of them. Rows of the whole set are names and families where all tables are there.

    Raises:
        DataError: no table; a table is damaged or lacks a column.
    """
    path = Path(path)
    try:
        with _tables(path) as tables:
            return _read(path, tables)
    except (OSError, zipfile.BadZipFile, EOFError, UnicodeError, csv.Error) as error:
        raise DataError(path, f"cannot be read ({error})") from error
    except KeyError as error:
        raise DataError(path, f"has a table without the column {error}") from error
    except (TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise DataError(path, f"has a damaged table ({error})") from error


def _read(path: Path, tables: dict[str, IO[str]]) -> ArrayClouds:
    polarizabilities = _polarizabilities(tables.pop(_POLARIZABILITY)) if _POLARIZABILITY in tables else None
    elements: list[str] = []
    sizes, positions, targets = [], [], []
    bar = tqdm(desc=f"reading {path.name}", unit=" molecules", delay=2, disable=None, leave=False)
    for _, table in sorted(tables.items()):
        for row in csv.DictReader(table):
            symbols = [symbol.strip(" '") for symbol in row["Elements"].strip("[] ").split(",")]
            elements += symbols
            sizes.append(len(symbols))
            positions.append(_numbers(row["XYZ_Ang"]).reshape(len(symbols), 3))
            values = [float(row[column]) for column in _COLUMNS.values()]
            targets.append(values + (polarizabilities[row["XYZ_file"]] if polarizabilities is not None else []))
            bar.update()
    bar.close()
    if not sizes:
        raise DataError(path, "holds no molecules")
    numbers = np.array([ATOMIC_NUMBERS[symbol] for symbol in elements])
    rows = np.arange(len(sizes)) if set(_PARTS) <= tables.keys() else None
    return ArrayClouds(
        np.concatenate(positions),
        sizes,
        features=element_features(numbers, path),
        feature_names=ELEMENTS,
        source=path,
        unit="Å",
        targets=np.array(targets),
        target_names=(*_COLUMNS, *(_EIGENVALUES if polarizabilities is not None else ())),
        families=rows,
        names=None if rows is None else [str(row) for row in rows],
    )
