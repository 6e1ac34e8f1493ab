"""What a run remembers of the data it was trained on, and finds again in the data it is judged by."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
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
) -> None:
    """Warns if a network, or its best epoch or temperature, was fitted to some of the data it is to be judged by.

    Args:
        run_data: what `data.json` says.
        dataset: to be judged by.
        groups: of it, as for `describe`.
        divided: whether its file is parted into training and test data.
    """
    for part, word in (("training", "trained"), ("validation", "validated")):
        earlier = run_data.get(part)
        if isinstance(earlier, dict):
            for reason in _reasons(earlier, dataset, groups, divided):
                warnings.warn(f"{dataset.source}: the run was {word} on {reason}: others may score lower", stacklevel=2)
                return


def _reasons(
    earlier: dict[str, Any], dataset: ImageDataset | PointClouds, groups: NDArray[Any] | None, divided: bool
) -> Iterator[str]:
    """In what way data are known; nothing if they are not."""
    # Numbers are compared first, since a fingerprint takes reading the data.
    if earlier.get("n") == len(dataset) and earlier.get("fingerprint") == dataset.fingerprint():
        yield "exactly these"
    if groups is not None and earlier.get("group_hashes"):
        found = {_short_hash(str(group)) for group in groups.tolist()}
        if shared := found & set(earlier["group_hashes"]):
            yield f"{len(shared)} of their {len(found)} groups"
    elif not divided and Path(str(earlier.get("source"))).resolve() == Path(dataset.source).resolve():
        yield "some of these"


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:12]
