"""The gate before the registry: thresholds, base rate, champion, parity, latency of what will be served."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from canaryflow.bundle.format import ESTIMATOR, SAMPLES, Bundle
from canaryflow.bundle.rows import Columns, RowError
from canaryflow.bundle.scorer import Scorer
from canaryflow.data.contract import Contract
from canaryflow.data.tables import open_parquet
from canaryflow.errors import BundleError, InputError
from canaryflow.model import export
from canaryflow.model.champion import CONFIDENCE, Comparison, compare
from canaryflow.model.dataset import Dataset, read_dataset
from canaryflow.model.importance import Importance, permutation_importance
from canaryflow.model.metrics import METRICS, PRIMARY, base_rate, check_thresholds, measure
from canaryflow.model.search import answers
from canaryflow.model.tracking import Tracking
from canaryflow.verdict import Check, Verdict

_PARITY_ROWS = 5_000
_LATENCY_ROWS = 300
_LATENCY_ROUNDS = 3
_LATENCY_WARM_UP = 20
_SEED = 0


@dataclass(frozen=True)
class Gates:
    """What a model must hold.

    Attributes:
        thresholds: Metric names and bounds: lower bounds where greater is better, upper bounds else.
        champion_margin: By how much the primary metric may be worse than the champion's (AUC, log loss; for
            regression a fraction of the champion's RMSE), at 95 % confidence.
        max_latency_ms: Upper bound of the 99th percentile of the time to read and score one row, in the
            quietest of three rounds.
    """

    thresholds: Mapping[str, float] = field(default_factory=dict)
    champion_margin: float = 0.005
    max_latency_ms: float = 50.0


@dataclass(frozen=True)
class Evaluation:
    """What was found out about a bundle; the report draws it.

    Attributes:
        bundle: The bundle.
        data: The test rows.
        values: Its answers for them.
        metrics: Its metrics.
        importance: Of its features on test rows.
        latency_ms: Times of single rows, shape (k,), milliseconds.
        champion: The champion's bundle, when there is one.
        champion_values: Its answers.
        champion_metrics: Its metrics.
        comparison: Challenger against champion.
    """

    bundle: Bundle
    data: Dataset
    values: npt.NDArray[Any]
    metrics: dict[str, float]
    importance: list[Importance]
    latency_ms: npt.NDArray[np.float64]
    champion: Bundle | None = None
    champion_values: npt.NDArray[Any] | None = None
    champion_metrics: dict[str, float] | None = None
    comparison: Comparison | None = None


def evaluate(
    bundle_dir: Path,
    test_table: Path,
    contract: Contract,
    champion_dir: Path | None,
    gates: Gates,
    report: Path,
    tracking: Tracking | None,
) -> Verdict:
    """Judge a bundle by its own answers on rows it has not seen, and write the report.

    Args:
        bundle_dir: The challenger.
        test_table: A Parquet file that `canaryflow.data.split` wrote.
        contract: Names features, target and time.
        champion_dir: The reigning champion's bundle; None when there is none.
        gates: What must hold.
        report: Where the HTML goes.
        tracking: Where metrics and report are logged, to the run that trained the bundle; None for nowhere.

    Returns:
        The verdict, which the report carries too.

    Raises:
        InputError: A gate, the table or the contract cannot be used with this bundle.
        BundleError: A bundle is not whole.
        PlatformError: MLflow cannot be reached or refuses.
    """
    from canaryflow.model.evaluation_report import write_evaluation_report

    bundle = Bundle.open(bundle_dir)
    _check_gates(gates, bundle)
    if tracking is not None:
        tracking.start()
    contract = contract.in_order_of(open_parquet(test_table).schema_arrow.names)
    data = _test_rows(test_table, contract, bundle)
    scorer = Scorer(bundle)
    columns = _columns(scorer, test_table)
    values = scorer.score(columns).values
    signature = bundle.signature
    metrics = measure(data.problem, data.target, values, signature.threshold)
    checks = [*_threshold_checks(gates, metrics, data), _base_rate_check(data, metrics)]
    parity = _parity_check(scorer, data, contract)
    latency = _latency(scorer)
    importance = permutation_importance(scorer, columns, data.target)
    evaluation = Evaluation(bundle, data, values, metrics, importance, latency)
    if champion_dir is not None:
        evaluation, check = _against_champion(evaluation, champion_dir, test_table, gates)
        checks.append(check)
    checks += [parity, _latency_check(latency, gates)]
    verdict = Verdict("evaluate", tuple(checks), _summary(evaluation, checks))
    write_evaluation_report(report, evaluation, gates, verdict)
    if tracking is not None:
        _log(tracking, evaluation, verdict, report)
    return verdict


def _check_gates(gates: Gates, bundle: Bundle) -> None:
    check_thresholds(gates.thresholds, bundle.signature.problem)
    if not (math.isfinite(gates.champion_margin) and gates.champion_margin >= 0):
        raise InputError(f"champion_margin: found {gates.champion_margin}, expected a number from 0 on")
    if not gates.max_latency_ms > 0:
        raise InputError(f"max_latency_ms: found {gates.max_latency_ms}, expected a number above 0")


def _test_rows(table: Path, contract: Contract, bundle: Bundle) -> Dataset:
    signature = bundle.signature
    if contract.target[0] != signature.target:
        raise InputError(
            f"{bundle.path}: predicts {signature.target!r}, expected the target {contract.target[0]!r}"
        )
    if set(contract.features) != set(signature.names):
        odd = sorted(set(contract.features) ^ set(signature.names))[0]
        where = "the contract" if odd in contract.features else "the bundle"
        raise InputError(f"feature {odd!r}: only in {where}, expected the bundle and the contract to agree")
    data = read_dataset(table, contract, signature.classes or None)
    if data.problem != signature.problem:
        raise InputError(f"{bundle.path}: a {signature.problem} model, expected one of {data.problem}")
    return data


def _columns(scorer: Scorer, table: Path) -> Columns:
    """The rows as the server would read them."""
    names = [name for name in scorer.rows.names if name in pl.read_parquet_schema(table)]
    frame = pl.read_parquet(table, columns=names)
    return scorer.rows.from_table({series.name: series.to_numpy() for series in frame})


def _threshold_checks(gates: Gates, metrics: Mapping[str, float], data: Dataset) -> list[Check]:
    checks = []
    for name, bound in gates.thresholds.items():
        found = metrics[name]
        metric = METRICS[data.problem][name]
        passed = found >= bound if metric.greater_is_better else found <= bound
        word = "at least" if metric.greater_is_better else "at most"
        checks.append(Check(metric.title, passed, f"{name} {found:.4g}", f"{word} {bound:g}"))
    return checks


def _base_rate_check(data: Dataset, metrics: Mapping[str, float]) -> Check:
    name, bound = base_rate(data.problem, data.target)
    title = METRICS[data.problem][name].title
    return Check(
        "better than a constant answer",
        metrics[name] < bound,
        f"{title} {metrics[name]:.4g}",
        f"below {bound:.4g}",
    )


def _parity_check(scorer: Scorer, data: Dataset, contract: Contract) -> Check:
    """ONNX against the estimator on test rows, on nulls and on unknown categories."""
    name = "serves what was trained (ONNX against the estimator)"
    limit = export.parity_limit(data)
    expected_words = f"differences of at most {limit:.2g}"
    try:
        proved = scorer.prove()
    except BundleError as error:
        return Check(name, False, str(error), f"the answers recorded in {SAMPLES}")
    if ESTIMATOR not in scorer.bundle.manifest.files:
        return Check(name, True, f"{proved} samples as recorded", expected_words)
    rows = export.probing_rows(data, contract, _PARITY_ROWS, _SEED)
    estimator = export.load_estimator(scorer.bundle)
    found = scorer.score(export.to_columns(rows)).values
    worst = export.difference(found, answers(estimator, data, rows))
    return Check(name, worst <= limit, f"at most {worst:.2g} over {len(rows):,} rows", expected_words)


def _latency(scorer: Scorer) -> npt.NDArray[np.float64]:
    """Milliseconds to read one row and score it, for each of some rows, in the quietest of some rounds.

    A neighbour that takes the processor for a moment makes a round's tail; it does not make all of them.
    """
    rows = json.loads(scorer.bundle.file(SAMPLES).read_bytes())["inputs"]
    for row in rows[:_LATENCY_WARM_UP]:
        scorer.score(scorer.rows.from_records([row]))
    rounds = np.empty((_LATENCY_ROUNDS, _LATENCY_ROWS))
    for place in np.ndindex(rounds.shape):
        row = rows[place[1] % len(rows)]
        started = time.perf_counter()
        scorer.score(scorer.rows.from_records([row]))
        rounds[place] = 1000 * (time.perf_counter() - started)
    quietest: npt.NDArray[np.float64] = rounds[np.quantile(rounds, 0.99, axis=1).argmin()]
    return quietest


def _latency_check(latency: npt.NDArray[np.float64], gates: Gates) -> Check:
    p99 = float(np.quantile(latency, 0.99))
    return Check(
        "latency of one row, 99th percentile",
        p99 <= gates.max_latency_ms,
        f"{p99:.3g} ms over {len(latency)} rows, the quietest of {_LATENCY_ROUNDS} rounds",
        f"at most {gates.max_latency_ms:g} ms",
    )


def _against_champion(
    evaluation: Evaluation, champion_dir: Path, table: Path, gates: Gates
) -> tuple[Evaluation, Check]:
    champion = Bundle.open(champion_dir)
    name = f"no worse than the champion {champion.version}"
    expected = f"worse by at most {gates.champion_margin:g} at {CONFIDENCE:.0%} confidence"
    ours, theirs = evaluation.bundle.signature, champion.signature
    comparable = (ours.problem, ours.target, ours.classes) == (theirs.problem, theirs.target, theirs.classes)
    if not comparable:
        found = f"a {theirs.problem} model of {theirs.target!r} with classes {list(theirs.classes)}"
        return evaluation, Check(
            name, False, found, "the challenger's target and classes, or a new model name"
        )
    scorer = Scorer(champion)
    there = pl.read_parquet_schema(table)
    if absent := [feature for feature in scorer.rows.names if feature not in there]:
        return evaluation, Check(
            name, False, f"cannot score the test rows: no column {absent[0]!r}", "a column for each feature"
        )
    try:
        values = scorer.score(_columns(scorer, table)).values
    except RowError as error:
        return evaluation, Check(name, False, f"cannot score the test rows: {error}", expected)
    data = evaluation.data
    comparison = compare(data.problem, data.target, evaluation.values, values, data.times)
    metrics = measure(data.problem, data.target, values, theirs.threshold)
    found = f"{comparison.metric} {comparison.challenger:.4g} against {comparison.champion:.4g}: " + (
        f"worse by at most {comparison.upper:.3g}"
        if comparison.upper >= 0
        else f"better by at least {-comparison.upper:.3g}"
    )
    if comparison.worse <= gates.champion_margin < comparison.upper:
        found += f", and {len(data):,} rows cannot tell it closer"
    full = Evaluation(
        evaluation.bundle,
        data,
        evaluation.values,
        evaluation.metrics,
        evaluation.importance,
        evaluation.latency_ms,
        champion,
        values,
        metrics,
        comparison,
    )
    return full, Check(name, comparison.upper <= gates.champion_margin, found, expected)


def _summary(evaluation: Evaluation, checks: list[Check]) -> str:
    failed = [check for check in checks if not check.passed]
    name = PRIMARY[evaluation.data.problem]
    subject = f"{evaluation.bundle.manifest.name} {evaluation.bundle.version}"
    reached = f"{name} {evaluation.metrics[name]:.4g} on {len(evaluation.data):,} rows"
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        return (
            f"{subject} fails: {failed[0].name}{more}: found {failed[0].found}, expected {failed[0].expected}"
        )
    if evaluation.comparison is None:
        return f"{subject} passes: {reached}; there is no champion yet"
    comparison = evaluation.comparison
    return f"{subject} passes: {reached}, the champion's {comparison.champion:.4g}"


def _log(tracking: Tracking, evaluation: Evaluation, verdict: Verdict, report: Path) -> None:
    """Log to the training's run; a bundle without one (trained elsewhere) gets a run of its own."""
    provenance = evaluation.bundle.manifest.provenance
    trained = provenance.get("metrics", {}).get("train", {})
    metrics = {f"test_{name}": value for name, value in evaluation.metrics.items()}
    for name, value in evaluation.metrics.items():
        if name in trained:
            sign = 1 if METRICS[evaluation.data.problem][name].greater_is_better else -1
            metrics[f"gap_{name}"] = sign * (trained[name] - value)
    metrics["latency_p99_ms"] = float(np.quantile(evaluation.latency_ms, 0.99))
    if evaluation.comparison is not None:
        metrics["worse_than_champion"] = evaluation.comparison.worse
        metrics["worse_than_champion_upper"] = evaluation.comparison.upper
    tags = {"evaluation": "passed" if verdict.passed else "failed", "evaluation_summary": verdict.summary}
    if provenance.get("run_id"):
        run = tracking.resume(provenance["run_id"])
        run.log(metrics=metrics, tags=tags)
        run.artifact(report, "evaluation.html")
        return
    with tracking.run(f"{evaluation.bundle.manifest.name} evaluation", tags) as run:
        run.log(metrics=metrics)
        run.artifact(report, "evaluation.html")
