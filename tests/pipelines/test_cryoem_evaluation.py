"""`parteq cryoem evaluate` and `parteq cryoem reconstruct`, from STAR files to numbers, maps and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.pointgroups import point_group
from parteq.datasets.cryoem.mrc import read_volume, write_volume
from parteq.datasets.cryoem.particles import Particles, open_particles
from parteq.datasets.cryoem.projection import project
from parteq.datasets.cryoem.stack import StackWriter

KEYS = {
    "rotation_error_mean_deg",
    "rotation_error_median_deg",
    "rotation_error_p90_deg",
    "fraction_below_5deg",
    "fraction_below_15deg",
    "view_direction_error_median_deg",
    "in_plane_error_median_deg",
    "shift_error_median_angstrom",
    "hand",
    "n_particles",
}
N, BOX, PIXEL_SIZE = 120, 16, 2.5


def map_of_blobs() -> np.ndarray:
    z, y, x = np.indices((BOX,) * 3) - BOX // 2
    volume = np.zeros((BOX,) * 3)
    for centre, weight in (((3, 1, 0), 1.0), ((-2, 3, 1), 0.8), ((0, -3, 3), 0.6)):
        volume += weight * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / 3)
    return volume.astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``truth.star``, ``images.mrcs``, and the map ``volume.mrc``."""
    root = tmp_path_factory.mktemp("particles")
    rotations = Rotation.random(N, random_state=1).as_matrix()
    with StackWriter(root / "images.mrcs", BOX, PIXEL_SIZE) as writer:
        writer.append(project(torch.from_numpy(map_of_blobs()), torch.from_numpy(rotations).float()).numpy())
    write_volume(root / "volume.mrc", map_of_blobs(), PIXEL_SIZE)
    names = [f"{number:06d}@images.mrcs" for number in range(1, N + 1)]
    particles = Particles.create(rotations, np.zeros((N, 2)), None, PIXEL_SIZE, BOX, names)
    particles.write(root / "truth.star")
    return root


def write_estimate(folder: Path, path: Path, *, symmetry="C1", axes=None, rows=slice(None), rename=str) -> None:
    """The truth, 2° and 1.5 Å wrong, in a mirrored, turned and moved frame, in another order."""
    truth, generator = open_particles(folder / "truth.star"), np.random.default_rng(0)
    axes = np.eye(3) if axes is None else axes
    group = axes @ point_group(symmetry) @ axes.T
    copies = truth.rotations() @ group[generator.integers(len(group), size=N)]
    noise = generator.normal(size=(N, 3))
    noise *= np.radians(2) / np.linalg.norm(noise, axis=1, keepdims=True)
    flip = np.diag([1.0, 1.0, -1.0])
    rotations = (
        flip @ Rotation.from_rotvec(noise).as_matrix() @ copies @ flip @ Rotation.random(random_state=3).as_matrix()
    )
    angles = generator.uniform(0, 2 * np.pi, N)
    shifts = copies[:, :2] @ (4.0, -7.0, 9.0) + 1.5 * np.stack([np.cos(angles), np.sin(angles)], 1)
    estimate = truth.with_poses(rotations, shifts).subset(generator.permutation(N)[rows])
    estimate.table["rlnImageName"] = estimate.table["rlnImageName"].map(rename)
    estimate.write(path)


