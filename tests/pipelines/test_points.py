"""The commands on point clouds, from training to export, on small clouds whose height tells their class."""

from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from parteq.pipelines.cli import main
from parteq.pipelines.run import Run

SMALL = ["--width", "0.2", "--points", "24", "--batch-size", "8", "--quiet"]


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
    assert Run.open(trained_points).history()[-1]["val_accuracy"] > 0.6


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


def test_degree(parteq, trained_points, tmp_path):
    out = tmp_path / "degree.json"
    assert parteq("degree", "--run", trained_points, "--json", out, "--out", tmp_path / "degree.png")[0] == 0
    degree = json.loads(out.read_text())
    keys = {"name", "group", "kl_to_uniform_nats", "broken_energy", "singular_values", "axis", "nearest_subgroup"}
    assert all(keys <= layer.keys() for layer in degree["layers"])
    assert "SO(3)" in degree["summary"]
    assert (tmp_path / "degree.png").stat().st_size > 1000


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


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--axis", "0,0"], "neither three numbers"),
        (["--task", "regress"], "go together"),
        (["--target", "homo", "--task", "regress"], "no target"),
        (["--points", "1"], "points must lie"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(parteq, clouds, tmp_path, words, reason):
    data = ["--data", clouds / "train.npz", "--out", tmp_path / "run"]
    status, _, complaint = parteq("points", "train", *data, *words)
    assert status == 2
    assert reason in complaint
    assert complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_killed_and_resumed_equals_uninterrupted(clouds, tmp_path):
    def command(run: str) -> list[str]:
        options = ["--data", str(clouds / "train.npz"), "--augment-rotation", "so3", "--epochs", "5", *SMALL]
        return [sys.executable, "-m", "parteq", "points", "train", "--out", str(tmp_path / run), *options]

    subprocess.run(command("whole"), check=True, timeout=300)
    process = subprocess.Popen(command("killed"))
    while not (tmp_path / "killed" / "checkpoints" / "0002").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([*command("killed"), "--resume"], check=True, timeout=300)
    expected, found = (
        load_file(Run.open(tmp_path / run).checkpoint().path / "model.safetensors") for run in ("whole", "killed")
    )
    assert all(torch.equal(expected[name], found[name]) for name in expected)
