"""From rows to a bundle: search, cross-validation, the final fit, the export and its proof."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from canaryflow import __version__
from canaryflow.bundle.format import MODEL, PROFILE, REPORT, Bundle, seal
from canaryflow.bundle.scorer import Scorer
from canaryflow.data.contract import Contract
from canaryflow.data.profile import profile
from canaryflow.data.tables import open_parquet
from canaryflow.errors import GateFailed, InputError
from canaryflow.model import export
from canaryflow.model.dataset import Dataset, read_dataset
from canaryflow.model.estimators import Family, Params, family
from canaryflow.model.folds import Folds, make_folds
from canaryflow.model.importance import permutation_importance
from canaryflow.model.metrics import best_f1_threshold, measure
from canaryflow.model.pyfunc import write_mlmodel
from canaryflow.model.search import Searched, answers, fit, fit_and_answer, search, workers
from canaryflow.model.tracking import Run, Tracking
from canaryflow.names import check_name

_LIBRARIES = ("scikit-learn", "skl2onnx", "onnxruntime", "numpy")
# Metrics on training rows are for the overfitting gap; more rows than this do not move them.
_TRAIN_METRIC_ROWS = 50_000
_PROFILE_DIGITS = 9


@dataclass(frozen=True)
class TrainSpec:
    """What to train.

    Attributes:
        name: The model's name, a DNS label.
        estimator: A name in `canaryflow.model.estimators.FAMILIES`.
        search_trials: Settings to try; 1 takes the estimator's start.
        cv_folds: Folds of the cross-validation.
        seed: Of search, folds and estimator.

    Raises:
        InputError: The name cannot be one.
    """

    name: str
    estimator: str = "hist_gradient_boosting"
    search_trials: int = 5
    cv_folds: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True)
class Fitted:
    """A trained pipeline and how it did on rows it had not seen.

    Attributes:
        pipeline: Fitted on all training rows.
        threshold: Binary: where F1 is largest on out-of-fold answers; else None.
        folds: The metrics of each fold.
        train: The metrics on training rows.
        held_out: How the folds were made.
    """

    pipeline: Any
    threshold: float | None
    folds: tuple[dict[str, float], ...]
    train: dict[str, float]
    held_out: str

    def summary(self) -> dict[str, dict[str, float]]:
        """Mean and standard deviation over the folds, and the training rows' metrics."""
        names = self.folds[0]
        return {
            "train": self.train,
            "folds_mean": {name: float(np.mean([fold[name] for fold in self.folds])) for name in names},
            "folds_std": {name: float(np.std([fold[name] for fold in self.folds])) for name in names},
        }


def train(
    train_table: Path, contract: Contract, spec: TrainSpec, bundle_dir: Path, tracking: Tracking | None
) -> Bundle:
    """Train a model and seal it as a bundle. The same data and seed give the same bundle version.

    Args:
        train_table: A Parquet file that `canaryflow.data.split` wrote.
        contract: Names features, target and time.
        spec: The estimator and how hard to look.
        bundle_dir: Where the bundle goes; missing or empty. It appears whole or not at all.
        tracking: Where the run is logged; None for nowhere.

    Returns:
        The sealed bundle, proved by its own samples.

    Raises:
        InputError: The table, the contract or the spec cannot be used.
        GateFailed: ONNX cannot carry the model exactly; the message says why.
        PlatformError: MLflow cannot be reached or refuses.
    """
    started = time.time()
    chosen = _check(spec)
    if bundle_dir.exists() and (not bundle_dir.is_dir() or any(bundle_dir.iterdir())):
        raise InputError(f"{bundle_dir}: is not empty, expected a folder to be made")
    if tracking is not None:
        tracking.start()
    contract = contract.in_order_of(open_parquet(train_table).schema_arrow.names)
    data = read_dataset(train_table, contract)
    with workers() as pool:
        described = pool.submit(_profile, train_table, contract)
        searched = search(chosen, data, spec.search_trials, spec.cv_folds, spec.seed, pool)
        fitted = _fit(chosen, data, searched.best.params, spec, pool)
        with _folder(bundle_dir) as folder, _run(tracking, spec, started) as run:
            (folder / PROFILE).write_text(json.dumps(described.result()), encoding="utf-8")
            _finish(folder, data, contract, spec, searched, fitted, run, train_table)
            Scorer(Bundle.open(folder)).prove()
            if run is not None:
                _log(run, folder, spec, searched, fitted, data)
    return Bundle.open(bundle_dir)


def _check(spec: TrainSpec) -> Family:
    if spec.search_trials < 1:
        raise InputError(f"search_trials: found {spec.search_trials}, expected at least 1")
    if spec.cv_folds < 2:
        raise InputError(f"cv_folds: found {spec.cv_folds}, expected at least 2")
    if spec.seed < 0:
        raise InputError(f"seed: found {spec.seed}, expected 0 or more")
    return family(spec.estimator)


@contextmanager
def _folder(bundle_dir: Path) -> Iterator[Path]:
    bundle_dir.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{bundle_dir.name}.", dir=bundle_dir.parent))
    try:
        partial.chmod(0o755)
        yield partial
        partial.replace(bundle_dir)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _run(tracking: Tracking | None, spec: TrainSpec, started: float) -> Any:  # noqa: ANN401 - a context of Run | None
    if tracking is None:
        return nullcontext(None)
    return tracking.run(spec.name, {"estimator": spec.estimator}, started)