@pytest.mark.parametrize("symmetry", ["C1", "D3"])
def test_poses_in_another_frame(parteq, folder, tmp_path, symmetry):
    estimate, out, picture = tmp_path / "poses.star", tmp_path / "out.json", tmp_path / "errors.png"
    write_estimate(folder, estimate, symmetry=symmetry)
    words = ["--estimate", estimate, "--truth", folder / "truth.star", "--symmetry", symmetry]
    status, printed, complaint = parteq("cryoem", "evaluate", *words, "--json", out, "--out", picture)
    assert (status, complaint) == (0, "")
    assert "rotation_error_median_deg" in printed
    found = json.loads(out.read_text())
    assert set(found) >= KEYS
    assert found["rotation_error_median_deg"] == pytest.approx(2, abs=0.3)
    assert found["fraction_below_5deg"] == 1
    assert found["shift_error_median_angstrom"] == pytest.approx(1.5, abs=0.3)
    assert (found["hand"], found["n_particles"], found["n_missing"], found["n_surplus"]) == ("mirrored", N, 0, 0)
    assert found["rotation_error_median_mirrored_hand_deg"] == found["rotation_error_median_deg"]
    assert found["rotation_error_median_same_hand_deg"] > 15
    assert found.get("symmetry_axes") == (None if symmetry == "C1" else "standard")
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 200


@pytest.mark.parametrize("symmetry", ["C5", "O"])
def test_axes_that_do_not_stand_as_they_should_are_found(parteq, folder, tmp_path, symmetry):
    axes, estimate, out = Rotation.random(random_state=4).as_matrix(), tmp_path / "poses.star", tmp_path / "out.json"
    write_estimate(folder, estimate, symmetry=symmetry, axes=axes)
    words = ["--estimate", estimate, "--truth", folder / "truth.star", "--symmetry", symmetry, "--json", out]
    status, _, complaint = parteq("cryoem", "evaluate", *words)
    assert (status, complaint.count("\n")) == (0, 1)
    assert "do not stand as RELION sets them: found with z along (" in complaint
    found = json.loads(out.read_text())
    assert found["rotation_error_median_deg"] == pytest.approx(2, abs=0.3)
    assert found["fraction_below_5deg"] == 1
    assert found["shift_error_median_angstrom"] == pytest.approx(1.5, abs=0.3)
    assert found["symmetry_axes"] == "found"
    axis = np.array([found[f"symmetry_axis_{name}"] for name in "xyz"])
    assert np.abs(axes.T @ axis).max() > np.cos(np.radians(2))


@pytest.mark.parametrize("image_name", ["000000@images.mrcs", "00@images.mrcs", "000000@Extract/job7/images.mrcs"])
def test_rows_are_matched_by_image_and_what_is_missing_is_told(parteq, folder, tmp_path, image_name):
    estimate, out = tmp_path / "poses.star", tmp_path / "out.json"
    digits, _, path = image_name.partition("@")

    def rename(name: str) -> str:
        return f"{int(name[:6]):0{len(digits)}d}@{path}"

    write_estimate(folder, estimate, rows=slice(0, 100), rename=rename)
    words = ["--estimate", estimate, "--truth", folder / "truth.star", "--json", out]
    status, _, complaint = parteq("cryoem", "evaluate", *words)
    assert status == 0
    assert "100 images are in both files; 20 have no estimate, 0 have no truth" in complaint
    found = json.loads(out.read_text())
    assert found["rotation_error_median_deg"] == pytest.approx(2, abs=0.3)
    assert (found["n_particles"], found["n_missing"], found["n_surplus"]) == (100, 20, 0)


def test_an_image_without_a_number_is_the_first_of_its_file(parteq, folder, tmp_path):
    truth = open_particles(folder / "truth.star").subset(slice(0, 3))
    for name, number in (("truth.star", "000001@"), ("poses.star", "")):
        names = [f"{number}p{row}.mrc" for row in range(3)]
        truth.with_table(truth.table.assign(rlnImageName=names)).write(tmp_path / name)
    words = ["--estimate", tmp_path / "poses.star", "--truth", tmp_path / "truth.star"]
    status, _, complaint = parteq("cryoem", "evaluate", *words)
    assert (status, complaint) == (0, "")


