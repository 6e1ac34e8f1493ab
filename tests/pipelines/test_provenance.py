"""What a run has seen is told from what it has not: images, patients and slides, by name and by content."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from parteq.datasets.images import open_images
from parteq.pipelines.provenance import describe, warn_of_known, warn_of_known_slide
from parteq.pipelines.run import Run

from .conftest import SMALL

QUICK = [*(word for word in SMALL if word != "--quiet"), "--epochs", "1"]


def write(path: Path, seed: int, groups: list | None = None, side: int = 8, classes: str = "ab") -> Path:
    """Eight images of noise."""
    images = np.random.default_rng(seed).integers(0, 256, (8, side, side), dtype=np.uint8)
    arrays = {"images": images, "labels": np.arange(8) % 2, "classes": np.array(list(classes))}
    np.savez(path, **arrays, **({} if groups is None else {"groups": np.array(groups)}))
    return path


def warnings_of(earlier: Path, now: Path, key: str = "training") -> list[str]:
    """What is said of data after a training on earlier ones."""
    first, second = open_images(str(earlier)), open_images(str(now))
    # As the file keeps it.
    data = json.loads(json.dumps({key: describe(first, first.groups)}))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_known(data, second, second.groups, divided=False)
    return [str(warning.message) for warning in caught]


COUNTED, OTHERS = [1, 1, 2, 2, 3, 3, 4, 4], [4, 4, 5, 5, 6, 6, 7, 7]
NAMED = [f"patient {number}" for number in COUNTED]


def test_numbers_of_two_data_sets_are_not_the_same_patients(tmp_path: Path) -> None:
    earlier = write(tmp_path / "cells.npz", 0, COUNTED)
    assert warnings_of(earlier, write(tmp_path / "size.npz", 1, COUNTED, side=9)) == []
    assert warnings_of(earlier, write(tmp_path / "classes.npz", 1, COUNTED, classes="cd")) == []


def test_patients_of_one_data_set_are_the_same_in_two_files(tmp_path: Path) -> None:
    found = warnings_of(write(tmp_path / "a.npz", 0, COUNTED), write(tmp_path / "b.npz", 1, OTHERS))
    assert found == [f"{tmp_path}/b.npz: the run was trained on 1 of their 4 groups: others may score lower"]
    named = write(tmp_path / "named.npz", 0, NAMED)
    assert len(warnings_of(named, write(tmp_path / "c.npz", 1, NAMED, side=9, classes="cd"))) == 1


def test_training_validation_and_earlier_weights_are_told_in_one_line(tmp_path: Path) -> None:
    """What one has not seen, another may have."""
    parts = [open_images(str(write(tmp_path / f"{n}.npz", n, [n] * 4 + [n + 1] * 4))) for n in (1, 2, 5)]
    described = [describe(part, part.groups) for part in parts]
    weights = {"training": described[0], "validation": described[2]}
    run = {"training": described[0], "validation": described[1], "weights": {"data": weights}}
    now = open_images(str(write(tmp_path / "now.npz", 4, COUNTED)))
    with pytest.warns(UserWarning, match="lower") as caught:
        warn_of_known(run, now, now.groups, divided=False)
    ours = "the run was trained on 2 of their 4 groups and validated on 2 of their 4 groups"
    theirs = "the weights that the run began with were trained on 2 of their 4 groups"
    assert [str(each.message) for each in caught] == [f"{tmp_path}/now.npz: {ours}; {theirs}: others may score lower"]


def test_finetuning_tells_that_the_weights_have_seen_what_it_validates_on(parteq, tmp_path: Path) -> None:
    source = tmp_path / "source"
    words = ["--data", write(tmp_path / "a.npz", 0), "--val", write(tmp_path / "b.npz", 1), "--out", source, *QUICK]
    assert parteq("histo", "train", *words)[0] == 0
    tune = ["histo", "finetune", "--from", source, "--epochs", 1, "--mode", "probe", "--out"]
    swapped = ["--data", tmp_path / "b.npz", "--val", tmp_path / "a.npz"]
    status, _, complaint = parteq(*tune, tmp_path / "tuned", *swapped)
    assert status == 0
    seen = "the weights that the run began with were trained on exactly these"
    assert complaint.count(f"parteq: {tmp_path}/a.npz: {seen}: others may score lower\n") == 1
    fresh = ["--data", tmp_path / "b.npz", "--val", write(tmp_path / "c.npz", 2)]
    assert "others may score lower" not in parteq(*tune, tmp_path / "fresh", *fresh)[2]


def test_copies_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    earlier = write(tmp_path / "a.npz", 0)
    arrays = dict(np.load(write(tmp_path / "b.npz", 1)))
    arrays["images"][:3] = np.load(earlier)["images"][5:]
    arrays["images"][3] = 255  # as in many sets
    np.savez(tmp_path / "b.npz", **arrays, groups=np.arange(8))
    (found,) = warnings_of(earlier, tmp_path / "b.npz", "validation")
    assert found == f"{tmp_path}/b.npz: the run was validated on 3 of these images: others may score lower"
    blank = write(tmp_path / "blank.npz", 2)
    np.savez(blank, images=np.full((8, 8, 8), 255, np.uint8), labels=np.arange(8) % 2)
    assert warnings_of(tmp_path / "b.npz", blank) == []


def test_validation_images_that_are_trained_on(parteq, tmp_path: Path) -> None:
    data = write(tmp_path / "a.npz", 0)
    arrays = dict(np.load(data))
    twice = {name: np.repeat(arrays[name], 2, 0) for name in ("images", "labels")}
    np.savez(tmp_path / "b.npz", **arrays | twice)
    words = ["--data", tmp_path / "b.npz", "--val", data, "--out", tmp_path / "run", *QUICK]
    status, _, said = parteq("histo", "train", *words)
    assert status == 0
    assert "a.npz: 8 of the images to validate on are trained on as well\n" in said


def test_unrelated_numbers_do_not_keep_from_validating(parteq, tmp_path: Path) -> None:
    words = ["--data", write(tmp_path / "a.npz", 0, COUNTED), "--val", write(tmp_path / "b.npz", 1, COUNTED, side=9)]
    assert parteq("histo", "train", *words, "--out", tmp_path / "run", *QUICK)[0] == 0
    again = ["--data", tmp_path / "a.npz", "--val", write(tmp_path / "b.npz", 1, OTHERS), "--out", tmp_path / "other"]
    status, _, complaint = parteq("histo", "train", *again, *QUICK)
    assert (status, complaint.count("\n")) == (2, 1)
    assert "b.npz: 1 groups are in both training and held-out images: 4; if" in complaint


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A slide of 8 × 8 tiles, of two classes."""
    rng = np.random.default_rng(0)
    for x, y in np.ndindex(8, 8):
        path = tmp_path / "tiles" / "ab"[(x + y) % 2] / f"S1_x{12 * x}_y{12 * y}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    return tmp_path / "tiles"


