"""``parteq histo finetune``: a classifier of other images that begins with what one has learned."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, cast

import tyro

from parteq.datasets.errors import DataError
from parteq.pipelines.histo.training import ClassifierTraining

if TYPE_CHECKING:
    import torch
    from torch import nn

    from parteq.apps.histo.models import Classifier
    from parteq.core.training import AfterEpoch, Settings
    from parteq.datasets.images import ImageDataset
    from parteq.pipelines.checkpoint import Checkpoint

__all__ = ["Finetune"]

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Finetune(ClassifierTraining):
    """Go on with a trained classifier, on other images.

    The classifier is new unless the names of the classes are the same.
    """

    example: ClassVar[str] = "parteq histo finetune --from RUN --data mine.npz --mode full --limit 100 --out RUN2"

    source: Annotated[Path, tyro.conf.arg(name="from", metavar="RUN|FILE")]
    """Run, or model.safetensors of a checkpoint, to begin with."""
    mode: Literal["full", "head", "probe"] = "full"
    """What learns: all, the invariant head, or the last linear layer."""
    layer_decay: float = 0.75
    """Factor on the learning rate from a layer to the one before it; of mode full."""
    freeze_degree: bool = False
    """Keep learned degrees as they are."""
    release_degree: bool = False
    """Learn degrees that were fixed, too."""
    new_head: bool = False
    """Begin with a new classifier even for the same classes."""

    def options(self) -> dict[str, Any]:
        """The options by the names they have on the command line."""
        return {"from" if name == "source" else name: value for name, value in super().options().items()}

    def settings(self) -> Settings:
        """The settings of the training loop; options that cannot be meant are refused."""
        if not 0 < self.layer_decay <= 1:
            raise DataError(f"--layer-decay {self.layer_decay}", "must be above 0 and at most 1")
        if self.freeze_degree and self.release_degree:
            raise DataError("--freeze-degree", "excludes --release-degree")
        if self.mode == "probe" and (self.release_degree or self.augment != "none"):
            raise DataError(
                "--mode probe", "learns no degree and sees images as they are: no --release-degree or --augment"
            )
        return super().settings()

    def new_model(self, training: ImageDataset) -> Classifier:
        """The classifier to begin with, for the classes of these images."""
        from parteq.apps.histo.finetune import released, reorder_classes
        from parteq.apps.histo.task import match
        from parteq.datasets.splits import check_one_release

        checkpoint = self._checkpoint()
        about, model = checkpoint.about(), cast("Classifier", checkpoint.model())
        check_one_release(about.get("release"), training.release, training.source)
        match(training, None, model.config["in_chans"], model.config["spatial_dims"])
        if self.release_degree:
            try:
                model = released(model)
            except ValueError as error:
                raise DataError(self.source, str(error)) from error
        if self.new_head or set(training.classes) != set(about["classes"]):
            model.reset_classifier(len(training.classes))
        else:
            reorder_classes(model, [about["classes"].index(name) for name in training.classes])
            log.info("the classifier is kept, for the classes have the same names; --new-head begins with a new one")
        return model

    def provenance(self) -> dict[str, Any]:
        """The weights to begin with, and what they were trained on, if they stand in a run."""
        from parteq.pipelines.run import Run

        checkpoint = self._checkpoint()
        weights: dict[str, Any] = {"source": str(checkpoint.weights), "fingerprint": checkpoint.fingerprint()}
        # RUN/checkpoints/0030/model.safetensors
        folder = (checkpoint.weights.resolve() / "../../..").resolve()
        return {"weights": weights | ({"data": Run.open(folder).data} if Run.exists(folder) else {})}

    def resolution(self, training: ImageDataset) -> float | None:
        """The µm a pixel of the images; unless given, as in the source's training if it had these very files."""
        before = self._checkpoint().about().get("mpp")
        if self.mpp is not None or before is None:
            return self.mpp
        known = self.provenance()["weights"].get("data", {}).get("training", {}).get("source")
        if known is not None and Path(known).resolve() == training.source.resolve():
            log.info("%s: %g µm a pixel, as in the training that this begins with", training.source, before)
            return float(before)
        log.warning(
            "%s: the %g µm a pixel of the training that this begins with need not hold here: "
            "heat maps will ask for --mpp",
            training.source,
            before,
        )
        return None

    def release(self, training: ImageDataset) -> str | None:
        """The release that the model has seen, now or before."""
        return training.release or self._checkpoint().about().get("release")

    def rates(self, model: Classifier) -> dict[nn.Parameter, float]:
        """Lower rates for lower layers, or none at all."""
        from parteq.apps.histo.finetune import freeze_backbone, freeze_degree, layer_rates

        if self.freeze_degree:
            freeze_degree(model)
        if self.mode == "full":
            return layer_rates(model, self.layer_decay)
        freeze_backbone(model)
        return {}

    def fit(
        self,
        model: Classifier,
        training: ImageDataset,
        device: torch.device,
        after_epoch: AfterEpoch,
        state: dict[str, Any] | None,
    ) -> None:
        """Trains, or fits a probe, which is done after one epoch."""
        from parteq.apps.histo.probe import fit_probe

        if self.mode != "probe":
            super().fit(model, training, device, after_epoch, state)
        elif state is None:
            record = fit_probe(model, training, device, self.seed)
            after_epoch({"epoch": 1} | record, {"epoch": 1, "optimiser": {}})

    def summary(self, config: Mapping[str, Any], n: int) -> str:
        """What was trained on what, in a sentence, and what it began with."""
        return f"{super().summary(config, n)} It began with {self.source}; mode {self.mode}."

    def _checkpoint(self) -> Checkpoint:
        """The weights to begin with.

        Raises:
            DataError: if there are none, or they are of another application.
        """
        from parteq.pipelines.run import find_checkpoint

        checkpoint = find_checkpoint(self.source)
        found = checkpoint.about()["application"]
        if found != "histo":
            raise DataError(self.source, f"is a model of {found}, not of histo")
        return checkpoint
