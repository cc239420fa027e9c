"""The profile: a summary of a data set, a few kilobytes large, that later data is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import polars as pl

from canaryflow.data.contract import Column
from canaryflow.data.kinds import conformed
from canaryflow.data.tables import scan
from canaryflow.errors import InputError

MAX_EDGES = 20
MAX_CATEGORIES = 100
SAMPLE_ROWS = 100_000


@dataclass(frozen=True)
class FeatureProfile:
    """How one column's values are distributed.

    Attributes:
        kind: The contract's kind.
        missing: Number of missing values.
        edges: Upper edges of the bins of a number or integer, rising, at most 20. They are quantiles of an
            evenly spaced sample of rows; the counts are of all rows.
        counts: One more than edges: values <= edges[0], then in (edges[i-1], edges[i]], at last > edges[-1].
        categories: Counts of the (at most 100) most frequent labels; of "false" and "true" for a boolean.
        other: Number of values with a label outside of ``categories``.
        minimum: Smallest number.
        maximum: Largest number.
        mean: Mean of the numbers.
    """

    kind: str
    missing: int
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    categories: Mapping[str, int] = field(default_factory=dict)
    other: int = 0
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None


@dataclass(frozen=True)
class Profile:
    """The distributions of a table's columns.

    Attributes:
        rows: Number of rows.
        features: A profile per column, by name.
    """

    rows: int
    features: Mapping[str, FeatureProfile]

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` reads it back."""
        features = {name: asdict(feature) for name, feature in self.features.items()}
        for feature in features.values():
            feature["edges"], feature["counts"] = list(feature["edges"]), list(feature["counts"])
        return {"rows": self.rows, "features": features}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Profile:
        """Read what `to_dict` wrote."""
        features = {
            name: FeatureProfile(**item | {"edges": tuple(item["edges"]), "counts": tuple(item["counts"])})
            for name, item in data["features"].items()
        }
        return cls(data["rows"], features)


def profile(table: Path, columns: Mapping[str, Column]) -> Profile:
    """Summarize columns of a table in bounded memory.

    Args:
        table: A Parquet file.
        columns: The columns to summarize, by name (a contract's ``columns`` or ``features``). Numbers,
            integers, labels and booleans get a distribution; of a timestamp or a text only the missing values
            are counted.

    Raises:
        InputError: The file cannot be read, or a column is not in it.
    """
    lazy = scan(table)
    absent = [name for name in columns if name not in lazy.collect_schema()]
    if absent:
        raise InputError(f'{table}: found no column "{absent[0]}", expected one to profile')
    frame = conformed(lazy, columns)
    plan = Profiling(frame, columns)
    return plan.result(aggregate(frame, plan.expressions()))


def aggregate(frame: pl.LazyFrame, expressions: Sequence[nw.Expr]) -> dict[str, Any]:
    """One streaming pass over a frame.

    Args:
        frame: The rows.
        expressions: Aggregations of one row each.

    Returns:
        Their values by alias.
    """
    result = nw.from_native(frame).select(*expressions).to_native().collect(engine="streaming")
    return result.row(0, named=True)


class Profiling:
    """The expressions that count a profile, so that they can share one pass with others.

    Args:
        frame: The columns in their kinds' types.
        columns: Which of them to summarize.
    """

    def __init__(self, frame: pl.LazyFrame, columns: Mapping[str, Column]) -> None:
        self._frame = frame
        self._columns = columns
        numbers = [name for name, column in columns.items() if column.kind in ("number", "integer")]
        self._edges = _edges(frame, numbers)

    def expressions(self) -> list[nw.Expr]:
        """Aggregations of one row each, to be selected from the frame together with any others."""
        expressions = [nw.len().alias("rows")]
        for name in self._columns:
            expressions.append(nw.col(name).is_null().cast(nw.Int64()).sum().alias(f"missing|{name}"))
        for name, edges in self._edges.items():
            column = nw.col(name)
            expressions += [
                column.min().alias(f"min|{name}"),
                column.max().alias(f"max|{name}"),
                column.mean().alias(f"mean|{name}"),
            ]
            expressions += [
                (column <= edge).cast(nw.Int64()).sum().alias(f"below|{index}|{name}")
                for index, edge in enumerate(edges)
            ]
        return expressions

    def result(self, row: Mapping[str, Any]) -> Profile:
        """The profile.

        Args:
            row: What the expressions gave, by alias.
        """
        rows = int(row["rows"])
        categories = self._categories()
        features: dict[str, FeatureProfile] = {}
        for name, column in self._columns.items():
            missing = int(row[f"missing|{name}"] or 0)
            if name in self._edges:
                features[name] = _number(name, column.kind, missing, rows, self._edges[name], row)
            elif name in categories:
                top = categories[name]
                other = rows - missing - sum(top.values())
                features[name] = FeatureProfile(column.kind, missing, categories=top, other=other)
            else:
                features[name] = FeatureProfile(column.kind, missing)
        return Profile(rows, features)

    def _categories(self) -> dict[str, dict[str, int]]:
        names = [name for name, column in self._columns.items() if column.kind in ("categorical", "boolean")]
        counts = [
            nw.from_native(self._frame.select(pl.col(name).cast(pl.String).alias("label")))
            .filter(~nw.col("label").is_null())
            .group_by("label")
            .agg(nw.len().alias("rows"))
            .sort("rows", "label", descending=[True, False])
            .head(MAX_CATEGORIES)
            .to_native()
            for name in names
        ]
        frames = pl.collect_all(counts, engine="streaming")
        return {
            name: dict(zip(frame["label"], frame["rows"], strict=True))
            for name, frame in zip(names, frames, strict=True)
        }


def _number(
    name: str, kind: str, missing: int, rows: int, edges: Sequence[float], row: Mapping[str, Any]
) -> FeatureProfile:
    below = [0, *(int(row[f"below|{index}|{name}"] or 0) for index in range(len(edges))), rows - missing]
    bounds = {key: row[f"{key}|{name}"] for key in ("min", "max", "mean")}
    return FeatureProfile(
        kind,
        missing,
        edges=tuple(edges),
        counts=tuple(int(count) for count in np.diff(below)),
        minimum=None if bounds["min"] is None else float(bounds["min"]),
        maximum=None if bounds["max"] is None else float(bounds["max"]),
        mean=None if bounds["mean"] is None else float(bounds["mean"]),
    )


def _edges(frame: pl.LazyFrame, names: Sequence[str]) -> dict[str, tuple[float, ...]]:
    if not names:
        return {}
    rows = frame.select(pl.len()).collect().item()
    sample = frame.select(names).gather_every(max(1, rows // SAMPLE_ROWS)).collect(engine="streaming")
    edges: dict[str, tuple[float, ...]] = {}
    for name in names:
        values = sample[name].drop_nulls().cast(pl.Float64).to_numpy()
        distinct = np.unique(values)
        if len(distinct) > MAX_EDGES:
            # Real values as edges: an interpolated one would part equal numbers by rounding.
            steps = np.arange(1, MAX_EDGES) / MAX_EDGES
            distinct = np.unique(np.quantile(values, steps, method="inverted_cdf"))
        elif len(distinct) > 1:
            distinct = distinct[:-1]
        edges[name] = tuple(float(edge) for edge in distinct)
    return edges
