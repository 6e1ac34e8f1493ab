"""``parteq histo evaluate``: scores of a trained classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from parteq.pipelines.command import File
from parteq.pipelines.files import replacing
from parteq.pipelines.histo.options import OnData

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
        from parteq.datasets.images import available_splits
        from parteq.pipelines import figures
        from parteq.pipelines.provenance import warn_of_known
        from parteq.pipelines.run import Run

        with joined(self.torch_device()) as device:
            model, dataset, about = self.open()
            divided = bool(available_splits(self.data))
            warn_of_known(Run.open(self.run_path).data, dataset, dataset.groups, divided=divided)
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
