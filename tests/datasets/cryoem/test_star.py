"""STAR files come back as they were: value for value, row for row; whatever is none is refused in one line."""

from __future__ import annotations

import string
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import starfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parteq.datasets.cryoem.star import StarFile, read_star, write_star
from parteq.datasets.errors import DataError

SMALL = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnOpticsGroupName #2
_rlnImagePixelSize #3
_rlnOddZernike #4
1 opticsGroup1 1.350000 [0.1,-2e-3]

data_particles

loop_
_rlnImageName #1
_rlnDefocusU #2 (a remark)
_labWell #3
_rlnOpticsGroup #4
_rlnAngleRot #5
000001@a.mrcs 1.421115e+05 007 1 -0.10
2@b.mrcs 12500.000000 A1 1 nan
"""

finite = st.floats(allow_nan=False)
words = st.text(string.ascii_letters + string.digits + string.punctuation + " \t\r\n~é\x00", max_size=12)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.star"
    path.write_text(SMALL)
    return path


def tables_equal(one: StarFile, other: StarFile) -> bool:
    """Whether blocks, columns, types and values are the same, and in the same order."""
    return list(one.blocks) == list(other.blocks) and all(
        block.equals(other.blocks[name]) and list(block) == list(other.blocks[name])
        if isinstance(block, pd.DataFrame)
        else block == other.blocks[name]
        for name, block in one.blocks.items()
    )


def test_values_are_typed_without_loss(small: Path) -> None:
    star = read_star(small)
    table = star.table("particles")
    assert table is not None
    assert list(star.blocks) == ["optics", "particles"]
    assert table["rlnDefocusU"].tolist() == [142111.5, 12500.0]
    assert table["labWell"].tolist() == ["007", "A1"]
    assert table["rlnOpticsGroup"].dtype == np.int64
    assert np.isnan(table["rlnAngleRot"][1])
    assert star.table("optics")["rlnOddZernike"][0] == "[0.1,-2e-3]"  # type: ignore[index]


@pytest.mark.parametrize("text", ["0", "-7", "18446744073709551615", "0.1", "-0.0", "1e-300", "007", "-0", "a'b", "?"])
def test_round_trip_of_a_value(tmp_path: Path, text: str) -> None:
    source = tmp_path / "a.star"
    source.write_text(f"data_\n_one {text}\n")
    star = read_star(source)
    write_star(tmp_path / "b.star", star)
    again = read_star(tmp_path / "b.star").blocks[""]["one"]
    assert repr(again) == repr(star.blocks[""]["one"])
    assert str(again) == ("-0.0" if text == "-0" else text)


def test_round_trip(small: Path, tmp_path: Path) -> None:
    star = read_star(small)
    write_star(tmp_path / "again.star", star)
    assert tables_equal(read_star(tmp_path / "again.star"), star)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.lists(st.tuples(finite, st.integers(-(2**63), 2**63 - 1), words), max_size=5))
def test_round_trip_of_any_table(tmp_path: Path, rows: list[tuple[float, int, str]]) -> None:
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    table = pd.DataFrame(
        {
            "f": np.array(columns[0], dtype=np.float64),
            "i": np.array(columns[1], dtype=np.int64),
            "someName": np.array(columns[2], dtype=object),
        }
    )
    path = tmp_path / "any.star"
    if any("\n;" in text for text in columns[2]):
        with pytest.raises(DataError, match="cannot hold the text"):
            write_star(path, StarFile({"x": table}))
        return
    write_star(path, StarFile({"x": table}))
    again = read_star(path).table("x")
    assert again is not None
    assert [again[name].tolist() for name in ("f", "i", "someName")] == [list(column) for column in columns]


def test_nothing_is_left_behind_when_a_text_cannot_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    with pytest.raises(DataError, match="cannot hold"):
        write_star(path, StarFile({"a": {"k": "two\n;lines"}}))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "text",
    [
        """'he said "no" it's'""",
        """"it's 'so' \"x\"""" + '"',
        "\n;multi\nline\n;",
        "\n;'both' \"kinds\" end\n;",
        "\n;ends in a return\r\r\n;",
        "'a\ttab'",
    ],
)
def test_what_can_be_read_can_be_written(tmp_path: Path, text: str) -> None:
    source = tmp_path / "a.star"
    source.write_bytes(f"data_t\nloop_\n_a\n_b\n1 {text} \n2 x\n\ndata_v\n_one {text} \n".encode())
    star = read_star(source)
    write_star(tmp_path / "b.star", star)
    assert tables_equal(read_star(tmp_path / "b.star"), star)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no data_ block"),
        ("hello", "line 1"),
        ("data_a\nloop_\n_x\n_y\n1 2\n3\n", "Wrong number of values"),
        ("data_a\n_x 1\ndata_a\n_x 2\n", "duplicate block name"),
        ("data_a\nloop_\n_x\n_x\n1 2\n", "duplicate tag"),
        ("data_a\nloop_\n_x\n1\nloop_\n_y\n2\n", "more than one table"),
        ("data_a\nsave_b\n_x 1\nsave_\n", "save frame"),
        ("data_a\n_x \xff\n", "is not a STAR file"),
    ],
)
def test_refusals(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "bad.star"
    path.write_text(text, encoding="latin1")
    with pytest.raises(DataError, match=reason):
        read_star(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_star(tmp_path / "none.star")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
@given(st.data())
def test_mutated_bytes_raise_nothing_else(tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(SMALL.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=6))
    path = tmp_path / "mutated.star"
    path.write_bytes(bytes(content))
    with suppress(DataError):
        assert read_star(path).blocks


@pytest.mark.realdata
def test_real_files_come_back(shared_data: Path, tmp_path: Path) -> None:
    """By our reader and by another, `starfile`."""
    paths = sorted((shared_data / "cryoem").glob("*.star"))
    assert paths
    for path in paths:
        star, copy = read_star(path), tmp_path / path.name
        write_star(copy, star)
        assert tables_equal(read_star(copy), star)
        theirs, ours = (starfile.read(name, always_dict=True) for name in (path, copy))
        assert list(theirs) == list(ours)
        for name, table in theirs.items():
            pd.testing.assert_frame_equal(ours[name], table, check_exact=True)


def test_names_of_any_alphabet(tmp_path: Path) -> None:
    path = tmp_path / "a.star"
    path.write_text(
        "\ufeffdata_particles\n\nloop_\n_rlnMicrographName\nMüller_001.mrc\n'Å b'\n~u41~\n", encoding="utf-8"
    )
    star = read_star(path)
    assert star.table("particles")["rlnMicrographName"].tolist() == ["Müller_001.mrc", "Å b", "~u41~"]
    write_star(path, star)
    assert read_star(path).table("particles").equals(star.table("particles"))
    path.write_bytes(b"data_a\n\n_k M\xfcller\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_star(path)
