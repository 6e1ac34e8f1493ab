"""Particles of every dialect mean the same, and keep all they had."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parteq.datasets.cryoem.ctf import CTFParameters
from parteq.datasets.cryoem.imaging import imaging_ctf
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.cryoem.poses import rotations_of_angles, uniform_rotations
from parteq.datasets.cryoem.stack import StackWriter
from parteq.datasets.errors import DataError

RELION30 = """
data_images

loop_
_rlnImageName #1
_rlnMagnification #2
_rlnDetectorPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnDefocusU #7
_rlnDefocusV #8
_rlnDefocusAngle #9
_labRemark #10
_rlnAngleRot #11
_rlnAngleTilt #12
_rlnAnglePsi #13
_rlnOriginX #14
_rlnOriginY #15
000001@stack.mrcs 10000 2.0 300 2.7 0.1 12000 11000 30 first 10 20 30 1.5 -2
000003@stack.mrcs 10000 2.0 200 2.7 0.1 13000 12000 40 second 40 50 60 0 4
000002@stack.mrcs 10000 2.0 300 2.7 0.1 14000 13000 50 third -70 80 -90 0 0
"""

RELION31 = """
data_particles

loop_
_rlnImageName
_rlnOpticsGroup
_rlnOriginXAngst
_rlnAngleRot
_rlnOriginYAngst
_rlnAngleTilt
_labRemark
_rlnAnglePsi
_rlnDefocusU
1@stack.mrcs 2 3 10 -4 20 first 30 12000
3@stack.mrcs 1 0 40 8 50 second 60 13000

data_optics

loop_
_rlnOpticsGroup
_rlnVoltage
_rlnSphericalAberration
_rlnAmplitudeContrast
_rlnImagePixelSize
_rlnImageSize
1 200 2.7 0.1 2 4
2 300 1.4 0.07 2 4

