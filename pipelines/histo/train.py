"""``parteq histo train``: a classifier of images, and how symmetric they are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, Number, Text, value_of
from parteq.pipelines.histo.options import Data

if TYPE_CHECKING:
    from torch import nn

    from parteq.core.training import Settings
    from parteq.datasets.images import ImageDataset
    from parteq.pipelines.run import Run

__all__ = ["Train"]

LARGEST_WIDTH = 64


@dataclass(kw_only=True)
class Train(Command):
    """Train a classifier of images, and learn how symmetric they are."""

    example: ClassVar[str] = "parteq histo train --data cells.npz --group d4 --degree learned --limit 400 --out RUN"

    data: Data
    """X.npz, pcam:FOLDER, or folder of class folders."""
    out: Annotated[Path, tyro.conf.arg(metavar="RUN")]
    """Run directory to make."""
    val: Text = None
    """Data to validate on; else a part of --data."""
    limit: Number = None
    """Train on so many images, each class its share."""
    model: Literal["resnet"] = "resnet"
    """Architecture."""
    group: Annotated[Literal["c4", "c8", "d4", "so2", "o2", "none"], tyro.conf.arg(metavar="GROUP")] = "d4"
    """c4, c8, d4, so2, o2 or none."""
    degree: Annotated[Literal["learned", "full", "none"], tyro.conf.arg(metavar="DEGREE")] = "learned"
    """How much of it: learned, full or none."""
    width: float = 1.0
    """Factor on the number of channels."""
    augment: Annotated[Literal["none", "flip", "d4"], tyro.conf.arg(metavar="NAME")] = "none"
    """Augmentation: none, flip, d4."""
    epochs: int = 30
    """Passes over the data."""
    batch_size: int = 32
    """Images a step."""
    learning_rate: float = 3e-3
    """Highest learning rate."""
    weight_decay: float = 1e-2
    """Weight decay."""
    mixed_precision: bool = False
    """Compute in bfloat16."""
    workers: int = 0
    """Processes that read large data."""
    resume: bool = False
    """Go on with the run in --out."""

    @classmethod
    def options_file(cls, words: Sequence[str]) -> Path | None:
        """A run that is resumed is its own file of options."""
        run = value_of("--out", words)
        if "--resume" in words and run is not None and (run / "config.toml").exists():
            return run / "config.toml"
        return super().options_file(words)

    def options(self) -> dict[str, Any]:
        """The options but ``resume``, which does not change the results."""
        return {name: value for name, value in super().options().items() if name != "resume"}

    def run(self) -> dict[str, Any]:
        """Trains, and writes a report into the run directory."""
        from parteq.apps.histo import task
        from parteq.apps.histo.augment import AUGMENTATIONS
        from parteq.apps.histo.metrics import classification_metrics
        from parteq.core.chain import degree_penalty
        from parteq.core.distributed import is_main, joined, wait
        from parteq.core.training import fit

        began = time.monotonic()
        settings = self._settings()
        with joined(self.torch_device()) as device:
            training, validation = task.open_for_training(self.data, self.val, self.limit, self.seed)
            run = self._begin({"training": _describe(training), "validation": _describe(validation)})
            model, state = self._model(run, training)
            about = {
                "application": "histo",
                "model": model.config,
                "classes": list(training.classes),
                "spatial": list(training.spatial),
            }

            def after_epoch(record: dict[str, float], state: dict[str, Any]) -> None:
                probabilities = task.predict(model, validation, device)[0].numpy()
                scores = classification_metrics(probabilities, validation.labels, draws=0)
                record |= {f"val_{name}": value for name, value in scores.items() if name != "n" and value is not None}
                if is_main():
                    run.save(record, model, about, state, score=record["val_balanced_accuracy"])
                wait()

            fit(
                model,
                task.loss,
                task.samples(training),
                settings,
                device=device,
                penalty=partial(degree_penalty, samples=len(training)),
                augment=AUGMENTATIONS[self.augment],
                after_epoch=after_epoch,
                state=state,
                progress=not self.quiet,
            )
            scores = task.evaluate(model, validation, device, group=self.group, seed=self.seed)
            if is_main():
                self._report(run, model, scores)
        return {
            "run": str(run.path),
            "n_train": len(training),
            **{f"val_{name}": value for name, value in scores.items()},
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": time.monotonic() - began,
        }

    def _settings(self) -> Settings:
        """The settings of the training loop; numbers that cannot be meant are refused."""
        from parteq.core.training import Settings

        if not 0 < self.width <= LARGEST_WIDTH:
            raise DataError("options", f"width must lie between 0 and {LARGEST_WIDTH}, not be {self.width}")
        names = [field.name for field in fields(Settings) if hasattr(self, field.name)]
        try:
            return Settings(**{name: getattr(self, name) for name in names})
        except ValueError as error:
            raise DataError("options", str(error)) from error

    def _begin(self, data: dict[str, Any]) -> Run:
        """The run directory, made by the main process, or found where it is to be resumed."""
        from parteq.core.distributed import is_main, wait
        from parteq.pipelines.run import Run

        resumed = self.resume and Run.exists(self.out)
        if is_main() and not resumed:
            Run.create(self.out, self.options(), data)
        wait()
        run = Run.open(self.out)
        if resumed:
            free = {"out", "device", "workers"}
            for name, value in self.options().items():
                if name not in free and run.options.get(name) != value:
                    raise DataError(run.path, f"has {name} = {run.options.get(name)}, not {value}: resume without it")
            if run.data != data:
                raise DataError(run.path, "was trained on other data: the files have changed")
            if is_main():
                run.rewind()
        return run

    def _model(self, run: Run, training: ImageDataset) -> tuple[Any, dict[str, Any] | None]:
        """A new model, or the one of the last checkpoint with the state to go on from."""
        import torch

        from parteq.apps.histo.models import create_model
        from parteq.apps.histo.task import normalization

        if run.epochs():
            return run.checkpoint().model(), run.checkpoint().training_state()
        torch.manual_seed(self.seed)
        model: Any = create_model(
            self.model,
            num_classes=len(training.classes),
            in_chans=training.channels,
            group=self.group,
            degree=self.degree,
            width=self.width,
            spatial_dims=len(training.spatial),
        )
        model.set_normalization(*normalization(training))
        return model, None

    def _report(self, run: Run, model: nn.Module, scores: dict[str, Any]) -> None:
        """Writes `report.html` and its pictures into the run directory."""
        from parteq.core.measure import measure_degree
        from parteq.pipelines.report import degree_section, learning_section, scores_section, write_report

        degree = degree_section(measure_degree(model.cpu()))
        sections = [scores_section(scores), degree, learning_section(run.history())]
        n = run.data["training"]["n"]
        lead = f"{self.model} trained on {n:,} images of {self.data}; group {self.group}, degree {self.degree}."
        write_report(run.path / "report.html", run.path.name, lead, sections)


def _describe(dataset: ImageDataset) -> dict[str, Any]:
    """What `data.json` says of a data set."""
    return {
        "source": str(dataset.source),
        "n": len(dataset),
        "groups": None if dataset.groups is None else len(set(dataset.groups.tolist())),
        "classes": list(dataset.classes),
        "fingerprint": dataset.fingerprint(),
    }
