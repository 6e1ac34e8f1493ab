"""The commands on point clouds, from training to export, on small clouds whose height tells their class."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation

from parteq.apps.points import samples
from parteq.core.axis import Axis
from parteq.datasets.points import base
from parteq.datasets.points.clouds import open_clouds
from parteq.datasets.points.hdf5 import CloudWriter
from parteq.pipelines.cli import main
from parteq.pipelines.figures import learning_curve
from parteq.pipelines.points.train import Train
from parteq.pipelines.run import Run

SMALL = ["--width", "0.2", "--learning-rate", "0.01", "--points", "24", "--batch-size", "8", "--quiet"]


def write_clouds(path: Path, count: int, first_family: int, seed: int) -> None:
    """Flat (class 0) and long (class 1) clouds, two a family, with a number to predict."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    points = rng.standard_normal((count, 24, 3)) * np.array([[3, 3, 0.2], [0.2, 0.2, 3]])[labels][:, None]
    np.savez(
        path,
        points=points.astype(np.float32),
        label=labels,
        classes=["flat", "long"],
        family=first_family + np.arange(count) // 4,
    )


@pytest.fixture(scope="module")
def clouds(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clouds")
    write_clouds(folder / "train.npz", 64, first_family=0, seed=0)
    write_clouds(folder / "test.npz", 24, first_family=100, seed=1)
    return folder


@pytest.fixture(scope="module")
def trained_points(clouds, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run"
    assert (
        main(["points", "train", "--data", str(clouds / "train.npz"), "--out", str(run), "--epochs", "8", *SMALL]) == 0
    )
    return run


def test_train_leaves_a_run_with_a_report(trained_points):
    assert {"config.toml", "metrics.jsonl", "report.html"} <= {path.name for path in trained_points.iterdir()}
    assert Run.open(trained_points).history()[-1]["val_accuracy"] > 0.9


@pytest.mark.parametrize("rotate", ["none", "so3", "tilt:30"])
def test_evaluate(parteq, clouds, trained_points, tmp_path, rotate):
    out = tmp_path / "scores.json"
    words = ["--rotate", rotate, "--repeats", 2, *(["--plot", tmp_path / "tilt.png"] if "tilt" in rotate else [])]
    data = clouds / "test.npz"
    assert parteq("points", "evaluate", "--run", trained_points, "--data", data, "--json", out, *words)[0] == 0
    scores = json.loads(out.read_text())
    assert {"accuracy", "class_accuracy", "n", "rotate", "accuracy_std", "schema"} <= scores.keys()
    assert (scores["rotate"], scores["n"]) == (rotate, 24)
    assert ("tilt" in rotate) == (tmp_path / "tilt.png").exists()


def test_predict(parteq, clouds, trained_points, tmp_path):
    out = tmp_path / "predictions.csv"
    status, _, _ = parteq("points", "predict", "--run", trained_points, "--data", clouds / "test.npz", "--out", out)
    assert status == 0
    with out.open() as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["index", "predicted", "probability_flat", "probability_long"]
    assert len(rows) == 25


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format", ["torch", "onnx"])
def test_export(parteq, trained_points, tmp_path, format):
    if format == "onnx":
        pytest.importorskip("onnxscript")
    out, results = tmp_path / "model", tmp_path / "out.json"
    words = ["--run", trained_points, "--format", format, "--out", out, "--json", results]
    assert parteq("points", "export", *words)[0] == 0
    assert json.loads(results.read_text())["max_abs_difference"] < 1e-3
    if format == "onnx":
        import onnx

        said = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
        assert json.loads(said["classes"]) == ["flat", "long"]
        assert "× 3, x, y, z" in said["input"]
        assert "softmax" in said["output"]


def test_no_atom_is_left_out(parteq, tmp_path):
    rng = np.random.default_rng(0)
    known = {"target_names": ["gap"]}
    sizes = {"small": np.full(24, 5), "large": np.array([9, 7])}
    for name, atoms in sizes.items():
        arrays = {"z": rng.choice([1, 6, 8], atoms.sum()), "pos": rng.standard_normal((atoms.sum(), 3))}
        targets = rng.standard_normal((len(atoms), 1))
        np.savez(tmp_path / f"{name}.npz", **arrays, n_atoms=atoms, targets=targets, **known)
    train = ["points", "train", "--data", f"qm9:{tmp_path / 'small.npz'}", "--task", "regress", "--target", "gap"]
    words = [*train, "--epochs", "1", "--out", tmp_path / "run", *SMALL]
    status, _, complaint = parteq(*words, "--points", "4")
    assert (status, "of which none may be left out: --points 5" in complaint) == (2, True)
    assert parteq(*words)[0] == 0
    out = tmp_path / "predictions.csv"
    words = ["--run", tmp_path / "run", "--data", f"qm9:{tmp_path / 'large.npz'}", "--out", out]
    assert parteq("points", "predict", *words)[0] == 0
    with out.open() as file:
        predicted = [float(row[1]) for row in list(csv.reader(file))[1:]]
    model, large = Run.open(tmp_path / "run").checkpoint().model().eval(), open_clouds(f"qm9:{tmp_path / 'large.npz'}")
    with torch.inference_mode():
        expected = [float(model(pos[None], None, atoms[None])) for pos, atoms in (large.cloud(0), large.cloud(1))]
    np.testing.assert_allclose(predicted, expected, rtol=1e-4)


def test_degree(parteq, trained_points, tmp_path):
    out = tmp_path / "degree.json"
    status, printed, _ = parteq("degree", "--run", trained_points, "--json", out, "--out", tmp_path / "degree.png")
    assert status == 0
    degree = json.loads(out.read_text())
    keys = {"name", "group", "kl_to_uniform_nats", "broken_energy", "singular_values", "axis", "nearest_subgroup"}
    assert all(keys <= layer.keys() for layer in degree["layers"])
    assert "SO(3)" in degree["summary"]
    assert (tmp_path / "degree.png").stat().st_size > 1000
    for layer in degree["layers"]:
        assert layer["tilt_deg"] == [5.0 * step for step in range(37)]
        assert len(layer["density_over_tilt"]) == 37
        assert f"σ {' '.join(f'{value:.3f}' for value in layer['singular_values'])}" in printed
    assert f"{degree['layers'][0]['density_over_tilt'][18]:.2f} at 90°" in printed
    assert ("axis (" in printed) == (" about " in printed)
    report = (trained_points / "report.html").read_text()
    assert report.count("<img") == 2
    assert '<th class="number">σ₁</th>' in report
    assert (trained_points / "degree.png").exists()


@pytest.mark.parametrize("group", ["octahedral", "none"])
def test_degree_of_groups_without_an_angle(parteq, clouds, tmp_path, group):
    run, out = tmp_path / "run", tmp_path / "degree.json"
    words = ["--data", clouds / "train.npz", "--out", run, "--group", group, "--epochs", 1, "--layers", 0, *SMALL]
    assert parteq("points", "train", *words)[0] == 0
    assert parteq("degree", "--run", run, "--json", out)[0] == 0
    drawn = json.loads(out.read_text())["out"]
    assert drawn is None or Path(drawn).exists()


def test_regression_with_a_learned_axis(parteq, tmp_path):
    rng = np.random.default_rng(0)
    sizes = rng.integers(3, 8, 24)
    data, run = tmp_path / "molecules.npz", tmp_path / "run"
    np.savez(
        data,
        z=rng.choice([1, 6, 8], sizes.sum()),
        pos=rng.standard_normal((sizes.sum(), 3)).astype(np.float32),
        n_atoms=sizes,
        targets=rng.standard_normal((24, 2)),
        target_names=["homo", "gap"],
    )
    words = ["--task", "regress", "--target", "gap", "--group", "so2", "--axis", "learn", "--epochs", "1", *SMALL]
    status, _, complaint = parteq("points", "train", "--data", f"qm9:{data}", "--out", run, *words)
    assert (status, complaint) == (0, "")
    out = tmp_path / "scores.json"
    assert parteq("points", "evaluate", "--run", run, "--data", f"qm9:{data}", "--json", out)[0] == 0
    assert {"mae", "mae_unit", "n"} <= json.loads(out.read_text()).keys()
    assert "Errors of gap." in (run / "report.html").read_text()
    drawn = learning_curve(Run.open(run).history(), "meV").axes
    assert [len(axes.lines) for axes in drawn] == [1, 1]
    assert drawn[1].get_legend().get_texts()[0].get_text() == "mean absolute error (meV)"


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--axis", "0,0"], "neither three numbers"),
        (["--axis=0,0,-1", "--group", "so2"], "a group about -z is the group about z"),
        (["--task", "regress"], "go together"),
        (["--target", "homo", "--task", "regress"], "no target"),
        (["--points", "1"], "--points 1: must lie between"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(parteq, clouds, tmp_path, words, reason):
    data = ["--data", clouds / "train.npz", "--out", tmp_path / "run"]
    status, _, complaint = parteq("points", "train", *data, *words)
    assert status == 2
    assert reason in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_few_clouds_are_not_few_steps(tmp_path):
    def batch_size(clouds: int, **options: int) -> int | None:
        return Train(data="x.npz", out=tmp_path, **options).settings(clouds).batch_size

    assert [batch_size(clouds) for clouds in (40, 400, 2000, 10_000)] == [8, 16, 48, 48]
    assert batch_size(40, batch_size=20) == 20


def test_a_learned_axis_is_the_one_that_degree_tells(parteq, clouds, tmp_path):
    run, out = tmp_path / "run", tmp_path / "degree.json"
    words = ["--data", clouds / "train.npz", "--out", run, "--group", "so2", "--axis", "learn", "--epochs", 2, *SMALL]
    assert parteq("points", "train", *words)[0] == 0
    assert parteq("degree", "--run", run, "--json", out, "--quiet")[0] == 0
    axes = [layer["axis"] for layer in json.loads(out.read_text())["layers"]]
    (learned,) = (part for part in Run.open(run).checkpoint().model().modules() if isinstance(part, Axis))
    assert axes == [pytest.approx(learned().tolist())] * len(axes)
    assert 1e-4 < np.hypot(*axes[0][:2]) < 0.5  # it has left z


def test_clouds_in_a_file_are_read_piece_by_piece(parteq, clouds, tmp_path, monkeypatch):
    """As of a set that would not fit into memory: no more than a cloud, or a block of the fingerprint, at a time."""
    data = tmp_path / "clouds.h5"
    stored = open_clouds(str(clouds / "train.npz"))
    with CloudWriter(data) as writer:
        for number in range(len(stored)):
            writer.append(stored.cloud(number)[0])
        writer.finish(labels=stored.labels, classes=stored.classes, families=stored.families.tolist())
    monkeypatch.setattr(base, "_BATCH_POINTS", 100)
    read, counts = h5py.Dataset.__getitem__, []

    def counted(dataset: h5py.Dataset, *where: object) -> object:
        found = read(dataset, *where)
        if dataset.name == "/positions":
            counts.append(len(found))
        return found

    monkeypatch.setattr(h5py.Dataset, "__getitem__", counted)
    for name, limit in (("streamed", 0), ("held", 2**30)):
        monkeypatch.setattr(samples, "_IN_MEMORY_BYTES", limit)
        words = ["--data", data, "--out", tmp_path / name, "--augment-rotation", "so3", "--epochs", 1, *SMALL]
        assert parteq("points", "train", *words) == (0, "", "")
    assert max(counts) <= 100
    streamed, held = (Run.open(tmp_path / name).history() for name in ("streamed", "held"))
    assert streamed == held


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"points": np.zeros((8, 24, 3))}, "has clouds without extent"),
        ({"points": np.ones((192, 3)), "n_points": np.full(8, 2**61)}, "how 192 points part into clouds"),
        ({"points": np.array([{}] * 8)}, "Python objects, which are never loaded"),
    ],
)
def test_clouds_that_cannot_be_trained_on_are_refused(parteq, tmp_path, arrays, reason):
    data, run = tmp_path / "x.npz", tmp_path / "run"
    np.savez(data, label=np.arange(8) % 2, **arrays)
    status, _, complaint = parteq("points", "train", "--data", data, "--out", run, *SMALL)
    assert (status, complaint.count("\n")) == (2, 1)
    assert complaint.startswith(f"parteq: {data}: ")
    assert reason in complaint
    assert not run.exists()


