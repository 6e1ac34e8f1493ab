"""How good predictions on point clouds are, also as the clouds are turned again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

__all__ = ["classification_scores", "regression_scores"]


def classification_scores(
    predictions: Sequence[Int[np.ndarray, " samples"]], labels: Int[np.ndarray, " samples"]
) -> dict[str, Any]:
    """Accuracy over several turns of the same clouds.

    Args:
        predictions: classes, one array a turn.
        labels: the true ones.

    Returns:
        ``n``; ``accuracy`` and ``class_accuracy`` (the mean over the classes that occur of the accuracy within the
        class), means over the turns; ``accuracy_std``, the standard deviation over them, 0 of a single one.
    """
    right = np.stack([prediction == labels for prediction in predictions]).astype(np.float64)
    within = [right[:, labels == label].mean() for label in np.unique(labels)]
    by_turn = right.mean(axis=1)
    return {
        "n": len(labels),
        "accuracy": float(by_turn.mean()),
        "class_accuracy": float(np.mean(within)),
        "accuracy_std": float(by_turn.std()),
    }


def regression_scores(
    predictions: Sequence[Float[np.ndarray, " samples"]], targets: Float[np.ndarray, " samples"], factor: float
) -> dict[str, Any]:
    """Mean absolute error over several turns of the same clouds.

    Args:
        predictions: one array a turn.
        targets: the true values.
        factor: what turns them into the unit that the error is reported in.

    Returns:
        ``n``, ``mae``, ``mae_std`` (over turns) and ``mae_of_mean``, that of always saying the mean target.
    """
    errors = np.abs(np.stack(predictions).astype(np.float64) - targets) * factor
    return {
        "n": len(targets),
        "mae": float(errors.mean()),
        "mae_std": float(errors.mean(axis=1).std()),
        "mae_of_mean": float(np.abs(targets - targets.mean()).mean() * factor),
    }