data_job
_rlnNote kept
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with both files and the stack they name."""
    (tmp_path / "old.star").write_text(RELION30)
    (tmp_path / "new.star").write_text(RELION31)
    with StackWriter(tmp_path / "stack.mrcs", 4, 2.0) as writer:
        writer.append(np.arange(3, dtype=np.float32)[:, None, None] * np.ones((4, 4), dtype=np.float32))
    return tmp_path


def test_relion30(folder: Path) -> None:
    particles = open_particles(folder / "old.star")
    np.testing.assert_allclose(particles.pixel_size_in_angstroms(), 2.0)
    np.testing.assert_allclose(particles.shifts_in_angstroms(), [[-3, 4], [0, -8], [0, 0]])
    ctf = particles.ctf()
    assert ctf is not None
    np.testing.assert_array_equal(ctf.voltage_in_kilovolts, [300, 200, 300])
    np.testing.assert_array_equal(ctf.phase_shift_in_degrees, 0)
    assert particles.table["rlnOpticsGroup"].tolist() == [1, 2, 1]
    assert particles.optics["rlnImageSize"].tolist() == [4, 4]
    columns = [line.split()[0][1:] for line in RELION30.splitlines() if line.startswith("_")]
    assert list(particles.table)[: len(columns)] == columns
    np.testing.assert_array_equal(particles.images().read(slice(None))[:, 0, 0], [0, 2, 1])


def test_relion31(folder: Path) -> None:
    particles = open_particles(folder / "new.star")
    np.testing.assert_array_equal(particles.shifts_in_angstroms(), [[-3, 4], [0, -8]])
    np.testing.assert_allclose(particles.rotations(), rotations_of_angles([[10, 20, 30], [40, 50, 60]]))
    ctf = particles.ctf()
    assert ctf is not None
    np.testing.assert_array_equal(ctf.voltage_in_kilovolts, [300, 200])
    np.testing.assert_array_equal(ctf.defocus_v_in_angstroms, ctf.defocus_u_in_angstroms)
    assert particles.box_in_pixels() == 4


def test_dialects_agree(folder: Path) -> None:
    old, new = open_particles(folder / "old.star"), open_particles(folder / "new.star")
    np.testing.assert_allclose(old.rotations()[:2], new.rotations())
    np.testing.assert_allclose(old.shifts_in_angstroms()[:2], new.shifts_in_angstroms())


def test_written_files_keep_everything(folder: Path) -> None:
    for name in ("old.star", "new.star"):
        particles = open_particles(folder / name)
        particles.write(folder / "again.star")
        again = open_particles(folder / "again.star")
        assert list(again.star.blocks) == list(particles.star.blocks)
        pd.testing.assert_frame_equal(again.table, particles.table, check_exact=True)
        pd.testing.assert_frame_equal(again.optics, particles.optics, check_exact=True)


def test_new_poses_leave_all_else_in_place(folder: Path) -> None:
    rotations = uniform_rotations(3, np.random.default_rng(0))
    shifts = np.array([[1.0, 2.0], [0.0, 0.0], [-5.0, 3.0]])
    before = open_particles(folder / "old.star")
    after = before.with_poses(rotations, shifts, parteqConfidence=np.array([0.1, 0.2, 0.3]))
    np.testing.assert_allclose(after.rotations(), rotations, atol=1e-12)
    np.testing.assert_array_equal(after.shifts_in_angstroms(), shifts)
    # The columns of RELION 3.0 are not left with other origins.
    np.testing.assert_array_equal(after.table[["rlnOriginX", "rlnOriginY"]], -shifts / 2)
    assert list(after.table) == [*before.table, "parteqConfidence"]
    changed = {"rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginX", "rlnOriginY"}
    changed |= {"rlnOriginXAngst", "rlnOriginYAngst"}
    for name in set(before.table) - changed:
        assert after.table[name].equals(before.table[name])
    assert before.table["rlnAngleRot"].tolist() == [10, 40, -70]


def test_shifts_stand_beside_the_pixel_size_that_images_say(tmp_path: Path) -> None:
    with StackWriter(tmp_path / "stack.mrcs", 4, 2.5) as writer:
        writer.append(np.zeros((2, 4, 4), dtype=np.float32))
    (tmp_path / "x.star").write_text("data_\nloop_\n_rlnImageName\n1@stack.mrcs\n2@stack.mrcs\n")
    particles = open_particles(tmp_path / "x.star")
    assert particles.numbers("rlnImagePixelSize") is None
    turned = particles.with_poses(np.eye(3)[None].repeat(2, 0), np.array([[5.0, 0], [0, 0]]))
    assert list(turned.numbers("rlnImagePixelSize")) == [2.5, 2.5]
    assert turned.shifts_in_angstroms()[0, 0] == 5


def test_images_altered_by_their_ctf_are_refused(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    particles = open_particles(folder / "old.star")
    for column, value in (("rlnCtfDataArePhaseFlipped", 1), ("rlnCtfDataAreCtfPremultiplied", 1)):
        altered = particles.with_table(particles.table.assign(**{column: value}))
        assert altered.ctf() is not None
        with pytest.raises(DataError, match=column):
            imaging_ctf(altered)
    assert imaging_ctf(particles) is not None
    assert not caplog.text
    assert imaging_ctf(particles.with_table(particles.table.assign(rlnCtfBfactor=50.0))) is not None
    assert "rlnCtfBfactor are not taken into account" in caplog.text


def test_subset(folder: Path) -> None:
    particles = open_particles(folder / "old.star").subset([2, 0])
    assert particles.table["labRemark"].tolist() == ["third", "first"]
    np.testing.assert_array_equal(particles.images().read([0, 1])[:, 0, 0], [1, 0])


def test_create(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rotations, shifts = uniform_rotations(4, rng), rng.normal(size=(4, 2))
    voltage = np.array([300.0, 200.0, 300.0, 300.0])
    values = rng.uniform(1, 2, size=(6, 4))
    ctf = CTFParameters(*values[:3], voltage, np.full(4, 2.7), np.full(4, 0.1), values[5])
    names = [f"{number:06d}@p.mrcs" for number in range(1, 5)]
    made = Particles.create(rotations, shifts, ctf, 1.5, 32, names, labTruth=np.arange(4))
    made.write(tmp_path / "p.star")
    particles = open_particles(tmp_path / "p.star")
    np.testing.assert_allclose(particles.rotations(), rotations, atol=1e-12)
    np.testing.assert_array_equal(particles.shifts_in_angstroms(), shifts)
    for name, array in vars(ctf).items():
        np.testing.assert_array_equal(getattr(particles.ctf(), name), array)
    assert (particles.box_in_pixels(), len(particles.optics)) == (32, 2)
    assert particles.table["labTruth"].tolist() == [0, 1, 2, 3]
    assert not Particles.create(None, None, None, 1.5, 32, names).has_poses


def test_paths_may_be_relative_to_the_working_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = folder / "job"
    inner.mkdir()
    shutil.copy(folder / "new.star", inner / "p.star")
    with pytest.raises(DataError, match="no such file"):
        open_particles(inner / "p.star").images()
    monkeypatch.chdir(folder)
    assert len(open_particles(inner / "p.star").images()) == 2


def test_paths_stay_in_the_folder(folder: Path) -> None:
    inner = folder / "inner"
    inner.mkdir()
    text = (folder / "new.star").read_text()
    for path in (str(folder / "stack.mrcs"), "../stack.mrcs", "a/../../stack.mrcs"):
        (inner / "p.star").write_text(text.replace("stack.mrcs", path))
        with pytest.raises(DataError, match="leads out of"):
            open_particles(inner / "p.star").images()
    (inner / "p.star").write_text(text)
    with pytest.raises(DataError, match="--datadir"):
        open_particles(inner / "p.star").images()
    assert len(open_particles(inner / "p.star", datadir=folder).images()) == 2
    with pytest.raises(DataError, match="no such folder"):
        open_particles(inner / "p.star", datadir=folder / "none")


@pytest.fixture
def own_secret(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That of a user who has none yet."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PARTEQ_CACHE", str(cache))
    return cache / "secret"


def test_a_file_written_elsewhere_leads_its_writer_to_its_images(folder: Path, own_secret: Path) -> None:
    poses = folder / "poses" / "p.star"
    poses.parent.mkdir()
    open_particles(folder / "new.star").write(poses)
    assert len(open_particles(poses).images()) == 2
    assert own_secret.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in own_secret.parent.iterdir()] == ["secret"]
    # To another folder than that which was signed it leads nobody.
    other = folder.parent / "other"
    shutil.copytree(folder, other)
    poses.write_text(poses.read_text().replace(str(folder.absolute()), str(other.absolute())))
    with pytest.raises(DataError, match="they lay elsewhere"):
        open_particles(poses).images()


@pytest.mark.parametrize("kept", [True, False])
def test_a_file_written_elsewhere_tells_others_where_its_images_lay(
    folder: Path, own_secret: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """As it tells a user whose cache cannot be written."""
    poses = folder / "poses" / "p.star"
    poses.parent.mkdir()
    particles = open_particles(folder / "new.star")
    if not kept:
        (folder / "file").touch()
        monkeypatch.setenv("PARTEQ_CACHE", str(folder / "file" / "cache"))
    particles.write(poses)
    if kept:
        own_secret.write_bytes(b"that of another user")
    written = open_particles(poses)
    assert list(written.table["rlnImageName"]) == list(particles.table["rlnImageName"])
    with pytest.raises(DataError, match=re.escape(f"give --datadir {folder.absolute()})")):
        written.images()
    assert len(open_particles(poses, datadir=folder).images()) == 2
    # Written again without its images at hand it still knows; beside them there is nothing to know.
    written.write(poses)
    assert open_particles(poses).remembered_folder == folder.absolute()
    open_particles(poses, datadir=folder).write(folder / "again.star")
    assert "parteq" not in open_particles(folder / "again.star").star.blocks
    (folder / "stack.mrcs").rename(folder / "away.mrcs")
    with pytest.raises(DataError, match="see --datadir"):
        written.images()


def replaced(folder: Path, *pairs: tuple[str, str]) -> Path:
    """The file of RELION 3.1 with parts of it replaced."""
    text = RELION31
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    path = folder / "bad.star"
    path.write_text(text)
    return path


OPTICS = RELION31[RELION31.index("data_optics") : RELION31.index("data_job")]


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        ((OPTICS, ""), "has lost its table data_optics"),
        ((RELION31[: RELION31.index("data_optics")], ""), "no table of particles"),
        (("data_job\n_rlnNote kept", "data_more\nloop_\n_rlnAngleRot\n1"), None),
        (("data_particles", "data_other"), None),
        (("1@stack.mrcs 2 3", "1@stack.mrcs 7 3"), "of the optics group 7"),
        (("2 300 1.4", "1 300 1.4"), "an optics group twice"),
        (("_rlnOpticsGroup\n_rlnVoltage", "_labGroup\n_rlnVoltage"), "data_optics has lost its column"),
        (("_rlnOpticsGroup\n_rlnOriginXAngst", "_labGroup\n_rlnOriginXAngst"), "data_particles has lost its column"),
    ],
)
def test_lost_tables(folder: Path, pair: tuple[str, str], reason: str | None) -> None:
    path = replaced(folder, pair)
    if reason is None:
        assert len(open_particles(path)) == 2
        return
    with pytest.raises(DataError, match=reason):
        open_particles(path)


def everything(particles: Particles) -> None:
    """Whatever particles can be asked for."""
    for part in (Particles.rotations, Particles.shifts_in_angstroms, Particles.ctf, Particles.images):
        part(particles)
    particles.pixel_size_in_angstroms()


@pytest.mark.parametrize(
    ("pair", "reason"),
    [
        (("3@stack.mrcs 1 0 40", "3@stack.mrcs 1 0 nan"), "rlnAngleRot is not finite in row 2"),
        (("2 3 10 -4 20", "2 inf 10 -4 20"), "rlnOriginXAngst is not finite in row 1"),
        (("2 3 10 -4 20", "2 3 10 -4 flat"), "rlnAngleTilt does not hold numbers"),
        (("60 13000", "60 nan"), "rlnDefocusU is not finite"),
        (("_rlnVoltage", "_labVoltage"), "has lost rlnVoltage"),
        (("2 300 1.4 0.07 2 4", "2 300 1.4 0.07 -2 4"), "a pixel size of -2 Å in row 1"),
        (("2 300 1.4 0.07 2 4", "2 0 1.4 0.07 2 4"), "a voltage of 0 kV in row 1"),
        (("2 300 1.4 0.07 2 4", "2 300000 1.4 0.07 2 4"), "a voltage of 300000 kV"),
        (("2 300 1.4 0.07 2 4", "2 300 1.4 1.5 2 4"), "an amplitude contrast of 1.5"),
        (("2 300 1.4 0.07 2 4", "2 300 1.4 0.07 2 6"), "images of several sizes, 4 to 6"),
        (("1@stack.mrcs", "0@stack.mrcs"), "'0@stack.mrcs' in row 1 is no image name"),
        (("1@stack.mrcs", "4@stack.mrcs"), "has 3 images, and number 4"),
        (("1@stack.mrcs", "1@none.mrcs"), "no such file"),
        (("_rlnImageName", "_labImageName"), "names no images"),
        (("2 4\n", "2 5\n"), "has images of 4 pixels, where bad.star says 5"),
    ],
)
def test_bad_values(folder: Path, pair: tuple[str, str], reason: str) -> None:
    particles = open_particles(replaced(folder, pair))
    with pytest.raises(DataError, match=reason):
        everything(particles)


WORDS = ["nan", "inf", "-1", "0", "1e400", "x", '""', "_rlnImageSize", "data_", "loop_", "@", "1e-320", "9" * 20]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    st.sampled_from([RELION30, RELION31]), st.lists(st.tuples(st.integers(0, 120), st.sampled_from(WORDS)), max_size=3)
)
def test_exchanged_words_raise_nothing_else(folder: Path, text: str, exchanged: list[tuple[int, str]]) -> None:
    words = re.split(r"(\s+)", text)
    for position, word in exchanged:
        words[2 * position % len(words)] = word
    (folder / "fuzz.star").write_text("".join(words))
    with suppress(DataError):
        everything(open_particles(folder / "fuzz.star"))


def test_a_kind_of_file_that_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no particles"):
        open_particles(tmp_path / "particles.txt")


@pytest.mark.realdata
@pytest.mark.parametrize(
    ("name", "n", "groups", "pixel_size", "box"),
    [
        ("sample_particles_relion30", 17, 2, 1.338, 200),
        ("sample_particles_relion31", 17, 2, 1.4, 200),
        ("relion31", 5, 1, 2.806, 256),
        ("relion31.6opticsgroups", 139, 6, 1.25, 196),
        ("relion5", 17, 1, 0.89, 448),
        ("sta_testing_bin8", 219, 1, 1.96, 64),
        ("toy_projections", 1000, 1, 1.0, 30),
        ("rln_proj_65", 5, 1, 1.0, 65),
        ("rln_proj_65_shifted", 4, 1, 1.0, 65),
    ],
)
def test_real_files(
    shared_data: Path, tmp_path: Path, name: str, n: int, groups: int, pixel_size: float, box: int
) -> None:
    path = shared_data / "cryoem" / f"{name}.star"
    particles = open_particles(path)
    assert (len(particles), len(particles.optics), particles.box_in_pixels()) == (n, groups, box)
    assert particles.pixel_size_in_angstroms()[0] == pytest.approx(pixel_size, abs=1e-4)
    particles.write(tmp_path / "again.star")
    again = open_particles(tmp_path / "again.star", datadir=path.parent)
    pd.testing.assert_frame_equal(again.table, particles.table, check_exact=True)
    pd.testing.assert_frame_equal(again.optics, particles.optics, check_exact=True)
    if particles.has_poses:
        moved = again.with_poses(particles.rotations(), particles.shifts_in_angstroms())
        np.testing.assert_allclose(moved.rotations(), particles.rotations(), atol=1e-12)


@pytest.mark.realdata
def test_origins_in_pixels_beside_an_optics_table(shared_data: Path) -> None:
    particles = open_particles(shared_data / "cryoem" / "rln_proj_65_shifted.star")
    assert particles.shifts_in_angstroms()[0].tolist() == [-6, -10]