def _profile(table: Path, contract: Contract) -> dict[str, Any]:
    """The profile, with floats rounded: a sum over threads changes in its last digit from run to run."""
    name, target = contract.target
    return _rounded(profile(table, contract.features | {name: target}).to_dict())  # type: ignore[no-any-return]


def _rounded(value: Any) -> Any:  # noqa: ANN401 - any JSON
    if isinstance(value, float):
        return float(f"{value:.{_PROFILE_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


def _fit(chosen: Family, data: Dataset, params: Params, spec: TrainSpec, pool: ThreadPoolExecutor) -> Fitted:
    folds = make_folds(data, spec.cv_folds, spec.seed)
    running = [
        pool.submit(fit_and_answer, chosen, data, params, spec.seed, part) for part in reversed(folds.parts)
    ]
    # Half of the cores: the folds have the others, and OpenMP's threads must not wait for a core.
    with threadpool_limits(max(1, joblib.cpu_count() // 2)):
        pipeline = fit(chosen, data, params, spec.seed)
    held_out = [future.result() for future in reversed(running)]
    threshold = _threshold(data, folds, held_out) if data.problem == "binary" else None
    some = np.unique(np.linspace(0, len(data) - 1, min(len(data), _TRAIN_METRIC_ROWS)).astype(np.int64))
    seen = data.take(some)
    return Fitted(
        pipeline,
        threshold,
        tuple(
            measure(data.problem, data.target[rows], values, threshold)
            for (_, rows), values in zip(folds.parts, held_out, strict=True)
        ),
        measure(data.problem, seen.target, answers(pipeline, data, seen.features), threshold),
        folds.kind,
    )


def _threshold(data: Dataset, folds: Folds, held_out: list[npt.NDArray[Any]]) -> float:
    truth = np.concatenate([data.target[rows] for _, rows in folds.parts])
    return best_f1_threshold(truth, np.concatenate([values[:, 1] for values in held_out]))


def _finish(
    folder: Path,
    data: Dataset,
    contract: Contract,
    spec: TrainSpec,
    searched: Searched,
    fitted: Fitted,
    run: Run | None,
    table: Path,
) -> None:
    """Write the bundle's files, prove the ONNX against the estimator, and seal."""
    from canaryflow.model.training_report import write_training_report

    (folder / MODEL).write_bytes(export.to_onnx(fitted.pipeline, data))
    export.write_estimator(folder, fitted.pipeline)
    samples = export.probing_rows(data, contract, export.SAMPLE_ROWS, spec.seed)
    export.write_samples(folder, samples, answers(fitted.pipeline, data, samples), contract)
    signature = export.signature_of(data, contract, fitted.threshold)
    write_mlmodel(folder, signature, contract, run.id if run else None)
    provenance = {
        "data_digest": _digest(table),
        "contract_digest": contract.digest,
        "run_id": run.id if run else "",
        "estimator": spec.estimator,
        "params": searched.best.params,
        "seed": spec.seed,
        "rows": len(data),
        "metrics": _finite(fitted.summary()),
        "libraries": {"canaryflow": __version__} | {name: metadata.version(name) for name in _LIBRARIES},
    }
    # The scorer needs a sealed bundle; the report and the measured tolerance come after, then the last seal.
    limit = export.parity_limit(data)
    scorer = Scorer(seal(folder, spec.name, signature, limit, provenance))
    probes = export.probing_rows(data, contract, export.PARITY_ROWS, spec.seed + 1)
    expected = answers(fitted.pipeline, data, probes)
    found = scorer.score(export.to_columns(probes)).values
    worst = export.difference(found, expected)
    if worst > limit:
        raise GateFailed(
            f"export: ONNX answers differ from the estimator's by up to {worst:.2g} over {len(probes)} rows, "
            f"expected at most {limit:.2g}; {spec.estimator} on these features cannot be served exactly"
        )
    columns = export.to_columns(data.features)
    importance = permutation_importance(scorer, columns, data.target, spec.seed)
    parity = {"rows": len(probes), "largest difference": worst, "allowed": limit}
    write_training_report(folder / REPORT, spec, data, contract, searched, fitted, importance, parity)
    seal(folder, spec.name, signature, export.tolerance(found, expected), provenance)


def _digest(table: Path) -> str:
    with table.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _finite(values: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Without what is not a number: JSON has none."""
    return {
        part: {name: value for name, value in numbers.items() if np.isfinite(value)}
        for part, numbers in values.items()
    }


def _log(run: Run, folder: Path, spec: TrainSpec, searched: Searched, fitted: Fitted, data: Dataset) -> None:
    metrics = {f"train_{name}": value for name, value in fitted.train.items()}
    for part, numbers in fitted.summary().items():
        if part != "train":
            metrics |= {f"{part}_{name}": value for name, value in numbers.items()}
    for index, fold in enumerate(fitted.folds):
        metrics |= {f"fold{index}_{name}": value for name, value in fold.items()}
    params = asdict(spec) | searched.best.params | {"train_rows": len(data), "threshold": fitted.threshold}
    run.log(params, metrics, {"bundle_version": Bundle.open(folder, verify=False).version})
    run.artifact(folder / REPORT, "training.html")
    run.artifact(folder / "MLmodel", "MLmodel")
