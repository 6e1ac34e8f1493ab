"""cryoDRGN's pickles: conventions, round trips, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from parteq.datasets.cryoem.cryodrgn import read_cryodrgn, write_cryodrgn
from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.cryoem.pickles import read_arrays, write_arrays
from parteq.datasets.cryoem.poses import uniform_rotations
from parteq.datasets.cryoem.stack import StackWriter
from parteq.datasets.errors import DataError

N, BOX, PIXEL_SIZE = 5, 8, 1.25


@pytest.fixture
def particles() -> Particles:
    rng = np.random.default_rng(4)
    defocus, constants = rng.uniform(1e4, 2e4, (2, N)), [np.full(N, value) for value in (300, 2.7, 0.1, 0)]
    ctf = CTFParameters(*defocus, rng.uniform(0, 90, N), *constants)
    names, remarks = ([form.format(number + 1) for number in range(N)] for form in ("{:06d}@p.mrcs", "r{}"))
    shifts = rng.normal(size=(N, 2))
    return Particles.create(uniform_rotations(N, rng), shifts, ctf, PIXEL_SIZE, BOX, names, labRemark=remarks)


@pytest.fixture
def pickles(particles: Particles, tmp_path: Path) -> list[Path]:
    return write_cryodrgn(particles, tmp_path / "new" / "folder")


def test_layout(particles: Particles, pickles: list[Path]) -> None:
    assert [path.name for path in pickles] == ["pose.pkl", "ctf.pkl"]
    rotations, fractions = read_arrays(pickles[0])
    np.testing.assert_array_equal(rotations, particles.rotations())
    np.testing.assert_allclose(fractions * BOX * PIXEL_SIZE, -particles.shifts_in_angstroms(), atol=1e-15)
    (ctf,) = read_arrays(pickles[1])
    own = particles.ctf()
    assert own is not None
    assert ctf.dtype == np.float32
    assert ctf.shape == (N, 9)
    assert ctf[0].tolist() == pytest.approx(
        [BOX, PIXEL_SIZE, *(getattr(own, name)[0] for name in list(vars(own))[:7])], rel=1e-6
    )


def test_back_again(particles: Particles, pickles: list[Path]) -> None:
    again = read_cryodrgn(pickles[::-1])
    np.testing.assert_allclose(again.rotations(), particles.rotations(), atol=1e-14)
    np.testing.assert_allclose(again.shifts_in_angstroms(), particles.shifts_in_angstroms(), atol=1e-14)
    assert again.box_in_pixels() == BOX
    for name, values in vars(particles.ctf()).items():
        np.testing.assert_allclose(getattr(again.ctf(), name), values, rtol=1e-6)


def test_pickles_of_float32_come_back(tmp_path: Path, pickles: list[Path]) -> None:
    arrays = read_arrays(pickles[0])
    for path, content in ((pickles[0], tuple(array.astype(np.float32) for array in arrays)),):
        write_arrays(path, content)
    write_cryodrgn(read_cryodrgn(pickles), tmp_path / "again")
    (before,), (after,) = read_arrays(pickles[1]), read_arrays(tmp_path / "again" / "ctf.pkl")
    np.testing.assert_array_equal(after, before)
    again = read_arrays(tmp_path / "again" / "pose.pkl")
    np.testing.assert_array_equal(again[1].astype(np.float32), read_arrays(pickles[0])[1])
    np.testing.assert_allclose(again[0], arrays[0], atol=1e-6)


def test_with_its_star_file_nothing_is_lost(tmp_path: Path, particles: Particles, pickles: list[Path]) -> None:
    star = tmp_path / "p.star"
    # Angles that no conversion from matrices would give.
    table = particles.table.assign(rlnAngleRot=particles.table["rlnAngleRot"] + 360)
    particles.with_table(table).write(star)
    joined = read_cryodrgn([*pickles, star])
    pd.testing.assert_frame_equal(joined.table, open_particles(star).table, check_exact=True)
    rotations, fractions = read_arrays(pickles[0])
    rotations = rotations.copy()
    rotations[1] = rotations[0]
    write_arrays(pickles[0], (rotations, fractions))
    moved = read_cryodrgn([pickles[0], star])
    np.testing.assert_allclose(moved.rotations()[1], rotations[0], atol=1e-12)
    assert moved.table["rlnAngleRot"][0] == table["rlnAngleRot"][0]
    assert moved.table["labRemark"].tolist() == ["r1", "r2", "r3", "r4", "r5"]


def test_with_a_stack_images_are_named(tmp_path: Path, pickles: list[Path]) -> None:
    stack = tmp_path / "p.mrcs"
    with StackWriter(stack, BOX, PIXEL_SIZE) as writer:
        writer.append(np.ones((N, BOX, BOX), dtype=np.float32))
    for paths in ([*pickles, stack], [pickles[0], stack]):
        particles = read_cryodrgn(paths)
        assert len(particles.images()) == N
        assert particles.pixel_size_in_angstroms()[0] == pytest.approx(PIXEL_SIZE)


def test_parts_that_are_not_there_are_not_written(tmp_path: Path, particles: Particles) -> None:
    only_ctf = particles.with_table(particles.table.drop(columns=["rlnAngleRot"]))
    assert [path.name for path in write_cryodrgn(only_ctf, tmp_path)] == ["ctf.pkl"]
    origins = ["rlnOriginXAngst", "rlnOriginYAngst"]
    no_shifts = particles.with_table(particles.table.drop(columns=[*origins, "rlnDefocusU"]))
    assert [path.name for path in write_cryodrgn(no_shifts, tmp_path)] == ["pose.pkl"]
    assert len(read_arrays(tmp_path / "pose.pkl")) == 1
    nothing = particles.with_table(particles.table[["rlnImageName", "rlnOpticsGroup"]])
    with pytest.raises(DataError, match="neither poses nor defocus"):
        write_cryodrgn(nothing, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_odd_boxes_are_told_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_cryodrgn(Particles.create(np.eye(3)[None], None, None, 1.0, 65), tmp_path)
    assert "even boxes alone" in caplog.text


def written(path: Path, *arrays: np.ndarray) -> Path:
    write_arrays(path, arrays if len(arrays) > 1 else arrays[0])
    return path


def test_refusals(tmp_path: Path, particles: Particles, pickles: list[Path]) -> None:
    pose, ctf = pickles
    eye, bad = np.eye(3)[None].repeat(N, 0), tmp_path / "bad.pkl"
    cases: list[tuple[list[Path], str]] = [
        ([pose], r"add \+ctf\.pkl"),
        ([pose, pose, ctf], "second file of its kind"),
        ([written(bad, eye[:2]), ctf], "different particles: 2 and 5"),
    ]
    for paths, reason in cases:
        with pytest.raises(DataError, match=reason):
            read_cryodrgn(paths)
    for arrays, reason in (
        ((eye * 2,), "is no rotation"),
        ((eye * -1,), "is no rotation"),
        ((eye * np.nan,), "not finite"),
        ((eye, np.full((N, 2), np.inf)), "not finite"),
        ((eye, np.zeros((N, 3))), "neither poses nor"),
        ((np.zeros(3),), "neither poses nor"),
        ((np.zeros((N, 8)),), "CTFs have 9 columns"),
        ((np.zeros((N, 9)),), "boxes or pixel sizes"),
        ((np.full((N, 9), np.nan),), "not finite"),
    ):
        other = ctf if arrays[0].ndim != 2 else pose
        with pytest.raises(DataError, match=reason):
            read_cryodrgn([written(bad, *arrays), other])
    star = tmp_path / "p.star"
    particles.subset([1, 0, 2, 3, 4]).write(star)
    with pytest.raises(DataError, match=r"another CTF than ctf\.pkl in row 1"):
        read_cryodrgn([pose, ctf, star])
    particles.subset([0]).write(star)
    with pytest.raises(DataError, match="has 1 particles, and the pickles are of 5"):
        read_cryodrgn([pose, star])
    with StackWriter(tmp_path / "p.mrcs", BOX, 1.0) as writer:
        writer.append(np.ones((2, BOX, BOX), dtype=np.float32))
    with pytest.raises(DataError, match="has 2 images"):
        read_cryodrgn([pose, ctf, tmp_path / "p.mrcs"])
    with pytest.raises(DataError, match="no pickle of poses"):
        read_cryodrgn([tmp_path / "p.mrcs"])


@pytest.mark.realdata
def test_real_files_agree(shared_data: Path, tmp_path: Path) -> None:
    """What cryoDRGN itself made of cryoSPARC's file, and what we make of it."""
    folder = shared_data / "cryoem"
    theirs = read_cryodrgn([folder / "pose.cs.pkl", folder / "ctf2.pkl"])
    ours = open_particles(folder / "cryosparc_P12_J24_001_particles.cs")
    np.testing.assert_allclose(ours.rotations(), theirs.rotations(), atol=1e-6)
    np.testing.assert_allclose(ours.shifts_in_angstroms(), theirs.shifts_in_angstroms(), atol=1e-4)
    write_cryodrgn(ours, tmp_path)
    with (folder / "ctf2.pkl").open("rb") as stream:
        np.testing.assert_allclose(read_arrays(tmp_path / "ctf.pkl")[0], pickle.load(stream), rtol=1e-6)


@pytest.mark.realdata
def test_a_pickle_of_rotations_alone(shared_data: Path) -> None:
    folder = shared_data / "cryoem"
    particles = read_cryodrgn([folder / name for name in ("toy_angles.pkl", "test_ctf.pkl", "toy_projections.mrcs")])
    assert len(particles.images()) == 1000
    assert not particles.has_shifts
