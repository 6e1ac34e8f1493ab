"""What every command of ``parteq`` shares: its options, and how it answers.

A command is a dataclass: its fields are its options, its docstring the text of ``--help``, and ``run`` does the work
and returns the results, flat and plain, which the command line prints and writes as JSON. So that ``--help`` answers
at once, modules of commands import torch and everything that needs it inside ``run``.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, get_type_hints

import tyro

from parteq.datasets.errors import DataError

if TYPE_CHECKING:
    import torch

    from parteq.pipelines.checkpoint import Checkpoint

__all__ = ["Command", "File", "Number", "RunCommand", "Text", "value_of"]

# Types of optional options, with metavars short enough for a line each in `--help`.
File = Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="")]
Text = Annotated[str | None, tyro.conf.arg(metavar="TEXT", help_behavior_hint="")]
Number = Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")]


@dataclasses.dataclass(kw_only=True)
class Command(ABC):
    """A command; the fields are the options that all of them take."""

    example: ClassVar[str]
    """A call that `--help` ends with."""
    files: ClassVar[Sequence[str]] = ("json", "out", "plot", "turns", "geojson")
    """The options that name files to be written, by whichever command has them."""

    seed: int = 0
    """Seed of every random choice."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, …"""
    json: File = None
    """Write the results here as JSON."""
    quiet: bool = False
    """Say nothing but errors."""
    config: File = None
    """TOML file of options; the command line wins."""

    def __post_init__(self) -> None:
        """Refuses a seed that no generator takes."""
        if not 0 <= self.seed < 2**63:
            raise DataError(f"--seed {self.seed}", "must not be negative, nor 2⁶³ or more")

    def folder_to_make(self) -> Path | None:
        """The folder that ``--out`` names, where it is one to be made or filled; None where it is a file."""
        return None

    def check_outputs(self) -> None:
        """Refuses results that could not be written in the end, before any work is done.

        Raises:
            DataError: naming the file or folder.
        """
        from parteq.pipelines.files import check_file, check_folder

        folder = self.folder_to_make()
        if folder is not None:
            check_folder(folder)
        seen: dict[Path, str] = {}
        for name in self.files:
            path = getattr(self, name, None)
            if path is None:
                continue
            if path == Path("-"):
                raise DataError(f"--{name} -", "is to name a file: JSON is not written to the screen")
            if (other := seen.setdefault(path.resolve(), name)) != name:
                raise DataError(path, f"is to be written by --{other} and by --{name}")
            self._check_not_read(name, path)
            if path == folder and name == "out":
                continue
            # A file may stand in the folder that is still to be made.
            if folder is None or folder.exists() or path.parent.resolve() != folder.resolve():
                check_file(path)

    def _check_not_read(self, name: str, path: Path) -> None:
        """Refuses to replace a file that the command reads, or that a run is made of."""
        from parteq.pipelines.run import run_of

        if path.exists() and (owner := run_of(path)) is not None:
            raise DataError(path, f"is part of the run {owner}, and would be lost to --{name}")
        for given, value in vars(self).items():
            read = given not in self.files and isinstance(value, str | Path)
            if read and path.is_file() and Path(value).resolve() == path.resolve():
                raise DataError(path, f"is read by {self.option(given)}, and would be lost to --{name}")

    @classmethod
    def option(cls, field: str) -> str:
        """The option of a field: `--from` of `source`, since that is no name for a field."""
        hint = get_type_hints(cls, include_extras=True)[field]
        given = [getattr(part, "name", None) for part in getattr(hint, "__metadata__", ())]
        return f"--{next(filter(None, given), field).replace('_', '-')}"

    @abstractmethod
    def run(self) -> dict[str, Any]:
        """Does the work and returns the results: plain values that JSON can hold."""

    def torch_device(self) -> torch.device:
        """The device asked for.

        Raises:
            DataError: if it is not there.
        """
        import torch

        if self.device.partition(":")[0] not in ("cpu", "cuda"):
            raise DataError(f"--device {self.device}", "is neither cpu nor cuda")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = "not here: torch finds no CUDA" if "cuda" in self.device else str(error).splitlines()[0]
            raise DataError(f"--device {self.device}", reason) from error
        return device

    @classmethod
    def options_file(cls, words: Sequence[str]) -> Path | None:
        """The TOML file whose values stand before the words of the command line, if any."""
        return value_of("--config", words)

    def options(self) -> dict[str, Any]:
        """The options that decide the results, as plain values: what `config.toml` holds."""
        names = [field.name for field in dataclasses.fields(self) if field.name not in ("json", "quiet", "config")]
        values = {name: getattr(self, name) for name in names}
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}


@dataclasses.dataclass(kw_only=True)
class RunCommand(Command):
    """A command about a trained run."""

    run_path: Annotated[Path, tyro.conf.arg(name="run", metavar="RUN")]
    """Run directory."""
    weights: Annotated[Literal["last", "best"] | None, tyro.conf.arg(metavar="last|best", help_behavior_hint="")] = None
    """Of the last epoch, or the best; by default the last, or the best of --restarts."""

    def checkpoint(self, application: str | None = None) -> Checkpoint:
        """The checkpoint asked for.

        Raises:
            DataError: if there is none, or it is of another application.
        """
        from parteq.pipelines.run import Run

        checkpoint = Run.open(self.run_path).checkpoint(self.weights)
        found = checkpoint.about()["application"]
        if application not in (None, found):
            raise DataError(self.run_path, f"is a run of {found}, not of {application}")
        return checkpoint


def value_of(option: str, words: Sequence[str]) -> Path | None:
    """The path that stands behind an option on a command line; the last one counts.

    Raises:
        DataError: nothing stands there.
    """
    found = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        if word == option:
            if not following or following.startswith("--"):
                raise DataError(option, "needs the name of a file")
            found = Path(following)
        elif word.startswith(f"{option}="):
            found = Path(word.removeprefix(f"{option}="))
    return found
