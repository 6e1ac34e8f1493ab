"""Atomic models become potentials."""

from __future__ import annotations

import gzip
from pathlib import Path

import gemmi
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from parteq.datasets.cryoem.modelaxes import turn_onto_z
from parteq.datasets.cryoem.potential import potential_of_model, read_model
from parteq.datasets.errors import DataError

VOLTS = 47.877645


def write_pdb(path: Path, atoms: list[tuple], assemblies: int = 0) -> Path:
    """A file of (element, (x, y, z), B factor, occupancy, residue, alternative conformation)."""
    lines = []
    for number, (element, (x, y, z), b_factor, occupancy, residue, alternative) in enumerate(atoms, 1):
        kind = "HETATM" if residue == "HOH" else "ATOM  "
        lines.append(
            f"{kind}{number:5d} {element:>2}  {alternative:1}{residue} A{number if alternative == ' ' else 1:4d}    "
            f"{x:8.3f}{y:8.3f}{z:8.3f}{occupancy:6.2f}{b_factor:6.2f}          {element:>2}"
        )
    remarks = []
    if assemblies:
        remarks = [
            "REMARK 350 BIOMOLECULE: 1",
            "REMARK 350 APPLY THE FOLLOWING TO CHAINS: A",
            "REMARK 350   BIOMT1   1  1.000000  0.000000  0.000000        0.00000",
            "REMARK 350   BIOMT2   1  0.000000  1.000000  0.000000        0.00000",
            "REMARK 350   BIOMT3   1  0.000000  0.000000  1.000000        0.00000",
            "REMARK 350   BIOMT1   2 -1.000000  0.000000  0.000000        0.00000",
            "REMARK 350   BIOMT2   2  0.000000 -1.000000  0.000000        0.00000",
            "REMARK 350   BIOMT3   2  0.000000  0.000000  1.000000        0.00000",
        ]
    path.write_text("\n".join([*remarks, *lines, "END"]) + "\n")
    return path


def atom(element="C", place=(0.0, 0.0, 0.0), b_factor=20.0, occupancy=1.0, residue="ALA", alternative=" "):
    return element, place, b_factor, occupancy, residue, alternative


