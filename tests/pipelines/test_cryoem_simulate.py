"""`parteq cryoem simulate` and `parteq cryoem project`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from parteq.datasets.cryoem.mrc import read_volume, write_volume
from parteq.datasets.cryoem.particles import open_particles
from parteq.datasets.cryoem.stack import StackWriter

N = 60


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def images_of(path: Path) -> np.ndarray:
    with mrcfile.open(path) as file:
        return file.data.copy()


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    axis = np.arange(16) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    places = [(0, 0, 0), (3, 1, 0), (0, -3, 2), (-2, 2, -3)]
    volume = np.sum([np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 4) for a, b, c in places], 0)
    path = tmp_path_factory.mktemp("map") / "map.mrc"
    write_volume(path, volume.astype(np.float32), 4.0)
    return path


@pytest.fixture
def simulate(parteq, blobs):
    def call(out: Path, *words: object):
        return parteq("cryoem", "simulate", "--volume", blobs, "--n", N, "--out", out, *words)

    return call


def test_the_folder_holds_images_truth_and_volume(simulate, blobs, tmp_path):
    out, found = tmp_path / "new" / "sim", tmp_path / "found.json"
    words = ["--snr", "0.5", "--shift", "6", "--astigmatism", "300", "--defocus", "0.5-0.8", "--json", found]
    status, _, complaint = simulate(out, *words)
    assert (status, complaint) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == ["particles.mrcs", "particles.star", "volume.mrc"]
    particles = open_particles(out / "particles.star")
    assert len(particles) == N
    assert particles.box_in_pixels() == 16
    assert (particles.pixel_size_in_angstroms() == 4).all()
    ctf = particles.ctf()
    assert ((ctf.defocus_u_in_angstroms >= 5150) & (ctf.defocus_u_in_angstroms <= 8150)).all()
    assert 4 < np.abs(particles.shifts_in_angstroms()).max() <= 6
    np.testing.assert_array_equal(read_volume(out / "volume.mrc")[0], read_volume(blobs)[0])
    assert images_of(out / "particles.mrcs").shape == (N, 16, 16)
    results = json.loads(found.read_text())
    assert results["signal_variance"] / results["noise_variance"] == pytest.approx(0.5)


def test_the_truth_gives_the_images(simulate, parteq, tmp_path):
    """What `project` makes of the STAR file and the volume are the images without the noise."""
    words = ["--shift", "6", "--defocus", "0.5", "--box", "17"]
    assert simulate(tmp_path / "clean", *words)[0] == simulate(tmp_path / "noisy", *words, "--snr", "0.5")[0] == 0
    out = tmp_path / "images.mrcs"
    project = ["cryoem", "project", "--volume", tmp_path / "clean/volume.mrc", "--out", out]
    assert parteq(*project, "--particles", tmp_path / "noisy/particles.star", "--ctf")[0] == 0
    clean, noisy, projected = map(
        images_of, (tmp_path / "clean/particles.mrcs", tmp_path / "noisy/particles.mrcs", out)
    )
    np.testing.assert_allclose(projected, clean, atol=1e-3 * clean.std())
    ratio = clean.var(axis=(1, 2)).mean() / (noisy - clean).var()
    assert ratio == pytest.approx(0.5, rel=0.05)
    assert parteq(*project, "--particles", tmp_path / "noisy/particles.star")[0] == 0
    assert correlation(images_of(out), clean) < 0.99


def test_images_are_not_lost_to_results(simulate, parteq, tmp_path):
    assert simulate(tmp_path / "sim")[0] == simulate(tmp_path / "sim")[0] == 0
    (tmp_path / "theirs").mkdir()
    for name in ("particles.star", "particles.mrcs"):
        shutil.copy(tmp_path / "sim" / name, tmp_path / "theirs")
    before = (tmp_path / "theirs/particles.mrcs").read_bytes()
    status, _, complaint = simulate(tmp_path / "theirs", "--seed", 1)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "was not simulated here and would be lost" in complaint
    words = ["--volume", tmp_path / "sim/volume.mrc", "--particles", tmp_path / "theirs/particles.star"]
    status, _, complaint = parteq("cryoem", "project", *words, "--out", tmp_path / "theirs/particles.mrcs")
    assert (status, complaint.count("\n")) == (2, 1)
    assert "holds images of" in complaint
    for words in (["--volume", tmp_path / "sim/volume.mrc"], ["--poses", tmp_path / "sim/particles.star"]):
        status, _, complaint = simulate(tmp_path / "sim", *words)
        assert (status, complaint.count("\n"), "is read, and would be lost" in complaint) == (2, 1, True)
    assert (tmp_path / "theirs/particles.mrcs").read_bytes() == before


def test_a_seed_decides_everything(simulate, tmp_path):
    for name, words in {"a": [], "b": [], "c": ["--seed", "1"]}.items():
        assert simulate(tmp_path / name, "--snr", "1", *words)[0] == 0
    first, second, third = (
        [(tmp_path / name / file).read_bytes() for file in ("particles.star", "particles.mrcs")] for name in "abc"
    )
    assert first == second
    assert first[0] != third[0]
    assert first[1] != third[1]


def test_poses_and_ctfs_of_a_file(simulate, tmp_path):
    assert simulate(tmp_path / "first", "--shift", "3")[0] == 0
    job = tmp_path / "first" / "particles.star"
    assert simulate(tmp_path / "second", "--poses", job)[0] == 0
    assert simulate(tmp_path / "third", "--poses", job, "--ctf", "none")[0] == 0
    known, drawn, without = (
        open_particles(tmp_path / name / "particles.star") for name in ("first", "second", "third")
    )
    assert set(drawn.ctf().defocus_u_in_angstroms) < set(known.ctf().defocus_u_in_angstroms)
    assert without.ctf() is None
    np.testing.assert_allclose(without.rotations(), drawn.rotations(), atol=1e-9)


def test_a_model(parteq, tmp_path):
    lines = [
        f"ATOM  {i:5d}  C   ALA A{i:4d}    {8.0 * i:8.3f}{0.0:8.3f}{0.0:8.3f}  1.00 20.00           C" for i in (1, 2)
    ]
    (tmp_path / "model.pdb").write_text("\n".join([*lines, "END"]) + "\n")
    words = ["cryoem", "simulate", "--volume", tmp_path / "model.pdb", "--n", "3", "--box", "16", "--pixel-size", "2"]
    assert parteq(*words, "--poses", "preferred", "--noise", "pink", "--snr", "1", "--out", tmp_path / "sim")[0] == 0
    assert images_of(tmp_path / "sim" / "particles.mrcs").shape == (3, 16, 16)
    status, _, complaint = parteq(*words[:-1], "0.5", "--out", tmp_path / "small")
    assert status == 2
    assert "does not fit a box of 16 × 0.5 Å" in complaint
    assert not (tmp_path / "small").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--defocus", "2.5-1.0"], "--defocus 2.5-1.0: is to go from the smaller"),
        (["--defocus", "much"], "--defocus much: is not a number"),
        (["--snr", "0"], "--snr 0.0: must be"),
        (["--snr", "nan"], "--snr nan: must be"),
        (["--box", "0"], "--box 0: must be"),
        (["--n", "0"], "--n 0: must be"),
        (["--shift", "-1"], "--shift -1.0: must be"),
        (["--amplitude-contrast", "2"], "--amplitude-contrast 2.0: must be"),
        (["--shift", "1e6"], "--shift 1000000.0: must be between 0 and 100000"),
        (["--pixel-size", "1e-30"], "--pixel-size 1e-30: must be between 0.001 and 10000"),
        (["--defocus", "200"], "--defocus 200: and half the astigmatism must not exceed 100 µm"),
        (["--astigmatism", "1e7"], "--astigmatism 10000000.0: must be"),
        (["--voltage", "0.5"], "--voltage 0.5: must be"),
        (["--cs", "nan"], "--cs nan: must be"),
        (["--phase-shift", "inf"], "--phase-shift inf: must be"),
        (["--poses", "nowhere.star"], "nowhere.star: no such file"),
        (["--volume", "nowhere.mrc"], "nowhere.mrc: no such file"),
        (["--volume", "nowhere.pdb"], "nowhere.pdb: "),
    ],
)
def test_options_that_make_no_sense(simulate, tmp_path, words, reason):
    status, _, complaint = simulate(tmp_path / "out", *words)
    assert status == 2
    assert complaint.startswith(f"parteq: {reason}")
    assert len(complaint.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_box_keeps_the_field_of_view(simulate, parteq, tmp_path, blobs):
    assert simulate(tmp_path / "sim", "--ctf", "none", "--shift", "8")[0] == 0
    project = ["cryoem", "project", "--volume", blobs, "--particles", tmp_path / "sim/particles.star", "--out"]
    assert parteq(*project, tmp_path / "large.mrcs", "--box", "32")[0] == 0
    with mrcfile.open(tmp_path / "large.mrcs") as file:
        assert file.voxel_size.x == pytest.approx(2.0)
        large = file.data[:, ::2, ::2]
    assert correlation(large, images_of(tmp_path / "sim/particles.mrcs")) > 0.99


def test_a_map_of_another_pixel_size_must_say_so(simulate, parteq, tmp_path, blobs):
    assert simulate(tmp_path / "sim")[0] == 0
    volume, _ = read_volume(blobs)
    write_volume(tmp_path / "map.mrc", volume, 1.0)
    words = ["cryoem", "project", "--volume", tmp_path / "map.mrc", "--particles", tmp_path / "sim/particles.star"]
    status, _, complaint = parteq(*words, "--out", tmp_path / "images.mrcs")
    assert status == 2
    assert "voxels of 1 Å, the images of particles.star have pixels of 4 Å" in complaint
    assert not (tmp_path / "images.mrcs").exists()
    assert parteq(*words, "--out", tmp_path / "images.mrcs", "--pixel-size", "4")[0] == 0


def test_origins_in_pixels_are_in_those_of_the_map(parteq, tmp_path, blobs):
    """Where the file says no pixel size; that of a stack beside it is another's."""
    with StackWriter(tmp_path / "x.mrcs", 16, 1.0) as writer:
        writer.append(np.ones((2, 16, 16), dtype=np.float32))
    columns = "\n".join(
        f"_rln{name}" for name in ("ImageName", "AngleRot", "AngleTilt", "AnglePsi", "OriginX", "OriginY")
    )
    rows = "1@x.mrcs 10 20 30 0 0\n2@x.mrcs 10 20 30 3 -2\n"
    (tmp_path / "x.star").write_text(f"data_\nloop_\n{columns}\n{rows}")
    words = ["--volume", blobs, "--particles", tmp_path / "x.star", "--out", tmp_path / "images.mrcs"]
    assert parteq("cryoem", "project", *words)[::2] == (0, "")
    still, moved = images_of(tmp_path / "images.mrcs")
    np.testing.assert_allclose(moved, np.roll(still, (2, -3), axis=(0, 1)), atol=1e-2 * still.max())


