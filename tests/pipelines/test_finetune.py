"""`parteq histo finetune`: what is kept, what learns, and a run like any other at the end."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from parteq.core import pruning
from parteq.core.density import LearnedDensity
from parteq.datasets.images import open_images
from parteq.pipelines import figures
from parteq.pipelines.run import Run, find_checkpoint

from .conftest import SMALL

WORDS = ["--epochs", "2", "--batch-size", "16", "--quiet"]
MODES = ("full", "head", "probe")


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    """Drawing them takes most of the time of a small training; the tests of `train` look at them."""
    monkeypatch.setattr(figures, "png", lambda figure: b"")


@pytest.fixture
def unpruned(monkeypatch):
    """So short a training breaks nothing that validation needs: what is learned is to be seen all the same."""
    monkeypatch.setattr(pruning, "pruning", lambda *arguments: lambda record, state: None)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(Run.open(run).checkpoint().weights)


def changed(run: Path, source: Path) -> set[str]:
    before, after = weights_of(source), weights_of(run)
    assert before.keys() == after.keys()
    return {name for name in after if not torch.equal(before[name], after[name])}


@pytest.fixture(scope="module")
def other(cells, tmp_path_factory) -> Path:
    """Other classes, and larger images: discs, rings, and rings on their side of the scale."""
    arrays = dict(np.load(cells / "train.npz"))
    labels = np.where(np.arange(96) % 3 == 0, 2, arrays["labels"])
    images = np.pad(arrays["images"], [(0, 0), (2, 2), (3, 3), (0, 0)], mode="edge")
    images[labels == 2] = 255 - images[labels == 2]
    path = tmp_path_factory.mktemp("other") / "other.npz"
    np.savez(path, images=images, labels=labels, groups=arrays["groups"], classes=["a", "b", "c"])
    return path


@pytest.fixture
def fixed(parteq, cells, tmp_path) -> Path:
    """A run with fixed degree."""
    run = tmp_path / "fixed"
    words = ["--data", cells / "train.npz", "--out", run, "--epochs", 1, "--degree", "full", *SMALL]
    assert parteq("histo", "train", *words)[0] == 0
    return run


@pytest.mark.parametrize("mode", MODES)
def test_a_run_like_any_other(parteq, trained, other, tmp_path, mode):
    run, out = tmp_path / "run", tmp_path / "out.json"
    words = ["--from", trained, "--data", other, "--mode", mode, "--limit", 30, "--out", run, "--json", out, *WORDS]
    assert parteq("histo", "finetune", *words) == (0, "", "")
    assert json.loads(out.read_text())["n_train"] == 30
    source = Run.open(trained).checkpoint().weights
    fingerprint = hashlib.sha256(source.read_bytes()).hexdigest()
    earlier = Run.open(trained).data
    assert Run.open(run).data["weights"] == {"source": str(source), "fingerprint": fingerprint, "data": earlier}
    assert Run.open(run).options["from"] == str(trained)
    assert len(Run.open(run).history()) == (1 if mode == "probe" else 2)
    assert f"began with {trained}; mode {mode}" in (run / "report.html").read_text()
    assert parteq("histo", "evaluate", "--run", run, "--data", other, "--json", out, "--quiet")[0] == 0
    assert json.loads(out.read_text())["n"] == 96
    assert parteq("histo", "predict", "--run", run, "--data", other, "--out", tmp_path / "p.csv", "--quiet")[0] == 0
    assert (tmp_path / "p.csv").read_text().startswith("index,predicted,probability_a,probability_b,probability_c")
    assert parteq("degree", "--run", run, "--quiet")[0] == 0
    model = Run.open(run).checkpoint().model()
    assert model.config == Run.open(trained).checkpoint().model().config | {"num_classes": 3}


@pytest.mark.parametrize(
    ("mode", "learning"),
    [("full", {"stem", "stages", "head", "classifier"}), ("head", {"head", "classifier"}), ("probe", {"classifier"})],
)
@pytest.mark.usefixtures("unpruned")
def test_what_learns(parteq, trained, cells, tmp_path, mode, learning):
    run = tmp_path / "run"
    words = ["--from", trained, "--data", cells / "train.npz", "--mode", mode, "--out", run, *WORDS]
    assert parteq("histo", "finetune", *words)[0] == 0
    names = changed(run, trained)
    assert {name.split(".")[0] for name in names} - {"normalize"} == learning
    assert any("density" in name for name in names) == (mode != "probe")
    if mode == "full":
        running = {name for name in weights_of(run) if "running" in name}
        assert running <= names


def test_lower_layers_move_less(parteq, trained, cells, tmp_path):
    moved = []
    for decay in (1, 0.01):
        run = tmp_path / f"run {decay}"
        words = ["--from", trained, "--data", cells / "train.npz", "--layer-decay", decay, "--out", run, *WORDS]
        assert parteq("histo", "finetune", *words)[0] == 0
        before, after = weights_of(trained), weights_of(run)
        moved.append({name: float((after[name] - before[name]).abs().max()) for name in after})
    assert moved[1]["stem.0.kernel.weight"] < 1e-3 * moved[0]["stem.0.kernel.weight"]
    assert moved[1]["head.0.kernel.weight"] > 0.1 * moved[0]["head.0.kernel.weight"]


def test_the_same_classes_keep_their_classifier(parteq, trained, cells, tmp_path):
    """Without an epoch's worth of learning, all that could differ is the classifier."""
    found = {}
    for name, extra in {"kept": [], "new": ["--new-head"]}.items():
        still = ["--learning-rate", 0, "--mode", "head", "--out", tmp_path / name]
        words = ["--from", trained, "--data", cells / "train.npz", *still, *extra, *WORDS]
        assert parteq("histo", "finetune", *words)[0] == 0
        found[name] = {key for key in changed(tmp_path / name, trained) if "classifier" in key}
    assert found == {"kept": set(), "new": {"classifier.weight", "classifier.bias"}}


