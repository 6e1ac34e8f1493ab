"""What MD5 sums say of PatchCamelyon's files: either published table is accepted, files that do not fit are not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from parteq.datasets import pcam_files
from parteq.datasets.errors import DataError
from parteq.datasets.pcam_files import PARTS, check_sums, pcam_file, published_as

CONTENTS = ("train", "val", "test")


@pytest.fixture(autouse=True)
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of small stand-ins, whose content says what they stand for."""
    sums = {hashlib.md5(f"{c} {part}".encode()).hexdigest(): (c, part) for c in CONTENTS for part in PARTS}
    monkeypatch.setattr(pcam_files, "_SUMS", sums)


def write(folder: Path, split: str, content: str, parts: tuple[str, ...] = PARTS) -> None:
    for part in parts:
        pcam_file(folder, split, part).write_text(f"{content} {part}")


@pytest.mark.parametrize("swapped", [False, True])
def test_either_table(tmp_path: Path, swapped: bool) -> None:
    for split, content in zip(CONTENTS, ("train", "test", "val") if swapped else CONTENTS, strict=True):
        write(tmp_path, split, content)
    found = check_sums(tmp_path)
    assert len(found) == 3 * len(PARTS)
    assert set(found.values()) == {"as published"}
    pcam_file(tmp_path, "test", "y.h5").write_text("a subset")
    assert check_sums(tmp_path)["camelyonpatch_level_2_split_test_y.h5"] == "unknown"


def test_labels_of_the_other_split(tmp_path: Path) -> None:
    write(tmp_path, "val", "val", ("x.h5",))
    write(tmp_path, "val", "test", ("y.h5",))
    with pytest.raises(DataError, match=r"valid_y\.h5: is not of the same patches as the other files of 'val'"):
        check_sums(tmp_path)


def test_one_split_under_two_names(tmp_path: Path) -> None:
    write(tmp_path, "val", "test")
    write(tmp_path, "test", "test")
    with pytest.raises(DataError, match="validation and test are the same patches"):
        check_sums(tmp_path)


@pytest.mark.parametrize(("split", "content"), [("train", "val"), ("test", "train")])
def test_training_patches_held_out(tmp_path: Path, split: str, content: str) -> None:
    write(tmp_path, split, content)
    with pytest.raises(DataError, match=f"is published as a file of the split '{content}'"):
        check_sums(tmp_path)


def test_no_files(tmp_path: Path) -> None:
    assert check_sums(tmp_path) == {}


def test_the_published_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fifteen different sums, five a split; a sum stands for one kind of file only."""
    monkeypatch.undo()
    sums = pcam_files._SUMS
    assert {len(md5) for md5 in sums} == {32}
    assert sorted(sums.values()) == sorted((content, part) for content in CONTENTS for part in PARTS)
    assert published_as("1571f514728f59376b705fc836ff4b63", "x.h5.gz") == "train"
    assert published_as("1571f514728f59376b705fc836ff4b63", "y.h5.gz") is None
    assert published_as("0" * 32, "x.h5") is None