def test_evaluation_knows_the_classes_of_training(parteq, clouds, trained_points, tmp_path):
    data, out = tmp_path / "x.npz", tmp_path / "scores.json"
    with np.load(clouds / "test.npz") as arrays:
        np.savez(data, **{**arrays, "classes": ["flat", "round"]})
    words = ["points", "evaluate", "--run", trained_points, "--data", data, "--json", out]
    assert parteq(*words) == (2, "", f"parteq: {data}: has the class 'round'; known are flat, long\n")
    assert not out.exists()


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(Run.open(run).checkpoint().path / "model.safetensors")


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(clouds, tmp_path):
    def command(run: str) -> list[str]:
        options = ["--data", str(clouds / "train.npz"), "--augment-rotation", "so3", "--layers", "1", "--epochs", "5"]
        return [sys.executable, "-m", "parteq", "points", "train", "--out", str(tmp_path / run), *options, *SMALL]

    subprocess.run(command("whole"), check=True, timeout=300)
    process = subprocess.Popen(command("killed"))
    while not (tmp_path / "killed" / "checkpoints" / "0002").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Run.open(tmp_path / "killed").epochs()[-1] < 5
    subprocess.run([*command("killed"), "--resume"], check=True, timeout=300)
    expected, found = final_weights(tmp_path / "whole"), final_weights(tmp_path / "killed")
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(clouds, tmp_path):
    # The bare dashes keep torchrun from taking `--run` for its own `--run-path`.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "parteq"]
    starts = {"one": ["-m", "parteq"], "two": launch}
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for run, start in starts.items():
        options = ["--data", str(clouds / "train.npz"), "--augment-rotation", "so3", "--layers", "1", "--epochs", "4"]
        # Rounding, which the fast density would make much of, is all that differs.
        slow = ["--learning-rate", "0.0006"]
        command = [sys.executable, *start, "points", "train", "--out", str(tmp_path / run), *options, *SMALL, *slow]
        subprocess.run(command, check=True, timeout=300, env=environment)
    one, two = (Run.open(tmp_path / run).history() for run in starts)
    assert [record.keys() for record in one] == [record.keys() for record in two]
    for whole, shared in zip(one, two, strict=True):
        assert shared == pytest.approx(whole, abs=2e-3)
    expected, found = final_weights(tmp_path / "one"), final_weights(tmp_path / "two")
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], atol=5e-3, rtol=1e-3)
    for run, start in starts.items():
        words = ["points", "evaluate", "--run", str(tmp_path / "two"), "--data", str(clouds / "test.npz")]
        json_file = ["--json", str(tmp_path / f"{run}.json"), "--rotate", "so3", "--repeats", "2"]
        subprocess.run([sys.executable, *start, *words, *json_file], check=True, timeout=300, env=environment)
    scores = [json.loads((tmp_path / f"{run}.json").read_text()) for run in starts]
    assert scores[0] == pytest.approx(scores[1])


