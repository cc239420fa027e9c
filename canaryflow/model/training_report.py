"""What a person reads about a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from canaryflow.data.contract import Contract
from canaryflow.model.dataset import Dataset
from canaryflow.model.importance import Importance
from canaryflow.model.metrics import METRICS, PRIMARY
from canaryflow.model.search import Searched
from canaryflow.report import CANARY, MAIN, SOFT, Report, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from canaryflow.model.training import Fitted, TrainSpec


def write_training_report(
    path: Path,
    spec: TrainSpec,
    data: Dataset,
    contract: Contract,
    searched: Searched,
    fitted: Fitted,
    importance: Sequence[Importance],
    parity: Mapping[str, object],
) -> None:
    """Write the report: what was trained, the folds, the search, the importance.

    Args:
        path: The HTML file.
        spec: What was asked for.
        data: The training rows.
        contract: Names the target.
        searched: The trials.
        fitted: The final model and its folds.
        importance: On training rows.
        parity: What the comparison of ONNX with the estimator found.
    """
    name = PRIMARY[data.problem]
    mean, std = (fitted.summary()[part][name] for part in ("folds_mean", "folds_std"))
    report = Report(
        f"{spec.name}: {spec.estimator} on {len(data):,} rows, {name} {mean:.4g} ± {std:.2g} over folds",
        subtitle=f"target {contract.target[0]} ({data.problem}), {len(data.kinds)} features",
    )
    facts: dict[str, object] = {
        "estimator": spec.estimator,
        **searched.best.params,
        "folds": f"{len(fitted.folds)}, {fitted.held_out}",
        "seed": spec.seed,
    }
    if fitted.threshold is not None:
        facts[f"decision threshold for {data.classes[1]!r}"] = fitted.threshold
    report.facts(
        "The model", facts | {f"ONNX against the estimator: {key}": item for key, item in parity.items()}
    )
    _folds(report, data, fitted)
    _search(report, data, searched)
    if importance:
        report.figure(
            "What the model leans on",
            importance_figure(importance, name),
            f"How much worse {name} gets on training rows when one feature is shuffled.",
        )
    report.write(path)


def importance_figure(importance: Sequence[Importance], metric: str, top: int = 20) -> Figure:
    """Bars of the largest drops, with their spread over the repeats."""
    shown = list(importance[:top])[::-1]
    figure, axes = new_figure(height=0.6 + 0.26 * len(shown))
    axes.barh(
        [item.feature for item in shown],
        [item.drop for item in shown],
        xerr=[item.spread for item in shown],
        color=MAIN,
        error_kw={"ecolor": SOFT, "elinewidth": 1},
    )
    axes.grid(True, axis="x", color="#e6e9ef", linewidth=0.8)
    axes.grid(False, axis="y")
    axes.set_xlabel(f"loss of {metric} when shuffled", fontsize=9)
    return figure


def _folds(report: Report, data: Dataset, fitted: Fitted) -> None:
    summary = fitted.summary()
    columns = [
        "metric",
        "train",
        "folds, mean",
        "gap",
        *(f"fold {index + 1}" for index in range(len(fitted.folds))),
    ]
    rows = []
    for name, metric in METRICS[data.problem].items():
        train, mean = summary["train"][name], summary["folds_mean"][name]
        gap = (train - mean) * (1 if metric.greater_is_better else -1)
        rows.append([metric.title, train, mean, gap, *(fold[name] for fold in fitted.folds)])
    note = "The gap is how much better training rows are answered than held-out ones: overfitting, or drift."
    report.table("Cross-validation", columns, rows, note)


def _search(report: Report, data: Dataset, searched: Searched) -> None:
    name = PRIMARY[data.problem]
    sign = 1 if METRICS[data.problem][name].greater_is_better else -1
    names = list(searched.trials[0].params)
    rows = [
        [
            f"{index + 1} (chosen)" if trial is searched.best else str(index + 1),
            sign * trial.score,
            float(np.std(trial.scores)),
            *(trial.params[key] for key in names),
        ]
        for index, trial in enumerate(searched.trials)
    ]
    note = f"Folds {searched.folds}, over {searched.rows:,} rows. The first setting is the estimator's start."
    report.table("Search", ["trial", name, "± folds", *names], rows, note)
    if len(searched.trials) < 3:
        return
    figure, axes = new_figure(height=2.4)
    scores = np.array([sign * trial.score for trial in searched.trials])
    best = np.maximum.accumulate(scores) if sign > 0 else np.minimum.accumulate(scores)
    steps = np.arange(1, len(scores) + 1)
    axes.plot(steps, best, color=MAIN, drawstyle="steps-post", label="best so far")
    axes.plot(steps, scores, "o", color=CANARY, markersize=5, label="trial")
    axes.set_xticks(steps if len(steps) <= 20 else steps[:: len(steps) // 10])
    axes.set_xlabel("trial", fontsize=9)
    axes.set_ylabel(name, fontsize=9)
    axes.legend(frameon=False, fontsize=9)
    report.figure("Search, trial by trial", figure)
