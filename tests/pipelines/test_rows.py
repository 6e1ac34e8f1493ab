"""Results of benchmarks, kept row by row."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import pytest

from parteq.datasets.errors import DataError
from parteq.pipelines.rows import Rows


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
