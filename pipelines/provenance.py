"""What a run remembers of the data it was trained on, and finds again in the data it is judged by."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

if TYPE_CHECKING:
    from parteq.datasets.images import ImageDataset
    from parteq.datasets.points.base import PointClouds

__all__ = ["describe", "warn_of_known"]

_REMEMBERED_GROUPS = 20_000


def describe(dataset: ImageDataset | PointClouds, groups: NDArray[Any] | None) -> dict[str, Any]:
    """What `data.json` says of a data set.

    Args:
        dataset: images or clouds.
        groups: which of them belong together, [N]; of clouds the families. None if unknown.
    """
    known = None if groups is None else {str(group) for group in groups.tolist()}
    return {
        "source": str(dataset.source),
        "n": len(dataset),
        "groups": None if known is None else len(known),
        "group_hashes": None if known is None or len(known) > _REMEMBERED_GROUPS else sorted(map(_short_hash, known)),
        "classes": list(dataset.classes),
        "fingerprint": dataset.fingerprint(),
    }


def warn_of_known(
    run_data: dict[str, Any],
    dataset: ImageDataset | PointClouds,
    groups: NDArray[Any] | None,
    *,
    divided: bool,
    whose: str = "the run was",
) -> None:
    """Warns if a network, or its best epoch or temperature, was fitted to some of the data it is to be judged by.

    Args:
        run_data: what `data.json` says.
        dataset: to be judged by.
        groups: of it, as for `describe`.
        divided: whether its file is parted into training and test data.
        whose: training it was, in the words of the warning.
    """
    for part, word in (("training", "trained"), ("validation", "validated")):
        earlier = run_data.get(part)
        known = _known_part(earlier, dataset, groups, divided) if isinstance(earlier, dict) else None
        if known is not None:
            warnings.warn(f"{dataset.source}: {whose} {word} on {known}: others may score lower", stacklevel=2)
            return
    # A run that was fine-tuned remembers what its weights came from.
    weights = run_data.get("weights")
    if isinstance(weights, dict) and isinstance(weights.get("data"), dict):
        whose = "the weights that the run began with were"
        warn_of_known(weights["data"], dataset, groups, divided=divided, whose=whose)


def _known_part(
    earlier: dict[str, Any], dataset: ImageDataset | PointClouds, groups: NDArray[Any] | None, divided: bool
) -> str | None:
    """What of the data was seen earlier, in words; None if nothing was."""
    # Numbers are compared first, since a fingerprint takes reading the data.
    if earlier.get("n") == len(dataset) and earlier.get("fingerprint") == dataset.fingerprint():
        return "exactly these"
    if groups is not None and earlier.get("group_hashes"):
        found = {_short_hash(str(group)) for group in groups.tolist()}
        shared = found & set(earlier["group_hashes"])
        return f"{len(shared)} of their {len(found)} groups" if shared else None
    if not divided and "source" in earlier and Path(str(earlier["source"])).resolve() == dataset.source.resolve():
        return "some of these"
    return None


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]
