"""The temperature from training to evaluation, the reliability diagram, and images that a run knows already."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.collections import PathCollection

from parteq.apps.histo import task
from parteq.core.calibration import fit_temperature
from parteq.pipelines import figures
from parteq.pipelines.report import calibration_section
from parteq.pipelines.run import Run

from .conftest import SMALL

BINS = [{"confidence": 0.6, "accuracy": 0.5, "n": 3}, {"confidence": 0.9, "accuracy": 1.0, "n": 5}]
SCORES = {"temperature": None, "ece": 0.1, "reliability": BINS, "ece_calibrated": None, "reliability_calibrated": None}


def scores_of(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.parametrize("weights", ["last", "best"])
def test_each_checkpoint_has_the_temperature_of_its_validation(parteq, trained, cells, tmp_path, weights):
    checkpoint = Run.open(trained).checkpoint(weights)
    _, validation = task.open_for_training(str(cells / "train.npz"), None, None, seed=0)
    probabilities = task.predict(checkpoint.model(), validation, torch.device("cpu"))[0].numpy()
    expected = fit_temperature(probabilities, validation.labels)
    assert checkpoint.about()["temperature"] == pytest.approx(expected, rel=1e-6)

    out = tmp_path / "scores.json"
    words = ["--run", trained, "--data", cells / "test.npz", "--weights", weights, "--json", out]
    status, printed, complaint = parteq("histo", "evaluate", *words)
    found = scores_of(out)
    assert (status, complaint) == (0, "")
    assert found["temperature"] == pytest.approx(expected, rel=1e-6)
    for name in ("pr_auc", "sensitivity_at_95_specificity", "nll_calibrated", "ece_calibrated"):
        assert found[f"{name}_low"] <= found[f"{name}_high"]
        assert name in printed
    for name in ("reliability", "reliability_calibrated"):
        assert sum(row["n"] for row in found[name]) == found["n"]


def test_no_temperature_is_fitted_to_what_is_evaluated(parteq, trained, cells, tmp_path):
    run, out = tmp_path / "run", tmp_path / "scores.json"
    run.mkdir()
    for path in [path for path in trained.rglob("*") if path.is_file()]:
        (run / path.relative_to(trained)).parent.mkdir(parents=True, exist_ok=True)
        (run / path.relative_to(trained)).write_bytes(path.read_bytes())
    file = Run.open(run).checkpoint().path / "model.json"
    about = scores_of(file)
    del about["temperature"]
    file.write_text(json.dumps(about))
    words = ["--run", run, "--data", cells / "test.npz", "--json", out, "--plot", tmp_path / "plot.png"]
    assert parteq("histo", "evaluate", *words)[0] == 0
    found = scores_of(out)
    assert found["temperature"] is found["ece_calibrated"] is found["reliability_calibrated"] is None
    assert found["ece"] is not None
    for wrong in ("1", 0.0, -1.0, True, float("inf")):
        file.write_text(json.dumps(about | {"temperature": wrong}))
        status, _, complaint = parteq("histo", "evaluate", *words)
        assert status == 2
        assert complaint == f"parteq: {file}: has a temperature that is no positive number\n"


def test_the_diagram_is_drawn(parteq, trained, cells, tmp_path):
    data = ["--run", trained, "--data", cells / "test.npz", "--quiet"]
    assert parteq("histo", "evaluate", *data, "--plot", tmp_path / "plot.png") == (0, "", "")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (trained / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert "<h2>Calibration</h2>" in (trained / "report.html").read_text()
    status, _, complaint = parteq("histo", "evaluate", *data, "--plot", tmp_path / "none" / "plot.png")
    reason = f"cannot be written: there is no folder {tmp_path / 'none'}"
    assert (status, complaint) == (2, f"parteq: {tmp_path / 'none' / 'plot.png'}: {reason}\n")


@pytest.mark.parametrize("temperature", [None, 1.7])
def test_figure_and_section_with_and_without_a_temperature(temperature):
    scores = dict(SCORES)
    if temperature is not None:
        scores |= {"temperature": temperature, "ece_calibrated": 0.05, "reliability_calibrated": BINS[:1]}
    assert len(figures.reliability(scores).axes) == (1 if temperature is None else 2)
    assert bool(calibration_section(scores).text) == (temperature is not None)


def test_a_dot_in_the_corner_is_whole_and_before_the_grid():
    figure = figures.reliability(SCORES | {"reliability": [{"confidence": 1.0, "accuracy": 1.0, "n": 8}]})
    (axes,) = figure.axes
    assert axes.get_axisbelow() is True
    (dots,) = (part for part in axes.collections if isinstance(part, PathCollection))
    assert not dots.get_clip_on()


def test_images_that_the_run_knows_are_pointed_out(parteq, cells, tmp_path):
    run = tmp_path / "run"
    words = ["--data", cells / "train.npz", "--val", cells / "test.npz", "--out", run, "--epochs", 1, *SMALL]
    assert parteq("histo", "train", *words) == (0, "", "")
    arrays = dict(np.load(cells / "test.npz"))
    np.savez(tmp_path / "more.npz", **arrays | {"images": 255 - arrays["images"]})
    np.savez(tmp_path / "other.npz", **arrays | {"groups": 1000 + arrays["groups"]})
    for data, word in ((cells / "train.npz", "trained"), (cells / "test.npz", "validated")):
        status, _, complaint = parteq("histo", "evaluate", "--run", run, "--data", data)
        assert status == 0
        assert complaint == f"parteq: {data}: the run was {word} on exactly these: others may score lower\n"
    # Nor are those new that a fine-tuned network's weights were trained on.
    tuned = ["--from", run, "--data", tmp_path / "other.npz", "--out", tmp_path / "tuned", "--epochs", 1, "--quiet"]
    assert parteq("histo", "finetune", *tuned)[0] == 0
    complaint = parteq("histo", "evaluate", "--run", tmp_path / "tuned", "--data", cells / "train.npz")[2]
    assert "the weights that the run began with were trained on exactly these" in complaint
    # Other images of groups that are known.
    groups = len(set(arrays["groups"]))
    complaint = parteq("histo", "evaluate", "--run", run, "--data", tmp_path / "more.npz")[2]
    assert f"the run was validated on {groups} of their {groups} groups" in complaint
    # The same images under other names; and what is new altogether.
    complaint = parteq("histo", "evaluate", "--run", run, "--data", tmp_path / "other.npz")[2]
    assert f"the run was validated on {len(arrays['images'])} of these images" in complaint
    np.savez(tmp_path / "new.npz", **arrays | {"groups": 1000 + arrays["groups"], "images": 255 - arrays["images"]})
    assert parteq("histo", "evaluate", "--run", run, "--data", tmp_path / "new.npz")[2] == ""


def test_augmentation_is_chosen_by_name(parteq, cells, tmp_path):
    words = ["histo", "train", "--data", cells / "train.npz", "--epochs", 1, "--width", 0.3, "--degree", "full"]
    status, _, complaint = parteq(*words, "--out", tmp_path / "wrong", "--augment", "d4,stian")
    assert status == 2
    assert complaint.startswith("parteq: --augment d4,stian: 'stian' is none of flip, d4, stain,")
    assert complaint.count("\n") == 1
    assert not (tmp_path / "wrong").exists()
    status, _, said = parteq(*words, "--out", tmp_path / "run", "--augment", "strong")
    assert status == 0
    assert "augmentation leaves out d4" in said
    assert Run.open(tmp_path / "run").options["augment"] == "strong"


def test_accuracy_is_told_against_the_turn(parteq, trained, cells, tmp_path):
    out, picture = tmp_path / "scores.json", tmp_path / "turns.png"
    words = ["--run", trained, "--data", cells / "test.npz", "--json", out, "--quiet", "--turns", picture]
    assert parteq("histo", "evaluate", *words) == (0, "", "")
    found = scores_of(out)
    assert found["turn_deg"][::9] == [0, 90, 180]
    assert found["turn_accuracy"][0] == pytest.approx(found["accuracy"])
    assert 0 <= found["holds_to_deg"] <= 180
    assert picture.read_bytes().startswith(b"\x89PNG")
