"""A contract to start from: what a table's columns look like, for a person to check and sharpen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from canaryflow.data import kinds
from canaryflow.data.contract import TARGET_KINDS, Kind
from canaryflow.data.tables import scan
from canaryflow.errors import InputError

MAX_LABELS = 200
TARGET_NAMES = ("target", "label", "class", "y", "outcome")


def infer_contract(table: Path) -> dict[str, Any]:
    """Guess a contract; see `canaryflow.data.contract.infer`."""
    lazy = scan(table)
    schema = lazy.collect_schema()
    facts = _facts(lazy, schema)
    rows = int(facts["rows"])
    columns = {name: _column(name, dtype, facts, rows) for name, dtype in schema.items()}
    possible = [
        name
        for name, column in columns.items()
        if column["kind"] in TARGET_KINDS and "nullable" not in column
    ]
    if not possible or len(columns) < 2:
        raise InputError(
            f"{table}: found no two columns of which one can be a target, "
            "expected a number, a label or a boolean without missing values"
        )
    named = [name for name in possible if name.lower() in TARGET_NAMES]
    columns[(named or possible)[-1]]["role"] = "target"
    times = [name for name, column in columns.items() if column["kind"] == "timestamp"]
    for name in times:
        columns[name]["role"] = "ignore"
    always = [name for name in times if "nullable" not in columns[name]]
    if always:
        columns[always[0]]["role"] = "time"
    return {"version": 1, "table": {"min_rows": max(1, rows // 2)}, "columns": columns}


def _facts(lazy: pl.LazyFrame, schema: pl.Schema) -> dict[str, Any]:
    expressions = [pl.len().alias("rows")]
    for name, dtype in schema.items():
        expressions.append(kinds.missing(name, dtype).sum().alias(f"missing|{name}"))
        expressions.append(pl.col(name).approx_n_unique().alias(f"distinct|{name}"))
        if dtype == pl.String:
            expressions.append(kinds.padded(name).any().alias(f"padded|{name}"))
        if dtype == pl.String or dtype.is_integer():
            tried: tuple[Kind, ...] = ("boolean", "timestamp", "integer", "number")
            for kind in tried:
                unfit = kinds.unfit(name, kind, dtype).sum()
                expressions.append(unfit.alias(f"{kind}|{name}"))
    return lazy.select(expressions).collect(engine="streaming").row(0, named=True)


def _column(name: str, dtype: pl.DataType, facts: dict[str, Any], rows: int) -> dict[str, Any]:
    missing, distinct = facts[f"missing|{name}"], facts[f"distinct|{name}"]
    kind: str = kinds.kind_of(dtype)
    if dtype == pl.String and missing < rows:
        tried = ("boolean", "timestamp") + (() if facts[f"padded|{name}"] else ("integer", "number"))
        fits = [other for other in tried if not facts[f"{other}|{name}"]]
        kind = fits[0] if fits else "categorical" if distinct <= min(MAX_LABELS, rows // 2 + 1) else "text"
    elif dtype.is_integer() and distinct == 2 and not facts[f"boolean|{name}"]:
        kind = "boolean"
    elif dtype in (pl.Categorical, pl.Enum):
        kind = "categorical"
    column: dict[str, Any] = {"kind": kind}
    if kind == "text":
        column["role"] = "ignore"
    if missing:
        column["nullable"] = True
        column["max_missing_fraction"] = min(1.0, round(2 * missing / rows + 0.01, 3))
    return column
