"""What the scripts in `benchmarks/` share: their options, how they end, where data are, and rows kept as they come."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from parteq.datasets.errors import DataError
from parteq.pipelines.files import read_json, write_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import Tensor, nn

    from parteq.core.training import Augment, Settings

    Row = TypeVar("Row", bound=DataclassInstance)
else:
    Row = TypeVar("Row")

__all__ = [
    "Rows",
    "accuracy",
    "benchmark_parser",
    "data_folder",
    "mean_and_spread",
    "run_benchmark",
    "train_classifier",
]


def benchmark_parser(description: str, *, seeds: int, threads: int) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark of trainings has: ``--json``, ``--seeds`` and ``--threads``.

    Args:
        description: docstring of the script.
        seeds: how many are run if none are named, from 0.
        threads: the default.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results to this file, and go on with those in it")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(seeds)))
    parser.add_argument("--threads", type=int, default=threads)
    return parser


def run_benchmark(main: Callable[[], None]) -> None:
    """Runs a script without the warnings of libraries; data that cannot be used end it in one line, with status 2."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            main()
    except DataError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def data_folder() -> Path:
    """The folder of real data: ``$PARTEQ_DATA``, or ``../shared/data`` beside the repository."""
    return Path(os.environ.get("PARTEQ_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


def train_classifier(
    model: nn.Module,
    training: tuple[Tensor, Tensor],
    validation: tuple[Tensor, Tensor],
    settings: Settings,
    augment: Augment | None = None,
    **prices: Any,
) -> None:
    """Trains a network as `parteq histo train` does, and leaves it in evaluation mode.

    Args:
        model: new.
        training: images in 0…1, shape (n, channels, y, x), and labels.
        validation: others; what learned densities break and these do not need broken is undone.
        settings: of the training.
        augment: alters a batch before it is learned.
        **prices: of broken symmetry where not the defaults, see `parteq.core.chain.degree_penalty`.
    """
    from torch.utils.data import TensorDataset

    from parteq.apps.histo import task
    from parteq.core.calibration import losses_and_errors
    from parteq.core.chain import degree_penalty
    from parteq.core.pruning import pruning
    from parteq.core.training import fit

    images, labels = validation
    penalty = partial(degree_penalty, samples=len(training[0]), **prices)
    prune = pruning(model, lambda: losses_and_errors(_logits(model, images), labels), settings)
    data = TensorDataset(*training)
    fit(model, task.loss, data, settings, penalty=penalty, augment=augment, after_epoch=prune, progress=False)
    model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images classified rightly."""
    return float((_logits(model, images).argmax(1) == labels).float().mean())


def _logits(model: nn.Module, images: Tensor) -> Tensor:
    import torch

    model.eval()
    with torch.no_grad():
        return torch.cat([model(part) for part in images.split(200)])


def mean_and_spread(values: Sequence[float], form: str = ".3f") -> str:
    """Mean ± standard deviation (number of values); the deviation of a single value is told as 0."""
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{form}} ± {spread:{form}} ({len(values)})"


class Rows(list[Row], Generic[Row]):
    """A list of rows.

    Args:
        kind: the dataclass of a row.
        path: JSON file that holds them under ``rows``, gone on with where it exists; None keeps nothing.
        settings: what all rows have in common, kept under ``settings``.

    Raises:
        DataError: the file is damaged, or was made with other settings.
    """

    def __init__(self, kind: type[Row], path: Path | None, **settings: Any) -> None:
        self.path, self.settings = path, settings
        found: dict[str, Any] = read_json(path) if path is not None and path.exists() else {}
        super().__init__(kind(**row) for row in found.get("rows", []))
        if path is not None and found.get("settings", settings) != settings:
            raise DataError(path, f"was made with {found['settings']}, not {settings}; name another file")

    def add(self, row: Row) -> None:
        """Appends a row, prints it and writes the file."""
        self.append(row)
        print(json.dumps(asdict(row)), flush=True)
        if self.path is not None:
            rows = [asdict(each) for each in self]
            write_json(self.path, {"schema": 1, "settings": self.settings, "rows": rows})

    def has(self, **values: Any) -> bool:
        """Whether there is a row with these values."""
        return any(all(getattr(row, name) == value for name, value in values.items()) for row in self)
