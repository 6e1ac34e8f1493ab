"""What the commands that train share, whatever they train: options of the loop, and a run begun or gone on with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, Number, value_of

if TYPE_CHECKING:
    from parteq.core.training import Settings
    from parteq.pipelines.run import Run

__all__ = ["TrainingCommand"]


@dataclass(kw_only=True)
class TrainingCommand(Command):
    """A command that leaves a run directory; see `parteq.core.training` and `parteq.pipelines.run`."""

    least_epochs: ClassVar[int] = 1

    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run directory to make."""
    epochs: int = 30
    """Passes over the data."""
    batch_size: Number = None
    """Samples a step; else 32, or fewer of a small set."""
    learning_rate: float = 3e-3
    """Highest learning rate."""
    weight_decay: float = 0.5
    """Weight decay."""
    mixed_precision: bool = False
    """Compute in bfloat16."""
    workers: int = 0
    """Processes that read large data."""
    resume: bool = False
    """Go on with the run in --out."""

    @classmethod
    def options_file(cls, words: Sequence[str]) -> Path | None:
        """A run that is resumed is its own file of options, if none is given."""
        run, given = value_of("--out", words), super().options_file(words)
        if given is None and "--resume" in words and run is not None and (run / "config.toml").exists():
            return run / "config.toml"
        return given

    def folder_to_make(self) -> Path:
        """The run directory."""
        return self.out

    def check_outputs(self) -> None:
        """Refuses also results in the place of what the run keeps."""
        from parteq.pipelines.run import FILES

        super().check_outputs()
        for name in self.files:
            path = getattr(self, name, None)
            if path is not None and path.name in FILES and path.parent.resolve() == self.out.resolve():
                raise DataError(path, "is a name that the run has for its own")

    def options(self) -> dict[str, Any]:
        """The options but ``resume``, which does not change the results."""
        return {name: value for name, value in super().options().items() if name != "resume"}

    def settings(self) -> Settings:
        """The settings of the training loop.

        Raises:
            DataError: for numbers that cannot be meant.
        """
        from parteq.core.training import Settings

        if self.epochs < self.least_epochs:
            raise DataError(f"--epochs {self.epochs}", f"must be at least {self.least_epochs}")
        names = [field.name for field in fields(Settings) if hasattr(self, field.name)]
        try:
            return Settings(**{name: getattr(self, name) for name in names})
        except ValueError as error:
            name, _, reason = str(error).partition(" ")
            raise DataError(f"--{name.replace('_', '-')}", reason) from error

    def begin(self, data: dict[str, Any]) -> Run:
        """The run directory, made by the main process, or found where it is to be resumed.

        A run that has no checkpoint yet has nothing to lose: it is begun anew.

        Args:
            data: what is trained on, for `data.json`.

        Raises:
            DataError: if the folder is taken, or a run to be resumed had other options or other data, or is at work.
        """
        from parteq.core.distributed import is_main, wait
        from parteq.pipelines.run import Run

        begun = self.resume and Run.exists(self.out) and bool(Run.open(self.out).epochs())
        wait()
        if is_main():
            run = Run.resume(self.out) if begun else Run.create(self.out, self.options(), data)
        wait()
        if not is_main():
            run = Run.open(self.out)
        if begun:
            free = {"out", "device", "workers", "max_seconds"}
            for name, value in self.options().items():
                if name not in free and run.options.get(name) != value:
                    raise DataError(run.path, f"has {name} = {run.options.get(name)}, not {value}: resume without it")
            if run.data != data:
                raise DataError(run.path, "was trained on other data: the files have changed")
        return run
