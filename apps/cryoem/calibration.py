"""Is the confidence in poses right? Of those given some confidence, as large a share should be right to 15°."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from parteq.apps.cryoem.matching import CONFIDENT_DEGREES

__all__ = ["Calibration", "calibrate"]

_BINS = 10


@dataclass(frozen=True)
class Calibration:
    """Of each bin of confidence that has particles in it, what was said and what is true.

    Attributes:
        confidence: the mean.
        right: share of the poses that are right.
        count: particles.
    """

    confidence: Float[np.ndarray, " bins"]
    right: Float[np.ndarray, " bins"]
    count: Int[np.ndarray, " bins"]

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over particles of |right − confidence| of their bin.

        Guo et al., "On calibration of modern neural networks", ICML 2017 (arXiv 1706.04599), equation 3.
        """
        return float(np.average(np.abs(self.right - self.confidence), weights=self.count))


def calibrate(confidence: Float[np.ndarray, " n"], errors_in_degrees: Float[np.ndarray, " n"]) -> Calibration:
    """Holds confidence against errors, in ten bins of equal width.

    Args:
        confidence: between 0 and 1.
        errors_in_degrees: of the rotations.
    """
    bins = np.clip((confidence * _BINS).astype(int), 0, _BINS - 1)
    count = np.bincount(bins, minlength=_BINS)
    filled = count > 0
    said, true = (
        np.bincount(bins, values, minlength=_BINS)[filled] / count[filled]
        for values in (confidence, errors_in_degrees < CONFIDENT_DEGREES)
    )
    return Calibration(said, true, count[filled])
