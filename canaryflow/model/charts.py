"""The plots of an evaluation, in the house style."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from canaryflow.model.champion import Comparison
from canaryflow.report import BAD, CANARY, GOOD, MAIN, SOFT, new_figure, style

Array = npt.NDArray[Any]

MAX_CONFUSION = 20
_POINTS = 250
_BINS = 10
_GRID = 101


def curves(truth: Array, positive: Array, champion: Array | None, threshold: float | None) -> Figure:
    """ROC and precision-recall of the challenger, and of the champion beside it.

    Args:
        truth: 0 or 1, both present, shape (n,).
        positive: The challenger's probabilities, shape (n,).
        champion: The champion's.
        threshold: The decision threshold, drawn as a dot; None is 0.5.
    """
    figure, (left, right) = _pair()
    for values, colour, name in ((champion, SOFT, "champion"), (positive, MAIN, "challenger")):
        if values is None:
            continue
        wrong, hit, _ = roc_curve(truth, values)
        precision, recall, _ = precision_recall_curve(truth, values)
        width = 1.8 if name == "challenger" else 1.2
        left.plot(
            *_thin(wrong, hit),
            color=colour,
            linewidth=width,
            label=f"{name} {roc_auc_score(truth, values):.3f}",
        )
        label = f"{name} {average_precision_score(truth, values):.3f}"
        right.plot(*_thin(recall[::-1], precision[::-1]), color=colour, linewidth=width, label=label)
    said = positive.astype(np.float64) >= (0.5 if threshold is None else threshold)
    hits = float((said & (truth == 1)).sum())
    left.plot((said & (truth == 0)).sum() / (truth == 0).sum(), hits / truth.sum(), "o", color=CANARY)
    if said.any():
        right.plot(hits / truth.sum(), hits / said.sum(), "o", color=CANARY)
    left.plot([0, 1], [0, 1], "--", color=SOFT, linewidth=0.8)
    right.axhline(truth.mean(), linestyle="--", color=SOFT, linewidth=0.8)
    _label(left, "false positive rate", "true positive rate")
    _label(right, "recall", "precision")
    right.set_ylim(0, 1.02)
    left.legend(frameon=False, fontsize=8, title="area under ROC", title_fontsize=8, loc="lower right")
    right.legend(frameon=False, fontsize=8, title="average precision", title_fontsize=8, loc="upper right")
    return figure


def calibration(truth: Array, probability: Array, names: Sequence[str]) -> Figure:
    """How often what was given a probability came true, and how probabilities are spread.

    Args:
        truth: 0 or 1, shape (n,).
        probability: Of 1, shape (n,).
        names: What 0 and 1 are.
    """
    figure, (left, right) = _pair()
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, min(_BINS, len(order))) if len(part)]
    said = np.array([probability[part].mean() for part in parts])
    seen = np.array([truth[part].mean() for part in parts])
    error = 1.96 * np.sqrt(np.maximum(seen * (1 - seen), 0) / [len(part) for part in parts])
    top = max(float(said.max()), float(seen.max()), 0.01) * 1.08
    left.plot([0, top], [0, top], "--", color=SOFT, linewidth=0.8)
    left.errorbar(said, seen, yerr=error, color=MAIN, marker="o", markersize=4, linewidth=1.4, elinewidth=1)
    left.set_xlim(0, top)
    left.set_ylim(0, top)
    _label(left, "probability given", "share that came true")
    bins = np.linspace(0, float(max(probability.max(), 0.01)), 31).tolist()
    for code, colour in ((0, SOFT), (1, MAIN)):
        rows = probability[truth == code]
        if len(rows):
            share = np.full(len(rows), 1 / len(rows))
            right.hist(rows, bins=bins, weights=share, color=colour, alpha=0.65, label=str(names[code]))
    right.legend(frameon=False, fontsize=8)
    _label(right, "probability given", "share of its class")
    return figure


def thresholds(truth: Array, positive: Array, chosen: float | None) -> Figure:
    """Precision, recall and F1 as functions of the decision threshold.

    Args:
        truth: 0 or 1, shape (n,).
        positive: Probabilities, shape (n,).
        chosen: The bundle's threshold; None is 0.5.
    """
    grid = np.linspace(0, 1, _GRID)
    rising = np.sort(positive.astype(np.float64))
    hits_rising = np.sort(positive[truth == 1].astype(np.float64))
    said = len(rising) - np.searchsorted(rising, grid)
    hits = len(hits_rising) - np.searchsorted(hits_rising, grid)
    recall = hits / max(len(hits_rising), 1)
    precision = np.divide(hits, said, out=np.full(_GRID, np.nan), where=said > 0)
    f1 = 2 * hits / np.maximum(said + len(hits_rising), 1)
    figure, axes = new_figure(height=2.7)
    axes.plot(grid, precision, color=MAIN, label="precision")
    axes.plot(grid, recall, color=GOOD, label="recall")
    axes.plot(grid, f1, color=CANARY, linewidth=1.8, label="F1")
    axes.axvline(0.5 if chosen is None else chosen, color=SOFT, linestyle="--", linewidth=1)
    axes.legend(frameon=False, fontsize=8)
    _label(axes, "decision threshold", "")
    return figure


def confusion(truth: Array, said: Array, classes: Sequence[str]) -> Figure:
    """Counts of true and said classes, coloured by the share of the true class.

    Args:
        truth: Class positions, shape (n,).
        said: Class positions, shape (n,).
        classes: The labels, at most `MAX_CONFUSION`.
    """
    size = len(classes)
    counts = np.bincount(truth * size + said, minlength=size * size).reshape(size, size)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure, axes = new_figure(min(7.0, 2.6 + 0.75 * size), min(7.0, 1.3 + 0.6 * size))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.grid(False)
    axes.set_xticks(range(size), classes, rotation=45 if size > 6 else 0)
    axes.set_yticks(range(size), classes)
    for row in range(size):
        for column in range(size):
            text = f"{counts[row, column]:,}" + (f"\n{shares[row, column]:.0%}" if size <= 8 else "")
            colour = "white" if shares[row, column] > 0.55 else "#2d3542"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)
    _label(axes, "said", "true")
    return figure


def comparison(found: Comparison, margin: float, unit: str) -> Figure:
    """The resampled differences with the margin and the bound.

    Args:
        found: Challenger against champion.
        margin: How much worse it may be.
        unit: Of the difference.
    """
    figure, axes = new_figure(height=2.5)
    passed = found.upper <= margin
    colour = GOOD if passed else BAD
    spread = float(np.ptp(found.resampled)) if len(found.resampled) else 0.0
    if spread > 0:
        axes.hist(found.resampled, bins=40, color=MAIN, alpha=0.75)
    else:
        axes.axvline(found.worse, color=MAIN, linewidth=3)
    axes.axvline(found.upper, color=colour, linewidth=1.6, label=f"upper bound {found.upper:.4g}")
    axes.axvline(margin, color="#2d3542", linestyle="--", linewidth=1.4, label=f"margin {margin:g}")
    axes.axvline(0, color=SOFT, linewidth=0.8)
    axes.set_yticks([])
    axes.legend(frameon=False, fontsize=8)
    _label(axes, f"← challenger better     worse by ({unit})     challenger worse →", "")
    return figure


def residuals(truth: Array, values: Array, champion: Array | None) -> Figure:
    """Predicted against true, and the errors' distribution.

    Args:
        truth: Shape (n,).
        values: The challenger's predictions, shape (n,).
        champion: The champion's.
    """
    figure, (left, right) = _pair()
    ends = [float(min(truth.min(), values.min())), float(max(truth.max(), values.max()))]
    if len(truth) > 2000:
        left.hexbin(truth, values, gridsize=40, cmap="Blues", mincnt=1, bins="log", linewidths=0.1)
    else:
        left.scatter(truth, values, s=9, color=MAIN, alpha=0.5, linewidths=0)
    left.plot(ends, ends, "--", color=SOFT, linewidth=1)
    _label(left, "true", "predicted")
    errors = values - truth
    low, high = np.quantile(errors, [0.005, 0.995])
    bins = np.linspace(*((low, high) if high > low else (low - 1, high + 1)), 41).tolist()
    if champion is not None:
        right.hist(champion - truth, bins=bins, color=SOFT, alpha=0.6, label="champion")
    right.hist(errors, bins=bins, color=MAIN, alpha=0.65, label="challenger")
    right.axvline(0, color="#2d3542", linewidth=0.8)
    if champion is not None:
        right.legend(frameon=False, fontsize=8)
    _label(right, "error", "rows")
    return figure


def over_time(ours: Sequence[float], theirs: Sequence[float], name: str) -> Figure:
    """A metric in consecutive parts of the test rows.

    Args:
        ours: The challenger's, oldest first.
        theirs: The champion's; empty when there is none.
        name: The metric's.
    """
    figure, axes = new_figure(height=2.3)
    parts = np.arange(1, len(ours) + 1)
    if theirs:
        axes.plot(parts, theirs, color=SOFT, marker="o", markersize=3, label="champion")
    axes.plot(parts, ours, color=MAIN, marker="o", markersize=4, label="challenger")
    axes.set_xticks(parts)
    axes.legend(frameon=False, fontsize=8)
    _label(axes, "part of the test rows", name)
    return figure


def _pair() -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=(7.0, 3.1), layout="constrained")
    left, right = figure.subplots(1, 2)
    style(left)
    style(right)
    return figure, (left, right)


def _thin(x: Array, y: Array) -> tuple[Array, Array]:
    """At most `_POINTS` of a curve's points, its ends among them: a page need not carry each row."""
    if len(x) <= _POINTS:
        return x, y
    chosen = np.unique(np.searchsorted(x, np.linspace(x[0], x[-1], _POINTS)).clip(0, len(x) - 1))
    return x[chosen], y[chosen]


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
