"""What a person reads about an evaluation."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from canaryflow.model import charts
from canaryflow.model.champion import CONFIDENCE
from canaryflow.model.evaluation import Evaluation, Gates
from canaryflow.model.metrics import METRICS, PRIMARY, measure
from canaryflow.model.training_report import importance_figure
from canaryflow.report import Report
from canaryflow.verdict import Verdict

_PERIODS = 10


def write_evaluation_report(path: Path, evaluation: Evaluation, gates: Gates, verdict: Verdict) -> None:
    """Write the report: the verdict, the metrics, the champion, and the plots of the problem.

    Args:
        path: The HTML file.
        evaluation: What was found.
        gates: What was asked for.
        verdict: What was decided; the report carries it.
    """
    bundle, data = evaluation.bundle, evaluation.data
    provenance = bundle.manifest.provenance
    outcome = "passes its gates" if verdict.passed else "fails its gates"
    report = Report(
        f"{bundle.manifest.name} {bundle.version} {outcome}",
        verdict,
        f"target {bundle.signature.target} ({data.problem}), {provenance.get('estimator', 'an estimator')} "
        f"trained on {provenance.get('rows', 0):,} rows, judged on {len(data):,} it had not seen",
    )
    _metrics(report, evaluation)
    _champion(report, evaluation, gates)
    if data.problem == "regression":
        _regression(report, evaluation)
    else:
        _classification(report, evaluation)
    if evaluation.importance:
        report.figure(
            "What the model leans on",
            importance_figure(evaluation.importance, PRIMARY[data.problem]),
            "How much worse the metric gets on test rows when one feature is shuffled (mean of three).",
        )
    _periods(report, evaluation)
    quantiles = np.quantile(evaluation.latency_ms, [0.5, 0.9, 0.99])
    report.facts(
        "Time to read and score one row",
        {f"p{name} (ms)": float(value) for name, value in zip((50, 90, 99), quantiles, strict=True)},
    )
    report.write(path)


def _metrics(report: Report, evaluation: Evaluation) -> None:
    recorded = evaluation.bundle.manifest.provenance.get("metrics", {})
    champion = evaluation.champion_metrics
    columns = ["metric", "test", "folds", "train", "overfitting gap"] + (
        ["champion, test"] if champion else []
    )
    rows = []
    for name, metric in METRICS[evaluation.data.problem].items():
        found = evaluation.metrics[name]
        train = recorded.get("train", {}).get(name)
        gap = None if train is None else (train - found) * (1 if metric.greater_is_better else -1)
        rows.append(
            [
                f"{metric.title} ({'more' if metric.greater_is_better else 'less'} is better)",
                found,
                recorded.get("folds_mean", {}).get(name),
                train,
                gap,
                *([champion[name]] if champion else []),
            ]
        )
    note = "The gap is how much better training rows are answered than test rows."
    if evaluation.bundle.signature.threshold is not None:
        note += f" Labels are said from probability {evaluation.bundle.signature.threshold:.4g} on."
    report.table("Metrics", columns, rows, note)


def _champion(report: Report, evaluation: Evaluation, gates: Gates) -> None:
    comparison, champion = evaluation.comparison, evaluation.champion
    if comparison is None or champion is None:
        return
    unit = "fraction of the champion's RMSE" if comparison.metric == "rmse" else comparison.metric
    kind = "random groups" if evaluation.data.times is None else "groups of neighbours in time"
    report.figure(
        f"Against the champion {champion.version}",
        charts.comparison(comparison, gates.champion_margin, unit),
        f"How much worse the challenger is on the same rows, in {len(comparison.resampled)} resamples "
        f"of {comparison.groups} {kind}. "
        f"It passes when {CONFIDENCE:.0%} of them lie left of the margin. "
        f"The champion was trained on {champion.manifest.provenance.get('rows', 0):,} rows.",
    )


def _classification(report: Report, evaluation: Evaluation) -> None:
    data, values = evaluation.data, evaluation.values
    signature = evaluation.bundle.signature
    truth = data.target
    if data.problem == "binary":
        said = values[:, 1].astype(np.float64) >= (
            0.5 if signature.threshold is None else signature.threshold
        )
        said = said.astype(np.int64)
        other = evaluation.champion_values
        positive = values[:, 1]
        if 0 < truth.sum() < len(truth):
            report.figure(
                "ROC, and precision against recall",
                charts.curves(truth, positive, None if other is None else other[:, 1], signature.threshold),
                "The dot is the decision threshold. The dashed lines are guessing.",
            )
        report.figure(
            "Calibration",
            charts.calibration(truth, positive, data.classes),
            "Left: among rows given a probability, how many came true; bins hold equally many rows. "
            "Right: the probabilities given to either class.",
        )
        report.figure(
            "Where to decide",
            charts.thresholds(truth, positive, signature.threshold),
            "What another threshold would give; the chosen one has the largest F1 on out-of-fold answers.",
        )
    else:
        said = values.argmax(axis=1)
        report.figure(
            "Calibration",
            charts.calibration((said == truth).astype(np.int64), values.max(axis=1), ("wrong", "right")),
            "The probability of the class that was said, against how often it was right.",
        )
    if len(data.classes) <= charts.MAX_CONFUSION:
        report.figure(
            "Confusion",
            charts.confusion(truth, said, data.classes),
            "Rows by true class (down) and the class that was said (across); shares are of the true class.",
        )
    report.table(
        "Classes", ["class", "rows", "said", "precision", "recall"], _class_rows(truth, said, data.classes)
    )


def _class_rows(truth: np.ndarray, said: np.ndarray, classes: tuple[str, ...]) -> list[list[object]]:
    rows: list[list[object]] = []
    for code, label in enumerate(classes):
        true, named = truth == code, said == code
        hit = int((true & named).sum())
        precision = hit / named.sum() if named.any() else None
        recall = hit / true.sum() if true.any() else None
        rows.append(
            [
                label,
                int(true.sum()),
                int(named.sum()),
                None if precision is None else float(precision),
                None if recall is None else float(recall),
            ]
        )
    return rows


def _regression(report: Report, evaluation: Evaluation) -> None:
    report.figure(
        "Predictions and errors",
        charts.residuals(
            evaluation.data.target, evaluation.values.astype(np.float64), evaluation.champion_values
        ),
        "Left: predicted against true; on the line they agree. Right: the errors (predicted minus true).",
    )


def _periods(report: Report, evaluation: Evaluation) -> None:
    """The primary metric along the test set's time: does it decay?"""
    data = evaluation.data
    if data.times is None or len(data) < 50 * _PERIODS:
        return
    name = PRIMARY[data.problem]
    order = np.argsort(data.times, kind="stable")
    ours: list[float] = []
    theirs: list[float] = []
    for rows in np.array_split(order, _PERIODS):
        ours.append(measure(data.problem, data.target[rows], evaluation.values[rows])[name])
        if evaluation.champion_values is not None:
            theirs.append(measure(data.problem, data.target[rows], evaluation.champion_values[rows])[name])
    report.figure(
        "Over time",
        charts.over_time(ours, theirs, name),
        f"{name} in {_PERIODS} equal parts of the test rows, oldest first.",
    )
