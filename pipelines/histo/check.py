"""``parteq histo check``: what a set of images holds, and whether all of it can be read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from parteq.pipelines.histo.options import Images

if TYPE_CHECKING:
    from parteq.datasets.images import ImageDataset

__all__ = ["Check"]

AT_ONCE = 256
"""Images read at a time."""


@dataclass(kw_only=True)
class Check(Images):
    """Look through a set of images: what it holds, and whether all can be read."""

    example: ClassVar[str] = "parteq histo check --data pcam:DIR"

    def run(self) -> dict[str, Any]:
        """Reads every image of every split, compares the splits' groups, and PatchCamelyon's MD5 sums."""
        from parteq.datasets.images import available_splits, open_images
        from parteq.datasets.pcam_files import check_sums
        from parteq.datasets.splits import check_no_leakage

        splits = available_splits(self.data)
        results: dict[str, Any] = {"data": self.data}
        folder = Path(self.data.removeprefix("pcam:"))
        sums = check_sums(folder) if folder.is_dir() else {}
        results |= {f"md5_{name}": verdict for name, verdict in sums.items()}
        seen: list[ImageDataset] = []
        for split in splits or ("train",):
            prefix = f"{split}_" if splits else ""
            dataset = open_images(self.data, split, skip_bad=self.skip_bad)
            for other in seen:
                check_no_leakage(other.groups, dataset.groups, dataset.source)
            self._read(dataset, split)
            seen.append(dataset)
            results |= {f"{prefix}{name}": value for name, value in _contents(dataset).items()}
        return results

    def _read(self, dataset: ImageDataset, split: str) -> None:
        """Decodes all images, a few at a time."""
        import numpy as np
        from tqdm import tqdm

        hidden = True if self.quiet else None
        with tqdm(total=len(dataset), desc=f"reading {split}", delay=2, disable=hidden, leave=False) as bar:
            for start in range(0, len(dataset), AT_ONCE):
                part = dataset.subset(np.arange(start, min(start + AT_ONCE, len(dataset))))
                part.tensors()
                bar.update(len(part))


def _contents(dataset: ImageDataset) -> dict[str, Any]:
    """What there is to say of a data set."""
    import numpy as np

    counts = np.bincount(dataset.labels, minlength=len(dataset.classes))
    return {
        "n": len(dataset),
        "skipped": len(dataset.skipped),
        "size": " × ".join(str(side) for side in dataset.spatial),
        "channels": dataset.channels,
        "groups": "none" if dataset.groups is None else len(np.unique(dataset.groups)),
        **{f"class_{name}": int(count) for name, count in zip(dataset.classes, counts, strict=True)},
    }
