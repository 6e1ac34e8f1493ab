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

__all__ = ["describe", "warn_of_known", "warn_of_known_slide"]

_REMEMBERED_GROUPS = 20_000


def describe(dataset: ImageDataset | PointClouds, groups: NDArray[Any] | None) -> dict[str, Any]:
    """What `data.json` says of a data set.

    Args:
        dataset: images or clouds.
        groups: which of them belong together, [N]; of clouds the families. None if unknown.
    """
    from parteq.datasets.splits import group_names
    from parteq.datasets.tiles import slides_of

    known = set() if groups is None else group_names(groups, alike=True)
    names = known | slides_of(dataset.names or ())
    return {
        "source": str(dataset.source),
        "n": len(dataset),
        "groups": None if groups is None else len(known),
        "group_hashes": None if not names or len(names) > _REMEMBERED_GROUPS else sorted(map(_short_hash, names)),
        "image_hashes": sorted(_digests(dataset)),
        "shape": _shape(dataset),
        "classes": list(dataset.classes),
        "fingerprint": dataset.fingerprint(),
    }


def warn_of_known(
    run_data: dict[str, Any], dataset: ImageDataset | PointClouds, groups: NDArray[Any] | None, *, divided: bool
) -> None:
    """Warns if a network, or its best epoch or temperature, was fitted to some of the data it is to be judged by.

    Args:
        run_data: what `data.json` says.
        dataset: to be judged by.
        groups: of it, as for `describe`.
        divided: whether its file is parted into training and test data.
    """
    trainings = list(_trainings(run_data))
    digests = _digests(dataset) if trainings else set()
    found: dict[str, list[str]] = {}  # by whose they are; in all, since what one has not seen another may have
    for earlier, whose, what in trainings:
        if known := _known_part(earlier, dataset, groups, digests, divided=divided):
            found.setdefault(whose, []).append(f"{what} {known}")
    if found:
        said = "; ".join(f"{whose} {' and '.join(dict.fromkeys(parts))}" for whose, parts in found.items())
        warnings.warn(f"{dataset.source}: {said}: others may score lower", stacklevel=2)


def warn_of_known_slide(run_data: dict[str, Any], slide: Path) -> None:
    """Warns if a network was fitted to tiles of a slide, as far as their names or groups bear its name."""
    for earlier, whose, what in _trainings(run_data):
        if _short_hash(slide.stem) in (earlier.get("group_hashes") or ()):
            warnings.warn(f"{slide}: {whose} {what} tiles of it: others may score lower", stacklevel=2)
            return


def _trainings(run_data: dict[str, Any], whose: str = "the run was") -> Iterator[tuple[dict[str, Any], str, str]]:
    """What was trained and validated on, and whose and what that was, in words.

    After the run the weights that it began with, and those that they began with.
    """
    for part, word in (("training", "trained"), ("validation", "validated")):
        if isinstance(earlier := run_data.get(part), dict):
            yield earlier, whose, f"{word} on"
    weights = run_data.get("weights")
    if isinstance(weights, dict) and isinstance(weights.get("data"), dict):
        yield from _trainings(weights["data"], "the weights that the run began with were")


def _known_part(
    earlier: dict[str, Any],
    dataset: ImageDataset | PointClouds,
    groups: NDArray[Any] | None,
    digests: set[str],
    *,
    divided: bool,
) -> str | None:
    """What of the data was seen earlier, in words; None if nothing was."""
    from parteq.datasets.splits import group_names

    # Numbers are compared first, since a fingerprint takes reading the data.
    if earlier.get("n") == len(dataset) and earlier.get("fingerprint") == dataset.fingerprint():
        return "exactly these"
    same_file = Path(str(earlier.get("source"))).resolve() == dataset.source.resolve()
    both_grouped = groups is not None and bool(earlier.get("group_hashes"))
    if groups is not None and both_grouped:
        same_kind = earlier.get("shape") == _shape(dataset) and set(earlier.get("classes", ())) == set(dataset.classes)
        names = group_names(groups, alike=same_file or same_kind)
        if shared := set(map(_short_hash, names)) & set(earlier["group_hashes"]):
            return f"{len(shared)} of their {len(group_names(groups, alike=True))} groups"
    if copies := digests & set(earlier.get("image_hashes") or ()):
        return f"{len(copies)} of these images"
    return "some of these" if same_file and not (divided or both_grouped or digests) else None


def _digests(dataset: ImageDataset | PointClouds) -> set[str]:
    """Of images those by which copies are found; none of clouds."""
    from parteq.datasets.base import ImageDataset

    return dataset.digests() if isinstance(dataset, ImageDataset) else set()


def _shape(dataset: ImageDataset | PointClouds) -> list[int] | None:
    """Channels and size of an image; None of clouds."""
    from parteq.datasets.base import ImageDataset

    return [dataset.channels, *dataset.spatial] if isinstance(dataset, ImageDataset) else None


def _short_hash(name: str) -> str:
    return hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:12]
