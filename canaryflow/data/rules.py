"""The contract's rules as expressions that find the rows which break them.

The expressions are narwhals', over columns that are in their kinds' types already, so another engine than
polars can evaluate the same rules.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import narwhals as nw
import polars as pl

from canaryflow.data import kinds
from canaryflow.data.contract import Column, Contract
from canaryflow.data.wording import shown
from canaryflow.verdict import Severity

UNFIT = "unfit|"
RAW = "raw|"
ROW = "row|"


@dataclass(frozen=True)
class Rule:
    """What must hold for the values of one column.

    Attributes:
        name: For people: "distance: at most 6000".
        column: The column's name.
        expected: For people: "at most 6000".
        broken: True where a row breaks the rule.
        severity: Whether breaking it fails the gate.
        allowed_fraction: Share of rows that may break it.
    """

    name: str
    column: str
    expected: str
    broken: nw.Expr
    severity: Severity
    allowed_fraction: float = 0.0


def prepared(table: pl.LazyFrame, contract: Contract) -> pl.LazyFrame:
    """The contract's columns that the table has, each in its kind's type, as the rules want them.

    Beside a column ``x`` there are ``raw|x``, its value as it was found, and ``unfit|x``, whether that does
    not fit the kind. ``row|`` counts rows from 1.
    """
    schema = table.collect_schema()
    present = {name: column for name, column in contract.columns.items() if name in schema}
    expressions = [pl.col(ROW)]
    for name, column in present.items():
        expressions.append(kinds.conform(name, column.kind, schema[name]))
        expressions.append(pl.col(name).alias(RAW + name))
        if kinds.may_be_unfit(column.kind, schema[name]):
            expressions.append(kinds.unfit(name, column.kind, schema[name]).alias(UNFIT + name))
    return table.with_row_index(ROW, offset=1).select(expressions)


def rules_of(contract: Contract, frame: pl.LazyFrame) -> list[Rule]:
    """Every rule on the columns that `prepared` found.

    Args:
        contract: The contract.
        frame: What `prepared` gave.
    """
    present = frame.collect_schema().names()
    return [
        rule
        for name, column in contract.columns.items()
        if name in present
        for rule in _rules(name, column, UNFIT + name in present)
    ]


def _rules(name: str, column: Column, may_be_unfit: bool) -> Iterator[Rule]:
    value = nw.col(name)
    missing = value.is_null()
    if may_be_unfit:
        unfit = nw.col(UNFIT + name)
        missing = missing & ~unfit
        yield Rule(f"{name}: {column.kind}", name, kinds.EXPECTED[column.kind], unfit, "error")
    if not column.nullable:
        yield Rule(f"{name}: never missing", name, "no missing value", missing, column.severity)
    elif column.max_missing_fraction is not None:
        share = f"at most {column.max_missing_fraction:.4g} of the rows missing"
        yield Rule(f"{name}: {share}", name, share, missing, column.severity, column.max_missing_fraction)
    for expected, broken in _value_rules(value, column):
        yield Rule(f"{name}: {expected}", name, expected, broken, column.severity)


def _value_rules(value: nw.Expr, column: Column) -> Iterator[tuple[str, nw.Expr]]:
    low, high = column.bounds
    unit = f" {column.unit}" if column.unit else ""
    if low is not None:
        yield f"at least {shown(low).strip(chr(34))}{unit}", value < low
    if high is not None:
        yield f"at most {shown(high).strip(chr(34))}{unit}", value > high
    if column.pattern is not None:
        yield f"like {column.pattern}", ~value.str.contains(rf"\A(?:{column.pattern})\z")
    if column.allowed is not None:
        listed = ", ".join(str(item) for item in column.allowed[:8])
        more = f" and {len(column.allowed) - 8} more" if len(column.allowed) > 8 else ""
        yield f"one of {listed}{more}", ~value.is_in(column.allowed)


def counts(rules: list[Rule]) -> list[nw.Expr]:
    """Aggregations that count the rows which break each rule (aliases ``rule|0``, ``rule|1``, ...)."""
    # As integers: Spark sums no booleans.
    return [rule.broken.cast(nw.Int64()).sum().alias(f"rule|{index}") for index, rule in enumerate(rules)]


def examples(frame: pl.LazyFrame, rules: list[Rule], limit: int) -> list[list[tuple[int, Any]]]:
    """The first rows that break each rule.

    Args:
        frame: What `prepared` gave.
        rules: The rules to look for.
        limit: Most examples for a rule.

    Returns:
        For each rule, row numbers (from 1) and the values found there.
    """
    queries = [
        nw.from_native(frame).filter(rule.broken).select(ROW, RAW + rule.column).head(limit).to_native()
        for rule in rules
    ]
    frames = pl.collect_all(queries, engine="streaming")
    return [list(zip(found[ROW], found.to_series(1), strict=True)) for found in frames]


def told(broken: int, rows: int, found: list[tuple[int, Any]] | None = None) -> str:
    """How many rows break a rule, with the first of them: "23 of 1,000 rows, for example 7125 in row 18"."""
    text = f"{broken:,} of {rows:,} rows"
    if found:
        row, value = found[0]
        text += (
            f", for example row {row:,}" if value is None else f", for example {shown(value)} in row {row:,}"
        )
    return text


def absent(contract: Contract, schema: Mapping[str, Any]) -> list[str]:
    """The contract's columns that a table lacks."""
    return [name for name in contract.columns if name not in schema]
