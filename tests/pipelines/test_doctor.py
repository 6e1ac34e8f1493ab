"""`parteq doctor`: what it finds, what it says, and how it fails."""

from __future__ import annotations

import json
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import torch

from parteq.datasets.errors import DataError
from parteq.pipelines import doctor
from parteq.pipelines.cli import main
from parteq.pipelines.doctor import Doctor, Package, packages


def hide(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Makes packages look as if they were not installed."""
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: None if name in names else version(name))


def test_packages_are_those_of_the_metadata():
    found = {package.name: package for package in packages()}
    assert found["torch"] == Package("torch", "==2.13.0", metadata.version("torch"), True, "")
    assert found["onnx"].extra == "export"
    assert all(package.fits for package in found.values() if not package.extra)


def test_a_distribution_that_is_not_there():
    with pytest.raises(DataError, match="not-there: is not installed"):
        packages("not-there")


def test_run_tells_versions_devices_and_parts(capsys):
    results = Doctor().run()
    text = capsys.readouterr().out
    assert results["about"]["parteq"] == metadata.version("parteq")
    assert results["packages"]["torch"] == torch.__version__
    assert "cpu" in results["devices"]
    assert set(doctor.PURPOSES) <= set(results["optional"])
    for word in ("devices", "packages", "optional", "escnn", "export", "py3nj"):
        assert word in text


def test_what_is_missing_comes_with_its_purpose_and_remedy(monkeypatch, capsys):
    hide(monkeypatch, "onnx")
    part = Doctor().run()["optional"]["export"]
    assert part["state"] == "missing"
    assert part["remedy"].startswith("python -m pip install 'onnx>=")
    assert f"for {part['purpose']}:\n  {part['remedy']}\n" in capsys.readouterr().out


def test_a_required_package_missing_is_one_line_and_status_2(monkeypatch, capsys):
    hide(monkeypatch, "escnn", "roma")
    assert main(["doctor", "--quiet"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "escnn>=1.0.11 (missing), roma>=1.5 (missing): run `make setup`" in output.err


def test_a_version_that_does_not_fit(monkeypatch):
    monkeypatch.setattr(doctor, "_version", lambda name: "2.4.0" if name == "numpy" else "99")
    found = {package.name: package for package in packages()}
    assert str(found["numpy"]) == "numpy<2,>=1.26 (2.4.0)"
    assert found["scipy"].fits


def test_command_line_without_options(capsys):
    assert main(["doctor"]) == 0
    assert "\npackages\n" in capsys.readouterr().out


def test_command_line_writes_json(tmp_path, capsys):
    path = tmp_path / "doctor.json"
    assert main(["doctor", "--json", str(path), "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert set(json.loads(path.read_text())) >= {"about", "devices", "packages", "optional"}


def test_every_extra_has_a_purpose():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"].keys() == doctor.PURPOSES.keys()
