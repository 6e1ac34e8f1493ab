"""What `train` and `finetune` share: images to train and validate on, and a run with scores, weights and a report."""

from __future__ import annotations

import math
import time
import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Number, Text, value_of
from parteq.pipelines.files import read_toml
from parteq.pipelines.histo.options import Images, Micrometres
from parteq.pipelines.training import TrainingCommand

if TYPE_CHECKING:
    import torch
    from torch import nn

    from parteq.apps.histo.models import Classifier
    from parteq.core.training import AfterEpoch
    from parteq.datasets.images import ImageDataset
    from parteq.pipelines.run import Run

__all__ = ["ClassifierTraining"]


@dataclass(kw_only=True)
class ClassifierTraining(Images, TrainingCommand):
    """A command that trains a classifier of images. What it begins with is the command's own affair."""

    val: Text = None
    """Data to validate on; else a part of --data."""
    limit: Number = None
    """Train on so many images, each class its share."""
    augment: Annotated[str, tyro.conf.arg(metavar="NAMES")] = "none"
    """none, strong, or of flip,d4,stain,turn,elastic,blur."""
    mpp: Micrometres = None
    """µm a pixel, if known; heat maps of slides go by it."""

    @classmethod
    def options_file(cls, words: Sequence[str]) -> Path | None:
        """Refuses to go on with a run of the other command that trains classifiers, which has other options."""
        path, run = super().options_file(words), value_of("--out", words)
        if path is not None and run is not None and path == run / "config.toml":
            verb = "finetune" if "from" in read_toml(path) else "train"
            if verb not in cls.example.split():
                raise DataError(run, f"is a run of {verb}: `parteq histo {verb} --resume --out {run}` goes on with it")
        return path

    @abstractmethod
    def new_model(self, training: ImageDataset) -> Classifier:
        """The model before its first epoch."""

    def provenance(self) -> dict[str, Any]:
        """What `data.json` holds beside the images: nothing, where training begins with random weights."""
        return {}

    def resolution(self, training: ImageDataset) -> float | None:
        """The µm a pixel of the images, where it is known."""
        return self.mpp

    def release(self, training: ImageDataset) -> str | None:
        """The release of a collection that the model has seen, where there are several."""
        return training.release

    def rates(self, model: Classifier) -> dict[nn.Parameter, float]:
        """Factors on the learning rates of some parameters. What is not to learn at all is frozen here."""
        return {}

    def fit(
        self,
        model: Classifier,
        training: ImageDataset,
        device: torch.device,
        after_epoch: AfterEpoch,
        state: dict[str, Any] | None,
    ) -> None:
        """Trains a model, new or as it was after an epoch; see `parteq.core.training.fit`."""
        from parteq.apps.histo import task
        from parteq.apps.histo.augment import augmentation
        from parteq.core.chain import degree_penalty
        from parteq.core.training import fit

        config = model.config
        fit(
            model,
            task.loss,
            task.samples(training),
            self.settings(),
            device=device,
            penalty=partial(degree_penalty, samples=len(training)),
            augment=augmentation(self.augment, config["group"], config["degree"], config["spatial_dims"]),
            after_epoch=after_epoch,
            state=state,
            rates=self.rates(model),
            progress=not self.quiet,
        )

    def run(self) -> dict[str, Any]:
        """Trains, and writes a report into the run directory."""
        import torch

        from parteq.apps.histo import task
        from parteq.apps.histo.augment import augmentation
        from parteq.apps.histo.metrics import classification_metrics
        from parteq.core.calibration import fit_temperature
        from parteq.core.distributed import is_main, joined, wait
        from parteq.core.pruning import ENOUGH, pruning
        from parteq.datasets.images import available_splits
        from parteq.datasets.splits import evenly_spread
        from parteq.pipelines.provenance import describe, warn_of_known

        began = time.monotonic()
        # What is wrong with the options is said before anything is read.
        self.settings()
        if self.mpp is not None and not 0 < self.mpp < math.inf:
            raise DataError(f"--mpp {self.mpp}", "must be above 0")
        augmentation(self.augment)
        with joined(self.torch_device()) as device:
            training, validation = task.open_for_training(
                self.data, self.val, self.limit, self.seed, skip_bad=self.skip_bad
            )
            torch.manual_seed(self.seed)
            model, state = self.new_model(training), None
            parts = {"training": training, "validation": validation}
            data = {name: describe(part, part.groups) for name, part in parts.items()}
            earlier = self.provenance()
            divided = bool(available_splits(self.val or self.data))
            warn_of_known(earlier, validation, validation.groups, divided=divided)
            run = self.begin(data | earlier)
            if run.epochs():
                model = cast("Classifier", run.checkpoint().model())
                state = run.checkpoint().training_state()
            about = {
                "application": "histo",
                "model": model.config,
                "classes": list(training.classes),
                "spatial": list(training.spatial),
                "mpp": self.resolution(training),
                "release": self.release(training),
            }

            asked = validation.subset(evenly_spread(len(validation), ENOUGH))
            prune = pruning(model, lambda: task.losses(model, asked, device), self.settings(), state)

            def after_epoch(record: dict[str, float], state: dict[str, Any]) -> None:
                prune(record, state)
                probabilities = task.predict(model, validation, device)[0].numpy()
                with warnings.catch_warnings():
                    # What these images do not tell was said when they were opened.
                    warnings.simplefilter("ignore")
                    scores = classification_metrics(probabilities, validation.labels, draws=0)
                record |= {f"val_{name}": value for name, value in scores.items() if name != "n" and value is not None}
                calibrated = about | {"temperature": fit_temperature(probabilities, validation.labels)}
                if is_main():
                    run.save(record, model, calibrated, state, score=record["val_balanced_accuracy"])
                wait()

            self.fit(model, training, device, after_epoch, state)
            temperature = run.checkpoint().about().get("temperature") if run.epochs() else None
            group = model.config["group"]
            scores = task.evaluate(model, validation, device, group=group, temperature=temperature, seed=self.seed)
            if is_main():
                self._report(run, model, scores, len(training.classes))
        return {
            "run": str(run.path),
            "report": str(run.report),
            "n_train": len(training),
            "skipped": len({*training.skipped, *validation.skipped}),
            **{f"val_{name}": value for name, value in scores.items()},
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": time.monotonic() - began,
        }

    def summary(self, config: Mapping[str, Any], n: int) -> str:
        """What was trained on what, in a sentence."""
        name, group, degree = config["name"], config["group"], config["degree"]
        return f"{name} trained on {n:,} images of {self.data}; group {group}, degree {degree}."

    def _report(self, run: Run, model: nn.Module, scores: dict[str, Any], classes: int) -> None:
        """Writes `report.html` and its pictures into the run directory."""
        from parteq.core.measure import measure_degree
        from parteq.pipelines.report import (
            calibration_section,
            degree_section,
            learning_section,
            scores_section,
            write_report,
        )

        degree = degree_section(measure_degree(model.cpu()))
        sections = [scores_section(scores), calibration_section(scores), degree, learning_section(run.history())]
        config = cast("Classifier", model).config
        lead = self.summary(config, run.data["training"]["n"])
        lowest = scores["balanced_accuracy_low"]
        if config["group"] != "none" and config["degree"] == "learned" and (lowest is None or lowest <= 1 / classes):
            # λ starts uniform: what has learned nothing looks symmetric.
            lead += (
                " On the validation images it is not clearly better than chance: what is said of symmetry then says "
                "little of the data."
            )
        write_report(run.report, run.path.name, lead, sections)
