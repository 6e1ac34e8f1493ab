"""``parteq histo evaluate``: scores of a trained classifier."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from parteq.pipelines.histo.options import OnData

__all__ = ["Evaluate"]


@dataclass(kw_only=True)
class Evaluate(OnData):
    """Evaluate a trained classifier, with 95 % intervals."""

    example: ClassVar[str] = "parteq histo evaluate --run RUN --data held_out.npz --json scores.json"

    def run(self) -> dict[str, Any]:
        """Scores the classifier; the intervals come from a bootstrap over groups."""
        from parteq.apps.histo.task import evaluate
        from parteq.core.distributed import joined

        with joined(self.torch_device()) as device:
            model, dataset, about = self.open()
            scores = evaluate(model, dataset, device, group=model.config["group"], seed=self.seed)
        return {"run": str(self.run_path), "data": self.data, "epoch": about["epoch"], **scores}