def test_one_atom_is_its_scattering_factor(tmp_path):
    """The transform of the potential is the scattering factor, times the fall-off of the B factor."""
    path, box, pixel_size = write_pdb(tmp_path / "one.pdb", [atom("O", (5, 6, 7), 60.0)]), 16, 1.5
    volume = potential_of_model(path, box, pixel_size)
    transform = np.fft.fftn(np.fft.ifftshift(volume))[0, 0, : box // 2] * pixel_size**3
    s = np.arange(box // 2) / (box * pixel_size)
    factor = np.array([gemmi.Element("O").c4322.calculate_sf(value**2 / 4) for value in s])
    expected = VOLTS * factor * np.exp(-60 * s**2 / 4)
    np.testing.assert_allclose(transform.real, expected, atol=3e-3 * expected[0])
    np.testing.assert_allclose(transform.imag, 0, atol=1e-3 * expected[0])


def test_atoms_are_no_sharper_than_the_voxels_show(tmp_path):
    sharp = write_pdb(tmp_path / "sharp.pdb", [atom(b_factor=0.0)])
    as_sharp = write_pdb(tmp_path / "as_sharp.pdb", [atom(b_factor=16 * 1.5**2)])
    soft = write_pdb(tmp_path / "soft.pdb", [atom(b_factor=90.0)])
    first, second, third, given = (
        potential_of_model(path, 16, 1.5, b_factor=b_factor)
        for path, b_factor in [(sharp, None), (as_sharp, None), (soft, None), (sharp, 90.0)]
    )
    np.testing.assert_allclose(first, second, atol=1e-4)
    np.testing.assert_allclose(third, given, atol=1e-4)
    assert third.max() < 0.7 * first.max()


@pytest.mark.parametrize("box", [32, 33])
def test_axes_and_centre(tmp_path, box):
    """x is the last axis; the centre of mass is in the voxel D // 2."""
    path = write_pdb(tmp_path / "two.pdb", [atom("C", (10, 0, 0)), atom("C", (18, 4, -8))])
    volume = potential_of_model(path, box, 1.0)
    centre = box // 2
    middle = {tuple(place) for place in np.argwhere(volume > 0.9 * volume.max()) - centre}
    # z, y, x
    assert middle == {(4, -2, -4), (-4, 2, 4)}


def test_waters_go_and_alternatives_are_weighed(tmp_path):
    plain = [atom("C"), atom("N", (4, 0, 0))]
    water = [*plain, atom("O", (0, 6, 0), residue="HOH")]
    halves = [atom("C", occupancy=0.5, alternative="A"), atom("C", occupancy=0.5, alternative="B"), plain[1]]
    expected = potential_of_model(write_pdb(tmp_path / "plain.pdb", plain), 24, 1.0)
    for name, atoms in {"water": water, "halves": halves}.items():
        found = potential_of_model(write_pdb(tmp_path / f"{name}.pdb", atoms), 24, 1.0)
        np.testing.assert_allclose(found, expected, atol=1e-3)


def test_hydrogens_count_and_mmcif_is_read(tmp_path):
    with_hydrogen = write_pdb(tmp_path / "h.pdb", [atom("C"), atom("H", (1, 0, 0))])
    without = write_pdb(tmp_path / "c.pdb", [atom("C")])
    gemmi.read_structure(str(with_hydrogen)).make_mmcif_document().write_file(str(tmp_path / "h.cif"))
    first, second, third = (potential_of_model(path, 16, 1.0) for path in (with_hydrogen, tmp_path / "h.cif", without))
    np.testing.assert_allclose(first, second, atol=1e-4)
    assert first.sum() > 1.1 * third.sum()


def test_the_first_assembly_is_built_unless_another_is_named(tmp_path):
    path = write_pdb(tmp_path / "dimer.pdb", [atom("C", (6, 0, 3)), atom("C", (9, 2, 0))], assemblies=1)
    assert read_model(path).count_atom_sites() == read_model(path, "1").count_atom_sites() == 4
    assert read_model(path, "asymmetric-unit").count_atom_sites() == 2
    with pytest.raises(DataError, match="no assembly '7'; it has 1"):
        read_model(path, "7")
    path.write_text(path.read_text().replace("CHAINS: A", "CHAINS: A, Z"))
    with pytest.raises(DataError, match=r"'1' cannot be built \(no chain Z\): try --assembly asymmetric-unit"):
        read_model(path)
    assert read_model(path, "asymmetric-unit").count_atom_sites() == 2


def test_aligning_brings_the_unique_axis_onto_z(tmp_path):
    generator = np.random.default_rng(0)
    ring = np.deg2rad(np.arange(5) * 72)
    places = np.stack([8 * np.cos(ring), 8 * np.sin(ring), np.zeros(5)], -1)
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    path = write_pdb(tmp_path / "ring.pdb", [atom("C", tuple(place)) for place in places @ turn])
    volume = potential_of_model(path, 24, 1.0, align=True)
    height = np.arange(24) - 12
    mean_square = [
        np.average(height**2, weights=np.clip(volume, 0, None).sum(axes)) for axes in [(1, 2), (0, 2), (0, 1)]
    ]
    assert mean_square[0] < 0.3 * mean_square[1] == pytest.approx(0.3 * mean_square[2], rel=0.05)


def five_chains(path: Path) -> Path:
    """A pentamer about a skew axis, with a ligand on one chain that bends the axes of inertia, and one chain cut."""
    generator = np.random.default_rng(1)
    chain = generator.normal(size=(12, 3)) * [3, 3, 2] + [14, 0, 0]
    skew = Rotation.from_euler("xyz", [40, 25, 70], degrees=True)
    structure, model = gemmi.Structure(), gemmi.Model(1)
    for number in range(5):
        about = skew * Rotation.from_euler("z", 72 * number, degrees=True)
        found = gemmi.Chain("ABCDE"[number])
        for seqid, place in enumerate(chain[: 11 if number == 3 else None], 1):
            found.add_residue(residue("ALA", seqid, about.apply(place)))
        if number == 0:
            for seqid, place in enumerate(generator.normal([12, 0, 9], size=(6, 3)), 100):
                found.add_residue(residue("LIG", seqid, about.apply(place)))
        model.add_chain(found)
    structure.add_model(model)
    structure.write_pdb(str(path))
    return path


def residue(name: str, seqid: int, place: np.ndarray) -> gemmi.Residue:
    """Of one carbon."""
    found, carbon = gemmi.Residue(), gemmi.Atom()
    found.name, found.seqid = name, gemmi.SeqId(seqid, " ")
    carbon.name, carbon.element, carbon.pos = "CA", gemmi.Element("C"), gemmi.Position(*place)
    carbon.b_iso = 20.0
    found.add_atom(carbon)
    return found


def test_the_axis_is_the_one_that_the_chains_turn_about(tmp_path):
    path = five_chains(tmp_path / "pentamer.pdb")
    model = read_model(path)
    places = np.array([place.atom.pos.tolist() for place in model.all()])
    places -= places.mean(0)
    axis = Rotation.from_euler("xyz", [40, 25, 70], degrees=True).apply([0, 0, 1])
    turned = turn_onto_z(model, places, np.ones(len(places))) @ axis
    assert np.degrees(np.arccos(min(1.0, abs(turned[2])))) < 0.1
    # The axes of inertia are bent: none is as near.
    inertia = np.abs(np.linalg.eigh(places.T @ places)[1].T @ axis)
    assert np.degrees(np.arccos(inertia.max())) > 2


def test_a_box_that_is_too_small_is_refused(tmp_path):
    path = write_pdb(tmp_path / "long.pdb", [atom("C", (-30, 0, 0)), atom("C", (30, 0, 0))])
    with pytest.raises(DataError, match=r"60 Å across .* box of 32 × 1.5 Å: take 42 pixels"):
        potential_of_model(path, 32, 1.5)
    assert potential_of_model(path, 42, 1.5).shape == (42, 42, 42)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("none.pdb", None, "that can be read"),
        ("empty.pdb", "", "no atoms"),
        ("words.pdb", "this is no model\n", "no atoms"),
        ("words.cif", "this is no model\n", "that can be read"),
        ("binary.pdb", "\x00\x01\x02" * 100, "no atoms"),
    ],
)
def test_files_that_are_no_models(tmp_path, name, content, reason):
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=reason):
        read_model(path)


