"""`parteq demo`, whole."""

from __future__ import annotations

import json
import time

import pytest

from parteq.pipelines import demo


def test_data_of_the_demo():
    for study in demo.STUDIES:
        training, held_out = study.make(0)
        assert len(training) >= study.images
        assert len(held_out) > 400
        assert training.classes == held_out.classes
        if training.groups is not None:
            assert not set(training.groups) & set(held_out.groups)


@pytest.mark.slow
def test_demo(parteq, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    began = time.process_time()
    status, printed, _ = parteq("demo", "--json", "demo.json")
    seconds = time.process_time() - began
    found = json.loads((tmp_path / "demo.json").read_text())
    assert status == 0
    assert seconds < 300  # Of the processor, as it computes on one thread.
    assert printed.splitlines()[-1].split() == ["report", str(tmp_path / "parteq-demo" / "report.html")]
    assert found["digits_accuracy_full"] < 0.55 < 0.9 < found["digits_accuracy_learned"]
    assert "C2" in found["digits_summary"]
    assert "full symmetry D4" in found["tissue_summary"]
    assert found["tissue_accuracy_learned"] > 0.9
    assert (tmp_path / "parteq-demo" / "digits.onnx").stat().st_size > 10_000
    # A second demo leaves the first alone.
    assert demo.Demo()._folder().name == "parteq-demo-2"
