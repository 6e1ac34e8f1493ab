"""``parteq points train``: a network of point clouds, and how symmetric they are."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Number, Text
from parteq.pipelines.points.options import MOST_POINTS, Clouds
from parteq.pipelines.training import TrainingCommand

if TYPE_CHECKING:
    from torch import Tensor
    from torch.utils.data import Dataset

    from parteq.apps.points.models import PointNetwork
    from parteq.core.training import Settings
    from parteq.datasets.points.base import PointClouds
    from parteq.pipelines.run import Run

__all__ = ["Train"]

# Surfaces are seen patch by patch, molecules atom by atom and in one unit of length.
_NETWORKS: dict[str, dict[str, Any]] = {
    "classify": {"layers": 1, "neighbours": 8, "patches": 32},
    "regress": {"layers": 3, "neighbours": 12, "absolute": True},
}
# A density has few numbers to learn, and few shapes give few steps. That of a property goes slower: targets are fitted
# from the first step on, and a fast density would break what the weights have not had the time to learn.
_DENSITY_LEARNING_RATES = {"classify": 60.0, "regress": 3.0}
_LARGEST_WIDTH = 16
_LARGEST_BATCH, _MANY = 48, 10_000


@dataclass(kw_only=True)
class Train(Clouds, TrainingCommand):
    """Train a network of point clouds, and learn how symmetric they are."""

    example: ClassVar[str] = "parteq points train --data parts.npz --group so3 --degree learned --out RUN"

    val: Text = None
    """Data to validate on; else a part of --data."""
    task: Annotated[Literal["classify", "regress"], tyro.conf.arg(metavar="TASK")] = "classify"
    """classify, or regress: predict --target."""
    target: Text = None
    """What to predict, such as homo."""
    group: Annotated[
        Literal["so3", "o3", "so2", "o2", "cone", "d4", "octahedral", "icosahedral", "none"],
        tyro.conf.arg(metavar="GROUP"),
    ] = "so3"
    """so3, o3, so2, o2, cone, d4, octahedral, icosahedral, none."""
    axis: Annotated[str, tyro.conf.arg(metavar="AXIS")] = "0,0,1"
    """Of a group that has one: X,Y,Z or learn."""
    degree: Annotated[Literal["learned", "full", "none"], tyro.conf.arg(metavar="NAME")] = "learned"
    """How much of the group: learned, full or none."""
    kernel: Annotated[Literal["implicit", "analytic"], tyro.conf.arg(metavar="NAME")] = "analytic"
    """implicit, a network of each edge, or analytic."""
    augment_rotation: Annotated[Literal["none", "z", "so3"], tyro.conf.arg(metavar="KIND")] = "none"
    """Turn clouds while training: none, z or so3."""
    epochs: int = 25
    """Passes over the data."""
    batch_size: Number = None
    """Samples a step; else 48, or fewer of a small set."""
    learning_rate: float = 1.5e-3
    """Highest learning rate."""
    weight_decay: float = 0.6
    """Weight decay."""
    points: int = 512
    """Points taken of each cloud; of molecules all."""
    layers: Number = None
    """Local layers; else 1 for classes, 3 for targets."""
    width: float = 1.0
    """Factor on the number of channels."""

    def settings(self, clouds: int = _MANY) -> Settings:
        """The settings of the training loop, for so many clouds; numbers that cannot be meant are refused."""
        from parteq.apps.points.task import DENSITY_THRESHOLD

        for name, least, most in (("points", 2, MOST_POINTS), ("layers", 0, 16), ("width", 0.05, _LARGEST_WIDTH)):
            if (value := getattr(self, name)) is not None and not least <= value <= most:
                raise DataError(f"--{name} {value}", f"must lie between {least} and {most}")
        if (self.task == "regress") != (self.target is not None):
            raise DataError("--task regress and --target", "go together")
        self._axis()
        settings = super().settings()
        # Few clouds are not to mean few steps.
        batch_size = settings.batch_size or min(max(clouds // 25, 8), _LARGEST_BATCH)
        rate = _DENSITY_LEARNING_RATES[self.task]
        return dataclasses.replace(
            settings,
            batch_size=batch_size,
            density_learning_rate=rate,
            density_threshold=DENSITY_THRESHOLD,
            breaking=1.0,
        )

    def _axis(self) -> list[float] | None:
        """The direction asked for; None to learn it."""
        from parteq.core.axis import Axis

        if self.axis == "learn":
            return None
        try:
            direction = [float(part) for part in self.axis.split(",")]
        except ValueError:
            direction = []
        if len(direction) != 3 or not 0 < sum(part * part for part in direction) < 1e12:
            raise DataError(f"--axis {self.axis}", "is neither three numbers, not all zero, nor learn")
        try:
            Axis(direction)
        except ValueError as error:
            raise DataError(f"--axis {self.axis}", str(error)) from error
        return direction

    def run(self) -> dict[str, Any]:
        """Trains, and writes a report into the run directory."""
        import torch
        from torch.utils.data import Subset

        from parteq.apps.points import task
        from parteq.apps.points.likelyaxis import likely_axis
        from parteq.core.distributed import is_main, joined, wait
        from parteq.core.pruning import ENOUGH, pruning
        from parteq.core.training import fit
        from parteq.datasets.splits import evenly_spread
        from parteq.pipelines.provenance import describe

        began = time.monotonic()
        self.settings()
        with joined(self.torch_device()) as device:
            training, validation = task.open_for_training(self.data, self.val, self.seed)
            settings = self.settings(len(training))
            validation = task.match(
                validation, {"feature_names": list(training.feature_names), "classes": list(training.classes)}
            )
            wanted, target = task.answers(training, self.target)
            held_out, _ = task.answers(validation, self.target)
            torch.manual_seed(self.seed)
            model, state = self.new_model(training, wanted), None
            points = self._points_of(model, training, validation)
            augment = task.augmentation(self.augment_rotation, None if model.whole else points)
            data = task.samples_for(model, training, points, wanted, training=True)
            model.set_lengths(*self._lengths(data))
            if self.axis == "learn":
                model.set_axis(likely_axis(data))
            checked = task.samples_for(model, validation, points, held_out)
            parts = {"training": training, "validation": validation}
            run = self.begin({name: describe(part, part.families) for name, part in parts.items()})
            if run.epochs():
                model = cast("PointNetwork", run.checkpoint().model())
                state = run.checkpoint().training_state()
            factor = 1.0 if target is None else target.factor
            about = {
                "application": "points",
                "model": model.config,
                "classes": list(training.classes) if target is None else [],
                "spatial": [points],
                "feature_names": list(training.feature_names),
                "target": None if target is None else dataclasses.asdict(target),
            }

            few = evenly_spread(len(validation), ENOUGH)
            asked, answers = Subset(checked, few.tolist()), held_out[few]
            prune = pruning(model, lambda: task.losses(model, asked, answers, device), settings, state)

            def after_epoch(record: dict[str, float], state: dict[str, Any]) -> None:
                prune(record, state)
                scores = task.evaluate(model, checked, held_out, device, factor=factor)
                record |= {f"val_{name}": value for name, value in scores.items() if name in ("accuracy", "mae")}
                score = scores["accuracy"] if target is None else -scores["mae"]
                if is_main():
                    run.save(record, model, about, state, score=score)
                wait()

            fit(
                model,
                task.loss,
                data,
                settings,
                device=device,
                penalty=task.penalty(len(training)),
                augment=augment,
                after_epoch=after_epoch,
                state=state,
                progress=not self.quiet,
            )
            scores = task.evaluate(model, checked, held_out, device, factor=factor)
            summary = self._report(run, model, scores, "" if target is None else target.unit) if is_main() else ""
        return {
            "run": str(run.path),
            "report": str(run.report),
            "n_train": len(training),
            **{f"val_{name}": value for name, value in scores.items()},
            **({} if target is None else {"mae_unit": target.unit}),
            "summary": summary,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": time.monotonic() - began,
        }

    def _points_of(self, model: PointNetwork, *parts: PointClouds) -> int:
        """How many points are taken of the largest cloud.

        Raises:
            DataError: some of it would be left out, where every point counts.
        """
        largest = max(int(clouds.sizes.max()) for clouds in parts)
        if model.whole and largest > self.points:
            reason = f"has clouds of up to {largest} points, of which none may be left out: --points {largest}"
            raise DataError(self.data, reason)
        return min(self.points, largest)

    def _lengths(self, data: Dataset[Any]) -> tuple[float, float]:
        """See `parteq.apps.points.task.lengths`. Raises DataError: 32 bits do not hold their squares."""
        from parteq.apps.points.task import lengths

        found = lengths(data)
        if not min(found) > 0:
            raise DataError(self.data, "has clouds without extent: in most, points coincide")
        if not 1e-12 < min(found) <= max(found) < 1e12:
            raise DataError(self.data, f"has clouds of a size of {found[0]:.2g}: take another unit of length")
        return found

    def new_model(self, training: PointClouds, wanted: Tensor) -> PointNetwork:
        """A network with random weights for these clouds and what is to be said of them, see `task.answers`."""
        from parteq.apps.points.models import create_model
        from parteq.datasets.points.elements import COVALENT_RADII_IN_ANGSTROMS, ELEMENTS

        classify = self.task == "classify"
        atoms = not classify and tuple(training.feature_names) == tuple(ELEMENTS)
        model = create_model(
            num_classes=len(training.classes) if classify else 0,
            num_targets=0 if classify else 1,
            in_features=len(training.feature_names),
            group=self.group,
            degree=self.degree,
            axis=self._axis(),
            kernel=self.kernel,
            attributes=("features", "bonds") if atoms else ("features",),
            radii=COVALENT_RADII_IN_ANGSTROMS if atoms else (),
            width=self.width,
            **_NETWORKS[self.task] | ({} if self.layers is None else {"layers": self.layers}),
        )
        if not classify:
            model.set_target_scale(wanted.mean(0).tolist(), wanted.std(0).clamp_min(1e-12).tolist())
        return model

    def _report(self, run: Run, model: PointNetwork, scores: Mapping[str, Any], unit: str) -> str:
        """Writes `report.html` and its pictures into the run directory, and returns what symmetry was found."""
        from parteq.core.measure import measure_degree, summarize_degree
        from parteq.pipelines.points.pictures import tilts_picture
        from parteq.pipelines.report import Section, degree_section, learning_section, write_report

        layers = measure_degree(model.cpu())
        errors = f" Errors of {self.target}{unit and f', in {unit}'}." if self.target else ""
        held_out = Section("Scores", f"{scores['n']} held-out clouds.{errors}", tables=[[dict(scores)]])
        lead = f"A network trained on {run.data['training']['n']:,} clouds of {self.data}; group {self.group}, "
        sections = [
            held_out,
            degree_section(layers, tilts=tilts_picture(model, layers)),
            learning_section(run.history(), unit),
        ]
        write_report(run.report, run.path.name, lead + f"degree {self.degree}.", sections)
        return summarize_degree(layers)
