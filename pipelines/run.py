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

import fcntl
import json
import logging
import os
import platform
import shutil
import time
import warnings
import weakref
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from torch import nn

from parteq import __version__
from parteq.datasets.errors import DataError
from parteq.pipelines.checkpoint import Checkpoint, write_checkpoint
from parteq.pipelines.files import make_folder, read_json, read_toml, write_json, write_text, write_toml

__all__ = ["FILES", "Run", "find_checkpoint", "run_of", "versions"]

log = logging.getLogger(__name__)

_PATIENCE = 10.0  # seconds: so long may workers of a process that was killed hold what it held
FILES = ("config.toml", "versions.json", "data.json", "metrics.jsonl", "checkpoints", "report.html")
"""What stands in a run directory, whatever was trained."""
PACKAGES = ("torch", "escnn", "numpy", "scipy", "scikit-learn", "scikit-image", "safetensors")


class Run:
    """A run directory; get one from `Run.create`, `Run.resume` or, to read it, `Run.open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.options = read_toml(path / "config.toml")
        self.data = read_json(path / "data.json")
        self._lock: _Lock | None = None

    @classmethod
    def create(cls, path: Path, options: dict[str, Any], data: dict[str, Any]) -> Run:
        """Begins a run in a new or empty folder, or in that of a run that has no checkpoint yet.

        Args:
            path: the folder.
            options: of the command, plain values.
            data: what is trained on; plain values.

        Raises:
            DataError: if there is something else in the folder, it cannot be made, or a process is at work on it.
        """
        begun = cls.exists(path)
        if not begun and path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise DataError(path, "is not empty and no run: choose another folder")
        lock = None
        if begun:
            cls(path)._check_without_checkpoint()
            lock = _Lock(path)
            cls(path)._check_without_checkpoint()  # it may have come to something until the folder was free
        temporary = path.with_name(f".{path.name}.part")
        shutil.rmtree(temporary, ignore_errors=True)
        make_folder(temporary)
        try:
            write_toml(temporary / "config.toml", options)
            write_json(temporary / "versions.json", versions())
            write_json(temporary / "data.json", data)
        except DataError:
            shutil.rmtree(temporary)
            raise
        if begun:
            (path / "metrics.jsonl").unlink(missing_ok=True)
            for file in temporary.iterdir():
                os.replace(file, path / file.name)
            temporary.rmdir()
        else:
            os.replace(temporary, path)
        run = cls(path)
        run._lock = lock or _Lock(path)
        return run

    @classmethod
    def open(cls, path: Path) -> Run:
        """Opens a run.

        Raises:
            DataError: if there is none, or its files are damaged.
        """
        if not cls.exists(path):
            raise DataError(path, "is no run: it has no config.toml")
        return cls(path)

    @classmethod
    def resume(cls, path: Path) -> Run:
        """Opens a run to go on with: no other process may until this one ends.

        What was recorded after the last checkpoint is forgotten, for training will record it again.

        Raises:
            DataError: if there is none, its files are damaged, or a process is at work on it.
        """
        run = cls.open(path)
        run._lock = _Lock(path)
        write_text(path / "metrics.jsonl", "".join(json.dumps(record) + "\n" for record in run.history()))
        return run

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a run at this path."""
        return (path / "config.toml").is_file()

    @property
    def report(self) -> Path:
        """Where the report stands once training has ended."""
        return self.path / "report.html"

    def epochs(self) -> list[int]:
        """The epochs there are checkpoints of, rising."""
        folders = (self.path / "checkpoints").glob("[0-9]*")
        return sorted(int(folder.name) for folder in folders if folder.name.isdigit())

    def checkpoint(self, which: Literal["last", "best"] | None = None) -> Checkpoint:
        """The last checkpoint, or the best by validation; by default the last, or of several attempts the best.

        Of a run that is opened to be read, and whose training did not come to its end, that is said in a warning.

        Raises:
            DataError: if there is none yet.
        """
        if not self.epochs():
            raise DataError(self.path, "has no checkpoint yet")
        which = which or ("best" if self.options.get("restarts") else "last")
        if self._lock is None:  # else it is being trained here
            self._warn_if_stopped()
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

    def save(
        self, record: dict[str, Any], model: nn.Module, about: dict[str, Any], state: dict[str, Any], score: float
    ) -> None:
        """Records an epoch and writes its checkpoint, then removes those no longer wanted.

        Args:
            record: a line of ``metrics.jsonl``, with ``epoch``.
            model: with the weights of this epoch.
            about: ``application``, ``model``, ``classes`` and ``spatial``, see `parteq.pipelines.checkpoint`.
            state: to resume from.
            score: how good the epoch is; the highest is the best.
        """
        metrics = self.path / "metrics.jsonl"
        try:
            with metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:
            raise DataError(metrics, error.strerror or str(error)) from error
        epoch, earlier = int(record["epoch"]), self.epochs()
        about = about | {"schema": 1, "epoch": epoch, "best_epoch": epoch, "best_score": score}
        if earlier and (before := self.checkpoint("last").about())["best_score"] >= score:
            about |= {key: before[key] for key in ("best_epoch", "best_score")}
        write_checkpoint(self._folder(epoch), model, about, state)
        for old in earlier[:-1]:
            if old != about["best_epoch"]:
                shutil.rmtree(self._folder(old))

    def prefer_last(self) -> None:
        """Makes the last checkpoint the best, whatever its score: for where scores do not tell."""
        last = Checkpoint(self._folder(self.epochs()[-1]))
        about = last.about()
        write_json(last.description, about | {"best_epoch": about["epoch"]})

    def _warn_if_stopped(self) -> None:
        """Warns if epochs are lacking and so is the report, which even a training whose time was up ends with."""
        last, planned = self.epochs()[-1], self.options.get("epochs")
        if isinstance(planned, int) and last < planned and not self.report.exists():
            reason = f"training stopped at epoch {last} of {planned}: --resume goes on with it"
            warnings.warn(f"{self.path}: {reason}", stacklevel=3)

    def _check_without_checkpoint(self) -> None:
        if self.epochs():
            raise DataError(self.path, "holds a run already: add --resume to go on with it, or choose another folder")

    def _folder(self, epoch: int) -> Path:
        return self.path / "checkpoints" / f"{epoch:04d}"


class _Lock:
    """Keeps a folder from other processes until it is forgotten, or this process ends, however it ends.

    Raises:
        DataError: another process has the folder, or another run of this one.
    """

    def __init__(self, folder: Path) -> None:
        self._handle = os.open(folder, os.O_RDONLY)
        weakref.finalize(self, os.close, self._handle)
        until = time.monotonic() + _PATIENCE
        while not self._taken(folder):
            if time.monotonic() > until:
                raise DataError(folder, "is being trained, by another process or this one: choose another folder")
            time.sleep(0.2)

    def _taken(self, folder: Path) -> bool:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            log.info("%s is not kept from other processes, for there are no locks here: %s", folder, error)
        return True


def run_of(file: Path) -> Path | None:
    """The run that a file is part of, see `FILES`, if there is one."""
    place = file.resolve()
    for folder in place.parents:
        if place.relative_to(folder).parts[0] in FILES and Run.exists(folder):
            return folder
    return None


def find_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint that a run ends with, or one that is named itself: its folder, or its file of weights.

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