@pytest.mark.parametrize("suffix", [".pdb", ".pdb.gz"])
@pytest.mark.parametrize("written", ["   x.yyy", "     nan", "        "])
def test_coordinates_that_are_no_numbers(tmp_path, suffix, written):
    """gemmi takes 0 for them."""
    path = write_pdb(tmp_path / "bad.pdb", [atom(), atom(place=(1, 2.125, 3))])
    content = path.read_text().replace("   2.125", written).encode()
    path = path.with_suffix(suffix)
    path.write_bytes(gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(DataError, match=f"atom 2 has a coordinate '{written.strip()}', which is no number"):
        read_model(path)


def test_a_packed_model_that_is_damaged(tmp_path):
    """Where it breaks off between two lines, gemmi takes the rest for all."""
    packed = gzip.compress(write_pdb(tmp_path / "whole.pdb", [atom()]).read_bytes())
    for content in (packed[:-4], packed + b"more", packed[:40] + b"\x00" + packed[41:]):
        (tmp_path / "m.pdb.gz").write_bytes(content)
        with pytest.raises(DataError, match="that can be read"):
            read_model(tmp_path / "m.pdb.gz")


@pytest.mark.parametrize(("wrong", "reason"), [(atom("Es"), "element Es"), (atom(b_factor=float("nan")), "not finite")])
def test_atoms_that_cannot_be_used(tmp_path, wrong, reason):
    with pytest.raises(DataError, match=reason):
        read_model(write_pdb(tmp_path / "wrong.pdb", [atom(), wrong]))
