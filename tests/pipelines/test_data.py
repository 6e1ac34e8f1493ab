"""Images of every origin on the command line: tables, bad files, PatchCamelyon in two releases, pairs of cells."""

from __future__ import annotations

import csv
import json
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from parteq.core import training
from parteq.pipelines.cli import COMMANDS, _parse

from .conftest import SMALL

Call = Callable[..., tuple[int, str, str]]
QUICK = ["--epochs", 1, *SMALL]
RECIPES = Path(__file__).parents[2] / "recipes"


@pytest.fixture
def images(cells: Path, tmp_path: Path) -> Path:
    """A folder of class folders, 48 images."""
    with np.load(cells / "test.npz") as file:
        for number, (image, label) in enumerate(zip(file["images"], file["labels"], strict=True)):
            folder = tmp_path / "images" / ["disc", "ring"][label]
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(folder / f"{number:03d}.png")
    return tmp_path / "images"


def test_a_table(parteq: Call, images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("*.png"))
    splits = ["train", "train", "val", "test"]
    with (images / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "patient", "split"])
        for number, path in enumerate(files):
            split = splits[number % 4]
            table.writerow([path.relative_to(images), path.parent.name, f"{split} {number % 3}", split])
    data, run = images / "table.csv", tmp_path / "run"
    assert parteq("histo", "train", "--data", data, "--out", run, *QUICK)[0] == 0
    described = json.loads((run / "data.json").read_text())
    assert (described["training"]["n"], described["validation"]["n"]) == (24, 12)
    words = ["--run", run, "--data", data, "--quiet"]
    assert parteq("histo", "evaluate", *words, "--json", tmp_path / "scores.json")[0] == 0
    assert json.loads((tmp_path / "scores.json").read_text())["n"] == 12
    data.write_text("image\n" + "\n".join(str(path.relative_to(images)) for path in files[:3]) + "\n")
    assert parteq("histo", "predict", *words, "--out", tmp_path / "predictions.csv")[0] == 0
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    assert [row["image"] for row in rows] == ["disc/000.png", "disc/002.png", "disc/004.png"]
    status, _, complaint = parteq("histo", "evaluate", *words)
    assert (status, complaint) == (2, f"parteq: {data}: line 1: has no column 'label'; it has image\n")


def test_bad_images_are_skipped_only_when_asked(parteq: Call, trained: Path, images: Path, tmp_path: Path) -> None:
    files = sorted(images.rglob("*.png"))
    files[1].write_bytes(files[1].read_bytes()[:-40])
    files[30].write_bytes(b"no image")
    shown = tmp_path / "shown.json"
    verbs: dict[str, list[object]] = {
        "train": ["--out", tmp_path / "run", *(word for word in QUICK if word != "--quiet")],
        "evaluate": ["--run", trained],
        "predict": ["--run", trained, "--out", tmp_path / "predictions.csv"],
        "check": [],
    }
    for verb, words in verbs.items():
        status, printed, complaint = parteq("histo", verb, "--data", images, *words)
        assert (status, printed, complaint.count("\n")) == (2, "", 1)
        assert "is not a readable image" in complaint
        status, _, log = parteq("histo", verb, "--data", images, *words, "--skip-bad", "--json", shown)
        assert status == 0
        assert json.loads(shown.read_text())["skipped"] == 2
        for path in (files[1], files[30]):
            assert f"skipped {path}: is not a readable image" in log
    rows = list(csv.DictReader((tmp_path / "predictions.csv").read_text().splitlines()))
    kept = [path for number, path in enumerate(files) if number not in (1, 30)]
    assert [row["image"] for row in rows] == [path.relative_to(images).as_posix() for path in kept]


def write_pcam(folder: Path, split: str, count: int) -> Path:
    """Patches of the published layout."""
    folder.mkdir(exist_ok=True)
    arrays = {"x": np.zeros((count, 96, 96, 3), np.uint8), "y": np.arange(count).reshape(-1, 1, 1, 1) % 2}
    for part, array in arrays.items():
        with h5py.File(folder / f"camelyonpatch_level_2_split_{split}_{part}.h5", "w") as file:
            file[part] = array.astype(np.uint8)
    return folder


def write_kaggle(folder: Path, count: int) -> Path:
    """Patches as Kaggle's competition has them."""
    (folder / "train").mkdir(parents=True)
    for number in range(count):
        Image.fromarray(np.full((96, 96, 3), number, np.uint8)).save(folder / "train" / f"{number:04x}.tif")
    (folder / "train_labels.csv").write_text("id,label\n" + "".join(f"{n:04x},{n % 2}\n" for n in range(count)))
    return folder


