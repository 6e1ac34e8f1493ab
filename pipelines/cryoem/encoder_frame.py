"""`encoder_frame.json` of a run: where the encoder's own map stands, as seen from the map that the run leaves.

What the encoder proposes is told in the frame of its own map; poses and map of the run were searched for since, and
turned and moved so that symmetry axes stand as they should.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from parteq.pipelines.files import values_of, write_json

if TYPE_CHECKING:
    from parteq.apps.cryoem.placement import Placement

__all__ = ["keep_encoder_frame", "read_encoder_frame"]

_NAME = "encoder_frame.json"


def keep_encoder_frame(run: Path, placement: Placement) -> None:
    """Writes it into the folder of a run; the offset is in voxels of its map."""
    values = {"matrix": placement.matrix.tolist(), "offset_voxels": placement.offset.tolist()}
    write_json(run / _NAME, {"schema": 1, **values})


def read_encoder_frame(run: Path) -> Placement:
    """That of a run; the same frame where there is no such file, as after learning from poses that are known.

    Raises:
        DataError: if the file is damaged.
    """
    from parteq.apps.cryoem.placement import SAME_PLACE, Placement

    if not (run / _NAME).exists():
        return SAME_PLACE
    with values_of(run / _NAME) as values:
        matrix, offset = (np.array(values[name], dtype=np.float64) for name in ("matrix", "offset_voxels"))
        orthogonal = matrix.shape == (3, 3) and np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-6)
        if not (orthogonal and offset.shape == (3,) and np.isfinite(offset).all()):
            raise ValueError("there is no rotation with an offset")
        return Placement(matrix, offset)
