"""`reliability.json` of a run: how far to trust its map, told by `train` and by all that estimate with it later."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parteq.pipelines.files import values_of, write_json

if TYPE_CHECKING:
    from parteq.apps.cryoem.halves import Reliability

__all__ = ["keep_reliability", "read_reliability", "report_reliability"]

_NAME = "reliability.json"


def keep_reliability(run: Path, found: Reliability) -> None:
    """Writes it into the folder of a run."""
    write_json(run / _NAME, {"schema": 1, **asdict(found)})


def read_reliability(run: Path) -> Reliability | None:
    """That of a run; None for one that was told its poses, or did not end.

    Raises:
        DataError: if the file is damaged.
    """
    from parteq.apps.cryoem.halves import Reliability

    if not (run / _NAME).exists():
        return None
    with values_of(run / _NAME) as values:
        same = values["search_agreement"]
        halves, confidence = float(values["half_agreement"]), float(values["confidence"])
        return Reliability(halves, confidence, None if same is None else float(same))


def report_reliability(found: Reliability | None) -> dict[str, Any]:
    """The results there are; warns where poses are not to be trusted."""
    if found is None:
        return {}
    if not found.reliable:
        warnings.warn(found.sentence(), stacklevel=2)
    searched = {} if found.search_agreement is None else {"search_agreement": found.search_agreement}
    return {"half_agreement": found.half_agreement, **searched, "reliable": found.reliable}
