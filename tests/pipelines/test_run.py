"""Run directories and checkpoints: whole or not there, and refused when they are damaged."""

from __future__ import annotations

import errno
import json
import pickle
import shutil
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from parteq.datasets.errors import DataError
from parteq.pipelines import checkpoint as module
from parteq.pipelines import files
from parteq.pipelines import run as run_module
from parteq.pipelines.checkpoint import Checkpoint, write_checkpoint
from parteq.pipelines.run import Run

ABOUT = {"application": "histo", "model": {"num_classes": 2}, "classes": ["a", "b"], "spatial": [5, 5]}
STATE = {"epoch": 1, "optimiser": {"state": {}, "param_groups": []}}


def new_run(path) -> Run:
    return Run.create(path, {"epochs": 3, "val": None}, {"training": {"n": 1}})


def save(run: Run, epoch: int, score: float = 0.0) -> None:
    run.save({"epoch": epoch, "loss": 1 / epoch}, nn.Linear(2, 2), ABOUT, STATE, score)


def test_create_and_open(tmp_path):
    new_run(tmp_path / "deep" / "run")
    run = Run.open(tmp_path / "deep" / "run")
    assert run.options == {"epochs": 3}
    assert run.data == {"training": {"n": 1}}
    assert run.epochs() == run.history() == []


def test_what_is_no_text_is_refused_and_nothing_stays(tmp_path):
    with pytest.raises(DataError, match=r"no UTF-8, such as a name with '.*udcff'"):
        Run.create(tmp_path / "run", {"data": "\udcff.npz"}, {})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_no_half_of_a_checkpoint(tmp_path, monkeypatch):
    run = new_run(tmp_path / "run")
    save(run, 1)
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(module.Path, "write_bytes", Mock(side_effect=full))
    with pytest.raises(DataError, match="No space left"):
        save(run, 2)
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["0001"]


