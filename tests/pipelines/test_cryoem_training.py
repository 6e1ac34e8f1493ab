"""`parteq cryoem train`, `estimate` and `check-equivariance`, from simulated particles to poses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from parteq.apps.cryoem.estimation import Poses, propose
from parteq.apps.cryoem.placement import Placement
from parteq.apps.cryoem.samples import ParticleSamples
from parteq.datasets.cryoem.mrc import read_volume, write_volume
from parteq.datasets.cryoem.particles import open_particles
from parteq.pipelines.cli import main
from parteq.pipelines.cryoem.encoder_frame import keep_encoder_frame
from parteq.pipelines.cryoem.estimate import Estimate
from parteq.pipelines.run import Run

SMALL = ["--box", "16", "--width", "0.4", "--batch-size", "32", "--quiet"]


@pytest.fixture(autouse=True)
def few_rounds(monkeypatch) -> None:
    """So that small trainings take no time."""
    monkeypatch.setattr("parteq.apps.cryoem.expectation._ROUNDS", 2)
    monkeypatch.setattr("parteq.apps.cryoem.halves._MOST_SEARCHES", 3)


@pytest.fixture(scope="module")
def simulated(tmp_path_factory) -> Path:
    """A folder with 96 clear images of some blobs, 17 pixels wide."""
    axis = np.arange(17) - 8
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    places = [(0, 0, 0, 1.0), (4, 1, 0, 1.5), (0, -3, 2, 1.0), (-2, 3, -4, 2.0)]
    volume = sum(w * np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 3) for a, b, c, w in places)
    folder = tmp_path_factory.mktemp("cryoem")
    write_volume(folder / "map.mrc", volume.astype(np.float32), 4.0)
    words = ["cryoem", "simulate", "--volume", folder / "map.mrc", "--n", 96, "--snr", 5, "--shift", 2]
    words += ["--defocus", "0.3-0.5", "--out", folder / "sim", "--quiet"]
    assert main([str(word) for word in words]) == 0
    return folder / "sim"


@pytest.fixture(scope="module")
def supervised(simulated, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("supervised") / "run"
    words = ["cryoem", "train", "--particles", simulated / "particles.star", "--mode", "supervised", "--out", run]
    assert main([str(word) for word in [*words, "--epochs", 3, *SMALL]]) == 0
    return run


def test_a_run_from_images_alone_leaves_map_poses_and_report(parteq, simulated, tmp_path):
    run, found = tmp_path / "run", tmp_path / "found.json"
    words = ["--particles", simulated / "particles.star", "--out", run, "--epochs", 2, *SMALL[:-1], "--json", found]
    status, _, complaint = parteq("cryoem", "train", *words)
    assert status == 0
    results = json.loads(found.read_text())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert all({"seconds", "cpu_seconds", "loss", "rotation_error_median_deg"} <= set(record) for record in records)
    volume, pixel_size = read_volume(run / "volume.mrc")
    assert volume.shape == (16, 16, 16)
    assert pixel_size == pytest.approx(4.0 * 17 / 16, rel=1e-3)
    given, poses = (open_particles(path) for path in (simulated / "particles.star", run / "poses.star"))
    assert list(poses.table["rlnImageName"]) == list(given.table["rlnImageName"])
    assert list(poses.table["rlnDefocusU"]) == list(given.table["rlnDefocusU"])
    assert poses.table["parteqConfidence"].between(0, 1.00001).all()
    assert (run / "report.html").stat().st_size > 10_000
    assert results["n_particles"] == 96
    assert isinstance(results["stuck"], bool)
    # 96 images and two passes are not enough, and it says so, here and to all who use the map.
    assert results["reliable"] is False
    assert "Not reliable: the two searches of several that fit best" in complaint
    assert complaint.count("parteq: ") == 1
    report = (run / "report.html").read_text()
    assert "Not reliable: the two searches of several that fit best" in report
    assert ("do not rest on what it proposes" in report) is results["stuck"]
    assert re.search(r"<tr><td>rotation error median deg</td>\s*<td[^>]*>[\d.]+</td></tr>", report)
    words = ["--run", run, "--particles", simulated / "particles.star", "--out", tmp_path / "poses.star"]
    words += ["--json", found]
    assert "Not reliable" in parteq("cryoem", "estimate", *words)[2]
    estimated = json.loads(found.read_text())
    # Nor has the encoder learned anything: a search finds other poses.
    assert estimated["stuck"] is True
    assert estimated["encoder_search_agreement"] < 0.5
    assert estimated["reliable"] is False
    assert estimated["half_agreement"] == results["half_agreement"]
    (run / "reliability.json").write_text("{}")
    status, _, complaint = parteq("cryoem", "estimate", *words)
    assert (status, complaint.count("\n"), "is damaged" in complaint) == (2, 1, True)


def test_what_the_encoder_proposes_is_told_in_the_frame_of_the_run(
    parteq, simulated, supervised, tmp_path, monkeypatch
):
    """Its own map may be turned, mirrored and moved against that of the run."""
    run = shutil.copytree(supervised, tmp_path / "run")
    truth, voxel = open_particles(simulated / "particles.star"), 4.0 * 17 / 16
    matrix = Rotation.random(random_state=1).as_matrix() @ np.diag([1, 1, -1])
    placement = Placement(matrix, np.array([1.0, -2.0, 0.5]))
    keep_encoder_frame(run, placement)
    rotations = truth.rotations()
    turned = np.diag([1, 1, -1]) @ rotations @ matrix
    shifts = truth.shifts_in_angstroms() / voxel + rotations[:, :2] @ placement.offset
    proposed = Poses(torch.from_numpy(turned).float(), torch.from_numpy(shifts).float())
    monkeypatch.setattr(Estimate, "_estimate", lambda *_: proposed)
    monkeypatch.setattr(Estimate, "_ask_search", lambda *_: {})
    words = ["--run", run, "--particles", simulated / "particles.star", "--out", tmp_path / "poses.star"]
    assert parteq("cryoem", "estimate", *words)[0] == 0
    found = open_particles(tmp_path / "poses.star")
    np.testing.assert_allclose(found.rotations(), rotations, atol=1e-4)
    np.testing.assert_allclose(found.shifts_in_angstroms(), truth.shifts_in_angstroms(), atol=0.01)
    for damaged in ("{}", '{"matrix": [[1, 0, 0], [0, 1, 0], [0, 0, 2]], "offset_voxels": [0, 0, 0]}'):
        (run / "encoder_frame.json").write_text(damaged)
        status, _, complaint = parteq("cryoem", "estimate", *words)
        assert (status, complaint.count("\n"), "is damaged" in complaint) == (2, 1, True)


def test_a_symmetry_that_the_map_has_not_is_told(parteq, simulated, tmp_path):
    run, found = tmp_path / "run", tmp_path / "found.json"
    words = ["--particles", simulated / "particles.star", "--out", run, "--json", found]
    train = ["--mode", "supervised", "--symmetry", "t", "--epochs", 2, "--restarts", 1, *SMALL[:-1]]
    status, _, complaint = parteq("cryoem", "train", *words, *train)
    assert (status, "may not have the symmetry T" in complaint) == (0, True)
    results = json.loads(found.read_text())
    assert (results["symmetry"], results["symmetry_found"]) == ("T", False)
    # Both attempts are stuck after two epochs; what is told is of the better one, and goes on.
    records = Run.open(run).history()
    assert len(records) == 4
    best = min(records, key=lambda record: record["loss"])
    assert results["loss"] == best["loss"]
    assert results["rotation_error_median_deg"] == best["rotation_error_median_deg"]
    assert Run.open(run).checkpoint().about()["epoch"] == best["epoch"]
    words[3] = tmp_path / "poses.star"
    assert "may not have the symmetry T" in parteq("cryoem", "estimate", "--run", run, *words)[2]


def test_no_pose_of_the_file_is_used(parteq, simulated, tmp_path):
    """With other poses, or none, in the file the same network comes out."""
    particles = open_particles(simulated / "particles.star")
    turned = particles.rotations()[::-1]
    changed = particles.with_poses(turned, -particles.shifts_in_angstroms())
    bare = particles.with_table(particles.table.drop(columns=[c for c in particles.table if "Angle" in c[3:8]]))
    weights = []
    for number, version in enumerate((particles, changed, bare)):
        path = simulated / f"version{number}.star"
        version.write(path)
        words = ["--particles", path, "--out", tmp_path / str(number), "--epochs", 1, *SMALL]
        assert parteq("cryoem", "train", *words)[0] == 0
        weights.append(load_file(Run.open(tmp_path / str(number)).checkpoint().path / "model.safetensors"))
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in other)


def test_estimate_keeps_columns_and_adds_confidence(parteq, simulated, supervised, tmp_path):
    out = tmp_path / "poses.star"
    words = ["--run", supervised, "--particles", simulated / "particles.star", "--out", out, "--quiet"]
    assert parteq("cryoem", "estimate", *words, "--refine")[0] == 0
    found = tmp_path / "errors.json"
    words = ["--estimate", out, "--truth", simulated / "particles.star", "--json", found]
    assert parteq("cryoem", "evaluate", *words)[0] == 0
    errors = json.loads(found.read_text())
    # The map was made at the true poses, so matching finds them again.
    assert errors["rotation_error_median_deg"] < 3
    assert errors["shift_error_median_angstrom"] < 1
    given = open_particles(simulated / "particles.star")
    assert list(open_particles(out).table.columns)[: len(given.table.columns)] == list(given.table.columns)
    assert not list(tmp_path.glob(".poses*"))


def test_heads_are_chosen_by_the_map_of_the_encoder(parteq, simulated, supervised, tmp_path):
    """Not by that of the run, which refinement may have left in another frame."""
    run = shutil.copytree(supervised, tmp_path / "run")
    words = ["--run", run, "--particles", simulated / "particles.star", "--quiet", "--out"]
    assert parteq("cryoem", "estimate", *words, tmp_path / "before.star")[0] == 0
    volume, pixel_size = read_volume(run / "volume.mrc")
    write_volume(run / "volume.mrc", np.rot90(volume, axes=(0, 2)).copy(), pixel_size)
    assert parteq("cryoem", "estimate", *words, tmp_path / "after.star")[0] == 0
    assert (tmp_path / "before.star").read_bytes() == (tmp_path / "after.star").read_bytes()
    model = Run.open(run).checkpoint().model()
    samples = ParticleSamples(open_particles(simulated / "particles.star"), model.disc, model.config["scale"])
    with torch.no_grad():
        expected = propose(model, model.decoder.volume(), samples, torch.device("cpu"))
    found = open_particles(tmp_path / "after.star").rotations()
    np.testing.assert_allclose(found, expected.rotations.numpy(), atol=1e-4)


@pytest.mark.parametrize(("shuffled", "stuck"), [(0, False), (1, True)])
def test_the_encoder_is_held_against_the_map_of_the_run(
    parteq, simulated, supervised, tmp_path, monkeypatch, shuffled, stuck
):
    """Up to one turn of all: its own map, if that is wrong, agrees with its wrong poses."""
    turn = torch.from_numpy(Rotation.random(random_state=1).as_matrix()).float()

    def proposed(self, model, volume, data, device):
        _, _, rotations, shifts = data.tensors
        return Poses(rotations.roll(shuffled, 0) @ turn, shifts)

    monkeypatch.setattr(Estimate, "_estimate", proposed)
    words = ["--run", supervised, "--particles", simulated / "particles.star", "--out", tmp_path / "poses.star"]
    assert parteq("cryoem", "estimate", *words, "--json", tmp_path / "found.json")[0] == 0
    assert json.loads((tmp_path / "found.json").read_text())["stuck"] is stuck


def test_poses_of_a_run_lead_to_their_images(parteq, simulated, supervised, tmp_path):
    out = ["--out", tmp_path / "map.mrc", "--quiet"]
    assert parteq("cryoem", "reconstruct", "--particles", supervised / "poses.star", *out)[0] == 0
    words = ["--particles", supervised / "poses.star", "--out", tmp_path / "poses.star", "--quiet"]
    assert parteq("cryoem", "estimate", "--run", supervised, *words)[0] == 0
    assert parteq("cryoem", "reconstruct", "--particles", tmp_path / "poses.star", *out)[0] == 0
    # What this user has not signed does not lead images out of its folder, but says what would.
    signed = (tmp_path / "poses.star").read_text()
    (tmp_path / "poses.star").write_text(re.sub(r"_parteqSignature \w+", "_parteqSignature 0", signed))
    status, _, complaint = parteq("cryoem", "reconstruct", "--particles", tmp_path / "poses.star", *out)
    assert (status, complaint.count("\n")) == (2, 1)
    assert f"give --datadir {simulated.absolute()})" in complaint
    words = ["--particles", tmp_path / "poses.star", "--datadir", simulated, *out]
    assert parteq("cryoem", "reconstruct", *words)[0] == 0


def test_an_interrupted_estimate_goes_on_to_the_same_file(parteq, simulated, supervised, tmp_path, monkeypatch):
    monkeypatch.setattr("parteq.pipelines.cryoem.estimate._PART", 40)
    monkeypatch.setattr("parteq.pipelines.cryoem.estimate._HEARD", 10)
    estimate, keep, parts = Estimate._estimate, Estimate._keep, []

    def counted(self, model, volume, data, device):
        parts.append(len(data))
        return estimate(self, model, volume, data, device)

    def interrupted(self, identity, found, done):
        keep(self, identity, found, done)
        raise KeyboardInterrupt

    monkeypatch.setattr(Estimate, "_estimate", counted)
    words = ["--run", supervised, "--particles", simulated / "particles.star", "--quiet", "--out"]
    assert parteq("cryoem", "estimate", *words, tmp_path / "whole.star")[0] == 0
    with monkeypatch.context() as patch:
        patch.setattr(Estimate, "_keep", interrupted)
        assert parteq("cryoem", "estimate", *words, tmp_path / "poses.star")[0] == 130
    assert not (tmp_path / "poses.star").exists()
    # Not to the same particles in another order.
    particles = open_particles(simulated / "particles.star")
    particles.subset(np.arange(96)[::-1]).write(simulated / "sorted.star")
    other = ["--particles", simulated / "sorted.star", "--out", tmp_path / "poses.star", "--resume"]
    status, _, complaint = parteq("cryoem", "estimate", "--run", supervised, *other)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "in another order" in complaint
    assert parteq("cryoem", "estimate", *words, tmp_path / "poses.star", "--resume")[0] == 0
    assert (tmp_path / "poses.star").read_bytes() == (tmp_path / "whole.star").read_bytes()
    # First of all some that the noise is told by.
    assert parts == [10, 40, 40, 16, 10, 40, 10, 40, 16], parts
    assert not list(tmp_path.glob(".poses*"))


def test_confidence_does_not_depend_on_the_part(parteq, simulated, supervised, tmp_path, monkeypatch):
    monkeypatch.setattr("parteq.pipelines.cryoem.estimate._PART", 40)
    rows = np.concatenate([np.arange(40), np.arange(10), np.arange(60, 90)])
    open_particles(simulated / "particles.star").subset(rows).write(simulated / "twice.star")
    words = ["--run", supervised, "--particles", simulated / "twice.star", "--out", tmp_path / "poses.star", "--quiet"]
    assert parteq("cryoem", "estimate", *words)[0] == 0
    confidence = open_particles(tmp_path / "poses.star").table["parteqConfidence"].to_numpy()
    np.testing.assert_allclose(confidence[40:50], confidence[:10], atol=1e-5)
    assert confidence.std() > 1e-3


@pytest.mark.parametrize(("agreement", "similarity", "attempts"), [(1.0, 0.99, 3), (0.1, 0.0, 3), (1.0, 0.0, 1)])
def test_a_doubtful_run_is_begun_again(parteq, simulated, tmp_path, monkeypatch, agreement, similarity, attempts):
    """Be its encoder stuck or the map that it leaves spuriously symmetric."""
    looked_at = []

    def similar(volume, frame):
        looked_at.append(volume)
        return similarity, 180.0

    monkeypatch.setattr("parteq.apps.cryoem.halves.search_agreement", lambda *_: agreement)
    monkeypatch.setattr("parteq.apps.cryoem.diagnosis.self_similarity", similar)
    run, found = tmp_path / "run", tmp_path / "found.json"
    words = ["--particles", simulated / "particles.star", "--out", run, "--epochs", 1, "--restarts", 2, "--json", found]
    assert parteq("cryoem", "train", *words, *SMALL)[0] == 0
    assert len(Run.open(run).history()) == attempts
    assert json.loads(found.read_text())["self_similarity"] == similarity
    written = read_volume(run / "volume.mrc")[0]
    assert np.corrcoef(written.ravel(), looked_at[-1].numpy().ravel())[0, 1] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("better", [False, True])
def test_weights_are_of_the_attempt_that_is_kept(parteq, simulated, tmp_path, monkeypatch, better):
    """Were its loss higher or lower than that of the attempt before."""
    similarities = iter([0.99, 0.0])
    monkeypatch.setattr("parteq.apps.cryoem.halves.search_agreement", lambda *_: 1.0)
    monkeypatch.setattr("parteq.apps.cryoem.diagnosis.self_similarity", lambda *_: (next(similarities), 180.0))
    save, sign = Run.save, 1 if better else -1
    monkeypatch.setattr(Run, "save", lambda run, *args, score: save(run, *args, score=sign * args[0]["epoch"]))
    run = tmp_path / "run"
    words = ["--particles", simulated / "particles.star", "--out", run, "--epochs", 1, "--restarts", 3]
    assert parteq("cryoem", "train", *words, *SMALL)[0] == 0
    assert len(Run.open(run).history()) == 2
    assert Run.open(run).checkpoint().about()["epoch"] == 2
    assert next(similarities, None) is None


def test_equivariance_is_measured(parteq, supervised, tmp_path):
    found = tmp_path / "found.json"
    assert parteq("cryoem", "check-equivariance", "--run", supervised, "--json", found, "--quiet")[0] == 0
    errors = json.loads(found.read_text())
    assert max(errors["quarter_turn_error_rad"], errors["mirror_error_rad"]) < 1e-4
    assert errors["layers"]


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(simulated, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    words = [sys.executable, "-m", "parteq", "cryoem", "train", "--particles", str(simulated / "particles.star")]
    words += ["--epochs", "5", *SMALL, "--out"]
    subprocess.run([*words, str(whole)], check=True, timeout=300)
    process = subprocess.Popen([*words, str(killed)])
    while not (killed / "checkpoints" / "0002").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*words[:5], "--out", str(killed), "--resume", "--quiet"], check=True, timeout=300)
    weights = [load_file(Run.open(run).checkpoint().path / "model.safetensors") for run in (whole, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert (whole / "poses.star").read_bytes() == (killed / "poses.star").read_bytes()


def test_a_training_whose_time_is_over_is_not_gone_on_with(parteq, simulated, tmp_path):
    words = ["--particles", simulated / "particles.star", "--mode", "supervised", "--epochs", 9, *SMALL]
    words += ["--out", tmp_path / "run", "--max-seconds", 1e-3]
    assert parteq("cryoem", "train", *words)[0] == 0
    assert parteq("cryoem", "train", *words, "--resume")[0] == 0
    assert len(Run.open(tmp_path / "run").history()) == 1


# Of several poses the best learns; after an epoch a rounding may decide which that is.
@pytest.mark.slow
@pytest.mark.parametrize(("loss", "epochs"), [("l2", "2"), ("multihead", "1")])
def test_two_processes_give_what_one_gives(simulated, supervised, tmp_path, loss, epochs):
    losses, poses = [], []
    for processes in ("1", "2"):
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes]
        launch += ["-m", "--", "parteq"]
        particles = ["--particles", str(simulated / "particles.star"), "--quiet"]
        run, out = tmp_path / f"run{processes}", tmp_path / f"poses{processes}.star"
        train = ["cryoem", "train", *particles, "--out", str(run), "--loss", loss, "--epochs", epochs, *SMALL]
        subprocess.run([*launch, *train], check=True, timeout=400)
        estimate = ["cryoem", "estimate", "--run", str(supervised), *particles, "--out", str(out)]
        subprocess.run([*launch, *estimate], check=True, timeout=100)
        losses.append([json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()])
        poses.append(open_particles(out).rotations())
    # Batch statistics are those of all processes together.
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert np.abs(poses[0] - poses[1]).max() < 1e-4


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        (["--box", 4], "--box 4: must be at least 8"),
        (["--restarts", -1], "--restarts -1: must be at least 0"),
        (["--width", 0], "--width 0.0: must be at least"),
        (["--augment", "poses"], "--augment poses: needs poses that are known"),
        (["--particles", "missing.star"], "missing.star"),
    ],
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(parteq, simulated, tmp_path, changed, reason):
    words = ["--particles", simulated / "particles.star", "--out", tmp_path / "run", *changed]
    status, _, complaint = parteq("cryoem", "train", *words)
    assert status == 2
    assert reason in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_particles_without_poses_cannot_supervise(parteq, simulated, tmp_path):
    particles = open_particles(simulated / "particles.star")
    bare = particles.with_table(particles.table.drop(columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]))
    bare.write(simulated / "bare.star")
    words = ["--particles", simulated / "bare.star", "--mode", "supervised", "--out", tmp_path / "run"]
    status, _, complaint = parteq("cryoem", "train", *words)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "has no poses" in complaint
