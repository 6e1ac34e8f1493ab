"""``parteq histo evaluate``: scores of a trained classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from parteq.datasets.errors import DataError
from parteq.pipelines.command import File
from parteq.pipelines.files import replacing
from parteq.pipelines.histo.options import OnData

if TYPE_CHECKING:
    import torch

    from parteq.datasets.base import ImageDataset

__all__ = ["Evaluate"]

TURNED_IMAGES, STEP_IN_DEGREES = 500, 10.0  # at most so many images, each at 36 turns


@dataclass(kw_only=True)
class Evaluate(OnData):
    """Evaluate a trained classifier, with 95 % intervals."""

    example: ClassVar[str] = "parteq histo evaluate --run RUN --data held_out.npz --json scores.json"

    plot: File = None
    """Draw the reliability diagram into this PNG file."""
    turns: File = None
    """Turn the images as well: draw accuracy against the turn into this PNG file."""

    def run(self) -> dict[str, Any]:
        """Scores the classifier; the intervals come from a bootstrap over groups.

        The temperature is the one fitted on the validation images of the run; none is fitted on these.
        """
        from parteq.apps.histo.task import evaluate, warn_of_absent
        from parteq.core.distributed import is_main, joined
        from parteq.datasets.images import available_splits
        from parteq.pipelines import figures
        from parteq.pipelines.provenance import warn_of_known
        from parteq.pipelines.run import Run

        with joined(self.torch_device()) as device:
            model, dataset, about = self.open()
            if self.turns is not None and len(dataset.spatial) == 3:
                raise DataError("--turns", "volumes are not turned by any angle")
            divided = bool(available_splits(self.data))
            warn_of_absent(dataset, "to evaluate")
            warn_of_known(Run.open(self.run_path).data, dataset, dataset.groups, divided=divided)
            group, temperature = model.config["group"], about.get("temperature")
            scores = evaluate(model, dataset, device, group=group, temperature=temperature, seed=self.seed)
            if self.plot is not None and is_main():
                with replacing(self.plot) as temporary:
                    temporary.write_bytes(figures.png(figures.reliability(scores)))
            if self.turns is not None and is_main():
                scores |= (turned := self._turned(model, dataset, device))
                with replacing(self.turns) as temporary:
                    temporary.write_bytes(figures.png(figures.turns(**turned)))
        return {
            "run": str(self.run_path),
            "data": self.data,
            "epoch": about["epoch"],
            "skipped": len(dataset.skipped),
            **scores,
        }

    def _turned(self, model: Any, dataset: ImageDataset, device: torch.device) -> dict[str, Any]:
        """Accuracy against the turn of the images, as the results name it."""
        from tqdm import tqdm

        from parteq.apps.histo.task import in_order
        from parteq.apps.histo.turning import accuracy_against_turn, holding_turn
        from parteq.datasets.splits import evenly_spread

        chosen = dataset.subset(evenly_spread(len(dataset), TURNED_IMAGES))
        hidden = True if self.quiet else None  # None: on a terminal alone
        bar = tqdm(in_order(chosen), "turning", delay=2, unit="batch", disable=hidden, leave=False)
        angles, rates = accuracy_against_turn(model, bar, device, STEP_IN_DEGREES)
        return {"turn_deg": angles, "turn_accuracy": rates, "holds_to_deg": round(holding_turn(angles, rates), 1)}