def test_files_of_one_name_in_several_folders_are_not_guessed_at(parteq, folder, tmp_path):
    truth, estimate = open_particles(folder / "truth.star"), tmp_path / "poses.star"
    names = truth.table["rlnImageName"]
    for folders, path in ((("a", "b"), tmp_path / "truth.star"), (("/data/a", "/data/b"), estimate)):
        moved = [name.replace("@", f"@{folders[row % 2]}/") for row, name in enumerate(names)]
        truth.with_table(truth.table.assign(rlnImageName=moved)).write(path)
    words = ["--estimate", estimate, "--truth", tmp_path / "truth.star"]
    status, _, complaint = parteq("cryoem", "evaluate", *words)
    assert status == 2
    assert "in several folders" in complaint


def test_confidence_is_held_against_errors(parteq, folder, tmp_path):
    """Three in four are right, and all are said to be so with 0.9; the picture grows by a row."""
    truth, wrong = open_particles(folder / "truth.star"), np.arange(N) % 4 == 0
    rotations = truth.rotations()
    rotations[wrong] = Rotation.from_rotvec([0.5, 0, 0]).as_matrix() @ rotations[wrong]
    estimate, out = tmp_path / "poses.star", tmp_path / "out.json"
    truth.with_poses(rotations, np.zeros((N, 2)), parteqConfidence=np.full(N, 0.9)).write(estimate)
    words = ["--estimate", estimate, "--truth", folder / "truth.star", "--json", out, "--out", tmp_path / "errors.png"]
    assert parteq("cryoem", "evaluate", *words)[0] == 0
    found = json.loads(out.read_text())
    assert found["fraction_below_15deg"] == 0.75
    assert found["confidence_mean"] == pytest.approx(0.9)
    assert found["confidence_calibration_error"] == pytest.approx(0.15)
    with Image.open(tmp_path / "errors.png") as image:
        assert image.height > 0.7 * image.width
    truth.with_poses(rotations, np.zeros((N, 2)), parteqConfidence=np.full(N, 90.0)).write(estimate)
    status, _, complaint = parteq("cryoem", "evaluate", *words)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "not between 0 and 1" in complaint


def test_duplicated_rows_are_matched_one_to_one(parteq, folder, tmp_path):
    truth = open_particles(folder / "truth.star")
    twice = np.r_[np.arange(N), 5, 9]
    truth.subset(twice).write(tmp_path / "twice.star")
    status, _, complaint = parteq(
        "cryoem", "evaluate", "--estimate", tmp_path / "twice.star", "--truth", tmp_path / "twice.star"
    )
    assert (status, complaint) == (0, "")
    _, _, complaint = parteq(
        "cryoem", "evaluate", "--estimate", tmp_path / "twice.star", "--truth", folder / "truth.star"
    )
    assert "2 have no truth" in complaint


def test_bad_estimates(parteq, folder, tmp_path):
    truth = open_particles(folder / "truth.star")
    other = truth.subset(slice(0, 3))
    other.table["rlnImageName"] = [f"{number}@elsewhere.mrcs" for number in (1, 2, 3)]
    other.write(tmp_path / "other.star")
    poseless = Particles.create(None, None, None, PIXEL_SIZE, BOX, ["1@images.mrcs"])
    poseless.write(tmp_path / "poseless.star")
    nameless = Particles.create(np.eye(3)[None], np.zeros((1, 2)), None, PIXEL_SIZE, BOX)
    nameless.write(tmp_path / "nameless.star")
    for name, reason in {
        "other.star": "has no image in common",
        "poseless.star": "has no poses",
        "nameless.star": "has no image names",
        "lost.star": "no such file",
    }.items():
        status, _, complaint = parteq(
            "cryoem", "evaluate", "--estimate", tmp_path / name, "--truth", folder / "truth.star"
        )
        assert (status, complaint.count("\n")) == (2, 1)
        assert f"{name}: {reason}" in complaint
    words = ["--estimate", folder / "truth.star", "--truth", folder / "truth.star", "--symmetry", "Q7"]
    status, _, complaint = parteq("cryoem", "evaluate", *words)
    assert status == 2
    assert "no point group" in complaint


