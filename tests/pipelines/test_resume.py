"""A training that is killed and resumed, or shared by two processes, ends where another does."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from parteq.pipelines.run import Run

from .conftest import SMALL

EPOCHS = 6


def train_words(cells: Path, out: Path) -> list[str]:
    data = ["--data", str(cells / "train.npz"), "--val", str(cells / "test.npz"), "--augment", "d4"]
    return ["histo", "train", *data, "--out", str(out), "--epochs", str(EPOCHS), *SMALL]


def final_weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(Run.open(run).checkpoint().path / "model.safetensors")


@pytest.fixture(scope="module")
def uninterrupted(cells, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run([sys.executable, "-m", "parteq", *train_words(cells, run)], check=True, timeout=300)
    return run


def test_killed_and_resumed_equals_uninterrupted(cells, tmp_path, uninterrupted):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "parteq", *train_words(cells, run)]
    process = subprocess.Popen(command)
    while not (run / "checkpoints" / "0002").exists():
        assert process.poll() is None, "the training ended before it could be killed"
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert Run.open(run).epochs()[-1] < EPOCHS
    # The options are those of the run; nothing needs to be said again.
    resume = [sys.executable, "-m", "parteq", "histo", "train", "--out", str(run), "--resume", "--quiet"]
    subprocess.run(resume, check=True, timeout=300)
    expected, found = final_weights(uninterrupted), final_weights(run)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    assert (run / "metrics.jsonl").read_bytes() == (uninterrupted / "metrics.jsonl").read_bytes()


def test_a_finished_run_can_be_resumed(parteq, uninterrupted):
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    assert parteq("histo", "train", "--out", uninterrupted, "--resume", "--quiet") == (0, "", "")
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before


def test_options_cannot_change_on_the_way(parteq, uninterrupted):
    words = ["--out", uninterrupted, "--resume", "--learning-rate", "0.5", "--quiet"]
    status, _, complaint = parteq("histo", "train", *words)
    assert status == 2
    assert complaint == f"parteq: {uninterrupted}: has learning_rate = 0.003, not 0.5: resume without it\n"


def test_a_file_of_options_cannot_change_them_either(parteq, uninterrupted, tmp_path):
    options = tmp_path / "other.toml"
    options.write_text((uninterrupted / "config.toml").read_text().replace("0.003", "0.5"))
    status, _, complaint = parteq("histo", "train", "--out", uninterrupted, "--resume", "--config", options)
    assert status == 2
    assert complaint == f"parteq: {uninterrupted}: has learning_rate = 0.003, not 0.5: resume without it\n"


def test_data_cannot_change_on_the_way(parteq, cells, tmp_path):
    data = tmp_path / "train.npz"
    data.write_bytes((cells / "train.npz").read_bytes())
    words = ["histo", "train", "--out", tmp_path / "run", *SMALL]
    assert parteq(*words, "--data", data, "--epochs", "1")[0] == 0
    data.write_bytes((cells / "test.npz").read_bytes())
    status, _, complaint = parteq(*words, "--resume")
    assert status == 2
    assert "was trained on other data" in complaint


def test_there_may_be_nothing_to_resume(parteq, cells, tmp_path):
    words = [*train_words(cells, tmp_path / "run"), "--epochs", "1", "--resume"]
    assert parteq(*words)[0] == 0


@pytest.mark.slow
@pytest.mark.parametrize("words", ["train", "full", "head", "probe"])
def test_two_processes_give_the_numbers_of_one(cells, trained, tmp_path, words):
    def command(run: str) -> list[str]:
        if words == "train":
            return train_words(cells, tmp_path / run)
        data = ["--from", str(trained), "--data", str(cells / "train.npz"), "--new-head", "--mode", words]
        return ["histo", "finetune", *data, "--out", str(tmp_path / run), "--epochs", str(EPOCHS), "--batch-size", "16"]

    # The bare dashes keep torchrun from taking `--run` for its own `--run-path`.
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "--", "parteq"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for run, start in (("one", ["-m", "parteq"]), ("two", launch)):
        subprocess.run([sys.executable, *start, *command(run)], check=True, timeout=300, env=environment)
    for one, two in zip(Run.open(tmp_path / "one").history(), Run.open(tmp_path / "two").history(), strict=True):
        assert two == pytest.approx(one, abs=2e-3)
    scores = []
    for start in (["-m", "parteq"], launch):
        evaluate = ["histo", "evaluate", "--run", str(tmp_path / "two"), "--data", str(cells / "test.npz")]
        result = subprocess.run(
            [sys.executable, *start, *evaluate], check=True, timeout=300, capture_output=True, text=True
        )
        scores.append(dict(re.findall(r"^(\w+) +(\S+)$", result.stdout, re.MULTILINE)))
    assert scores[0] == scores[1]
    assert len(scores[0]) > 10
