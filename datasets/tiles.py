"""Tiles cut from a slide and kept as files: where each lies, which its name says.

A name bears x and y of the upper left corner in pixels, behind the name of the slide if there is one: of
``14082_idx5_x1001_y1051_class0.png`` the slide is ``14082_idx5``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

__all__ = ["slides_of", "tile_places"]

_PLACE = re.compile(r"(?P<slide>.*?)(?:^|[_\-. ])x[_=]?(?P<x>[0-9]{1,9})[_\-. ]*y[_=]?(?P<y>[0-9]{1,9})", re.IGNORECASE)


def tile_places(names: Sequence[str]) -> tuple[list[str], NDArray[np.int64]] | None:
    """Which slide each tile is of, and where it lies there.

    Args:
        names: of image files, with or without folders [N].

    Returns:
        Slides [N], "" where a name bears none, and x and y in pixels [N, 2]; None unless all names bear x and y.
    """
    found = [_PLACE.match(PurePath(name).stem) for name in names]
    places = [match for match in found if match is not None]
    if not names or len(places) < len(names):
        return None
    return [place["slide"] for place in places], np.array([(int(place["x"]), int(place["y"])) for place in places])


def slides_of(names: Sequence[str]) -> set[str]:
    """The slides that tiles are of, as far as their names tell."""
    places = tile_places(names)
    return set() if places is None else set(places[0]) - {""}