def test_a_map_its_halves_and_its_resolution(parteq, folder, tmp_path):
    out, scores = tmp_path / "map.mrc", tmp_path / "scores.json"
    words = ["--particles", folder / "truth.star", "--out", out, "--halves", "--reference", folder / "volume.mrc"]
    status, printed, complaint = parteq("cryoem", "reconstruct", *words, "--json", scores, "--batch-size", 50)
    assert (status, complaint.count("\n")) == (0, 2)
    for of in ("with the reference does not fall to 0.5", "of the half maps does not fall to 0.143"):
        assert f"the FSC {of} before Nyquist: 5 Å is a bound" in complaint
    assert "resolution_fsc_0143_angstrom" in printed
    volume, pixel_size = read_volume(out)
    truth = map_of_blobs()
    assert pixel_size == pytest.approx(PIXEL_SIZE)
    assert np.corrcoef(volume.ravel(), truth.ravel())[0, 1] > 0.99
    assert (volume * truth).sum() / (truth**2).sum() == pytest.approx(1, abs=0.05)
    halves = [read_volume(tmp_path / f"map_half{number}.mrc")[0] for number in (1, 2)]
    assert np.abs(halves[0] - halves[1]).max() > 0
    assert np.corrcoef(sum(halves).ravel(), volume.ravel())[0, 1] > 0.99
    found, curves = json.loads(scores.read_text()), json.loads((tmp_path / "map_fsc.json").read_text())
    assert (found["n_half1"], found["n_half2"], found["box"], found["n_particles"]) == (60, 60, BOX, N)
    assert found["resolution_reference_05_angstrom"] < 6
    assert found["resolution_fsc_0143_angstrom"] == curves["resolution_fsc_0143_angstrom"] == pytest.approx(5)
    assert found["resolution_fsc_0143_at_nyquist"] is curves["resolution_fsc_0143_at_nyquist"] is True
    assert found["resolution_reference_05_at_nyquist"] is True
    assert len(curves["frequency_per_angstrom"]) == len(curves["corrected"]) == BOX // 2 + 1
    assert curves["frequency_per_angstrom"][-1] == pytest.approx(1 / (2 * PIXEL_SIZE))
    with Image.open(tmp_path / "map_fsc.png") as image:
        assert image.format == "PNG"


def test_half_sets_are_those_of_the_file(parteq, folder, tmp_path):
    particles = open_particles(folder / "truth.star", datadir=folder)
    halves = np.where(np.arange(N) < 40, 1, 2)
    particles.with_poses(particles.rotations(), rlnRandomSubset=halves).write(tmp_path / "halves.star")
    words = ["--particles", tmp_path / "halves.star", "--datadir", folder, "--out", tmp_path / "map.mrc", "--halves"]
    status, printed, _ = parteq("cryoem", "reconstruct", *words)
    assert status == 0
    assert printed.split("n_half1")[1].split()[0] == "40"


def test_pixel_sizes_that_differ_by_rounding_are_one(parteq, folder, tmp_path):
    """As optics groups have them that were calibrated, or written, apart."""
    truth = open_particles(folder / "truth.star")
    sizes = np.where(np.arange(N) < 60, PIXEL_SIZE, PIXEL_SIZE * (1 + 1e-6))
    rounded = Particles.create(truth.rotations(), None, None, sizes, BOX, list(truth.table["rlnImageName"]))
    rounded.write(tmp_path / "rounded.star")
    assert len(open_particles(tmp_path / "rounded.star").optics) == 2
    words = ["--particles", tmp_path / "rounded.star", "--datadir", folder, "--out", tmp_path / "map.mrc", "--halves"]
    status, _, complaint = parteq("cryoem", "reconstruct", *words)
    assert status == 0
    assert complaint.count("has pixel sizes from 2.5 to 2.5000025 Å: taken as 2.5") == 1


