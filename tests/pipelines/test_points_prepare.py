"""`parteq points prepare`: folders in, one file out, whatever is wrong with some of the meshes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from parteq.datasets.points import folder as module
from parteq.datasets.points.clouds import available_splits, open_clouds

TETRAHEDRON = "OFF4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n"
STAR = "ply\nformat ascii 1.0\nelement vertex 3\nproperty float x\nproperty float y\nproperty float z\nend_header\n"


@pytest.fixture
def meshes(tmp_path: Path) -> Path:
    root = tmp_path / "meshes"
    for name in ("train/bolt/1.off", "train/bolt/2.off", "train/nut/1.off", "test/nut/9.off"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(TETRAHEDRON)
    (root / "train/nut/few.ply").write_text(STAR + "0 0 0\n1 1 1\n2 2 2\n")
    return root


def test_good_and_bad_meshes(parteq, meshes, tmp_path):
    (meshes / "train/nut/empty.off").write_text("OFF\n0 0 0\n")
    (meshes / "train/nut/nan.off").write_text(TETRAHEDRON.replace("0 0 1", "0 0 nan"))
    (meshes / "test/broken").mkdir()
    (meshes / "test/broken/1.stl").write_bytes(b"\0" * 99)
    out = tmp_path / "clouds.h5"
    status, printed, complaint = parteq(
        "points", "prepare", "--data", meshes, "--out", out, "--points", 50, "--json", tmp_path / "x.json"
    )
    assert status == 0
    results = json.loads((tmp_path / "x.json").read_text())
    assert {key: results[key] for key in ("schema", "n", "classes", "points", "skipped")} == {
        "schema": 1, "n": 5, "classes": 2, "points": 50, "skipped": 3,
    }  # fmt: skip
    assert [line.partition(": ")[0] for line in results["bad"]] == [
        str(meshes / name) for name in ("test/broken/1.stl", "train/nut/empty.off", "train/nut/nan.off")
    ]
    assert all(f"skipped {line}" in complaint for line in results["bad"])
    assert f"{meshes / 'broken'}: no file of this class can be used" in complaint
    assert "skipped" in printed
    assert available_splits(str(out)) == ("train", "test")
    train, test = open_clouds(str(out)), open_clouds(str(out), "test")
    assert (train.classes, test.classes, len(train), len(test)) == (("bolt", "nut"), ("bolt", "nut"), 4, 1)
    assert train.sizes.tolist() == [50, 50, 50, 3]
    positions, _ = train.cloud(0)
    assert positions.min() >= 0
    assert positions.sum(1).max() <= 1 + 1e-6


def test_hostile_files_are_listed_and_the_rest_is_prepared(parteq, meshes, tmp_path):
    chain = "".join(f"DEF N{k} Group {{ children USE N{k - 1} }}\n" for k in range(1, 2000))
    (meshes / "train/nut/deep.wrl").write_text(f"#VRML V2.0 utf8\nDEF N0 Group {{ }}\n{chain}")
    (meshes / "train/nut/huge.off").write_text(TETRAHEDRON.replace("0 0 1", "0 0 1e25"))
    status, _, complaint = parteq("points", "prepare", "--data", meshes, "--out", tmp_path / "x.h5")
    assert (status, complaint.count("skipped")) == (0, 2)
    assert f"skipped {meshes / 'train/nut/deep.wrl'}: is not readable VRML" in complaint
    assert f"skipped {meshes / 'train/nut/huge.off'}: has points beyond 1e+15" in complaint
    assert len(open_clouds(str(tmp_path / "x.h5"))) == 4


def test_equal_seeds_write_equal_files(parteq, meshes, tmp_path):
    files = [tmp_path / f"{name}.h5" for name in "abc"]
    for file, seed in zip(files, (4, 4, 5), strict=True):
        assert parteq("points", "prepare", "--data", meshes, "--out", file, "--seed", seed, "--quiet")[0] == 0
    one, same, other = (file.read_bytes() for file in files)
    assert one == same != other


def test_only_what_changed_is_drawn_again(parteq, meshes, tmp_path, monkeypatch):
    drawn: list[str] = []

    def counted(path, *arguments):
        drawn.append(path.name)
        return load(path, *arguments)

    load = module.load_points
    monkeypatch.setattr(module, "load_points", counted)
    words = ["points", "prepare", "--data", meshes, "--out", tmp_path / "x.h5", "--points", 20, "--quiet"]
    assert parteq(*words)[0] == 0
    assert len(drawn) == 5
    before = (tmp_path / "x.h5").read_bytes()
    drawn.clear()
    assert parteq(*words)[0] == 0
    assert (drawn, (tmp_path / "x.h5").read_bytes()) == ([], before)
    (meshes / "train/bolt/2.off").write_text(TETRAHEDRON.replace("1 0 0", "2 0 0"))
    (meshes / "train/bolt/1.off").unlink()
    assert parteq(*words)[0] == 0
    assert drawn == ["2.off"]
    names = open_clouds(str(tmp_path / "x.h5")).names
    assert names == ("train/bolt/2.off", "train/nut/1.off", "train/nut/few.ply")
    drawn.clear()
    assert parteq(*words, "--seed", 1)[0] == 0
    assert len(drawn) == 4


def test_families_are_folders(parteq, tmp_path):
    for name in ("a/x/1.off", "a/x/2.off", "a/y/1.off", "b/z/1.off"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(TETRAHEDRON)
    assert parteq("points", "prepare", "--data", tmp_path / "in", "--out", tmp_path / "x.h5", "--quiet")[0] == 0
    families = open_clouds(str(tmp_path / "x.h5")).families
    assert np.asarray(families).tolist() == ["a/x", "a/x", "a/y", "b/z"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--data", "nowhere"], "nowhere: no such folder"),
        (["--data", "in", "--out", "x.npz"], "x.npz: is to be an HDF5 file"),
        (["--data", "in", "--out", "no/x.h5"], "no/x.h5: cannot be written: there is no folder no"),
        (["--data", "in", "--points", "0"], "--points 0: must be at least 1"),
        (["--data", "in"], "in: none of 1 files can be used"),
    ],
)
def test_refused_in_one_line(parteq, tmp_path, monkeypatch, words, reason):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in/a").mkdir(parents=True)
    (tmp_path / "in/a/1.off").write_text("OFF")
    status, printed, complaint = parteq("points", "prepare", *words, "--quiet")
    assert (status, printed, complaint.splitlines()) == (2, "", [f"parteq: {complaint[8:].strip()}"])
    assert complaint.startswith(f"parteq: {reason}")
    assert {path.name for path in tmp_path.iterdir()} == {"in"}


def test_a_file_that_is_no_clouds_is_left_alone(parteq, meshes, tmp_path):
    (tmp_path / "x.h5").write_bytes(b"no clouds")
    status, _, complaint = parteq("points", "prepare", "--data", meshes, "--out", tmp_path / "x.h5")
    assert (status, complaint.count("\n"), "is left alone" in complaint) == (2, 1, True)
    assert (tmp_path / "x.h5").read_bytes() == b"no clouds"