def test_the_same_classes_in_another_order_keep_their_classifier(parteq, trained, cells, tmp_path):
    """As the files of another hospital may number them."""
    arrays, run = dict(np.load(cells / "train.npz")), tmp_path / "run"
    np.savez(tmp_path / "other.npz", **arrays | {"labels": 1 - arrays["labels"], "classes": arrays["classes"][::-1]})
    still = ["--learning-rate", 0, "--mode", "head", "--out", run]
    assert parteq("histo", "finetune", "--from", trained, "--data", tmp_path / "other.npz", *still, *WORDS)[0] == 0
    before, after = weights_of(trained), weights_of(run)
    for name in ("classifier.weight", "classifier.bias"):
        assert torch.equal(after[name], before[name].flip(0))
    assert Run.open(run).checkpoint().about()["classes"] == ["ring", "disc"]


def test_the_resolution_is_that_of_the_images(parteq, cells, other, tmp_path):
    """It is not taken over from a training on other images, and that is said."""
    source, words = tmp_path / "source", ["--epochs", 1, "--mode", "probe"]
    given = ["--data", cells / "train.npz", "--out", source, "--mpp", 0.5, "--epochs", 1, *SMALL]
    assert parteq("histo", "train", *given)[0] == 0
    for name, data, mpp, said in (
        ("same", [cells / "train.npz"], 0.5, "train.npz: 0.5 µm a pixel, as in the training that this begins with\n"),
        ("else", [other], None, "other.npz: the 0.5 µm a pixel of the training that this begins with need not hold"),
        ("given", [other, "--mpp", 0.25], 0.25, ""),
    ):
        status, _, complaint = parteq(
            "histo", "finetune", "--from", source, "--data", *data, "--out", tmp_path / name, *words
        )
        assert status == 0
        assert said in complaint
        assert Run.open(tmp_path / name).checkpoint().about()["mpp"] == mpp