def test_a_map_of_what_was_trained_on(parteq, tiles: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--data", f"top:{tiles}", "--out", run, *QUICK]
    assert parteq("histo", "train", *words)[0] == 0
    heat = ["histo", "heatmap", "--run", run, "--out", tmp_path / "heat.png", "--slide"]
    status, _, complaint = parteq(*heat, tiles)
    assert status == 0
    assert f"{tiles}: the run was trained on " in complaint
    status, _, complaint = parteq(*heat, f"bottom:{tiles}")
    assert (status, complaint) == (0, "")
    # The slide that the tiles were cut from, known by its name alone.
    for name, said in (("S1.png", f"{tmp_path}/S1.png: the run was trained on tiles of it"), ("S2.png", "")):
        pixels = np.random.default_rng(1).integers(0, 256, (24, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / name)
        status, _, complaint = parteq(*heat, tmp_path / name, "--mpp", 1, "--slide-mpp", 1, "--all-tiles")
        assert status == 0
        assert complaint.startswith(f"parteq: {said}") if said else complaint == ""
    with pytest.warns(UserWarning, match="trained on tiles of it"):
        warn_of_known_slide({"weights": {"data": Run.open(run).data}}, Path("elsewhere/S1.svs"))


def test_the_training_part_of_divided_data(parteq, tmp_path: Path) -> None:
    data, run = tmp_path / "both.npz", tmp_path / "run"
    images = np.random.default_rng(0).integers(0, 256, (24, 8, 8), dtype=np.uint8)
    parts = {f"{split}_{name}": array for split, part in (("train", slice(12)), ("test", slice(12, 24)))
             for name, array in (("images", images[part]), ("labels", np.arange(24)[part] % 2))}  # fmt: skip
    np.savez(data, **parts)
    assert parteq("histo", "train", "--data", data, "--limit", 6, "--out", run, *QUICK)[0] == 0
    status, _, complaint = parteq("histo", "evaluate", "--run", run, "--data", data, "--split", "train")
    assert status == 0
    seen = "trained on 6 of these images and validated on 2 of these images"
    assert complaint == f"parteq: {data}: the run was {seen}: others may score lower\n"
    assert parteq("histo", "evaluate", "--run", run, "--data", data)[2] == ""