def test_origins_in_pixels_of_poses_that_are_drawn(simulate, tmp_path):
    """Where their file says no pixel size, they are in those of what is simulated."""
    columns = "\n".join(f"_rln{name}" for name in ("AngleRot", "AngleTilt", "AnglePsi", "OriginX", "OriginY"))
    (tmp_path / "x.star").write_text(f"data_\nloop_\n{columns}\n10 20 30 3 -2\n")
    assert simulate(tmp_path / "drawn", "--poses", tmp_path / "x.star")[0] == 0
    drawn = open_particles(tmp_path / "drawn" / "particles.star")
    in_pixels = drawn.shifts_in_angstroms() / drawn.pixel_size_in_angstroms()[:, None]
    np.testing.assert_allclose(in_pixels, [[-3.0, 2.0]] * len(drawn), atol=1e-6)


def test_particles_without_angles_or_ctf(simulate, parteq, tmp_path, blobs):
    assert simulate(tmp_path / "sim", "--ctf", "none")[0] == 0
    (tmp_path / "bare.star").write_text("data_particles\n\nloop_\n_rlnImageName #1\n1@x.mrcs\n")
    words = ["cryoem", "project", "--volume", blobs, "--out", tmp_path / "images.mrcs", "--particles"]
    status, _, complaint = parteq(*words, tmp_path / "sim/particles.star", "--ctf")
    assert (status, "has no CTF" in complaint) == (2, True)
    status, _, complaint = parteq(*words, tmp_path / "bare.star")
    assert (status, "has no angles" in complaint) == (2, True)
    assert not (tmp_path / "images.mrcs").exists()


