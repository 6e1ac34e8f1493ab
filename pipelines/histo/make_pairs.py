"""``parteq histo make-pairs``: pairs of cells, a task whose symmetry is part of what its pieces have."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from parteq.datasets.errors import DataError
from parteq.pipelines.files import replacing
from parteq.pipelines.histo.options import Images, Out

__all__ = ["MakePairs"]


@dataclass(kw_only=True)
class MakePairs(Images):
    """Put cells side by side in pairs, to see where a network breaks symmetry."""

    example: ClassVar[str] = "parteq histo make-pairs --data cells.npz --n 1200 --out pairs.npz"

    out: Out = Path("pairs.npz")
    """NPZ file to write."""
    n: int
    """How many pairs to make."""
    split: Literal["train", "val", "test"] = "train"
    """Part of divided data."""

    def run(self) -> dict[str, Any]:
        """Writes the pairs as `images`, `labels`, `groups` and `classes`."""
        import numpy as np

        from parteq.apps.histo.task import open_for_evaluation
        from parteq.datasets.pairs import make_pairs

        if self.out.suffix.lower() != ".npz":
            raise DataError(self.out, "is to be an NPZ file: let its name end in .npz")
        cells = open_for_evaluation(self.data, self.split, skip_bad=self.skip_bad)
        pairs = make_pairs(cells, self.n, self.seed)
        images, labels = pairs.tensors()
        arrays: dict[str, Any] = {
            "images": images.permute(0, 2, 3, 1).numpy(),
            "labels": labels.numpy(),
            "groups": pairs.groups,
            "classes": np.array(pairs.classes),
        }
        content = io.BytesIO()  # a file that cannot take it all is none that NumPy can close
        np.savez_compressed(content, **arrays)
        with replacing(self.out) as temporary:
            temporary.write_bytes(content.getvalue())
        return {
            "out": str(self.out),
            "n": len(pairs),
            "classes": len(pairs.classes),
            "groups": len(np.unique(arrays["groups"])),
            "skipped": len(cells.skipped),
        }
