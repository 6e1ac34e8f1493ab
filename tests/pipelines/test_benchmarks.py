"""What benchmarks share: options, the folder of data, rows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from parteq.datasets.errors import DataError
from parteq.pipelines.benchmarks import Rows, benchmark_parser, data_folder, mean_and_spread


@dataclass
class Score:
    method: str
    seed: int
    values: list[float] = field(default_factory=list)
    named: str | None = None


def test_rows_are_kept_and_gone_on_from(tmp_path, capsys):
    path = tmp_path / "scores.json"
    rows = Rows(Score, path)
    rows.add(Score("plain", 0, [0.5]))
    assert json.loads(capsys.readouterr().out) == {"method": "plain", "seed": 0, "values": [0.5], "named": None}
    again = Rows(Score, path)
    assert again == rows == [Score("plain", 0, [0.5])]
    assert again.has(method="plain", seed=0)
    assert not again.has(method="plain", seed=1)
    again.add(Score("plain", 1))
    content = json.loads(path.read_text())
    assert content["schema"] == 1
    assert [row["seed"] for row in content["rows"]] == [0, 1]


def test_rows_without_a_file(tmp_path):
    rows = Rows(Score, None)
    rows.add(Score("plain", 0))
    assert len(rows) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_is_refused(tmp_path):
    path = tmp_path / "scores.json"
    path.write_text("[")
    with pytest.raises(DataError, match="JSON"):
        Rows(Score, path)


def test_rows_made_with_other_settings_are_refused(tmp_path):
    path = tmp_path / "scores.json"
    Rows(Score, path, epochs=3).add(Score("plain", 0))
    assert len(Rows(Score, path, epochs=3)) == 1
    with pytest.raises(DataError, match="name another file"):
        Rows(Score, path, epochs=4)


def test_seeds_are_counted_from_0_unless_they_are_named():
    parser = benchmark_parser("A benchmark.", seeds=3, threads=1)
    assert parser.parse_args([]).seeds == [0, 1, 2]
    options = parser.parse_args(["--seeds", "4", "1", "--json", "x.json"])
    assert (options.seeds, options.threads, options.json.name) == ([4, 1], 1, "x.json")


def test_the_folder_of_data_is_beside_the_repository_unless_it_is_named(monkeypatch, tmp_path):
    monkeypatch.delenv("PARTEQ_DATA", raising=False)
    repository = data_folder().parents[1]
    assert (data_folder().parent.name, data_folder().name) == ("shared", "data")
    assert Path(__file__).resolve().parents[2].parent == repository
    monkeypatch.setenv("PARTEQ_DATA", str(tmp_path))
    assert data_folder() == tmp_path


def test_mean_and_spread():
    assert mean_and_spread([1.0, 2.0, 3.0]) == "2.000 ± 1.000 (3)"
    assert mean_and_spread([0.25], ".2f") == "0.25 ± 0.00 (1)"
