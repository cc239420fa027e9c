"""A fitted pipeline into a bundle's files: ONNX with proof of parity, samples, and the estimator as skops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
import skops.io
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, StringTensorType

from canaryflow.bundle.format import ESTIMATOR, SAMPLES, Bundle, Feature, Signature
from canaryflow.bundle.rows import Columns
from canaryflow.data.contract import Column, Contract
from canaryflow.errors import BundleError, GateFailed
from canaryflow.model.dataset import Dataset

# What the estimators of the registry are made of; everything else in a file is refused before it is loaded.
TRUSTED_TYPES = frozenset(
    {
        "numpy.dtype",
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "sklearn.model_selection._split.KFold",
        "sklearn.model_selection._split.StratifiedKFold",
        "sklearn.neural_network._stochastic_optimizers.AdamOptimizer",
        "sklearn.tree._tree.Tree",
    }
)
PARITY_ROWS = 2000
# Probabilities are float32 in ONNX and float64 in scikit-learn: 5e-7 was the most seen for right conversions.
PROBABILITY_TOLERANCE = 1e-5
# A regression's error in parts of the target's standard deviation.
SPREAD_TOLERANCE = 1e-4
UNKNOWN_CATEGORY = "category not seen in training"
# Read by onnxruntime from 1.14 on, which old serving images have.
_OPSETS = {"": 18, "ai.onnx.ml": 3}
SAMPLE_ROWS = 32
_SIGNIFICANT = 9
# The rounding of float32 near 1.
_LEAST_ERROR = 1e-7
# In parts of an answer; times the above it is the rounding to `_SIGNIFICANT` digits.
_LEAST_SPREAD = 0.01


def to_onnx(pipeline: Any, data: Dataset) -> bytes:  # noqa: ANN401 - sklearn is untyped
    """Convert a fitted pipeline; the same pipeline gives the same bytes.

    Args:
        pipeline: What a `Family` built, fitted.
        data: Names the features and their kinds.

    Returns:
        A graph with one input of shape (n, 1) per feature and the answers as its last output.

    Raises:
        GateFailed: The converter cannot carry the pipeline.
    """
    inputs = [
        (name, StringTensorType([None, 1]) if kind == "categorical" else FloatTensorType([None, 1]))
        for name, kind in data.kinds.items()
    ]
    options = {} if data.problem == "regression" else {id(pipeline): {"zipmap": False}}
    try:
        # Without a name of our own the graph gets a random one, and every training a version of its own.
        graph = convert_sklearn(pipeline, "canaryflow", inputs, options=options, target_opset=_OPSETS)
    except Exception as error:  # the converters have no common base for their errors
        reason = " ".join(str(error).split())[:200]
        raise GateFailed(f"export: ONNX cannot carry this estimator: {reason}") from error
    # The converter lists the operator sets in an order that changes from process to process.
    opsets = sorted(graph.opset_import, key=lambda item: item.domain)
    del graph.opset_import[:]
    graph.opset_import.extend(opsets)
    content: bytes = graph.SerializeToString(deterministic=True)
    return content


def signature_of(data: Dataset, contract: Contract, threshold: float | None) -> Signature:
    """The bundle's signature: bounds from the contract, else from the training data; categories as seen."""
    features = []
    for name, kind in data.kinds.items():
        column = contract.features[name]
        seen = data.features[name]
        categories: tuple[str, ...] = ()
        low = high = None
        if kind == "categorical":
            # "" stands for null where null may come; elsewhere it is a label of its own.
            labels = seen.unique().to_list()
            categories = tuple(sorted(label for label in labels if label or not column.nullable))
        elif kind == "number":
            present = seen.filter(seen.is_finite())
            low = _number(column.min if column.min is not None else present.min())
            high = _number(column.max if column.max is not None else present.max())
        features.append(Feature(name, kind, column.nullable, low, high, categories))
    return Signature(data.problem, contract.target[0], tuple(features), data.classes, threshold)


def to_columns(features: pl.DataFrame) -> Columns:
    """Features of a `Dataset` as the ONNX graph's inputs: arrays of shape (n, 1)."""
    return {
        series.name: series.to_numpy()
        .astype(object if series.dtype == pl.String else np.float32)
        .reshape(-1, 1)
        for series in features
    }


