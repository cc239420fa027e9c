"""A conformed table as a model sees it: float32 numbers, text categories, an encoded target."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from canaryflow.bundle.format import Kind, Problem
from canaryflow.data.contract import Contract
from canaryflow.errors import InputError

_KINDS: dict[str, Kind] = {
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "categorical": "categorical",
}
MAX_CLASSES = 100


@dataclass(frozen=True)
class Dataset:
    """Features and target of n rows.

    Attributes:
        features: One column per feature in the contract's order: Float32 with NaN for null (number, integer,
            boolean), or String with "" for null (categorical). The same values enter the ONNX graph.
        kinds: The features' kinds in a bundle's words.
        target: Shape (n,). Classification: int64 positions in ``classes``; regression: float64.
        problem: What the target makes it.
        classes: The labels, sorted; binary: the second is the positive one. Empty for regression.
        times: Shape (n,), what the contract's time column says, as int64 or float64; None without one.
    """

    features: pl.DataFrame
    kinds: dict[str, Kind]
    target: npt.NDArray[Any]
    problem: Problem
    classes: tuple[str, ...]
    times: npt.NDArray[Any] | None

    def __len__(self) -> int:
        return len(self.target)

    def take(self, rows: npt.NDArray[np.int64]) -> Dataset:
        """The rows at these positions, in this order."""
        times = None if self.times is None else self.times[rows]
        return replace(self, features=self.features[rows], target=self.target[rows], times=times)

    @property
    def categorical(self) -> list[str]:
        """Names of the features that are text."""
        return [name for name, kind in self.kinds.items() if kind == "categorical"]

    @property
    def numeric(self) -> list[str]:
        """Names of the features that are float32."""
        return [name for name, kind in self.kinds.items() if kind != "categorical"]


def read_dataset(table: Path, contract: Contract, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read a table that `canaryflow.data.split` has conformed to the contract.

    Args:
        table: A Parquet file.
        contract: Names features, target and time.
        classes: The labels of a trained model; None finds them in the data.

    Raises:
        InputError: A column is missing, a number is infinite, the target has nulls, a label the model does
            not know, or fewer than two values.
    """
    frame = _read(table, contract)
    kinds = {name: _KINDS[column.kind] for name, column in contract.features.items()}
    features = frame.select(
        pl.col(name).cast(pl.String).fill_null("")
        if kind == "categorical"
        else pl.col(name).cast(pl.Float32).fill_null(float("nan"))
        for name, kind in kinds.items()
    )
    for name, kind in kinds.items():
        if kind != "categorical" and features[name].is_infinite().any():
            raise InputError(
                f"{table}: column {name!r} holds numbers that float32 cannot, expected finite ones"
            )
    target, problem, classes = _target(frame, contract, table, classes)
    times = None
    if contract.time is not None:
        column = frame[contract.time]
        times = (column.dt.epoch("us") if column.dtype == pl.Datetime else column).to_numpy()
    return Dataset(features, kinds, target, problem, classes, times)


def _read(table: Path, contract: Contract) -> pl.DataFrame:
    wanted = [*contract.features, contract.target[0], *([contract.time] if contract.time else [])]
    try:
        schema = pl.read_parquet_schema(table)
        missing = [name for name in wanted if name not in schema]
        if missing:
            raise InputError(
                f"{table}: no column {missing[0]!r}, expected the contract's {', '.join(wanted)}"
            )
        frame = pl.read_parquet(table, columns=wanted)
    except (OSError, pl.exceptions.PolarsError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{table}: cannot be read ({reason}), expected a Parquet file") from error
    if frame.is_empty():
        raise InputError(f"{table}: no rows, expected at least one")
    return frame


def _target(
    frame: pl.DataFrame, contract: Contract, table: Path, classes: tuple[str, ...] | None
) -> tuple[npt.NDArray[Any], Problem, tuple[str, ...]]:
    name, column = contract.target
    values = frame[name]
    if nulls := values.null_count():
        raise InputError(f"{table}: target {name!r} has {nulls} nulls, expected none")
    if column.kind == "number":
        numbers = values.cast(pl.Float64).to_numpy()
        if not np.isfinite(numbers).all():
            raise InputError(f"{table}: target {name!r} holds NaN or infinity, expected finite numbers")
        return numbers, "regression", ()
    labels = values.cast(pl.String)
    if classes is None:
        classes = ("false", "true") if column.kind == "boolean" else tuple(sorted(labels.unique().to_list()))
        if labels.n_unique() < 2:
            raise InputError(
                f"{table}: target {name!r} is always {labels[0]!r}, expected at least two classes"
            )
        if len(classes) > MAX_CLASSES:
            raise InputError(
                f"{table}: target {name!r} has {len(classes)} classes, expected at most {MAX_CLASSES}"
            )
    strange = set(labels.unique().to_list()) - set(classes)
    if strange:
        raise InputError(
            f"{table}: target {name!r} holds {min(strange)!r}, expected one of {', '.join(classes)}"
        )
    codes = labels.replace_strict({label: code for code, label in enumerate(classes)}, return_dtype=pl.Int64)
    return codes.to_numpy(), "binary" if len(classes) == 2 else "multiclass", classes
