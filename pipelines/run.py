"""The run directory: all there is to know about one training.

::

    RUN/
      config.toml      the options, as resolved: `parteq … --config RUN/config.toml` trains the same again
      versions.json    of Python and the packages
      data.json        what was trained and validated on, with fingerprints
      metrics.jsonl    a line an epoch
      checkpoints/     the last epoch, the one before it, and the best, a folder each
      report.html      written at the end
"""

from __future__ import annotations

import json
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from torch import nn

from parteq import __version__
from parteq.datasets.errors import DataError
from parteq.pipelines.checkpoint import Checkpoint, write_checkpoint
from parteq.pipelines.files import make_folder, read_json, read_toml, write_json, write_text, write_toml

__all__ = ["Run", "find_checkpoint", "versions"]

PACKAGES = ("torch", "escnn", "numpy", "scipy", "scikit-learn", "scikit-image", "safetensors")


class Run:
    """A run directory; get one from `Run.create` or `Run.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = read_toml(path / "config.toml")
        self.data = read_json(path / "data.json")

    @classmethod
    def create(cls, path: Path, options: dict[str, Any], data: dict[str, Any]) -> Run:
        """Begins a run in a new or empty folder, or in that of a run that has no checkpoint yet.

        Args:
            path: the folder.
            options: of the command, plain values.
            data: what is trained on; plain values.

        Raises:
            DataError: if there is something else in the folder, or it cannot be made.
        """
        begun = cls.exists(path)
        if begun and cls(path).epochs():
            raise DataError(path, "holds a run already: add --resume to go on with it, or choose another folder")
        if begun and (process := _at_work(path)):
            raise DataError(path, f"is the run of process {process}, which is at work: choose another folder")
        if not begun and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(path, "is not empty and no run: choose another folder")
        temporary = path.with_name(f".{path.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        make_folder(temporary)
        write_toml(temporary / "config.toml", options)
        write_json(temporary / "versions.json", versions() | {"host": platform.node(), "process": os.getpid()})
        write_json(temporary / "data.json", data)
        if begun:
            (path / "metrics.jsonl").unlink(missing_ok=True)
            for file in temporary.iterdir():
                os.replace(file, path / file.name)
            temporary.rmdir()
        else:
            os.replace(temporary, path)
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> Run:
        """Opens a run.

        Raises:
            DataError: if there is none, or its files are damaged.
        """
        if not cls.exists(path):
            raise DataError(path, "is no run: it has no config.toml")
        return cls(path)

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a run at this path."""
        return (path / "config.toml").is_file()

    def epochs(self) -> list[int]:
        """The epochs there are checkpoints of, rising."""
        folders = (self.path / "checkpoints").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def checkpoint(self, which: Literal["last", "best"] = "last") -> Checkpoint:
        """The last checkpoint, or the best by validation.

        Raises:
            DataError: if there is none yet.
        """
        if not self.epochs():
            raise DataError(self.path, "has no checkpoint yet")
        last = Checkpoint(self._folder(self.epochs()[-1]))
        return last if which == "last" else Checkpoint(self._folder(last.about()["best_epoch"]))

    def history(self) -> list[dict[str, Any]]:
        """The records of the epochs up to the last checkpoint."""
        path = self.path / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        last = max(self.epochs(), default=0)
        try:
            # A kill may leave a record, or part of one, of an epoch whose checkpoint was never written.
            return [json.loads(line) for line in lines[:last]]
        except ValueError as error:
            raise DataError(path, f"is damaged: {error}") from error

    def rewind(self) -> None:
        """Forgets what was recorded after the last checkpoint, before a resumed training records it again."""
        write_text(self.path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in self.history()))

    def save(
        self, record: dict[str, Any], model: nn.Module, about: dict[str, Any], state: dict[str, Any], score: float
    ) -> None:
        """Records an epoch and writes its checkpoint, then removes those no longer wanted.

        Args:
            record: a line of ``metrics.jsonl``, with ``epoch``.
            model: with the weights of this epoch.
            about: ``application``, ``model`` and ``classes``, see `parteq.pipelines.checkpoint`.
            state: to resume from.
            score: how good the epoch is; the highest is the best.
        """
        with (self.path / "metrics.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        epoch, earlier = int(record["epoch"]), self.epochs()
        about = about | {"schema": 1, "epoch": epoch, "best_epoch": epoch, "best_score": score}
        if earlier and (before := self.checkpoint().about())["best_score"] >= score:
            about |= {key: before[key] for key in ("best_epoch", "best_score")}
        write_checkpoint(self._folder(epoch), model, about, state)
        for old in earlier[:-1]:
            if old != about["best_epoch"]:
                shutil.rmtree(self._folder(old))

    def _folder(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"{epoch:04d}"


def _at_work(path: Path) -> int | None:
    """The process that began a run, if it is still there."""
    made = read_json(path / "versions.json")
    process = made.get("process")
    if made.get("host") != platform.node() or not isinstance(process, int) or process == os.getpid():
        return None
    try:
        os.kill(process, 0)  # asks, and does nothing
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # it is another user's
    return process


def find_checkpoint(path: Path) -> Checkpoint:
    """The last checkpoint of a run, or one that is named itself: its folder, or its file of weights.

    Raises:
        DataError: if there is none.
    """
    if Run.exists(path):
        return Run.open(path).checkpoint()
    if path.is_file() or (path / "model.json").is_file():
        return Checkpoint(path)
    raise DataError(path, "is no run and no file of weights" if path.exists() else "no such file or folder")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages a result may depend on."""
    found = {"parteq": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found
