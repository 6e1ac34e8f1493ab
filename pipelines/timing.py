"""How long functions take, side by side.

Functions are timed in turn, so that what slows the processor down for a while slows all of them alike. `latencies` has
the time of one thread on its processor, what it would take on a machine with nothing else to do; `paired` that of the
clock.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["latencies", "paired", "single_threaded"]


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


def paired(functions: Sequence[Callable[[], object]], repeats: int) -> tuple[float, list[float]]:
    """Times functions in turn by the clock, on as many threads as they take.

    Args:
        functions: at least one; each is called twice before.
        repeats: how often each is timed.

    Returns:
        The median time of the first in milliseconds, and for each other one the median of the ratios first / it.
    """
    for function in [*functions, *functions]:
        function()
    times: list[list[float]] = []
    for _ in range(repeats):
        row = []
        for function in functions:
            start = time.perf_counter()
            function()
            row.append(time.perf_counter() - start)
        times.append(row)
    ratios = [statistics.median(row[0] / row[i] for row in times) for i in range(1, len(functions))]
    return 1000 * statistics.median(row[0] for row in times), ratios


@contextmanager
def single_threaded() -> Iterator[None]:
    """Has torch compute on one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
