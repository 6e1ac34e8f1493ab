"""`parteq histo` and `parteq degree`, from data to predictions and exported files."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from parteq.apps.histo import task
from parteq.datasets.images import open_images
from parteq.pipelines.run import Run

from .conftest import SMALL, write_cells

SCORES = ("accuracy", "balanced_accuracy", "auc", "nll", "ece")


def scores_of(path: Path) -> dict:
    return json.loads(path.read_text())


def test_train_leaves_everything_in_the_run_directory(trained, cells):
    run = Run.open(trained)
    assert run.options["data"] == str(cells / "train.npz")
    assert run.options["group"] == "c4"
    assert run.data["training"]["n"] + run.data["validation"]["n"] == 96
    assert run.data["training"]["groups"] + run.data["validation"]["groups"] == 24
    assert json.loads((trained / "versions.json").read_text())["torch"] == torch.__version__
    assert [record["epoch"] for record in run.history()] == [1, 2, 3]
    assert {"loss", "val_accuracy", "val_nll"} <= set(run.history()[0])
    assert run.epochs()[-2:] == [2, 3]
    for name in ("learning_curve.png", "degree.png"):
        assert (trained / name).read_bytes().startswith(b"\x89PNG")
    assert not list(trained.rglob(".*")), "temporary files are left"


def test_evaluate(parteq, trained, cells, tmp_path):
    out = tmp_path / "scores.json"
    status, printed, _ = parteq("histo", "evaluate", "--run", trained, "--data", cells / "test.npz", "--json", out)
    found = scores_of(out)
    assert status == 0
    assert found["schema"] == 1
    assert found["n"] == 48
    assert 0 <= found["orbit_variance"] <= 0.25
    for name in SCORES:
        assert found[f"{name}_low"] <= found[f"{name}_high"]
        assert math.isfinite(found[name])
        assert name in printed


def test_evaluate_quietly(parteq, trained, cells):
    assert parteq("histo", "evaluate", "--run", trained, "--data", cells / "test.npz", "--quiet") == (0, "", "")


def test_the_best_epoch_can_be_asked_for(parteq, trained, cells, tmp_path):
    history = Run.open(trained).history()
    best = max(history, key=lambda record: record["val_balanced_accuracy"])["epoch"]
    out = tmp_path / "scores.json"
    words = ["--run", trained, "--data", cells / "test.npz", "--weights", "best", "--json", out]
    assert parteq("histo", "evaluate", *words)[0] == 0
    assert scores_of(out)["epoch"] == best


def test_predict(parteq, trained, cells, tmp_path):
    out = tmp_path / "predictions.csv"
    assert parteq("histo", "predict", "--run", trained, "--data", cells / "test.npz", "--out", out)[0] == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [row["index"] for row in rows] == [str(index) for index in range(48)]
    for row in rows:
        disc, ring = float(row["probability_disc"]), float(row["probability_ring"])
        assert disc + ring == pytest.approx(1, abs=1e-5)
        assert row["predicted"] == ("disc" if disc > ring else "ring")


def test_predict_without_labels(parteq, trained, cells, tmp_path):
    images = np.load(cells / "test.npz")["images"][:6]
    np.savez(tmp_path / "bare.npz", images=images)
    names = ["b,1.png", "c.png", "d.png", "e.png", "f.png", os.fsdecode(b"\xff.png")]
    (tmp_path / "bare").mkdir()
    for name, image in zip(names, images, strict=True):
        Image.fromarray(image).save(tmp_path / "bare" / name)
    tables = []
    for data in (cells / "test.npz", tmp_path / "bare.npz", tmp_path / "bare"):
        out = tmp_path / "predictions.csv"
        assert parteq("histo", "predict", "--run", trained, "--data", data, "--out", out)[0] == 0
        tables.append(list(csv.reader(out.read_text("utf-8", "surrogateescape").splitlines())))
    labelled, bare, folder = tables
    assert bare == labelled[:7]
    assert folder[0] == ["image", *bare[0][1:]]
    assert [row[0] for row in folder[1:]] == names
    assert [row[1:] for row in folder] == [row[1:] for row in bare]
    for data, reason in (("bare.npz", "has no array 'labels'"), ("bare", "has no class folders")):
        words = ["--data", tmp_path / data]
        for verb in (["evaluate", "--run", trained], ["train", "--out", tmp_path / "run"]):
            status, _, complaint = parteq("histo", *verb, *words)
            assert status == 2
            assert reason in complaint
    np.savez(tmp_path / "grey.npz", images=images[..., 0])
    status, _, complaint = parteq("histo", "predict", "--run", trained, "--data", tmp_path / "grey.npz")
    assert (status, complaint.count("\n")) == (2, 1)
    assert "holds grey images" in complaint


def test_predictions_and_scores_agree(parteq, trained, cells, tmp_path):
    data = ["--run", trained, "--data", cells / "test.npz"]
    parteq("histo", "predict", *data, "--out", tmp_path / "predictions.csv", "--json", tmp_path / "predict.json")
    parteq("histo", "evaluate", *data, "--json", tmp_path / "scores.json")
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    truth = [["disc", "ring"][label] for label in np.load(cells / "test.npz")["labels"]]
    right = np.mean([row["predicted"] == name for row, name in zip(rows, truth, strict=True)])
    scores = scores_of(tmp_path / "scores.json")
    assert scores["accuracy"] == pytest.approx(right)
    # Probabilities are those at the temperature.
    likelihood = [float(row[f"probability_{name}"]) for row, name in zip(rows, truth, strict=True)]
    assert -np.log(likelihood).mean() == pytest.approx(scores["nll_calibrated"], rel=1e-6)
    assert scores_of(tmp_path / "predict.json")["temperature"] == scores["temperature"]
    assert scores["nll"] != pytest.approx(scores["nll_calibrated"], rel=1e-6)


def test_probabilities_are_what_an_exported_file_says(parteq, trained, cells, tmp_path):
    """By the words of its metadata, softmax(logits / temperature), everywhere."""
    about = Run.open(trained).checkpoint().about()
    image = np.load(cells / "test.npz")["images"][:1]
    (tmp_path / "tiles").mkdir()
    Image.fromarray(image[0]).save(tmp_path / "tiles" / "s_x0_y0.png")
    run = ["--run", trained, "--quiet", "--out"]
    assert parteq("histo", "export", *run, tmp_path / "model.onnx")[0] == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    said = session.get_modelmeta().custom_metadata_map
    assert "softmax(logits / temperature)" in said["output"]
    assert float(said["temperature"]) == about["temperature"] != 1
    (logits,) = session.run(["logits"], {"images": np.moveaxis(image, -1, 1).astype(np.float32) / 255})
    expected = torch.tensor(logits / float(said["temperature"])).softmax(1)[0].tolist()
    out = tmp_path / "out.json"
    assert parteq("histo", "predict", *run, tmp_path / "p.csv", "--data", tmp_path / "tiles")[0] == 0
    (row,) = csv.DictReader((tmp_path / "p.csv").read_text().splitlines())
    assert [float(row[f"probability_{name}"]) for name in about["classes"]] == pytest.approx(expected, abs=1e-4)
    picture = tmp_path / "picture.png"
    words = ["--image", tmp_path / "tiles" / "s_x0_y0.png", "--json", out]
    assert parteq("histo", "explain", *run, picture, *words)[0] == 0
    assert list(scores_of(out)["probabilities"].values()) == pytest.approx(expected, abs=1e-4)
    assert parteq("histo", "heatmap", *run, picture, "--slide", tmp_path / "tiles", "--json", out)[0] == 0
    assert scores_of(out)["mean_probability"] == pytest.approx(expected[1], abs=1e-4)
    assert scores_of(out)["temperature"] == about["temperature"]


def test_classes_that_do_not_occur_are_told(parteq, cells, tmp_path):
    arrays = dict(np.load(cells / "train.npz"))
    labels = np.where(np.arange(96) % 3 == 0, 2, arrays["labels"])
    np.savez(tmp_path / "three.npz", **arrays | {"labels": labels, "classes": ["disc", "ring", "star"]})
    words = ["--data", tmp_path / "three.npz", "--val", cells / "test.npz", "--out", tmp_path / "run", "--epochs", 1]
    reason = "of 'star': the scores are over the classes that occur\n"
    loud = [word for word in SMALL if word != "--quiet"]
    status, _, complaint = parteq("histo", "train", *words, *loud)
    assert status == 0
    assert complaint.count(f"parteq: {cells}/test.npz: no images to validate on {reason}") == 1
    images, labels = 255 - np.load(cells / "test.npz")["images"], np.arange(48) % 2
    np.savez(tmp_path / "new.npz", images=images, labels=labels, classes=["disc", "ring"])
    status, _, complaint = parteq("histo", "evaluate", "--run", tmp_path / "run", "--data", tmp_path / "new.npz")
    assert (status, complaint) == (0, f"parteq: {tmp_path}/new.npz: no images to evaluate {reason}")


def test_the_report_says_where_symmetry_says_little(parteq, cells, tmp_path):
    """Where nothing is learned, the network is as symmetric as it began."""
    arrays, said = dict(np.load(cells / "train.npz")), "little of the data"
    arrays["labels"] = np.random.default_rng(0).permutation(arrays["labels"])
    np.savez(tmp_path / "noise.npz", **arrays)
    for degree in ("learned", "full"):
        words = ["--data", tmp_path / "noise.npz", "--out", tmp_path / degree, "--epochs", 1, "--degree", degree]
        assert parteq("histo", "train", *words, *SMALL)[0] == 0
        assert (said in (tmp_path / degree / "report.html").read_text()) == (degree == "learned")


def test_degree(parteq, trained, tmp_path):
    out, picture = tmp_path / "degree.json", tmp_path / "degree.png"
    status, printed, _ = parteq("degree", "--run", trained, "--json", out, "--out", picture)
    found = json.loads(out.read_text())
    assert status == 0
    assert found["schema"] == 1
    assert found["summary"] in printed
    assert picture.read_bytes().startswith(b"\x89PNG")
    for layer in found["layers"]:
        keys = {"name", "group", "density", "angles_deg", "broken_energy", "kl_to_uniform_nats", "nearest_subgroup"}
        assert keys <= set(layer)
        assert layer["group"] == "C4"
        assert layer["angles_deg"] == [0, 90, 180, 270]
        assert np.mean(layer["density"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kind", ["torch", "onnx"])
def test_export_gives_a_plain_network(parteq, trained, cells, tmp_path, kind):
    out, record = tmp_path / "exported", tmp_path / "export.json"
    words = ["--run", trained, "--format", kind, "--out", out, "--json", record, "--quiet"]
    assert parteq("histo", "export", *words) == (0, "", "")
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(out.name)] == [out.name]
    images = open_images(str(cells / "test.npz")).tensors()[0][:7].float() / 255
    with torch.inference_mode():
        expected = Run.open(trained).checkpoint().model()(images)
    if kind == "torch":
        logits = torch.export.load(out).module()(images)
    else:
        logits = torch.tensor(onnxruntime.InferenceSession(out).run(["logits"], {"images": images.numpy()})[0])
    assert torch.allclose(logits, expected, atol=1e-5)
    assert scores_of(record)["bytes"] == out.stat().st_size


@pytest.mark.parametrize("layout", ["folder", "medmnist", "volumes", "grey"])
def test_every_kind_of_data(parteq, cells, tmp_path, layout):
    images, labels = (np.load(cells / "train.npz")[name] for name in ("images", "labels"))
    data = tmp_path / "data.npz"
    if layout == "folder":
        data = tmp_path / "images"
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            folder = data / ["disc", "ring"][label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:03d}.png")
    elif layout == "medmnist":
        parts = {"train": slice(0, 60), "val": slice(60, 80), "test": slice(80, 96)}
        arrays = {f"{name}_images": images[part, ..., 0] for name, part in parts.items()}
        np.savez(data, **arrays, **{f"{name}_labels": labels[part, None] for name, part in parts.items()})
    elif layout == "volumes":
        np.savez(data, images=np.repeat(images[:24, :8, None, :8, 0], 8, axis=2), labels=labels[:24])
    else:
        np.savez(data, images=images[..., 0], labels=labels)
    run, out = tmp_path / "run", tmp_path / "scores.json"
    assert parteq("histo", "train", "--data", data, "--out", run, "--epochs", 1, *SMALL)[0] == 0
    assert parteq("histo", "evaluate", "--run", run, "--data", data, "--json", out, "--quiet")[0] == 0
    assert scores_of(out)["n"] == {"medmnist": 16, "volumes": 24}.get(layout, 96)


def test_validation_data_and_limit(parteq, cells, tmp_path):
    run, out = tmp_path / "run", tmp_path / "train.json"
    words = ["--data", cells / "train.npz", "--val", cells / "test.npz", "--limit", 20, "--augment", "d4"]
    assert parteq("histo", "train", *words, "--out", run, "--epochs", 1, "--json", out, *SMALL)[0] == 0
    assert scores_of(out)["n_train"] == 20
    assert Run.open(run).data["validation"]["n"] == 48


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data", "missing.npz"], "no such file"),
        (["--limit", "1"], " images to train on, of 2 classes: take"),
        (["--limit", "1000"], " images to train on, of 2 classes: take"),
        (["--epochs", "-3"], "--epochs -3: must be at least 1"),
        (["--seed", "-1"], "must not be negative"),
        (["--seed", str(2**63)], "2⁶³ or more"),
        (["--batch-size", "1"], "--batch-size: must be at least 2"),
        (["--width", "nan"], "--width nan: must be above 0 and at most 64"),
        (["--learning-rate", "-1"], "--learning-rate: must not be negative"),
        (["--device", "cuda:99"], "torch finds no"),
        (["--device", "abacus"], "--device abacus"),
        (["--config", "missing.toml"], "No such file"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(parteq, cells, tmp_path, words, reason):
    words = [*words, *([] if "--data" in words else ["--data", cells / "train.npz"])]
    status, printed, complaint = parteq("histo", "train", "--out", tmp_path / "run", *SMALL, *words)
    assert (status, printed) == (2, "")
    assert complaint.startswith("parteq: ")
    assert complaint.count("\n") == 1
    assert reason in complaint
    assert not (tmp_path / "run").exists()


def test_a_patient_on_both_sides_is_refused(parteq, cells, tmp_path):
    write_cells(tmp_path / "other.npz", 16, first_group=23, seed=4)
    words = ["--data", cells / "train.npz", "--val", tmp_path / "other.npz", "--out", tmp_path / "run"]
    status, _, complaint = parteq("histo", "train", *words, *SMALL)
    assert status == 2
    assert "1 groups are in both training and held-out images: 23" in complaint


@pytest.mark.parametrize(
    ("images", "classes", "reason"),
    [
        ((6, 12, 12, 3), ["disc", "square"], "has the class 'square'; the model tells apart disc, ring"),
        ((6, 12, 12), ["disc", "ring"], "holds grey images; the model takes RGB images"),
        ((6, 12, 12, 12, 3), ["disc", "ring"], "holds RGB volumes; the model takes RGB images"),
    ],
)
def test_images_that_do_not_fit_the_model(parteq, trained, tmp_path, images, classes, reason):
    data = tmp_path / "data.npz"
    np.savez(data, images=np.zeros(images, np.uint8), labels=np.arange(6) % 2, classes=classes)
    status, _, complaint = parteq("histo", "evaluate", "--run", trained, "--data", data)
    assert status == 2
    assert complaint == f"parteq: {data}: {reason}\n"


def test_labels_go_by_the_names_of_the_classes(parteq, trained, cells, tmp_path):
    arrays = dict(np.load(cells / "test.npz"))
    arrays |= {"labels": 1 - arrays["labels"], "classes": np.array(["ring", "disc"])}
    np.savez(tmp_path / "renamed.npz", **arrays)
    found = []
    for data in (cells / "test.npz", tmp_path / "renamed.npz"):
        parteq("histo", "evaluate", "--run", trained, "--data", data, "--json", tmp_path / "scores.json")
        found.append(scores_of(tmp_path / "scores.json"))
    assert {**found[0], "data": ""} == {**found[1], "data": ""}


def test_one_class_is_evaluated_with_a_warning(parteq, trained, cells, tmp_path):
    with np.load(cells / "test.npz") as file:
        rings = file["images"][file["labels"] == 1]
    np.savez(tmp_path / "rings.npz", images=rings, labels=np.ones(len(rings), int), classes=["disc", "ring"])
    out = tmp_path / "scores.json"
    words = ["--run", trained, "--data", tmp_path / "rings.npz", "--json", out]
    status, _, complaint = parteq("histo", "evaluate", *words)
    assert status == 0
    missing = "auc, pr_auc, sensitivity_at_95_specificity"
    assert complaint == f"parteq: no {missing}: all 24 samples are of one class\n"
    assert scores_of(out)["auc"] is None


def test_large_data_are_read_by_workers_and_a_corrupt_image_is_one_line(parteq, tmp_path, monkeypatch):
    monkeypatch.setattr(task, "IN_MEMORY_BYTES", 0)
    for number in range(16):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9), number, np.uint8)).save(path)
    run, words = tmp_path / "run", ["--data", tmp_path / "images", "--epochs", 1, "--workers", 1, *SMALL]
    assert parteq("histo", "train", "--out", run, *words)[0] == 0
    path.write_bytes(path.read_bytes()[:-30])
    status, _, complaint = parteq("histo", "train", "--out", tmp_path / "other", *words)
    assert status == 2
    assert complaint.startswith(f"parteq: {path}: is not a readable image")
    assert complaint.count("\n") == 1


def test_a_run_is_not_overwritten(parteq, trained, cells, tmp_path):
    before = (trained / "metrics.jsonl").read_bytes()
    status, _, complaint = parteq("histo", "train", "--data", cells / "train.npz", "--out", trained, *SMALL)
    assert status == 2
    assert "holds a run already: add --resume" in complaint
    assert (trained / "metrics.jsonl").read_bytes() == before
    (tmp_path / "thesis.tex").write_text("precious")
    status, _, complaint = parteq("histo", "train", "--data", cells / "train.npz", "--out", tmp_path, *SMALL)
    assert status == 2
    assert "is not empty and no run" in complaint
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
