"""A small search of hyperparameters by cross-validation, the same on every machine for the same seed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import optuna
import polars as pl
from threadpoolctl import threadpool_limits

from canaryflow.model.dataset import Dataset
from canaryflow.model.estimators import Family, Integer, Params
from canaryflow.model.folds import Folds, make_folds
from canaryflow.model.metrics import primary
from canaryflow.model.thresholds import make_exact

# Settings are ranked on a sample: ranks are stable long before fits are cheap.
SEARCH_ROWS = 30_000
# Trials proposed at a time. Fixed, because what a sampler proposes depends on what it has seen.
_BATCH = 2
_LATE_FOLDS = 2


@dataclass(frozen=True)
class Trial:
    """One setting and how it did.

    Attributes:
        params: The hyperparameters.
        score: Mean over the folds of the primary metric; greater is better (a loss is negated).
        scores: The folds' scores.
    """

    params: Params
    score: float
    scores: tuple[float, ...]


@dataclass(frozen=True)
class Searched:
    """All trials in order, the best of them, and how they were judged."""

    trials: tuple[Trial, ...]
    best: Trial
    folds: str
    rows: int


@contextmanager
def workers() -> Iterator[ThreadPoolExecutor]:
    """Threads for fits, one per core, each fit on one thread.

    OpenMP threads of one fit wait for each other in spins: with a busy neighbour two threads were measured
    five times slower than one. Independent fits side by side do not wait; large ones gain most, as small ones
    spend much of their time in Python.
    """
    cores = joblib.cpu_count()
    pool = ThreadPoolExecutor(cores, "fit", initializer=lambda: threadpool_limits(1) and None)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def fit(family: Family, data: Dataset, params: Params, seed: int) -> Any:  # noqa: ANN401 - sklearn is untyped
    """Fit a pipeline on all rows of a data set."""
    # Histogram boosting has no bins for a column without a value, which a sensor that came late has in early
    # folds. A constant says as little, and a split on it is impossible.
    empty = [name for name in data.numeric if data.features[name].is_nan().all()]
    features = data.features.with_columns(pl.lit(0.0, dtype=pl.Float32).alias(name) for name in empty)
    pipeline = family.build(data, params, seed).fit(features, data.target)
    make_exact(pipeline[-1])
    return pipeline


def fit_and_answer(
    family: Family,
    data: Dataset,
    params: Params,
    seed: int,
    rows: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
) -> npt.NDArray[Any]:
    """Fit on some rows and answer for others.

    Returns:
        Shape (held out, classes) or (held out,), as `answers`.
    """
    trained = data.take(rows[0])
    pipeline = fit(family, trained, params, seed)
    return answers(pipeline, data, data.take(rows[1]).features)


def answers(pipeline: Any, data: Dataset, features: Any) -> npt.NDArray[Any]:  # noqa: ANN401 - sklearn is untyped
    """A fitted pipeline's answers.

    Args:
        pipeline: Fitted on class positions, perhaps not on all of them.
        data: Names the problem and all classes.
        features: Rows as ``Dataset.features``.

    Returns:
        float64: probabilities of shape (n, classes), 0 for a class not trained on; or predictions (n,).
    """
    if data.problem == "regression":
        return np.asarray(pipeline.predict(features), dtype=np.float64)
    values = np.zeros((len(features), len(data.classes)))
    values[:, pipeline.classes_] = pipeline.predict_proba(features)
    return values


def search(
    family: Family, data: Dataset, trials: int, folds: int, seed: int, pool: ThreadPoolExecutor
) -> Searched:
    """Try settings and rank them by the mean of the primary metric over folds.

    The first trial is the family's start; the others come from Optuna's tree-structured Parzen estimator
    (Bergstra et al., 2011), proposed in fixed batches so that threads do not change the outcome.

    Args:
        family: The estimator.
        data: Training rows; a seeded sample of at most `SEARCH_ROWS` is used.
        trials: Number of settings, at least 1.
        folds: Folds of the cross-validation.
        seed: Of sample, folds, sampler and estimator.
        pool: Threads to fit on.
    """
    sample = _sample(data, seed)
    parts = make_folds(sample, folds, seed)
    if sample.times is not None:
        # The first forward folds train on few rows, where weaker settings win than on all rows.
        parts = replace(parts, parts=parts.parts[-_LATE_FOLDS:])
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    done: list[Trial] = []
    while len(done) < trials:
        asked = [study.ask() for _ in range(min(_BATCH, trials - len(done)))]
        settings = [
            family.start if not done and index == 0 else family.start | _suggest(family, trial)
            for index, trial in enumerate(asked)
        ]
        running = [_submit(pool, family, sample, params, seed, parts) for params in settings]
        for trial, params, futures in zip(asked, settings, running, strict=True):
            done.append(_collect(sample, params, parts, futures))
            study.tell(trial, done[-1].score)
    return Searched(tuple(done), max(done, key=lambda trial: trial.score), parts.kind, len(sample))


def _sample(data: Dataset, seed: int) -> Dataset:
    if len(data) <= SEARCH_ROWS:
        return data
    rows = np.random.default_rng(seed).choice(len(data), SEARCH_ROWS, replace=False)
    return data.take(np.sort(rows))


def _suggest(family: Family, trial: optuna.trial.Trial) -> Params:
    return {
        name: trial.suggest_int(name, space.low, space.high, log=True)
        if isinstance(space, Integer)
        else trial.suggest_float(name, space.low, space.high, log=True)
        for name, space in family.space.items()
    }


def _submit(
    pool: ThreadPoolExecutor, family: Family, data: Dataset, params: Params, seed: int, folds: Folds
) -> list[Future[npt.NDArray[Any]]]:
    return [pool.submit(fit_and_answer, family, data, params, seed, part) for part in folds.parts]


def _collect(data: Dataset, params: Params, folds: Folds, futures: list[Future[npt.NDArray[Any]]]) -> Trial:
    _, score = primary(data.problem)
    scores = tuple(
        score(data.target[held_out], future.result())
        for (_, held_out), future in zip(folds.parts, futures, strict=True)
    )
    return Trial(params, float(np.mean(scores)), scores)