def test_without_halves_there_is_a_map_and_nothing_else(parteq, folder, tmp_path):
    words = ["--particles", folder / "truth.star", "--out", tmp_path / "map.mrc", "--symmetry", "C2", "--quiet"]
    assert parteq("cryoem", "reconstruct", *words) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["map.mrc"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--symmetry", "Q7"], "no point group"),
        (["--batch-size", "0"], "must be greater than 0"),
        (["--regularisation", "-1"], "must not be negative"),
        (["--out", "map.png"], "ends in .mrc"),
        (["--out", "nowhere/map.mrc"], "there is no folder nowhere"),
        (["--reference", "small.mrc"], "has 8 voxels of 2.5 Å, the images have 16 pixels"),
        (["--particles", "poseless.star"], "has no poses"),
        (["--particles", "lost.star"], "no such file"),
        (["--particles", "sizes.star"], "has pixel sizes from 2 to 3 Å"),
        (["--particles", "single.star", "--halves"], "half maps need two"),
    ],
)
def test_what_cannot_be_reconstructed(parteq, folder, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    write_volume(tmp_path / "small.mrc", np.zeros((8, 8, 8), dtype=np.float32), PIXEL_SIZE)
    truth = open_particles(folder / "truth.star")
    truth.subset([3]).write(tmp_path / "single.star")
    two, names = np.eye(3)[None].repeat(2, 0), ["1@images.mrcs", "2@images.mrcs"]
    Particles.create(None, None, None, PIXEL_SIZE, BOX, names).write(tmp_path / "poseless.star")
    Particles.create(two, np.zeros((2, 2)), None, [2.0, 3.0], BOX, names).write(tmp_path / "sizes.star")
    before = sorted(path.name for path in tmp_path.iterdir())
    defaults = ["--particles", folder / "truth.star", "--out", "map.mrc", "--datadir", folder]
    status, printed, complaint = parteq("cryoem", "reconstruct", *defaults, *words)
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    assert reason in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_axes_that_are_not_there_are_told(parteq, folder, tmp_path):
    words = ["--particles", folder / "truth.star", "--out", tmp_path / "map.mrc", "--symmetry", "T", "--find-axes"]
    status, printed, complaint = parteq("cryoem", "reconstruct", *words)
    assert status == 0
    assert "may not have the symmetry T" in complaint
    assert float(printed.split("symmetry_correlation")[1].split()[0]) < 0.75


@pytest.mark.parametrize(("options", "turned", "lines"), [([], True, 1), ([], False, 0), (["--find-axes"], False, 0)])
def test_axes_that_are_not_in_place_are_found(parteq, folder, tmp_path, options, turned, lines):
    out, particles = tmp_path / "map.mrc", open_particles(folder / "truth.star", datadir=folder)
    rotations = particles.rotations()
    # A map that is symmetric because each image stands in the file with the three poses of a trimer, about some axis.
    frame = Rotation.random(random_state=2).as_matrix() if turned else np.eye(3)
    copies = [rotations @ frame @ element @ frame.T for element in point_group("C3")]
    thrice = particles.subset(np.tile(np.arange(N), 3)).with_poses(np.concatenate(copies))
    thrice.write(tmp_path / "thrice.star")
    words = ["--particles", tmp_path / "thrice.star", "--datadir", folder, "--symmetry", "C3", *options]
    status, printed, complaint = parteq("cryoem", "reconstruct", *words, "--out", out)
    assert (status, complaint.count("\n")) == (0, lines)
    assert ("do not stand as RELION sets them" in complaint) is turned
    assert float(printed.split("symmetry_correlation")[1].split()[0]) > 0.9
    volume = read_volume(out)[0].astype(np.float64)
    turned = ndimage.rotate(volume[1:, 1:, 1:], 120, axes=(1, 2), reshape=False)
    assert np.corrcoef(volume[1:, 1:, 1:].ravel(), turned.ravel())[0, 1] > 0.9