def test_two_releases_of_patchcamelyon_do_not_mix(parteq: Call, trained: Path, tmp_path: Path) -> None:
    published = f"pcam:{write_pcam(write_pcam(tmp_path / 'published', 'train', 6), 'valid', 4)}"
    kaggle = write_kaggle(tmp_path / "kaggle", 6)
    for data, val in ((published, kaggle), (kaggle, published)):
        words = ["--data", data, "--val", val, "--out", tmp_path / "run"]
        status, printed, complaint = parteq("histo", "train", *words, *QUICK)
        assert (status, printed, complaint.count("\n")) == (2, "", 1)
        assert "training patches would be held out" in complaint
        assert not (tmp_path / "run").exists()
    # A run remembers which release it was trained on.
    run = tmp_path / "trained"
    shutil.copytree(trained, run)
    for file in run.glob("checkpoints/*/model.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"release": "PatchCamelyon as published"}))
    status, _, complaint = parteq("histo", "evaluate", "--run", run, "--data", kaggle)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "training patches would be held out" in complaint
    # Without labels nothing is scored, and so nothing can be too good.
    out = tmp_path / "predictions.csv"
    assert parteq("histo", "predict", "--run", run, "--data", kaggle, "--out", out, "--quiet")[0] == 0


def test_the_recipe_for_patchcamelyon(tmp_path: Path) -> None:
    recipe = RECIPES / "pcam.toml"
    command = _parse("histo train", ["--config", str(recipe), "--data", "pcam:DIR", "--out", str(tmp_path)])
    for name, value in tomllib.loads(recipe.read_text()).items():
        assert getattr(command, name) == value
    command.settings()  # type: ignore[attr-defined]


def test_classes_that_are_missing(parteq: Call, cells: Path, tmp_path: Path) -> None:
    """One class cannot be trained on; one that is not trained or validated on is a line in the log, once."""
    arrays = dict(np.load(cells / "test.npz"))
    del arrays["groups"]
    words = ["--out", tmp_path / "run", *(word for word in QUICK if word != "--quiet"), "--epochs", 2]
    discs = {name: array[arrays["labels"] == 0] for name, array in arrays.items() if name != "classes"}
    np.savez(tmp_path / "discs.npz", **discs, classes=arrays["classes"])
    status, printed, complaint = parteq("histo", "train", "--data", tmp_path / "discs.npz", *words)
    assert (status, printed) == (2, "")
    assert (
        complaint
        == f"parteq: {tmp_path}/discs.npz: all training images are of class 'disc': it takes two classes or more\n"
    )
    assert not (tmp_path / "run").exists()
    np.savez(tmp_path / "three.npz", **arrays | {"classes": np.array(["disc", "ring", "star"])})
    status, _, log = parteq("histo", "train", "--data", tmp_path / "three.npz", "--val", tmp_path / "discs.npz", *words)
    assert status == 0
    assert log.count("three.npz: no images to train on of 'star'") == 1
    assert log.count("discs.npz: all validation images are of class 'disc': no AUC") == 1
    # The final scores say so as well, each epoch does not.
    assert log.count("samples are of one class") == 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("Unable to allocate 3.00 TiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1440000000 bytes."),
        RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    ],
)
def test_no_memory_is_one_line(parteq: Call, cells: Path, tmp_path: Path, monkeypatch, error: Exception) -> None:
    def full(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(training, "fit", full)
    status, printed, complaint = parteq(
        "histo", "train", "--data", cells / "train.npz", "--out", tmp_path / "run", *QUICK
    )
    assert (status, printed, complaint.count("\n")) == (2, "", 1)
    assert complaint.startswith("parteq: not enough memory: take smaller or fewer images")


def test_make_pairs(parteq: Call, cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "pairs.npz"
    words = ["histo", "make-pairs", "--data", cells / "train.npz", "--n", 40, "--out", out]
    status, printed, complaint = parteq(*words)
    assert (status, complaint) == (0, "")
    assert "40" in printed
    with np.load(out) as pairs:
        assert pairs["images"].shape == (40, 12, 24, 3)
        assert pairs["classes"].tolist() == ["disc|disc", "disc|ring", "ring|disc", "ring|ring"]
        assert np.bincount(pairs["labels"]).tolist() == [10, 10, 10, 10]
        assert set(pairs["groups"]) <= set(range(24))
    before = out.read_bytes()
    assert parteq(*words)[0] == 0
    assert out.read_bytes() == before
    assert parteq(*words, "--seed", 1)[0] == 0
    assert out.read_bytes() != before
    run = tmp_path / "run"
    assert parteq("histo", "train", "--data", out, "--out", run, *QUICK)[0] == 0
    assert parteq("histo", "evaluate", "--run", run, "--data", out, "--quiet")[0] == 0
    for wrong, reason in ((["--n", 3], "3 pairs are too few"), (["--out", tmp_path / "pairs"], "end in .npz")):
        status, printed, complaint = parteq(*words, *wrong)
        assert (status, printed, complaint.count("\n")) == (2, "", 1)
        assert reason in complaint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pairs.npz", "run"]


def test_check(parteq: Call, cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "check.json"
    assert parteq("histo", "check", "--data", cells / "train.npz", "--json", out)[0] == 0
    found = json.loads(out.read_text())
    assert {name: found[name] for name in ("n", "groups", "class_disc", "class_ring", "size", "channels")} == {
        "n": 96, "groups": 24, "class_disc": 48, "class_ring": 48, "size": "12 × 12", "channels": 3
    }  # fmt: skip
    folder = write_pcam(write_pcam(tmp_path / "pcam", "train", 6), "test", 4)
    status, printed, _ = parteq("histo", "check", "--data", f"pcam:{folder}")
    told = dict(line.split(maxsplit=1) for line in printed.splitlines())
    assert status == 0
    assert (told["md5_camelyonpatch_level_2_split_test_y.h5"], told["test_class_tumor"]) == ("unknown", "2")
    images, labels = np.zeros((4, 5, 5), np.uint8), np.arange(4) % 2
    arrays = {
        f"{split}_{name}": a for split in ("train", "test") for name, a in (("images", images), ("labels", labels))
    }
    np.savez(tmp_path / "leak.npz", **arrays, train_groups=[1, 2, 3, 4], test_groups=[4, 5, 6, 7])
    status, _, complaint = parteq("histo", "check", "--data", tmp_path / "leak.npz")
    assert status == 2
    assert "1 groups are in both training and held-out images: 4" in complaint


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "check", "make-pairs"])
def test_every_reader_of_images_can_skip(verb: str) -> None:
    assert hasattr(COMMANDS[f"histo {verb}"], "skip_bad")
