"""A rollout as a page: what was decided and why, then everything that was seen."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from canaryflow.delivery.evidence import Evidence
from canaryflow.delivery.outcome import Outcome
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.report import BAD, CANARY, GOOD, MAIN, SOFT, Report, new_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Where a metric's numbers are in a sample, see `canaryflow.delivery.observer`.
_COUNT = {"main": 0, "canary": 2}
_HITS = {"main": 1, "canary": 3}
_AGAINST, _FOR = 4, 5

_COLOURS = {"main": MAIN, "canary": CANARY}
_HEADINGS = {"errors": "Errors", "latency": "Slow requests"}


def write_report(outcome: Outcome, plan: RolloutPlan, name: str, path: Path) -> None:
    """Write a rollout's report.

    Args:
        outcome: How it ended.
        plan: What was asked.
        name: The SeldonDeployment.
        path: Where the HTML file goes.
    """
    state = outcome.state
    report = Report(outcome.verdict.summary, outcome.verdict, f"rollout of {name}")
    report.facts("Decision", _decision(outcome))
    if len(outcome.history) > 1:
        _figures(report, outcome, plan)
    if state.evidence:
        _evidence(report, outcome, plan)
    if state.events:
        rows = [(round(age, 1), text) for age, text in state.events]
        report.table("Events", ("seconds", "event"), rows)
    report.facts("Plan", {key.replace("_", " "): _shown(value) for key, value in plan.to_dict().items()})
    report.write(path)


def warm_up() -> None:
    """Draw a figure into nothing: what it loads, and the fonts it finds, are there for the next."""
    figure, axes = new_figure()
    axes.plot([0, 1], [0, 1])
    figure.savefig(io.StringIO(), format="svg")


def _shown(value: object) -> object:
    return ", ".join(map(str, value)) if isinstance(value, list) else value


def _decision(outcome: Outcome) -> dict[str, object]:
    state = outcome.state
    facts: dict[str, object] = {
        "decision": outcome.decision,
        "main before": state.main_version,
        "canary": state.canary_version,
        "decided by": state.by or ("the evidence and the plan's limits" if state.canary_version else ""),
        "reasons": "; ".join(state.reasons),
        "seconds": round(state.age, 1),
    }
    return {key: value for key, value in facts.items() if value not in ("", 0.0)}


def _figures(report: Report, outcome: Outcome, plan: RolloutPlan) -> None:
    samples = outcome.history
    times = [sample["t"] for sample in samples]
    figure, axes = new_figure(height=2.2)
    shares = [*outcome.state.weights, (outcome.state.age, outcome.state.weights[-1][1])]
    axes.step(*zip(*shares, strict=True), where="post", color=CANARY, linewidth=2)
    _axes(axes, "canary's weight, %")
    axes.set_ylim(-2, 102)
    promoted = " At 100 main is updated while it is idle." if outcome.promoted else ""
    report.figure("Weights", figure, f"The share of requests that the canary was given.{promoted}")
    first = next(iter(samples[-1]["metrics"]), None)
    if first is not None:
        figure, axes = new_figure(height=2.4)
        for arm, colour in _COLOURS.items():
            rates = _rates(samples, first, arm, per_second=True)
            axes.plot(times[1:], rates, color=colour, label=arm, linewidth=1.6)
        _axes(axes, "requests a second", legend=True)
        axes.set_ylim(bottom=0)
        report.figure("Request rate", figure)
    for metric in samples[-1]["metrics"]:
        heading = _HEADINGS.get(metric, metric)
        figure, axes = new_figure(height=2.4)
        for arm, colour in _COLOURS.items():
            axes.plot(times[1:], _rates(samples, metric, arm), color=colour, label=arm, linewidth=1.6)
        _axes(axes, "% of requests", legend=True)
        axes.set_ylim(0, max(1.0, axes.get_ylim()[1]))
        report.figure(heading, figure, _meaning(metric, outcome))
    _e_values(report, outcome, plan)


def _meaning(metric: str, outcome: Outcome) -> str:
    if metric == "latency":
        return f"Requests that took longer than {1000 * outcome.state.latency_edge:g} ms, between two looks."
    return "Requests that were answered with a server's error, between two looks."


def _rates(
    samples: Sequence[dict[str, Any]], metric: str, arm: str, *, per_second: bool = False
) -> list[float]:
    """Between each two looks: requests a second, or hits in percent (no point where there was no request)."""
    rates = []
    for before, after in pairwise(samples):
        old, new = before["metrics"].get(metric), after["metrics"].get(metric)
        if old is None or new is None:
            rates.append(float("nan"))
            continue
        count = new[_COUNT[arm]] - old[_COUNT[arm]]
        if per_second:
            rates.append(count / max(after["t"] - before["t"], 1e-3))
        else:
            hits = new[_HITS[arm]] - old[_HITS[arm]]
            rates.append(100 * hits / count if count else float("nan"))
    return rates


def _e_values(report: Report, outcome: Outcome, plan: RolloutPlan) -> None:
    samples = outcome.history
    summary = Evidence.from_dict(plan, outcome.state.evidence).summary()
    figure, axes = new_figure(height=3.0)
    for metric, style in zip(samples[-1]["metrics"], ("-", "--", ":", "-."), strict=False):
        for index, colour, word in ((_AGAINST, BAD, "worse"), (_FOR, GOOD, "not worse")):
            points = [(s["t"], s["metrics"][metric][index]) for s in samples if metric in s["metrics"]]
            axes.plot(
                *zip(*points, strict=True), style, color=colour, label=f"{metric}: {word}", linewidth=1.6
            )
        threshold = math.log10(summary[metric]["threshold"]) if metric in summary else None
        if threshold is not None:
            axes.axhline(threshold, color=SOFT, linewidth=0.9, linestyle=style)
    _axes(axes, "log10 of E", legend=True)
    report.figure(
        "Evidence",
        figure,
        "How strongly the answers speak for the canary being worse than main (red), and for its being within "
        "the margin (green). Each decides at its threshold (grey), and may be watched at any time: "
        "arXiv 2106.02693, 2203.09785.",
    )


def _evidence(report: Report, outcome: Outcome, plan: RolloutPlan) -> None:
    rows = []
    for metric, numbers in Evidence.from_dict(plan, outcome.state.evidence).summary().items():
        for arm in ("main", "canary"):
            count, hits = int(numbers[f"{arm}_n"]), int(numbers[f"{arm}_k"])
            share = f"{100 * hits / count:.3f} %" if count else ""
            rows.append((_HEADINGS.get(metric, metric), arm, count, hits, share))
    report.table("Counted while both arms had traffic", ("metric", "arm", "requests", "hits", "share"), rows)


def _axes(axes: Axes, label: str, *, legend: bool = False) -> None:
    axes.set_xlabel("seconds")
    axes.set_ylabel(label)
    axes.margins(x=0.01)
    if legend:
        axes.legend(frameon=False, fontsize=8, ncols=2)