@pytest.mark.usefixtures("unpruned")
def test_degrees_are_frozen_or_released(parteq, trained, fixed, other, tmp_path):
    frozen, free, kept = tmp_path / "frozen", tmp_path / "free", tmp_path / "kept"
    words = ["--data", other, *WORDS]
    assert parteq("histo", "finetune", "--from", trained, "--freeze-degree", "--out", frozen, *words)[0] == 0
    assert not any("density" in name for name in changed(frozen, trained) if name != "classifier.weight")
    assert parteq("histo", "finetune", "--from", fixed, "--out", kept, *words)[0] == 0
    assert parteq("histo", "finetune", "--from", fixed, "--release-degree", "--out", free, *words)[0] == 0
    learned = [
        [module for module in Run.open(run).checkpoint().model().modules() if isinstance(module, LearnedDensity)]
        for run in (kept, free)
    ]
    assert not learned[0]
    assert max(float(density.divergence_from_uniform().detach()) for density in learned[1]) > 0
    with (free / "config.toml").open() as file:
        assert "release_degree = true\n" in file


def test_a_file_of_weights_is_enough(parteq, trained, other, tmp_path):
    file = tmp_path / "pretrained.safetensors"
    shutil.copy(Run.open(trained).checkpoint().weights, file)
    words = ["--data", other, "--mode", "probe", *WORDS]
    folder = Run.open(trained).checkpoint().path
    for name, source in {"run": trained, "file": file, "folder": folder}.items():
        assert parteq("histo", "finetune", "--from", source, "--out", tmp_path / name, *words)[0] == 0
    assert not changed(tmp_path / "run", tmp_path / "file")
    assert not changed(tmp_path / "run", tmp_path / "folder")
    images = open_images(str(other)).tensors()[0][:5].float() / 255
    with torch.inference_mode():
        assert torch.equal(find_checkpoint(file).model()(images), Run.open(trained).checkpoint().model()(images))


def rewrite(source: Path, file: Path, metadata: dict[str, str] | None) -> None:
    save_file(load_file(source), file, metadata)


def about(source: Path, **changes) -> dict[str, str]:
    values = json.loads((source.parent / "model.json").read_text())
    values["model"] = values["model"] | changes.pop("model", {})
    return {"parteq": json.dumps(values | changes)}


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda source, file: None, "no such file or folder"),
        (lambda source, file: file.mkdir(), "is no run and no file of weights"),
        (lambda source, file: file.write_bytes(b""), "holds no weights"),
        (lambda source, file: file.write_bytes(source.read_bytes()[:-10]), "holds no weights"),
        (lambda source, file: file.write_bytes(struct.pack("<Q", 2**62) + b"{}"), "holds no weights"),
        (lambda source, file: torch.save(load_file(source), file), "holds no weights"),
        (lambda source, file: rewrite(source, file, None), "does not say which model its weights are of"),
        (lambda source, file: rewrite(source, file, {"parteq": "[" * 100_000}), "is not JSON"),
        (lambda source, file: rewrite(source, file, {"parteq": "[]"}), "is not a JSON object"),
        (lambda source, file: rewrite(source, file, about(source, application="os")), "of an unknown application"),
        (lambda source, file: rewrite(source, file, about(source, model={"width": 1e6})), "describes no model"),
        (lambda source, file: rewrite(source, file, about(source, model={"in_chans": -1})), "describes no model"),
        (lambda source, file: rewrite(source, file, about(source, model={"group": "c8"})), "does not fit the model"),
        (lambda source, file: rewrite(source, file, about(source, model={"__class__": 1})), "describes no model"),
    ],
)
def test_a_file_that_cannot_be_begun_with(parteq, trained, other, tmp_path, damage, reason):
    file = tmp_path / "pretrained.safetensors"
    damage(Run.open(trained).checkpoint().weights, file)
    words = ["--from", file, "--data", other, "--out", tmp_path / "run", *WORDS]
    status, printed, complaint = parteq("histo", "finetune", *words)
    assert (status, printed) == (2, "")
    assert complaint.startswith(f"parteq: {file}: ")
    assert complaint.count("\n") == 1
    assert reason in complaint
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--freeze-degree", "--release-degree"], "--freeze-degree: excludes --release-degree"),
        (["--mode", "probe", "--release-degree"], "--mode probe: learns no degree"),
        (["--mode", "probe", "--augment", "d4"], "--mode probe: learns no degree and sees images as they are"),
        (["--layer-decay", "0"], "--layer-decay 0.0: must be above 0 and at most 1"),
        (["--layer-decay", "nan"], "--layer-decay nan: must be above 0"),
        (["--epochs", "-1"], "--epochs -1: must be at least 1"),
    ],
)
def test_options_that_cannot_be_meant(parteq, trained, other, tmp_path, words, reason):
    words = ["--from", trained, "--data", other, "--out", tmp_path / "run", *WORDS, *words]
    status, _, complaint = parteq("histo", "finetune", *words)
    assert status == 2
    assert complaint.count("\n") == 1
    assert reason in complaint
    assert not (tmp_path / "run").exists()


