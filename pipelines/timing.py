"""How long functions take on one thread, side by side.

Time is that of the thread on its processor: what it would take on a machine with nothing else to do. Functions are
timed in turn, so that what slows the processor down for a while slows all of them alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["latencies", "single_threaded"]


def latencies(
    functions: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 3
) -> dict[str, NDArray[np.float64]]:
    """Times functions in turn, each round beginning with another one.

    Args:
        functions: by name; they compute on the thread that calls them.
        repeats: how often each is timed.
        warm_up: how often each is called before.

    Returns:
        The times of each in milliseconds, shape (repeats,).
    """
    names = list(functions)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-warm_up, repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            began = time.thread_time()
            functions[name]()
            if turn >= 0:
                times[name].append(1e3 * (time.thread_time() - began))
    return {name: np.array(values) for name, values in times.items()}


@contextmanager
def single_threaded() -> Iterator[None]:
    """Has torch compute on one thread, without gradients."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
