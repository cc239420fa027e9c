"""The data-quality report: the verdict, what is missing, and how values are distributed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from canaryflow.data.contract import Contract
from canaryflow.data.profile import FeatureProfile, Profile
from canaryflow.data.wording import shown
from canaryflow.report import BAD, CANARY, MAIN, Report, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from canaryflow.data.validation import Validation

EXAMPLES_SHOWN = 20
PANELS = 24
BINS = 30
TOP_LABELS = 8


def write_report(validation: Validation, contract: Contract, path: Path) -> None:
    """Write what validation found as one self-contained HTML file.

    Args:
        validation: What `validate` returned.
        contract: The contract it was held against.
        path: Where to write.
    """
    passed = validation.verdict.passed
    report = Report(
        f"The data {'meets' if passed else 'breaks'} its contract",
        validation.verdict,
        validation.verdict.summary,
    )
    target, column = contract.target
    report.facts(
        "The data",
        {
            "rows": validation.rows,
            "columns": len(contract.columns),
            "features": len(contract.features),
            "target": f"{target} ({column.kind})",
            "time": contract.time or "none",
            "contract": contract.digest[:12],
        },
    )
    for name, examples in validation.examples.items():
        rows = [(row, shown(value)) for row, value in examples[:EXAMPLES_SHOWN]]
        report.table(name, ("row", "found"), rows, note="The first rows that break this rule.")
    profile = validation.profile
    if any(feature.missing for feature in profile.features.values()):
        report.figure(
            "Missing values",
            _missing(profile, contract),
            "Share of rows without a value; a red line is a limit.",
        )
    drawn = {name: feature for name, feature in profile.features.items() if _drawable(feature)}
    if drawn:
        caption = "Share of rows by value." + (f" The first {PANELS} columns." if len(drawn) > PANELS else "")
        report.figure("Distributions", _distributions(drawn, target), caption)
    report.table("Columns", *_columns(profile, contract))
    report.write(path)


def _columns(profile: Profile, contract: Contract) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    head = ("column", "kind", "role", "missing", "min", "mean", "max", "most frequent", "meaning")
    rows: list[tuple[Any, ...]] = []
    for name, feature in profile.features.items():
        column = contract.columns[name]
        frequent = ", ".join(list(feature.categories)[:3])
        meaning = " ".join(
            part for part in (column.description, f"({column.unit})" if column.unit else "") if part
        )
        numbers = (feature.minimum, feature.mean, feature.maximum)
        rows.append((name, feature.kind, column.role, feature.missing, *numbers, frequent, meaning))
    return head, rows


def _missing(profile: Profile, contract: Contract) -> Figure:
    shares = {name: feature.missing / max(profile.rows, 1) for name, feature in profile.features.items()}
    shares = {name: share for name, share in sorted(shares.items(), key=lambda item: item[1]) if share}
    figure, axes = new_figure(7.0, 0.8 + 0.24 * len(shares))
    axes.barh(list(shares), list(shares.values()), color=MAIN, height=0.7)
    for index, name in enumerate(shares):
        limit = contract.columns[name].max_missing_fraction
        limit = 0.0 if not contract.columns[name].nullable else limit
        if limit is not None:
            axes.plot([limit, limit], [index - 0.45, index + 0.45], color=BAD, linewidth=2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    axes.grid(True, axis="x", color="#e6e9ef")
    axes.grid(False, axis="y")
    return figure


def _drawable(feature: FeatureProfile) -> bool:
    return bool(feature.categories) or (feature.minimum is not None and sum(feature.counts) > 0)


def _distributions(features: Mapping[str, FeatureProfile], target: str) -> Figure:
    from matplotlib.figure import Figure

    shown_features = dict(list(features.items())[:PANELS])
    lines = -(-len(shown_features) // 4)
    height = 1.9 * lines
    figure = Figure(figsize=(9.0, height))
    # Fixed margins: a computed layout of so many panels takes seconds.
    figure.subplots_adjust(0.05, 0.5 / height, 0.99, 1 - 0.25 / height, wspace=0.3, hspace=0.75)
    grid = figure.subplots(lines, 4, squeeze=False)
    panels = list(grid.flat)
    for axes, (name, feature) in zip(panels, shown_features.items(), strict=False):
        style(axes)
        color = CANARY if name == target else MAIN
        _labels(axes, feature, color) if feature.categories else _histogram(axes, feature, color)
        axes.set_title(name, fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
    for axes in panels[len(shown_features) :]:
        axes.set_axis_off()
    return figure


def _labels(axes: Axes, feature: FeatureProfile, color: str) -> None:
    counts = dict(list(feature.categories.items())[:TOP_LABELS])
    rest = sum(feature.categories.values()) + feature.other - sum(counts.values())
    if rest:
        counts["other"] = rest
    total = max(sum(counts.values()), 1)
    names = [name if len(name) <= 10 else name[:9] + "…" for name in counts]
    axes.bar(range(len(counts)), [count / total for count in counts.values()], color=color, width=0.8)
    axes.set_xticks(range(len(counts)), names, rotation=60 if len(counts) > 4 else 0)


def _histogram(axes: Axes, feature: FeatureProfile, color: str) -> None:
    grid, shares = histogram(feature, BINS)
    axes.bar(grid[:-1], shares, width=np.diff(grid), align="edge", color=color)


def histogram(feature: FeatureProfile, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Shares in bins of equal width, from a profile's bins of equal counts.

    Within a bin of the profile, values are taken as evenly spread.

    Args:
        feature: The profile of a number or an integer with at least one value.
        bins: How many bins; few whole numbers get a bin each.

    Returns:
        The edges of n bins, shape (n + 1,), and the share of values in each, shape (n,).
    """
    low, high = feature.minimum or 0.0, feature.maximum or 0.0
    if feature.kind == "integer" and high - low < 2 * bins:
        return _whole_numbers(feature, low, high)
    if low == high:
        low, high = low - 0.5, high + 0.5
    grid = np.linspace(low, high, bins + 1)
    shares = _below(feature, low, grid)
    # What sits exactly at the smallest value belongs into the first bin.
    shares[0], shares[-1] = 0.0, 1.0
    return grid, np.diff(shares)


def _whole_numbers(feature: FeatureProfile, low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    values = np.arange(low, high + 1)
    shares = np.diff(_below(feature, low, values), prepend=0.0)
    return np.append(values, high + 1) - 0.5, shares


def _below(feature: FeatureProfile, low: float, points: np.ndarray) -> np.ndarray:
    """The share of values at or below each point."""
    edges = [*feature.edges, max(feature.maximum or 0.0, feature.edges[-1])]
    below = np.cumsum(feature.counts) / sum(feature.counts)
    return np.asarray(np.interp(points, [min(low, edges[0]), *edges], [0.0, *below]))
