"""The electrostatic potential of an atomic model, which is what electrons are scattered by.

    φ(x) = h²/(2π m e) Σ_atoms q ∫ f_e(|s|) exp(−B |s|²/4) exp(2πi s·(x − x_atom)) ds

with the elastic scattering factors f_e of neutral atoms for electrons, five Gaussians each (International Tables for
Crystallography C, table 4.3.2.2), occupancy q and isotropic B factor. gemmi sums the Gaussians.

A voxel of size p shows nothing beyond s = 1/(2p). Atoms are made no sharper than that: B is at least 16 p², by which
the transform falls to 1/e there. The sum is formed on a grid of p/2 and cut at 1/(2p), so that nothing is aliased.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import gemmi
import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from parteq.datasets.cryoem.modelaxes import turn_onto_z
from parteq.datasets.cryoem.resampling import resample
from parteq.datasets.errors import DataError

__all__ = ["MODEL_SUFFIXES", "potential_of_model", "read_model"]

MODEL_SUFFIXES = (".pdb", ".ent", ".cif", ".mmcif", ".pdb.gz", ".ent.gz", ".cif.gz")

# h²/(2π m e): what turns a sum of scattering factors per volume (1/Å²) into volts.
_VOLTS_TIMES_SQUARE_ANGSTROMS = 47.877645


def read_model(path: Path, assembly: str | None = None) -> gemmi.Model:
    """The first model of a PDB or mmCIF file, without waters.

    Hydrogens stay if the file has them. Alternative conformations all stay: their occupancies weigh them.

    Args:
        path: the file.
        assembly: name of the biological assembly to build; None for the first that the file defines, or the atoms as
            they stand where it defines none; "asymmetric-unit" for the atoms as they stand.

    Raises:
        DataError: the file cannot be read, has no atoms or no such assembly, or one of chains that it has not;
            coordinates, occupancies or B factors that are not finite; an element without scattering factors.
    """
    try:
        structure = gemmi.read_structure(str(path))
        if structure.input_format == gemmi.CoorFormat.Pdb:
            _check_coordinates(path)
    except (OSError, RuntimeError, ValueError, EOFError, zlib.error) as error:
        raise DataError(path, f"is not a PDB or mmCIF file that can be read ({error})") from error
    names = [found.name for found in structure.assemblies]
    if assembly is not None and assembly not in [*names, "asymmetric-unit"]:
        raise DataError(path, f"defines no assembly {assembly!r}; it has {', '.join(names) or 'none'}")
    if len(structure) > 0 and names and assembly != "asymmetric-unit":
        assembly = assembly or names[0]
        try:
            structure.transform_to_assembly(assembly, gemmi.HowToNameCopiedChain.AddNumber)
        except RuntimeError as error:
            reason = f"its assembly {assembly!r} cannot be built ({error}): try --assembly asymmetric-unit"
            raise DataError(path, reason) from error
    structure.remove_waters()
    if len(structure) == 0 or structure[0].count_atom_sites() == 0:
        raise DataError(path, "has no atoms")
    model = structure[0]
    for place in model.all():
        atom = place.atom
        if not np.isfinite([*atom.pos.tolist(), atom.occ, atom.b_iso]).all():
            raise DataError(path, f"atom {place} has coordinates, an occupancy or a B factor that is not finite")
        if atom.element.c4322 is None or not any(atom.element.c4322.get_coefs()):
            raise DataError(path, f"atom {place}: there are no scattering factors for element {atom.element.name}")
    return model


def _check_coordinates(path: Path) -> None:
    """Refuses a PDB file with coordinates that are no numbers, for which gemmi takes 0. Raises DataError."""
    opened = gzip.open if path.suffix.lower() == ".gz" else open
    with opened(path, "rt", encoding="latin-1") as lines:
        for line in lines:
            if line[:6].upper() in ("ATOM  ", "HETATM"):
                for start in (30, 38, 46):
                    if not _is_number(line[start : start + 8]):
                        reason = f"atom {line[6:11].strip()} has a coordinate {line[start : start + 8].strip()!r}"
                        raise DataError(path, f"{reason}, which is no number")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _centred(model: gemmi.Model, align: bool) -> tuple[NDArray[np.float64], float]:
    """Coordinates [atoms, 3] in Å about the centre of mass, and the distance of the outermost."""
    atoms = [place.atom for place in model.all()]
    mass = np.array([atom.occ * atom.element.weight for atom in atoms])
    if mass.sum() <= 0:
        mass = np.ones(len(atoms))
    places = np.array([atom.pos.tolist() for atom in atoms])
    places -= mass @ places / mass.sum()
    if align:
        places = places @ turn_onto_z(model, places, mass).T
    return places, float(np.linalg.norm(places, axis=1).max())


def potential_of_model(
    path: Path,
    box: int,
    pixel_size_in_angstroms: float,
    *,
    assembly: str | None = None,
    b_factor: float | None = None,
    align: bool = False,
) -> Float32[np.ndarray, "box box box"]:
    """The potential of an atomic model in volts, its centre of mass in the middle of the voxel D // 2.

    Args:
        path: PDB or mmCIF file.
        box: voxels along an edge, D.
        pixel_size_in_angstroms: size of a voxel.
        assembly: as in `read_model`.
        b_factor: in Å², for all atoms in place of the file's (a predicted model has confidences there).
        align: turn the model so that its axis (that of C_n) is z, see `parteq.datasets.cryoem.modelaxes`.

    Returns:
        [z, y, x].

    Raises:
        DataError: as `read_model`; the box is too small to hold the model in every orientation.
    """
    model = read_model(path, assembly)
    places, radius = _centred(model, align)
    if radius > (box - 1) // 2 * pixel_size_in_angstroms:
        needed = 2 * int(np.ceil(radius / pixel_size_in_angstroms)) + 2
        raise DataError(
            path,
            f"is {2 * radius:.0f} Å across and does not fit a box of {box} × {pixel_size_in_angstroms:g} Å: "
            f"take {needed} pixels or larger ones",
        )
    # The middle of the finer grid is the voxel `box` of its 2 · box: half an edge, for odd boxes too.
    middle = box / 2 * pixel_size_in_angstroms
    sharpest = 16 * pixel_size_in_angstroms**2
    for place, position in zip(model.all(), places + middle, strict=True):
        place.atom.pos = gemmi.Position(*position)
        place.atom.b_iso = max(sharpest, place.atom.b_iso if b_factor is None else b_factor)
        place.atom.aniso = gemmi.SMat33f(0, 0, 0, 0, 0, 0)
    edge = box * pixel_size_in_angstroms
    calculator = gemmi.DensityCalculatorE()
    calculator.grid.spacegroup = gemmi.SpaceGroup("P 1")
    calculator.grid.set_unit_cell(gemmi.UnitCell(edge, edge, edge, 90, 90, 90))
    calculator.grid.set_size(2 * box, 2 * box, 2 * box)
    calculator.put_model_density_on_grid(model)
    fine = np.asarray(calculator.grid.array).transpose(2, 1, 0)
    coarse = resample(fine, pixel_size_in_angstroms / 2, box, pixel_size_in_angstroms)
    return coarse * np.float32(_VOLTS_TIMES_SQUARE_ANGSTROMS)
