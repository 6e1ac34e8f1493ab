"""How good predictions on point clouds are, also as the clouds are turned again and again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax
from sklearn.metrics import roc_auc_score

__all__ = ["classification_scores", "regression_scores"]


def classification_scores(
    logits: Sequence[Float[np.ndarray, "samples classes"]], labels: Int[np.ndarray, " samples"]
) -> dict[str, Any]:
    """Accuracy, and the area under the ROC curve, over several turns of the same clouds.

    Args:
        logits: one array a turn.
        labels: the true classes.

    Returns:
        ``n``; ``accuracy``, ``class_accuracy`` (the mean over the classes that occur of the accuracy within the class)
        and ``auc``, means over the turns; ``accuracy_std``, the standard deviation over them, 0 of a single one. The
        area is, of two classes, that of the second, of more the mean over the classes that occur, each against the
        rest; None where all clouds are of one class.
    """
    right = np.stack([rows.argmax(1) == labels for rows in logits]).astype(np.float64)
    within = [right[:, labels == label].mean() for label in np.unique(labels)]
    by_turn = right.mean(axis=1)
    areas = [_area(softmax(rows, axis=1), labels) for rows in logits] if len(within) > 1 else []
    return {
        "n": len(labels),
        "accuracy": float(by_turn.mean()),
        "class_accuracy": float(np.mean(within)),
        "auc": float(np.mean(areas)) if areas else None,
        "accuracy_std": float(by_turn.std()),
    }


def _area(probabilities: Float[np.ndarray, "samples classes"], labels: Int[np.ndarray, " samples"]) -> float:
    """The area under the ROC curve, where two classes or more occur."""
    against_rest = [1] if probabilities.shape[1] == 2 else np.unique(labels)
    return float(np.mean([roc_auc_score(labels == label, probabilities[:, label]) for label in against_rest]))


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
