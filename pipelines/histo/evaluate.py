"""``parteq histo evaluate``: scores of a trained classifier."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parteq.pipelines.command import File
from parteq.pipelines.files import replacing
from parteq.pipelines.histo.options import OnData

if TYPE_CHECKING:
    from parteq.datasets.images import ImageDataset

__all__ = ["Evaluate"]


@dataclass(kw_only=True)
class Evaluate(OnData):
    """Evaluate a trained classifier, with 95 % intervals."""

    example: ClassVar[str] = "parteq histo evaluate --run RUN --data held_out.npz --json scores.json"

    plot: File = None
    """Draw the reliability diagram into this PNG file."""

    def run(self) -> dict[str, Any]:
        """Scores the classifier; the intervals come from a bootstrap over groups.

        The temperature is the one fitted on the validation images of the run; none is fitted on these.
        """
        from parteq.apps.histo.task import evaluate
        from parteq.core.distributed import is_main, joined
        from parteq.pipelines import figures

        with joined(self.torch_device()) as device:
            model, dataset, about = self.open()
            self._warn_of_known_images(dataset)
            group, temperature = model.config["group"], about.get("temperature")
            scores = evaluate(model, dataset, device, group=group, temperature=temperature, seed=self.seed)
            if self.plot is not None and is_main():
                with replacing(self.plot) as temporary:
                    temporary.write_bytes(figures.png(figures.reliability(scores)))
        return {
            "run": str(self.run_path),
            "data": self.data,
            "epoch": about["epoch"],
            "skipped": len(dataset.skipped),
            **scores,
        }

    def _warn_of_known_images(self, dataset: ImageDataset) -> None:
        """Warns of images that the classifier, or its temperature and best epoch, was fitted to."""
        from parteq.pipelines.run import Run

        data = Run.open(self.run_path).data
        for part, word in (("training", "trained"), ("validation", "validated")):
            match data.get(part):
                # Numbers are compared first, since a fingerprint takes reading the images.
                case {"n": n, "fingerprint": known} if n == len(dataset) and known == dataset.fingerprint():
                    warnings.warn(
                        f"{self.data}: the run was {word} on these images: others may score lower", stacklevel=1
                    )