def probing_rows(data: Dataset, contract: Contract, count: int, seed: int) -> pl.DataFrame:
    """Rows that a server may meet: some of the data's, and copies of them with a null or an unknown category.

    Args:
        data: Where the rows come from.
        contract: Tells which features may be null.
        count: Number of unchanged rows, at most; each changed feature adds a twentieth of it, at least one.
        seed: Of the choice of rows.
    """
    chosen = np.random.default_rng(seed).choice(len(data), min(count, len(data)), replace=False)
    rows = data.features[np.sort(chosen)]
    some = rows[: max(1, len(rows) // 20)]
    parts = [rows]
    for name, kind in data.kinds.items():
        if contract.features[name].nullable:
            null = pl.lit("") if kind == "categorical" else pl.lit(float("nan"), dtype=pl.Float32)
            parts.append(some.with_columns(null.alias(name)))
        if kind == "categorical":
            parts.append(some.with_columns(pl.lit(UNKNOWN_CATEGORY).alias(name)))
    return pl.concat(parts)


def parity_limit(data: Dataset) -> float:
    """How far an ONNX answer may be from the estimator's, in the answer's own unit."""
    if data.problem != "regression":
        return PROBABILITY_TOLERANCE
    return SPREAD_TOLERANCE * max(float(data.target.std()), float(np.finfo(np.float32).tiny))


def difference(answers: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """The largest distance between two sets of answers; infinite where one is NaN."""
    distance = np.abs(answers.astype(np.float64) - expected)
    return float(np.where(np.isnan(distance), np.inf, distance).max(initial=0.0))


def tolerance(answers: npt.NDArray[Any], expected: npt.NDArray[Any]) -> float:
    """A bundle's tolerance: ten times the error seen, for processors that round in another order.

    The least one follows the spread of a regression's answers: where they are all far below 1, or closer to
    each other than that, a fixed one would let any answer pass.

    Args:
        answers: ONNX's, shape (n,) or (n, classes).
        expected: The estimator's, of the same shape.

    Returns:
        How far an answer may be from the recorded one, times ``max(1, |answer|)``.
    """
    scale = np.maximum(1.0, np.abs(expected))
    least = _LEAST_ERROR
    if expected.ndim == 1:
        # Never below what the digits of the recorded answers leave open.
        spread = max(
            float(expected.std() / scale.max()), _LEAST_SPREAD * float(np.abs(expected / scale).max())
        )
        least *= min(1.0, spread)
    return 10 * max(difference(answers / scale, expected / scale), least)


def write_samples(folder: Path, rows: pl.DataFrame, expected: npt.NDArray[Any], contract: Contract) -> None:
    """Write ``samples.json``: rows as JSON objects and the estimator's answers.

    Args:
        folder: The bundle's folder.
        rows: From `probing_rows`.
        expected: The estimator's answers for them.
        contract: Tells what each value was before it became float32 or text.
    """
    columns = contract.features
    inputs = [
        {name: _plain(value, columns[name]) for name, value in row.items()}
        for row in rows.iter_rows(named=True)
    ]
    # Beyond this many digits threads of a forest's prediction change the sum's order, and so the version.
    answers = [
        [_round(value) for value in row] if isinstance(row, list) else _round(row)
        for row in expected.tolist()
    ]
    text = json.dumps({"inputs": inputs, "answers": answers}, ensure_ascii=False, allow_nan=False)
    (folder / SAMPLES).write_text(text, encoding="utf-8")


def write_estimator(folder: Path, pipeline: Any) -> None:  # noqa: ANN401 - sklearn is untyped
    """Write ``model.skops``.

    Raises:
        GateFailed: The pipeline holds a type outside of `TRUSTED_TYPES`, so nobody could load it.
    """
    content = skops.io.dumps(pipeline)
    strange = set(skops.io.get_untrusted_types(data=content)) - TRUSTED_TYPES
    if strange:
        raise GateFailed(
            f"export: the estimator holds {', '.join(sorted(strange))}, expected only types on the allow-list"
        )
    (folder / ESTIMATOR).write_bytes(content)


def load_estimator(bundle: Bundle) -> Any:  # noqa: ANN401 - sklearn is untyped
    """Load a bundle's scikit-learn pipeline.

    skops is no sandbox; the types are checked against the allow-list before anything is built.

    Raises:
        BundleError: The bundle has none, or it holds types outside of `TRUSTED_TYPES`.
    """
    file = bundle.file(ESTIMATOR)
    strange = set(skops.io.get_untrusted_types(file=file)) - TRUSTED_TYPES
    if strange:
        raise BundleError(
            f"{file}: holds {', '.join(sorted(strange))}, expected only types on the allow-list"
        )
    return skops.io.load(file, trusted=sorted(TRUSTED_TYPES))


def _number(value: Any) -> float | None:  # noqa: ANN401 - the contract's bounds are of any kind
    return None if value is None else float(value)


def _round(value: float) -> float:
    return float(f"{value:.{_SIGNIFICANT}g}")


def _plain(value: Any, column: Column) -> Any:  # noqa: ANN401 - a JSON value
    if column.kind == "categorical":
        return None if value == "" and column.nullable else value
    if value != value:
        return None
    if column.kind == "boolean":
        return bool(value)
    return int(value) if column.kind == "integer" else value
