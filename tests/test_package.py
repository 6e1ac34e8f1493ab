"""The package as it is installed: what a wheel holds, and how light `import parteq` is."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import parteq

ROOT = Path(__file__).parents[1]
FOLDERS = ("core", "apps", "datasets", "pipelines")


def python(*arguments: str, cwd: Path) -> str:
    return subprocess.run([sys.executable, *arguments], cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def test_a_wheel_holds_every_file(tmp_path):
    source, wheels = tmp_path / "source", tmp_path / "wheels"
    for name in ("src", *FOLDERS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    wheels.mkdir()
    python("-c", f"from setuptools import build_meta; build_meta.build_wheel({str(wheels)!r})", cwd=source)
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        held = set(wheel.namelist())
    files = (path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file())
    wanted = {f"parteq/{path.relative_to(ROOT)}" for path in files if "__pycache__" not in path.parts}
    assert wanted | {"parteq/__init__.py", "parteq/__main__.py", "parteq/py.typed"} <= held
    assert not any(name.split("/")[0] in FOLDERS for name in held)


def test_import_is_light(tmp_path):
    heavy = python(
        "-c", "import sys, parteq.__main__; print({'torch', 'numpy', 'escnn'} & set(sys.modules))", cwd=tmp_path
    )
    assert heavy.strip() == "set()"


def test_python_m_answers_like_the_command(tmp_path):
    assert "parteq demo" in python("-m", "parteq", "--help", cwd=tmp_path)


def test_version_is_that_of_the_citation():
    assert f"\nversion: {parteq.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
