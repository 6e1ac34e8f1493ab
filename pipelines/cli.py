"""The command line: ``parteq WORDS --option value``.

Finds the command, reads its options (those of ``--config`` first, so that the command line wins), runs it, prints and
writes what it returns. Exit status: 0; 2 for bad options or bad data, in one line; 1 for a training that diverged;
130 for an interrupt.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from importlib import metadata
from inspect import get_annotations
from typing import Any, get_type_hints

import tyro
from tyro._errors import on_parse_error

from parteq.datasets.errors import DataError
from parteq.pipelines import degree, demo, doctor
from parteq.pipelines.command import Command
from parteq.pipelines.cryoem.check_equivariance import CheckEquivariance
from parteq.pipelines.cryoem.convert import Convert
from parteq.pipelines.cryoem.estimate import Estimate
from parteq.pipelines.cryoem.evaluate import Evaluate as EvaluatePoses
from parteq.pipelines.cryoem.inspect import Inspect
from parteq.pipelines.cryoem.project import Project
from parteq.pipelines.cryoem.reconstruct import Reconstruct
from parteq.pipelines.cryoem.simulate import Simulate
from parteq.pipelines.cryoem.train import TrainPoses
from parteq.pipelines.files import read_toml, write_json
from parteq.pipelines.histo.bench import Bench
from parteq.pipelines.histo.check import Check
from parteq.pipelines.histo.evaluate import Evaluate
from parteq.pipelines.histo.explain import Explain
from parteq.pipelines.histo.export import Export
from parteq.pipelines.histo.finetune import Finetune
from parteq.pipelines.histo.heatmap import Heatmap
from parteq.pipelines.histo.make_pairs import MakePairs
from parteq.pipelines.histo.predict import Predict
from parteq.pipelines.histo.train import Train
from parteq.pipelines.points.evaluate import Evaluate as EvaluatePoints
from parteq.pipelines.points.export import Export as ExportPoints
from parteq.pipelines.points.predict import Predict as PredictPoints
from parteq.pipelines.points.prepare import Prepare as PreparePoints
from parteq.pipelines.points.train import Train as TrainPoints
from parteq.pipelines.usage import refuse_options

__all__ = ["COMMANDS", "main"]

# Threads of torch that spin while they wait take the cores from one another as soon as anything else runs: training
# becomes several times slower. To be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

COMMANDS: dict[str, type[Command]] = {
    "demo": demo.Demo,
    "doctor": doctor.Doctor,
    "histo check": Check,
    "histo train": Train,
    "histo finetune": Finetune,
    "histo evaluate": Evaluate,
    "histo predict": Predict,
    "histo heatmap": Heatmap,
    "histo explain": Explain,
    "histo export": Export,
    "histo bench": Bench,
    "histo make-pairs": MakePairs,
    "points prepare": PreparePoints,
    "points train": TrainPoints,
    "points evaluate": EvaluatePoints,
    "points predict": PredictPoints,
    "points export": ExportPoints,
    "cryoem train": TrainPoses,
    "cryoem estimate": Estimate,
    "cryoem check-equivariance": CheckEquivariance,
    "cryoem inspect": Inspect,
    "cryoem convert": Convert,
    "cryoem reconstruct": Reconstruct,
    "cryoem evaluate": EvaluatePoses,
    "cryoem simulate": Simulate,
    "cryoem project": Project,
    "degree": degree.Degree,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words == ["--version"]:
        print(f"parteq {metadata.version('parteq')}")
        return 0
    try:
        name = _command_name(words)
        if name not in COMMANDS:
            return _overview(name, words)
        command = _parse(name, words[len(name.split()) :])
        with _messages(command.quiet):
            command.check_outputs()
            _answer(command, command.run())
    except (DataError, RuntimeError, MemoryError) as error:
        reason = _reason(error)
        if reason is None:
            raise
        print(f"parteq: {reason}", file=sys.stderr)
        return 2
    except FloatingPointError as error:
        print(f"parteq: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # before OSError, which it is one of
        # The reader (`head`, say) has seen enough; nothing more may be written when Python closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.filename is None:
            raise
        print(f"parteq: {DataError(error.filename, error.strerror or str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("parteq: interrupted", file=sys.stderr)
        return 130
    except SystemExit as stop:  # tyro: 0 after --help, 2 for bad options
        return int(stop.code or 0)
    return 0


def _reason(error: DataError | RuntimeError | MemoryError) -> str | None:
    """What the user is told of an error; None for one that is a mistake in the program."""
    if isinstance(error, RuntimeError):
        # torch has a type of its own for a full GPU only.
        if "can't allocate memory" in str(error) or "out of memory" in str(error):
            error = MemoryError()
        elif (from_worker := DataError.from_worker(error)) is not None:
            return str(from_worker)
        else:
            return None
    if isinstance(error, MemoryError):
        return (
            "not enough memory: take smaller or fewer images; to train, fewer at a time (--batch-size) or a smaller "
            "network (--width)"
        )
    return str(error)


def _command_name(words: Sequence[str]) -> str:
    """The words before the first option, as many as make up a command."""
    plain = [word for word in words[:2] if not word.startswith("-")]
    return plain[0] if plain and plain[0] in COMMANDS else " ".join(plain)


def _overview(name: str, words: Sequence[str]) -> int:
    """Prints the commands, or those that begin with what was typed; of what is no command what it may have meant."""
    inside = {key: command for key, command in COMMANDS.items() if key.startswith(f"{name} ")}
    if name and not inside:
        application, verb = name.split()[0], name.split()[-1]
        verbs = {key.split()[1]: key for key in COMMANDS if key.startswith(f"{application} ")}
        hints = [f"{verbs[near]!r}?" for near in get_close_matches(verb, verbs, n=1)]
        hints.append(f"parteq {application if verbs else '--help'} lists them")
        print(f"parteq: no command {name!r}: {' '.join(hints)}", file=sys.stderr)
        return 2
    shown = inside or COMMANDS
    width = max(map(len, shown))
    asked = not words or bool({"-h", "--help"} & set(words))
    print(
        "Networks as equivariant as their data are, no more and no less.\n",
        *(f"  parteq {key:<{width}}  {_summary(command)}" for key, command in shown.items()),
        "\nparteq COMMAND --help tells its options, parteq --version the version. To begin:\n\n  parteq demo",
        sep="\n",
        file=sys.stdout if asked else sys.stderr,
    )
    return 0 if asked else 2


def _summary(command: type[Command]) -> str:
    return (command.__doc__ or "").strip().splitlines()[0]


def _parse(name: str, words: Sequence[str]) -> Command:
    """The command with its options."""
    kind = COMMANDS[name]
    _put_in_order(kind)
    prefix = _options_of_file(kind, words)
    options = [f"--{option.replace('_', '-')}" for option in _option_names(kind)]
    try:
        with on_parse_error(refuse_options(options)):
            return tyro.cli(kind, prog=f"parteq {name}", args=[*prefix, *words], config=(tyro.conf.FlagCreatePairsOff,))
    except SystemExit as stop:
        if not stop.code:
            print(f"example:\n  {kind.example}")
        raise


def _put_in_order(kind: type[Command]) -> None:
    """Lets the help of a command tell first what must be given, then what is its own, and last what all commands take.

    Options have names and no places, so that the order of the fields is that of the help alone.
    """

    def place(field: Field[Any]) -> tuple[bool, int]:
        given = field.default is not MISSING or field.default_factory is not MISSING
        return given, next(n for n, base in enumerate(kind.__mro__) if field.name in get_annotations(base))

    ordered = sorted(kind.__dataclass_fields__.values(), key=place)
    kind.__dataclass_fields__ = {field.name: field for field in ordered}


def _options_of_file(kind: type[Command], words: Sequence[str]) -> list[str]:
    """The options of the file that the command line names, written as on the command line."""
    path = kind.options_file(words)
    values = {} if path is None else read_toml(path)
    known = _option_names(kind)
    options: list[str] = []
    for key, value in values.items():
        if key.replace("-", "_") not in known:
            raise DataError(path or "", f"{key!r} is no option of this command")
        option = f"--{key.replace('_', '-')}"
        if isinstance(value, bool) != (known[key.replace("-", "_")] is bool):
            kind_of_value = "true or false" if isinstance(value, bool) else "a text or number"
            raise DataError(path or "", f"{key!r} is no option that takes {kind_of_value}")
        if isinstance(value, bool):
            options += [option] if value else []
        elif isinstance(value, str | int | float):
            options.append(f"{option}={value}")
        else:
            raise DataError(path or "", f"{key!r} is no text, number or truth value")
    return options


def _option_names(kind: type[Command]) -> dict[str, Any]:
    """The options of a command, as a file of them would write them, and the types of their values."""
    hints = get_type_hints(kind)
    return {kind.option(field.name)[2:].replace("-", "_"): hints[field.name] for field in fields(kind)}


@contextmanager
def _messages(quiet: bool) -> Iterator[None]:
    """Log records and warnings of parteq go to stderr, a line each and no warning twice; those of others go nowhere."""
    logger, handler = logging.getLogger("parteq"), logging.StreamHandler()
    level, logger.propagate = logger.level, False  # packages that export give the root logger a handler of its own
    logger.addHandler(handler)
    logger.setLevel(logging.ERROR if quiet or not _is_main() else logging.INFO)
    said: set[str] = set()

    def is_news(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        repeated = record.levelno == logging.WARNING and text in said
        said.add(text)
        return not repeated

    handler.addFilter(is_news)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("always", module=r"parteq\.")
            warnings.showwarning = lambda message, *_, **__: logger.warning("parteq: %s", message)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = True


def _answer(command: Command, results: dict[str, Any]) -> None:
    """Prints the results that are numbers or words, and writes all of them as JSON."""
    if not _is_main():
        return
    if command.json is not None:
        write_json(command.json, {"schema": 1} | results)
    if not command.quiet:
        shown = {name: value for name, value in results.items() if isinstance(value, str | int | float)}
        width = max(map(len, shown), default=0)
        for name, value in shown.items():
            print(f"{name:<{width}}  {_rounded(value) if isinstance(value, float) else value}")


def _rounded(value: float) -> str:
    """Four digits; all of those before the point, unless they are very many."""
    return f"{value:.0f}" if 1e3 <= abs(value) < 1e7 else f"{value:.4g}"


def _is_main() -> bool:
    """Whether this is the process that talks; torchrun numbers the processes it starts."""
    return os.environ.get("RANK", "0") == "0"