def test_an_empty_folder_will_do_and_no_other(tmp_path):
    (tmp_path / "empty").mkdir()
    new_run(tmp_path / "empty")
    # Nothing has come of it yet, so that a command which failed can be corrected.
    run = Run.create(tmp_path / "empty", {"epochs": 4}, {"training": {"n": 1}})
    assert run.options == {"epochs": 4}
    save(run, 1)
    with pytest.raises(DataError, match="holds a run already"):
        new_run(tmp_path / "empty")
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="is not empty and no run"):
        new_run(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be made"):
        new_run(tmp_path / "file" / "run")
    with pytest.raises(DataError, match="is no run"):
        Run.open(tmp_path)


def test_the_last_two_and_the_best_are_kept(tmp_path):
    run = new_run(tmp_path / "run")
    for epoch, score in enumerate([0.1, 0.5, 0.3, 0.5, 0.2], start=1):
        save(run, epoch, score)
        assert run.epochs()[-2:] == [epoch - 1, epoch][-min(epoch, 2) :]
    assert run.epochs() == [2, 4, 5]
    assert run.checkpoint("last").about()["epoch"] == 5
    assert run.checkpoint("best").about()["epoch"] == 2
    run.prefer_last()
    assert run.checkpoint("best").about()["epoch"] == 5


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    run = new_run(tmp_path / "run")
    without = {name: value for name, value in ABOUT.items() if name != "spatial"}
    with pytest.raises(DataError, match="has no 'spatial'"):
        run.save({"epoch": 1, "loss": 1.0}, nn.Linear(2, 2), without, STATE, 0.0)
    assert not run.epochs()


def test_a_run_without_checkpoint(tmp_path):
    with pytest.raises(DataError, match="has no checkpoint yet"):
        new_run(tmp_path / "run").checkpoint()


def test_a_training_that_was_stopped_is_told_where_its_run_is_read(tmp_path):
    run = new_run(tmp_path / "run")
    save(run, 1)
    save(run, 2)
    assert run.checkpoint().about()["epoch"] == 2  # as the training itself sees it
    with pytest.warns(UserWarning, match=f"^{tmp_path}/run: training stopped at epoch 2 of 3: --resume goes on with"):
        assert Run.open(tmp_path / "run").checkpoint("best").about()["epoch"] == 1
    (tmp_path / "run" / "report.html").touch()  # as after --max-seconds
    assert Run.open(tmp_path / "run").checkpoint().about()["epoch"] == 2
    (tmp_path / "run" / "report.html").unlink()
    save(run, 3)
    assert Run.open(tmp_path / "run").checkpoint().about()["epoch"] == 3


def test_one_process_at_a_time_is_at_work(tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_PATIENCE", 0.0)
    run = new_run(tmp_path / "run")
    code = (
        "import sys; from pathlib import Path; from parteq.pipelines.run import Run\n"
        "held = Run.create(Path(sys.argv[1]), {}, {}); print('held', flush=True); sys.stdin.read()"
    )
    path = tmp_path / "other"
    with subprocess.Popen([sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        for begin in (lambda: Run.create(path, {}, {}), lambda: Run.resume(path)):
            with pytest.raises(DataError, match="is being trained, by another process"):
                begin()
        other.kill()
    # What a process holds that was killed is free, and reading never asks.
    Run.resume(path)
    assert Run.open(run.path).options == {"epochs": 3}


def test_resuming_forgets_what_has_no_checkpoint(tmp_path):
    run = new_run(tmp_path / "run")
    save(run, 1)
    save(run, 2)
    kept = (run.path / "metrics.jsonl").read_text()
    with (run.path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "lo')
    assert len(run.history()) == 2
    del run
    run = Run.resume(tmp_path / "run")
    assert (run.path / "metrics.jsonl").read_text() == kept


@pytest.mark.parametrize("step", ["model.safetensors", "training.pt", "model.json", "replace"])
def test_a_kill_while_writing_leaves_the_earlier_checkpoint(tmp_path, monkeypatch, step):
    class Kill(BaseException):
        pass

    def kill(*_, **__):
        raise Kill

    run = new_run(tmp_path / "run")
    save(run, 1)
    place, name = {
        "model.safetensors": (module, "save"),
        "training.pt": (torch, "save"),
        "model.json": (module, "write_json"),
        "replace": (module.os, "replace"),
    }[step]
    with monkeypatch.context() as context:
        context.setattr(place, name, kill)
        with pytest.raises(Kill):
            save(run, 2)
    assert run.epochs() == [1]
    assert len(run.history()) == 1
    del run
    run = Run.resume(tmp_path / "run")
    save(run, 2)
    assert run.epochs() == [1, 2]
    assert len(run.history()) == 2
    assert not list(run.path.rglob(".*"))


def test_files_are_replaced_whole(tmp_path):
    path = tmp_path / "file.txt"
    files.write_text(path, "old")
    with pytest.raises(DataError, match="no UTF-8"):
        files.write_text(path, "half \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(path, {"value": float("nan")})
    assert path.read_text() == "old"


@pytest.fixture
def checkpoint(trained, tmp_path) -> Checkpoint:
    """A copy of a true checkpoint, to be damaged."""
    shutil.copytree(Run.open(trained).checkpoint().path, tmp_path / "0003")
    return Checkpoint(tmp_path / "0003")


def test_a_true_checkpoint_loads(checkpoint):
    assert isinstance(checkpoint.model(), nn.Module)
    assert not checkpoint.model().training
    assert checkpoint.training_state()["epoch"] == 3


def edit(checkpoint: Checkpoint, change: dict) -> None:
    path = checkpoint.path / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))


@pytest.mark.parametrize(
    "change",
    [
        {"application": "astrology"},
        {"application": ["histo"]},
        {"model": {"name": "resnet"}},
        {"model": {"name": "resnet", "num_classes": 2, "cheat": 1}},
        {"model": {"name": "resnet", "num_classes": 2, "in_chans": 3, "group": "e8"}},
        {"model": {"name": "resnet", "num_classes": 2, "in_chans": 3, "group": "c4", "width": "wide"}},
        {"model": {"name": "resnet", "num_classes": 3, "in_chans": 3, "group": "c4", "width": 0.3}},
        {"classes": None},
        {"classes": ["disc"]},
        {"classes": ["disc", 2]},
        {"spatial": [12, "wide"]},
        {"spatial": [12, 0]},
        {"epoch": "last"},
    ],
)
def test_a_description_that_is_wrong(checkpoint, change):
    edit(checkpoint, change)
    with pytest.raises(DataError):
        checkpoint.model()


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '"model"', "\x00"])
def test_a_description_that_is_none(checkpoint, text):
    (checkpoint.path / "model.json").write_text(text)
    with pytest.raises(DataError):
        checkpoint.model()


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
@pytest.mark.parametrize("name", ["model.safetensors", "training.pt"])
def test_truncated(checkpoint, name, keep):
    path = checkpoint.path / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=name):
        checkpoint.model() if name == "model.safetensors" else checkpoint.training_state()


class Exploit:
    def __reduce__(self):
        return print, ("code was run",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
@pytest.mark.parametrize("name", ["model.safetensors", "training.pt"])
def test_pickles_run_no_code(checkpoint, capsys, name):
    for write in (lambda path: path.write_bytes(pickle.dumps(Exploit())), lambda path: torch.save(Exploit(), path)):
        write(checkpoint.path / name)
        with pytest.raises(DataError, match=name):
            checkpoint.model() if name == "model.safetensors" else checkpoint.training_state()
    assert "code was run" not in capsys.readouterr().out


def test_a_state_that_is_none(checkpoint):
    torch.save([1, 2], checkpoint.path / "training.pt")
    with pytest.raises(DataError, match="no state to resume from"):
        checkpoint.training_state()


def test_weights_that_do_not_fit(checkpoint):
    about = checkpoint.about()
    model = checkpoint.model()
    model.classifier.weight.data[0, 0] = torch.nan
    write_checkpoint(checkpoint.path, model, about, STATE)
    with pytest.raises(DataError, match="not finite"):
        checkpoint.model()
    write_checkpoint(checkpoint.path, nn.Linear(2, 2), about, STATE)
    with pytest.raises(DataError, match="does not fit the model"):
        checkpoint.model()


@pytest.mark.parametrize("name", ["model.safetensors", "training.pt", "model.json"])
def test_a_file_that_is_missing(checkpoint, name):
    (checkpoint.path / name).unlink()
    with pytest.raises(DataError, match=name):
        checkpoint.training_state() if name == "training.pt" else checkpoint.model()


def test_a_damaged_run(tmp_path):
    run = new_run(tmp_path / "run")
    save(run, 1)
    (run.path / "metrics.jsonl").write_text("nonsense\n")
    with pytest.raises(DataError, match="is damaged"):
        run.history()
    (run.path / "data.json").unlink()
    with pytest.raises(DataError, match=r"data\.json"):
        Run.open(run.path)
    (run.path / "config.toml").write_text("=")
    with pytest.raises(DataError, match="is not TOML"):
        Run.open(run.path)
