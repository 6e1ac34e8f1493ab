"""Tables of images: columns, splits and groups; what is wrong is said with the number of the line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from parteq.datasets.errors import DataError
from parteq.datasets.images import available_splits, open_images
from parteq.datasets.table import TableDataset, splits_in_table

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
NAMES = ("a/1.png", "a/2.png", "b/3.png", "4.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name, pixels in zip(NAMES, PIXELS, strict=True):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / name)
    return root


def write(root: Path, *lines: str) -> Path:
    path = root / "table.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def refusal(path: Path, **options: bool) -> str:
    with pytest.raises(DataError) as caught:
        TableDataset(path, **options)  # type: ignore[arg-type]
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value).removeprefix(f"{path}: ")


def test_reads(root: Path) -> None:
    rows = (f"{name},{label},{number % 2}" for number, (name, label) in enumerate(zip(NAMES, "yxxy", strict=True)))
    path = write(root, "image,label,patient", *rows)
    data = open_images(str(path))
    assert available_splits(str(path)) == ()
    assert (data.classes, data.labels.tolist()) == (("x", "y"), [1, 0, 0, 1])
    assert data.names == NAMES
    assert data.groups is not None
    assert data.groups.tolist() == ["0", "1", "0", "1"]
    assert np.array_equal(data.tensors()[0].permute(0, 2, 3, 1), PIXELS)


def test_as_spreadsheets_write_it(root: Path) -> None:
    """A byte order mark, Windows line ends, blanks, quotes, capitals, an empty line, columns of other things."""
    text = '\ufeffNotes, Image ,LABEL\r\n,"a/1.png", 10\r\n\r\n"x, y",./a/2.png,9\r\n'
    path = root / "table.csv"
    path.write_bytes(text.encode())
    data = TableDataset(path)
    # Classes that are numbers are in the order of numbers.
    assert (data.classes, data.labels.tolist()) == (("9", "10"), [1, 0])
    assert data.groups is None
    assert np.array_equal(data[1][0].permute(1, 2, 0), PIXELS[1])


def test_splits(root: Path) -> None:
    path = write(
        root,
        "image,label,split,slide,patient",
        "a/1.png,u,train,s1,p",
        "a/2.png,v,Train,s2,p",
        "b/3.png,v,valid,,q",
        "4.png,w,test,s4,r",
    )
    assert splits_in_table(path) == ("train", "val", "test")
    parts = [TableDataset(path, split) for split in ("train", "val", "test")]
    assert [part.labels.tolist() for part in parts] == [[0, 1], [1], [2]]
    assert {part.classes for part in parts} == {("u", "v", "w")}
    # Patients are asked for before slides, whose empty cell does not matter then.
    assert [part.groups.tolist() for part in parts if part.groups is not None] == [["p", "p"], ["q"], ["r"]]
    write(root, "image,label", "a/1.png,u")
    with pytest.raises(DataError, match="has no 'val' split; it has one undivided set"):
        TableDataset(path, "val")


def test_without_labels(root: Path) -> None:
    path = write(root, "image", *NAMES)
    data = open_images(str(path), labelled=False)
    assert (data.classes, data.labels.tolist(), data.names) == (("unlabelled",), [0] * 4, NAMES)
    assert refusal(path) == "line 1: has no column 'label'; it has image"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["file,label", "a/1.png,x"], "line 1: has no column 'image'; it has file, label"),
        (["image|label", "a/1.png;x"], "line 1: has no column 'image'; it has image|label"),
        (["image,label,Label", "a/1.png,x,y"], "line 1: two columns are named 'label'"),
        (["image,label"], "lists no images"),
        ([""], "line 1: has no column 'image'; it has none"),
        (["image,label", "a/1.png,x", "a/2.png"], "line 3: 1 cells for 2 columns"),
        (["image,label", "a/1.png,x", "", ",x"], "line 4: 'image' is empty"),
        (["image,label", "a/1.png,  "], "line 2: 'label' is empty"),
        (["image,label,group", "a/1.png,x,"], "line 2: 'group' is empty"),
        (["image,label", "a/1.png," + "x" * 2000], "line 2: 'label' is no text"),
        (["image,label,split", "a/1.png,x,dev"], "line 2: the split 'dev' is none of train, val and test"),
        (["image,label", "a/1.png,x", "a/9.png,y"], "line 3: no such file: 'a/9.png'"),
        (["image,label", "a,x"], "line 2: no such file: 'a'"),
        (["image,label", "a/1.png,x", "a/2.png,x", "a/../a/1.png,y"], "line 4: 'a/../a/1.png' is in line 2 already"),
        (["image,label", "../root/a/1.png,x"], "line 2: '../root/a/1.png' leaves the folder of the table"),
        (["image,label", "a/../../x.png,x"], "line 2: 'a/../../x.png' leaves the folder of the table"),
        (["image,label", "/etc/passwd,x"], "line 2: '/etc/passwd' leaves the folder of the table"),
        (
            ["image,label,split,group", "a/1.png,x,train,7", "a/2.png,x,train,8", "4.png,y,test,7"],
            "line 4: group '7' is in the split 'test', but in 'train' in line 2",
        ),
        (["image,label", 'a/1.png,"x'], "is not a readable CSV file"),
    ],
)
def test_refused(root: Path, lines: list[str], reason: str) -> None:
    assert refusal(write(root, *lines)).startswith(reason)


def test_links_that_leave(root: Path) -> None:
    outside = root.parent / "outside"
    outside.mkdir()
    Image.fromarray(PIXELS[0]).save(outside / "1.png")
    (root / "folder").symlink_to(outside)
    path = write(root, "image,label", "a/1.png,x", "folder/1.png,y")
    assert refusal(path).startswith("line 3: 'folder/1.png' leads out of the folder of the table")
    (root / "link.png").symlink_to(outside / "1.png")
    with pytest.raises(DataError, match=r"link\.png: is a link that leaves the data folder"):
        TableDataset(write(root, "image,label", "a/1.png,x", "link.png,y"))


def test_not_text(root: Path) -> None:
    path = root / "table.csv"
    for raw in (b"image,label\n\xff\xfe,x\n", b"image,label\na/1.png,x\0\n", b"image,label\n" + b"x" * 200_000):
        path.write_bytes(raw)
        refusal(path)
    path.unlink()
    os.mkfifo(path)
    assert refusal(path) == "no such file"


def test_skipping(root: Path) -> None:
    """Missing files are among the bad ones; what is left stays aligned."""
    (root / "a/2.png").write_bytes((root / "a/2.png").read_bytes()[:-40])
    path = write(root, "image,label,group", "a/1.png,x,g1", "a/2.png,y,g2", "no.png,y,g3", "b/3.png,y,g4", "4.png,x,g5")
    assert refusal(path) == "line 4: no such file: 'no.png'"
    data = TableDataset(path, skip_bad=True)
    assert data.skipped == (root / "a/2.png", root / "no.png")
    assert data.names == ("a/1.png", "b/3.png", "4.png")
    assert data.groups is not None
    assert (data.groups.tolist(), data.labels.tolist()) == (["g1", "g4", "g5"], [0, 1, 0])
    assert np.array_equal(data.tensors()[0].permute(0, 2, 3, 1), PIXELS[[0, 2, 3]])


@given(st.binary(max_size=80))
def test_fuzz(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    """Whatever the bytes: DataError that names the file, nothing else (there are no images to find)."""
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(b"image,label\n" + raw)
    refusal(path)


@pytest.mark.parametrize(("separator", "name"), [(";", "x.csv"), ("\t", "x.csv"), ("\t", "x.tsv")])
def test_cells_that_semicolons_or_tabs_separate(root: Path, separator: str, name: str) -> None:
    """As Excel writes tables where the comma is for decimals."""
    rows = [("image", "label", "Patient, or so"), ("a/1.png", "x", "1,5"), ("b/3.png", "y", "2")]
    (root / name).write_text("\ufeff" + "\r\n".join(separator.join(row) for row in rows), encoding="utf-8")
    data = open_images(str(root / name))
    assert (data.names, data.classes) == (("a/1.png", "b/3.png"), ("x", "y"))


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_table_of_another_alphabet(root: Path, encoding: str) -> None:
    (root / "x.csv").write_text("image,label\na/1.png,größer\n", encoding=encoding)
    with pytest.raises(DataError, match=r"x\.csv: is not UTF-8 text: save it as such \(Excel: CSV UTF-8\)"):
        TableDataset(root / "x.csv")
