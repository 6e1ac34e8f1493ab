"""``parteq demo``: data whose symmetry is known, what networks found of it, poses of particles, and which way is up.

Digits, turned by quarters, whose class also tells whether they stand or lie: half a turn changes nothing, a quarter
does, so the truth is C2 within C4. Patches of stained tissue, which has no preferred direction: the truth is all of D4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from parteq.datasets.errors import DataError
from parteq.pipelines.command import Command, File
from parteq.pipelines.files import make_folder, replacing
from parteq.pipelines.histo.export import Export
from parteq.pipelines.histo.train import Train

if TYPE_CHECKING:
    from parteq.datasets.images import ImageDataset
    from parteq.pipelines.report import Section

__all__ = ["Demo"]

log = logging.getLogger(__name__)

DEGREES: tuple[Literal["learned", "full", "none"], ...] = ("learned", "full", "none")
EXPORTS: tuple[tuple[Literal["torch", "onnx"], str], ...] = (("torch", "digits.pt2"), ("onnx", "digits.onnx"))


@dataclass(frozen=True)
class _Study:
    """A data set of known symmetry, and how to train on it."""

    name: str
    title: str
    text: str
    group: Literal["c4", "d4"]
    images: int
    epochs: int
    make: Callable[[int], tuple[ImageDataset, ImageDataset]]


@dataclass(kw_only=True)
class Demo(Command):
    """Train, measure, export and report on data that come along; some minutes on two cores."""

    example: ClassVar[str] = "parteq demo --out my-demo"

    out: File = None
    """Folder to make; else parteq-demo, numbered."""

    def folder_to_make(self) -> Path | None:
        """That of the trainings and the report."""
        return self.out

    def run(self) -> dict[str, Any]:
        """Trains three networks on each of two data sets; ends with the path of the report."""
        from parteq.pipelines.report import Section, write_report
        from parteq.pipelines.timing import single_threaded

        folder = self._folder()
        # Networks this small lose more to a second thread than it does for them.
        with single_threaded():
            results, sections = self._trainings(folder)
        exports = []
        for kind, file in EXPORTS:
            log.info("exporting to %s", file)
            export = Export(run_path=folder / "digits-learned", format=kind, out=folder / file).run()
            difference = f"{export['max_abs_difference']:.0e}"
            exports.append({"file": file, "bytes": export["bytes"], "largest difference of logits": difference})
        text = "The network that learned its degree on the digits, folded into plain operations, and run again."
        sections.append(Section("Export", text, tables=[exports]))
        lead = (
            "Each layer of these networks learned how much of a symmetry to keep. Their twins were made to keep all of "
            "it, or none, and trained in the same way."
        )
        report = folder / "report.html"
        write_report(report, "parteq: as equivariant as the data", lead, sections)
        return results | {"report": str(report.resolve())}

    def _trainings(self, folder: Path) -> tuple[dict[str, Any], list[Section]]:
        """What is found on each data set, and its section of the report."""
        from parteq.pipelines.cryoem.example import particles_section
        from parteq.pipelines.points.example import clouds_section

        found = [self._study(study, folder) for study in STUDIES]
        found += [part(folder, self.seed, self.device, self.quiet) for part in (particles_section, clouds_section)]
        results = {name: value for values, _ in found for name, value in values.items()}
        return results, [section for _, section in found]

    def _folder(self) -> Path:
        """A new folder for the results."""
        names = [self.out] if self.out else [Path(f"parteq-demo{n}") for n in ("", *(f"-{k}" for k in range(2, 1000)))]
        for name in names:
            if not name.exists():
                make_folder(name)
                return name
        raise DataError(names[0], "exists already: choose another folder with --out")

    def _study(self, study: _Study, folder: Path) -> tuple[dict[str, Any], Section]:
        """Trains the network and its twins, and tells what came out."""
        from parteq.core.measure import measure_degree, summarize_degree
        from parteq.pipelines import figures
        from parteq.pipelines.report import Picture, Section, degree_section
        from parteq.pipelines.run import Run

        training, held_out = study.make(self.seed)
        files = [folder / f"{study.name}-{part}.npz" for part in ("train", "test")]
        for path, dataset in zip(files, (training, held_out), strict=True):
            _write_npz(path, dataset)
        names = {"learned": "learned", "full": f"all of {study.group.upper()}", "none": "none"}
        scores, histories = [], {}
        for degree in DEGREES:
            log.info("%s, degree %s", study.name, degree)
            train = Train(
                data=str(files[0]),
                val=str(files[1]),
                out=folder / f"{study.name}-{degree}",
                group=study.group,
                degree=degree,
                limit=study.images,
                epochs=study.epochs,
                seed=self.seed,
                device=self.device,
                quiet=self.quiet,
            )
            scores.append(train.run())
            histories[names[degree]] = Run.open(train.out).history()
        layers = measure_degree(Run.open(folder / f"{study.name}-learned").checkpoint().model())
        table = [
            {
                "symmetry kept": names[degree],
                "accuracy": score["val_accuracy"],
                "from": score["val_accuracy_low"],
                "to": score["val_accuracy_high"],
                "orbit variance": score["val_orbit_variance"],
                "parameters": score["parameters"],
                "seconds": round(score["seconds"]),
            }
            for degree, score in zip(DEGREES, scores, strict=True)
        ]
        accuracies = [score["val_accuracy"] for score in scores]
        measured = degree_section(layers, name=f"{study.name}-degree")
        examples = Picture(f"{study.name}-examples", figures.png(figures.examples(held_out)), "Some held-out images.")
        curves = Picture(f"{study.name}-curves", figures.png(figures.twins(histories)), "Held-out accuracy by epoch.")
        section = Section(
            study.title,
            study.text,
            finding=measured.finding,
            tables=[table, *measured.tables],
            best=accuracies.index(max(accuracies)),
            pictures=[examples, *measured.pictures, curves],
        )
        found = {f"{study.name}_accuracy_{degree}": value for degree, value in zip(DEGREES, accuracies, strict=True)}
        return found | {f"{study.name}_summary": summarize_degree(layers)}, section


def _standing_or_lying(seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Digits turned by quarters; classes tell the digit and whether it stands or lies."""
    import numpy as np

    from parteq.datasets.digits import sklearn_digits
    from parteq.datasets.images import ArrayDataset
    from parteq.datasets.splits import grouped_split
    from parteq.datasets.symmetry import apply_symmetry

    images, digits = sklearn_digits(size=12, margin=2).tensors()
    turned = apply_symmetry(images, "c4", seed)
    lying = (turned.degrees % 180 == 90).long()
    names = [f"{digit} {pose}" for digit in range(10) for pose in ("standing", "lying")]
    dataset = ArrayDataset(turned.images, np.asarray(2 * digits + lying), classes=names)
    train, test = grouped_split(dataset.labels, None, 0.4, seed)
    return dataset.subset(train), dataset.subset(test)


