"""The metrics gates may name, and how each is measured on a model's answers."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics as sk

from canaryflow.bundle.format import Problem
from canaryflow.errors import InputError

Array = npt.NDArray[Any]

# float32 probabilities of 0 and 1 are as sure as they can say; beyond this their logarithm means nothing.
_SURE = 1e-7


@dataclass(frozen=True)
class Metric:
    """What a metric's name means.

    Attributes:
        greater_is_better: Whether a threshold is a lower bound.
        title: How a person says it.
    """

    greater_is_better: bool
    title: str


METRICS: Mapping[Problem, Mapping[str, Metric]] = {
    "binary": {
        "roc_auc": Metric(True, "area under the ROC curve"),
        "average_precision": Metric(True, "average precision"),
        "log_loss": Metric(False, "log loss"),
        "brier": Metric(False, "Brier score"),
        "accuracy": Metric(True, "accuracy"),
        "balanced_accuracy": Metric(True, "balanced accuracy"),
        "precision": Metric(True, "precision"),
        "recall": Metric(True, "recall"),
        "f1": Metric(True, "F1"),
    },
    "multiclass": {
        "log_loss": Metric(False, "log loss"),
        "brier": Metric(False, "Brier score"),
        "accuracy": Metric(True, "accuracy"),
        "balanced_accuracy": Metric(True, "balanced accuracy"),
        "f1": Metric(True, "F1, mean of the classes"),
    },
    "regression": {
        "rmse": Metric(False, "root mean squared error"),
        "mae": Metric(False, "mean absolute error"),
        "r2": Metric(True, "R²"),
    },
}
PRIMARY: Mapping[Problem, str] = {"binary": "roc_auc", "multiclass": "log_loss", "regression": "rmse"}


def check_thresholds(thresholds: Mapping[str, float], problem: Problem) -> None:
    """Refuse thresholds on metrics that this problem does not have.

    Raises:
        InputError: Names the metric, the nearest right one and all of them; or a bound that is no number.
    """
    allowed = METRICS[problem]
    for name, bound in thresholds.items():
        if name not in allowed:
            close = difflib.get_close_matches(name, allowed, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            raise InputError(
                f"thresholds: unknown metric {name!r} of a {problem} problem, "
                f"expected one of {', '.join(allowed)}{hint}"
            )
        if isinstance(bound, bool) or not isinstance(bound, int | float) or not np.isfinite(bound):
            raise InputError(f"thresholds: {name}: found {bound!r}, expected a finite number")


def measure(
    problem: Problem, truth: Array, values: Array, threshold: float | None = None
) -> dict[str, float]:
    """All metrics of a problem.

    Args:
        problem: Which metrics.
        truth: Shape (n,): class positions, or numbers.
        values: Probabilities of shape (n, classes), or predictions of shape (n,).
        threshold: Binary: the positive class is said from this probability on; None means 0.5.

    Returns:
        Values by name; NaN where the rows do not define one (an AUC of one class).
    """
    values = values.astype(np.float64)
    if problem == "binary":
        return _binary(truth, values[:, 1], 0.5 if threshold is None else threshold)
    if problem == "multiclass":
        said = values.argmax(axis=1)
        right = np.eye(values.shape[1])[truth]
        return {
            "log_loss": log_loss(truth, values),
            "brier": float(((values - right) ** 2).sum(axis=1).mean()),
            "accuracy": float((said == truth).mean()),
            "balanced_accuracy": balanced_accuracy(truth, said),
            "f1": float(sk.f1_score(truth, said, average="macro", zero_division=0.0)),
        }
    spread = float(((truth - truth.mean()) ** 2).mean())
    squared = float(((truth - values) ** 2).mean())
    return {
        "rmse": squared**0.5,
        "mae": float(np.abs(truth - values).mean()),
        "r2": 1 - squared / spread if spread > 0 else float("nan"),
    }


def _binary(truth: Array, positive: Array, threshold: float) -> dict[str, float]:
    said = positive >= threshold
    both = 0 < truth.sum() < len(truth)
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        truth, said, average="binary", zero_division=0.0
    )
    return {
        "roc_auc": float(sk.roc_auc_score(truth, positive)) if both else float("nan"),
        "average_precision": float(sk.average_precision_score(truth, positive)) if both else float("nan"),
        "log_loss": log_loss(truth, np.column_stack([1 - positive, positive])),
        "brier": float(((positive - truth) ** 2).mean()),
        "accuracy": float((said == truth).mean()),
        "balanced_accuracy": balanced_accuracy(truth, said.astype(np.int64)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
    }


def log_loss(truth: Array, probabilities: Array) -> float:
    """Mean negative logarithm of the probability given to what came true."""
    return float(row_log_loss(truth, probabilities).mean())


def row_log_loss(truth: Array, probabilities: Array) -> Array:
    """The log loss of each row, shape (n,)."""
    given = probabilities[np.arange(len(truth)), truth]
    losses: Array = -np.log(np.clip(given, _SURE, 1.0))
    return losses


def balanced_accuracy(truth: Array, said: Array) -> float:
    """Mean over the classes that occur of the share said right."""
    return float(np.mean([(said[truth == label] == label).mean() for label in np.unique(truth)]))


def best_f1_threshold(truth: Array, positive: Array) -> float:
    """The probability from which saying the positive class has the largest F1 on these rows.

    Args:
        truth: 0 or 1, shape (n,).
        positive: Probabilities of 1, shape (n,).

    Returns:
        A threshold in the middle between two probabilities that occur, so that a last digit does not decide.
    """
    order = np.argsort(-positive, kind="stable")
    falling = positive[order]
    f1 = 2 * np.cumsum(truth[order]) / (np.arange(1, len(order) + 1) + truth.sum())
    # Equal probabilities are said together, so only the last of them is a place to cut.
    last = np.append(np.diff(falling) != 0, True)
    best = int(np.argmax(np.where(last, f1, -1.0)))
    following = falling[best + 1] if best + 1 < len(order) else 0.0
    return round(float((falling[best] + following) / 2), 9)


def base_rate(problem: Problem, truth: Array) -> tuple[str, float]:
    """What the best constant answer reaches on these rows.

    Returns:
        The metric's name (log loss, or RMSE for regression) and its value.
    """
    if problem == "regression":
        return "rmse", float(truth.std())
    shares = np.bincount(truth) / len(truth)
    present = shares[shares > 0]
    return "log_loss", float(-(present * np.log(present)).sum())


def primary(problem: Problem) -> tuple[str, Callable[[Array, Array], float]]:
    """The metric by which models of a problem are searched and compared.

    Returns:
        Its name, and a function of truth and values whose greater result is better.
    """
    name = PRIMARY[problem]
    sign = 1.0 if METRICS[problem][name].greater_is_better else -1.0

    def score(truth: Array, values: Array) -> float:
        if problem == "binary":
            return float(sk.roc_auc_score(truth, values[:, 1]))
        if problem == "multiclass":
            return sign * log_loss(truth, values)
        return sign * float(np.sqrt(((truth - values) ** 2).mean()))

    return name, score
