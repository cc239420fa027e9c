"""The challenger against the champion: both bundles' answers on the same rows, by a paired bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from canaryflow.bundle.format import Problem
from canaryflow.model.metrics import PRIMARY, row_log_loss

Array = npt.NDArray[Any]

RESAMPLES = 400
CONFIDENCE = 0.95
# Rows are drawn in groups: neighbours in time share weather, promotions, outages and must be drawn together;
# elsewhere random groups only spare time, and this many of them estimate a spread to within a few percent.
_GROUPS = 200
_TIME_GROUPS = 100
_SEED = 0


@dataclass(frozen=True)
class Comparison:
    """By how much the challenger is worse than the champion.

    Attributes:
        metric: The primary metric's name.
        challenger: Its value for the challenger.
        champion: Its value for the champion.
        worse: How much worse the challenger is (negative: better), in the metric's unit; for regression as a
            fraction of the champion's RMSE.
        upper: Upper end of its one-sided confidence interval.
        resampled: Its value in each resample, shape (`RESAMPLES`,).
        groups: Number of groups the rows were drawn in.
    """

    metric: str
    challenger: float
    champion: float
    worse: float
    upper: float
    resampled: npt.NDArray[np.float64]
    groups: int


def compare(
    problem: Problem, truth: Array, challenger: Array, champion: Array, times: Array | None
) -> Comparison:
    """Compare two models' answers on the same rows.

    The rows are resampled with replacement, both models on the same ones (Efron and Tibshirani, 1993); with
    times in groups of neighbouring rows (Kuensch, 1989), else the interval would be too narrow.

    Args:
        problem: Decides the metric: area under the ROC curve, log loss, or RMSE.
        truth: Shape (n,).
        challenger: Its answers, as the scorer gives them.
        champion: Its answers.
        times: Shape (n,), or None.
    """
    group = _groups(len(truth), times)
    count = int(group.max()) + 1
    ours, theirs = (_by_group(problem, truth, values, group, count) for values in (challenger, champion))
    worse = _worse(problem)
    generator = np.random.default_rng(_SEED)
    drawn = [
        np.bincount(generator.integers(0, count, count), minlength=count).astype(np.float64)
        for _ in range(RESAMPLES)
    ]
    resampled = np.array([worse(ours(weights), theirs(weights)) for weights in drawn])
    resampled = resampled[np.isfinite(resampled)]
    upper = float(np.quantile(resampled, CONFIDENCE)) if len(resampled) else float("inf")
    ones = np.ones(count)
    found = worse(ours(ones), theirs(ones))
    return Comparison(PRIMARY[problem], ours(ones), theirs(ones), found, upper, resampled, count)


def _worse(problem: Problem) -> Callable[[float, float], float]:
    if problem == "binary":
        return lambda ours, theirs: theirs - ours
    if problem == "multiclass":
        return lambda ours, theirs: ours - theirs
    return lambda ours, theirs: (ours - theirs) / max(theirs, float(np.finfo(np.float64).tiny))


def _groups(size: int, times: Array | None) -> npt.NDArray[np.int64]:
    """The group of each row, groups of equal size (to one row)."""
    count = min(size, _GROUPS if times is None else _TIME_GROUPS)
    order = (
        np.random.default_rng(_SEED).permutation(size) if times is None else np.argsort(times, kind="stable")
    )
    group = np.empty(size, dtype=np.int64)
    group[order] = np.arange(size) * count // size
    return group


def _by_group(
    problem: Problem, truth: Array, values: Array, group: Array, count: int
) -> Callable[[Array], float]:
    """The primary metric as a function of how often each group was drawn."""
    if problem == "binary":
        return _area_by_group(truth, values[:, 1], group, count)
    values = values.astype(np.float64)
    losses = row_log_loss(truth, values) if problem == "multiclass" else (truth - values) ** 2
    sums = np.bincount(group, weights=losses, minlength=count)
    sizes = np.bincount(group, minlength=count)

    def mean(weights: Array) -> float:
        value = float(weights @ sums / (weights @ sizes))
        return value if problem == "multiclass" else float(np.sqrt(value))

    return mean


def _area_by_group(truth: Array, positive: Array, group: Array, count: int) -> Callable[[Array], float]:
    """The area under the ROC curve: the share of pairs in right order, pairs counted per two groups."""
    true = truth == 1
    scores, of = positive[true], group[true]
    right = np.zeros((count, count))
    for other in range(count):
        negatives = np.sort(positive[~true & (group == other)])
        # A tie counts half, so the mean of both ends.
        below = (np.searchsorted(negatives, scores, "left") + np.searchsorted(negatives, scores, "right")) / 2
        right[:, other] = np.bincount(of, weights=below, minlength=count)
    positives = np.bincount(of, minlength=count)
    totals = np.bincount(group, minlength=count) - positives

    def area(weights: Array) -> float:
        pairs = float((weights @ positives) * (weights @ totals))
        return float(weights @ right @ weights) / pairs if pairs else float("nan")

    return area