def test_project_takes_no_atomic_model(simulate, parteq, tmp_path):
    assert simulate(tmp_path / "sim")[0] == 0
    words = ["--volume", tmp_path / "model.pdb", "--particles", tmp_path / "sim/particles.star", "--out"]
    status, _, complaint = parteq("cryoem", "project", *words, tmp_path / "images.mrcs")
    assert (status, "is an atomic model: `parteq cryoem simulate` makes a map of it" in complaint) == (2, True)


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["rln_proj_65", "rln_proj_65_centered", "rln_proj_65_shifted"])
def test_project_gives_the_images_of_relion(parteq, shared_data, tmp_path, name):
    data, out = shared_data / "cryoem", tmp_path / "images.mrcs"
    words = ["--volume", data / "clean70SRibosome_vol_65p.mrc", "--particles", data / f"{name}.star", "--out", out]
    assert parteq("cryoem", "project", *words)[0] == 0
    with mrcfile.open(data / f"{name}.mrcs", permissive=True) as file:
        pairs = zip(images_of(out), file.data, strict=True)
        assert min(correlation(ours, theirs) for ours, theirs in pairs) > 0.999


@pytest.mark.realdata
def test_project_gives_the_ctf_of_relion(parteq, shared_data, tmp_path):
    data, out = shared_data / "cryoem", tmp_path / "images.mrcs"
    words = ["--volume", data / "pointmass.mrc", "--particles", data / "relion_proj_batch.star", "--out", out, "--ctf"]
    assert parteq("cryoem", "project", *words)[0] == 0
    with mrcfile.open(data / "relion_proj_batch.mrcs", permissive=True) as file:
        pairs = zip(images_of(out), file.data, strict=True)
        assert min(correlation(ours, theirs) for ours, theirs in pairs) > 0.98
