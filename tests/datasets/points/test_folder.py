"""Folders of meshes: layouts, families, and what is drawn."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.errors import DataError
from parteq.datasets.points.clouds import available_splits, open_clouds
from parteq.datasets.points.folder import Drawer, open_folder, read_folder, splits_in_folder

TRIANGLE = "OFF\n3 1 0\n0 0 0\n1 0 0\n0 1 0\n3 0 1 2\n"


def make(root: Path, *names: str, text: str = TRIANGLE) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["b/1.off", "a/1.off"], ()),
        (["train/b/1.off", "test/a/1.off"], ("train", "test")),
        (["Train/b/1.off", "TEST/a/1.off"], ("train", "test")),
        (["b/train/1.off", "a/test/1.off", "a/valid/1.off"], ("train", "val", "test")),
    ],
)
def test_layouts(tmp_path: Path, names: list[str], splits: tuple[str, ...]) -> None:
    folder = open_folder(make(tmp_path, *names))
    assert (folder.classes, splits_in_folder(tmp_path)) == (("a", "b"), splits)
    assert [file.name for file in folder.files] == sorted(names)
    assert {file.family for file in folder.files} == {None}
    # A split that lacks a class numbers classes as the others do.
    data = read_folder(tmp_path, "train", points=5, seed=0)
    assert (data.classes, data.labels is not None and data.labels.max()) == (("a", "b"), 1)


def test_families_are_folders_within_classes(tmp_path: Path) -> None:
    make(tmp_path, "a/x/1.off", "a/x/2.off", "a/3.off", "b/1.off", "b/.hidden/2.off", "b/notes.txt")
    folder = open_folder(tmp_path)
    assert [(file.name, file.family) for file in folder.files] == [
        ("a/3.off", "a/3.off"), ("a/x/1.off", "a/x"), ("a/x/2.off", "a/x"), ("b/1.off", "b/1.off"),
    ]  # fmt: skip


def test_files_below_a_family_belong_to_it(tmp_path: Path) -> None:
    make(tmp_path, "train/a/x/y/z/1.off", "train/a/x/w/2.off", "train/a/x/3.off", "train/b/4.off")
    assert [(file.name, file.family) for file in open_folder(tmp_path).files] == [
        ("train/a/x/3.off", "a/x"), ("train/a/x/w/2.off", "a/x"), ("train/a/x/y/z/1.off", "a/x"),
        ("train/b/4.off", "train/b/4.off"),
    ]  # fmt: skip


def test_what_is_drawn_depends_on_the_file_alone(tmp_path: Path) -> None:
    make(tmp_path / "one", "a/1.off", "a/2.off", "b/1.off")
    make(tmp_path / "two", "a/2.off", "b/1.off", "c/1.off")
    one, two = (open_folder(tmp_path / name) for name in ("one", "two"))

    def drawn(folder, seed):
        return {f.name: positions for f, positions, _ in Drawer(folder, 7, seed, {}).draw(folder.files)}

    assert np.array_equal(drawn(one, 3)["a/2.off"], drawn(two, 3)["a/2.off"])
    assert not np.array_equal(drawn(one, 3)["a/2.off"], drawn(one, 4)["a/2.off"])
    assert not np.array_equal(drawn(one, 3)["a/2.off"], drawn(one, 3)["a/1.off"])


def test_bad_files_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a/1.off", "b/1.off")
    make(tmp_path, "a/2.off", text="OFF\n0 0 0\n")
    with caplog.at_level(logging.WARNING):
        assert read_folder(tmp_path, "train", points=5, seed=0).names == ("a/1.off", "b/1.off")
        # A pipe without a writer would be waited for.
        os.mkfifo(tmp_path / "a/3.off")
        assert read_folder(tmp_path, "train", points=5, seed=0).names == ("a/1.off", "b/1.off")
    assert f"skipped {tmp_path / 'a/2.off'}: is empty" in caplog.text
    assert f"skipped {tmp_path / 'a/3.off'}: is not a regular file" in caplog.text
    make(tmp_path, "a/1.off", "b/1.off", text="no mesh")
    with pytest.raises(DataError, match="none of 4 files can be used"):
        read_folder(tmp_path, "train", points=5, seed=0)


def test_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no class folders with meshes"):
        open_folder(make(tmp_path, "1.off"))
    make(tmp_path, "a/train/1.off", "b/1.off")
    with pytest.raises(DataError, match="in train or test folders, and files in none"):
        open_folder(tmp_path)
    (tmp_path / "b" / "elsewhere").symlink_to("/etc")
    with pytest.raises(DataError, match="leaves the data folder"):
        open_folder(tmp_path)
    with pytest.raises(DataError, match="parteq points prepare --data"):
        open_clouds(str(tmp_path))


def test_a_link_that_leaves_the_folder_is_a_bad_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(tmp_path, "a/1.off", "b/1.off")
    (tmp_path / "b" / "2.off").symlink_to("/etc/hostname")
    assert len(read_folder(tmp_path, "train", points=5, seed=0)) == 2
    assert "leaves the data folder" in caplog.text


def test_folders_without_meshes_say_nothing_of_splits(tmp_path: Path) -> None:
    make(tmp_path, "train/a/1.off", "test/a/2.off")
    (tmp_path / "docs").mkdir()
    assert splits_in_folder(tmp_path) == ("train", "test")
    make(tmp_path, "old/a/3.off")
    with pytest.raises(DataError, match="has the splits test, train, and beside them old"):
        open_folder(tmp_path)


def test_a_link_round_in_a_circle(tmp_path: Path) -> None:
    make(tmp_path, "a/1.off")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    with pytest.raises(DataError, match="a folder that it lies in"):
        open_folder(tmp_path)


def test_modelnet_as_published(tmp_path: Path) -> None:
    make(tmp_path, "chair/train/chair_1.off", "desk/train/desk_1.off", "desk/test/desk_2.off")
    spec = f"modelnet40:{tmp_path}"
    assert available_splits(spec) == ("train", "test")
    data = open_clouds(spec, "test")
    assert (data.classes, data.names, data.sizes.tolist()) == (("chair", "desk"), ("desk/test/desk_2.off",), [1024])
