"""Validation: does a table meet its contract? One pass if it does, a second for examples if it does not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from canaryflow.data import rules, uniqueness
from canaryflow.data.contract import Contract
from canaryflow.data.profile import Profile, Profiling, aggregate
from canaryflow.data.rules import Rule, told
from canaryflow.data.tables import scan
from canaryflow.data.wording import nearest, shown
from canaryflow.verdict import Check, Verdict

MAX_EXAMPLES = 100


@dataclass(frozen=True)
class Validation:
    """What was found in a table.

    Attributes:
        verdict: Whether it meets the contract, rule by rule.
        profile: How its columns' values are distributed.
        rows: Number of rows.
        examples: For each broken rule, by the check's name: up to 100 row numbers (from 1) and values.
    """

    verdict: Verdict
    profile: Profile
    rows: int
    examples: Mapping[str, list[tuple[int, Any]]] = field(default_factory=dict)


def validate(table: Path, contract: Contract) -> Validation:
    """Hold a table against a contract, in bounded memory.

    Args:
        table: A Parquet file.
        contract: What it must look like.

    Returns:
        The verdict, with every rule's count of broken rows; a broken contract is not an exception.

    Raises:
        InputError: The file is missing or is not Parquet.
    """
    lazy = scan(table)
    contract = contract.in_order_of(lazy.collect_schema().names())
    frame = rules.prepared(lazy, contract)
    present = {name: column for name, column in contract.columns.items() if name in lazy.collect_schema()}
    all_rules = rules.rules_of(contract, frame)
    profiling = Profiling(frame, present)
    row = aggregate(frame, [*profiling.expressions(), *rules.counts(all_rules)])
    rows = int(row["rows"])
    broken = {index: int(row[f"rule|{index}"] or 0) for index in range(len(all_rules))}
    found = _examples(frame, all_rules, broken, rows)
    checks = [
        *_column_checks(lazy, contract),
        _enough_rows(contract, rows),
        *_uniqueness_checks(lazy, contract, rows),
        *(_check(rule, broken[index], rows, found.get(rule.name)) for index, rule in enumerate(all_rules)),
    ]
    verdict = Verdict("validate", tuple(checks), _summary(checks, rows))
    return Validation(verdict, profiling.result(row), rows, found)


def _examples(
    frame: pl.LazyFrame, all_rules: list[Rule], broken: Mapping[int, int], rows: int
) -> dict[str, list[tuple[int, Any]]]:
    failed = [rule for index, rule in enumerate(all_rules) if _fails(rule, broken[index], rows)]
    found = rules.examples(frame, failed, MAX_EXAMPLES) if failed else []
    return {rule.name: values for rule, values in zip(failed, found, strict=True)}


def _fails(rule: Rule, broken: int, rows: int) -> bool:
    return broken > rule.allowed_fraction * rows


def _check(rule: Rule, broken: int, rows: int, found: list[tuple[int, Any]] | None) -> Check:
    passed = not _fails(rule, broken, rows)
    return Check(rule.name, passed, told(broken, rows, found), rule.expected, rule.severity)


def _column_checks(lazy: pl.LazyFrame, contract: Contract) -> Iterator[Check]:
    schema = lazy.collect_schema()
    missing = rules.absent(contract, schema)
    extra = [name for name in schema.names() if name not in contract.columns]
    for name in missing:
        yield Check(f"{name}: there", False, f"no such column{nearest(name, extra)}", "the column")
    if not missing:
        yield Check(
            "columns: all there", True, f"{len(contract.columns)} columns", "every column of the contract"
        )
    if contract.table.extra_columns == "error":
        listed = ", ".join(extra[:8]) + (f" and {len(extra) - 8} more" if len(extra) > 8 else "")
        yield Check(
            "columns: no others",
            not extra,
            listed or "none",
            "none beside the contract's (or extra_columns: ignore)",
        )


def _enough_rows(contract: Contract, rows: int) -> Check:
    least = contract.table.min_rows
    return Check(f"rows: at least {least:,}", rows >= least, f"{rows:,} rows", f"at least {least:,}")


def _uniqueness_checks(lazy: pl.LazyFrame, contract: Contract, rows: int) -> Iterator[Check]:
    limit, key = contract.table.max_duplicate_fraction, contract.table.primary_key
    if key is None and limit is None:
        return
    names = lazy.collect_schema().names()
    columns = key or [name for name in contract.columns if name in names]
    if not set(columns) <= set(names):
        return
    repeats = uniqueness.repeated(lazy, columns, rows)
    passed = repeats <= (limit or 0.0) * rows
    found = f"{repeats:,} of {rows:,} rows repeat an earlier one"
    first = None if passed else uniqueness.example(lazy, columns)
    if first is not None:
        values = ", ".join(f"{name} {shown(value)}" for name, value in list(first[1].items())[:6])
        found += f", for example {values} in row {first[0]:,}"
    what = ", ".join(key) if key else "whole rows"
    share = f"at most {limit:.4g} of the rows to repeat" if limit else "no row to repeat"
    yield Check(f"rows: told apart by {what}", passed, found, f"{share} an earlier one")


def _summary(checks: list[Check], rows: int) -> str:
    errors = [check for check in checks if not check.passed and check.severity == "error"]
    warnings = sum(not check.passed and check.severity == "warning" for check in checks)
    warned = f"; {warnings} warning{'s' if warnings > 1 else ''}" if warnings else ""
    if not errors:
        return f"{rows:,} rows meet the contract ({len(checks)} checks{warned})."
    first = errors[0]
    return (
        f"{rows:,} rows break the contract: {len(errors)} of {len(checks)} checks failed{warned}. "
        f"{first.name}: found {first.found}, expected {first.expected}."
    )