def _tissue(seed: int) -> tuple[ImageDataset, ImageDataset]:
    """Patches whose centre is stained or not, those of some regions held out."""
    from parteq.datasets.immunohistochemistry import stained_patches
    from parteq.datasets.splits import grouped_split

    dataset = stained_patches(seed=seed)
    train, test = grouped_split(dataset.labels, dataset.groups, 0.4, seed)
    return dataset.subset(train), dataset.subset(test)


STUDIES = (
    _Study(
        "digits",
        "Digits that stand or lie",
        "Handwritten digits turned by 0°, 90°, 180° or 270°. The class is the digit and whether it stands (0°, 180°) "
        "or lies (90°, 270°): half a turn changes nothing, a quarter does. Of the four turns of C4 the truth is C2. "
        "A network that keeps all of C4 cannot tell standing from lying and is right in half of the cases at best.",
        "c4",
        images=800,
        epochs=15,
        make=_standing_or_lying,
    ),
    _Study(
        "tissue",
        "Stained tissue",
        "Patches of immunohistochemistry; the class is whether the centre is stained. Regions of the picture are "
        "either trained on or held out. Tissue has no preferred direction and no hand: the truth is all of D4, turns "
        "by quarters and mirrors.",
        "d4",
        images=400,
        epochs=10,
        make=_tissue,
    ),
)


def _write_npz(path: Path, dataset: ImageDataset) -> None:
    """Writes a data set as `parteq histo` reads it."""
    import numpy as np

    images, labels = dataset.tensors()
    arrays = {"images": images.movedim(1, -1).numpy(), "labels": labels.numpy(), "classes": np.array(dataset.classes)}
    if dataset.groups is not None:
        arrays["groups"] = dataset.groups
    with replacing(path) as temporary:
        np.savez_compressed(temporary, **arrays)