def test_images_that_do_not_fit_and_degrees_that_are_not_there(parteq, trained, other, cells, tmp_path):
    images, labels = (np.load(other)[name] for name in ("images", "labels"))
    np.savez(tmp_path / "grey.npz", images=images[..., 0], labels=labels)
    words = ["--from", trained, "--data", tmp_path / "grey.npz", "--out", tmp_path / "run", *WORDS]
    reason = "holds grey images; the model takes RGB images"
    assert parteq("histo", "finetune", *words) == (2, "", f"parteq: {tmp_path}/grey.npz: {reason}\n")
    plain = tmp_path / "plain"
    words = ["--data", cells / "train.npz", "--out", plain, *SMALL, "--epochs", 1, "--group", "none"]
    assert parteq("histo", "train", *words)[0] == 0
    words = ["--from", plain, "--data", other, "--release-degree", "--out", tmp_path / "run", *WORDS]
    status, _, complaint = parteq("histo", "finetune", *words)
    assert status == 2
    assert complaint.startswith(f"parteq: {plain}: has no degree to release")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("mode", MODES)
def test_stopped_and_resumed_equals_uninterrupted(parteq, trained, other, tmp_path, monkeypatch, mode):
    def words(run: str) -> list[object]:
        begin = ["--from", trained, "--data", other, "--mode", mode, "--augment", "none" if mode == "probe" else "d4"]
        return ["histo", "finetune", *begin, "--out", tmp_path / run, *WORDS]

    assert parteq(*words("whole"))[0] == 0
    save = Run.save

    def stop(*arguments, **options):
        save(*arguments, **options)
        raise KeyboardInterrupt

    with monkeypatch.context() as context:
        context.setattr(Run, "save", stop)
        assert parteq(*words("part"))[0] == 130
    assert Run.open(tmp_path / "part").epochs() == [1]
    # The options are those of the run; nothing needs to be said again.
    status, _, complaint = parteq("histo", "train", "--out", tmp_path / "part", "--resume", "--quiet")
    call = f"`parteq histo finetune --resume --out {tmp_path}/part` goes on with it"
    assert (status, complaint) == (2, f"parteq: {tmp_path}/part: is a run of finetune: {call}\n")
    assert parteq("histo", "finetune", "--out", tmp_path / "part", "--resume", "--quiet") == (0, "", "")
    assert not changed(tmp_path / "whole", tmp_path / "part")
    logs = [(tmp_path / run / "metrics.jsonl").read_bytes() for run in ("whole", "part")]
    assert logs[0] == logs[1]


def test_finetune_does_not_go_on_with_a_run_of_train(parteq, trained):
    status, _, complaint = parteq("histo", "finetune", "--out", trained, "--resume", "--quiet")
    call = f"`parteq histo train --resume --out {trained}` goes on with it"
    assert (status, complaint) == (2, f"parteq: {trained}: is a run of train: {call}\n")


def test_what_was_begun_with_cannot_change_on_the_way(parteq, trained, other, tmp_path):
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(trained, source)
    words = ["--from", source, "--data", other, "--out", run, *WORDS]
    assert parteq("histo", "finetune", *words)[0] == 0
    file = Run.open(source).checkpoint().weights
    rewrite(file, file, about(file, epoch=7))
    status, _, complaint = parteq("histo", "finetune", *words, "--resume")
    assert status == 2
    assert "the files have changed" in complaint