@pytest.mark.slow
def test_a_property_along_an_axis_shows_the_axis(parteq, tmp_path):
    rng = np.random.default_rng(0)
    normal = np.array([1, 2, 2]) / 3
    turns = Rotation.random(800, random_state=1).as_matrix()
    points = rng.standard_normal((800, 20, 3)) * rng.uniform(0.5, 1.5, (800, 1, 3)) @ turns
    heights = ((points - points.mean(1, keepdims=True)) @ normal).var(1)
    data, run, out = tmp_path / "heights.npz", tmp_path / "run", tmp_path / "degree.json"
    np.savez(data, points=points.astype(np.float32), targets=heights[:, None], target_names=["height"])
    words = ["--task", "regress", "--target", "height", "--epochs", "20", "--out", run, "--quiet"]
    assert parteq("points", "train", "--data", data, *words)[0] == 0
    assert parteq("degree", "--run", run, "--json", out)[0] == 0
    layer = json.loads(out.read_text())["layers"][0]
    assert abs(np.dot(layer["axis"], normal)) > np.cos(np.radians(5))


@pytest.mark.slow
@pytest.mark.realdata
def test_parts_that_lean_alike_show_the_normal_of_their_board(parteq, shared_data, tmp_path):
    """Each turned about the normal, then all tilted; with defaults. Up and down differ, so that σ₁ is not 0."""
    parts = np.load(shared_data / "kicad_parts.npz")
    tilt = Rotation.from_rotvec([0.5, 1.1, -0.3])
    angles = np.random.default_rng(0).uniform(0, 2 * np.pi, (len(parts["label"]), 1))
    turns = (tilt * Rotation.from_euler("z", angles)).as_matrix()
    points = np.einsum("nij,npj->npi", turns, parts["points"] * parts["scale"][:, None, None]).astype(np.float32)
    kept = {name: parts[name] for name in ("label", "classes", "family")}
    np.savez(tmp_path / "parts.npz", points=points, **kept)
    data, run, out = tmp_path / "parts.npz", tmp_path / "run", tmp_path / "degree.json"
    assert parteq("points", "train", "--data", data, "--out", run, "--quiet")[0] == 0
    assert parteq("degree", "--run", run, "--json", out)[0] == 0
    found = json.loads(out.read_text())
    layer = found["layers"][0]
    first, second, third = layer["singular_values"]
    assert max(second, third) < 0.1 * first
    assert abs(np.dot(layer["axis"], tilt.as_matrix()[:, 2])) > np.cos(np.radians(2))
    assert "kept SO(2) about" in found["summary"]
