"""Validation tells what breaks a contract, counts it exactly, and names a row."""

from __future__ import annotations

import datetime
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.data import uniqueness
from canaryflow.data.contract import Contract
from canaryflow.data.validation import MAX_EXAMPLES, Validation, validate
from canaryflow.data.validation_report import write_report
from canaryflow.errors import InputError
from canaryflow.report import read_verdict
from canaryflow.verdict import Check

ROWS = 1000


def contract(**changes: Any) -> Contract:  # noqa: ANN401
    columns: dict[str, Any] = {
        "key": {"kind": "integer", "role": "id"},
        "distance": {"kind": "number", "min": 0, "max": 6000},
        "carrier": {"kind": "categorical", "pattern": "[A-Z]{2}"},
        "origin": {"kind": "categorical", "allowed": ["EWR", "JFK"]},
        "temp": {"kind": "number", "nullable": True, "max_missing_fraction": 0.1, "severity": "warning"},
        "when": {"kind": "timestamp", "role": "time", "min": "2013-01-01", "max": "2013-12-31 23:59:59"},
        "late": {"kind": "boolean", "role": "target"},
    }
    table = {"min_rows": 10, "primary_key": ["key"]} | changes.pop("table", {})
    for name, change in changes.items():
        columns[name] = columns.get(name, {}) | change
    return Contract.parse({"version": 1, "table": table, "columns": columns}, "x")


def rows() -> dict[str, list[Any]]:
    return {
        "key": list(range(ROWS)),
        "distance": [float(index) for index in range(ROWS)],
        "carrier": ["UA", "B6"[0] + "B"] * (ROWS // 2),
        "origin": ["EWR", "JFK"] * (ROWS // 2),
        "temp": [None if index % 20 == 0 else 50.5 for index in range(ROWS)],
        "when": ["2013-06-01T10:00:00Z"] * ROWS,
        "late": [0, 1] * (ROWS // 2),
    }


def held(tmp_path: Path, data: dict[str, list[Any]], against: Contract) -> Validation:
    table = tmp_path / "table"
    pl.DataFrame(data, strict=False).write_parquet(table)
    return validate(table, against)


def check(validation: Validation, name: str) -> Check:
    return next(check for check in validation.verdict.checks if check.name == name)


def failed(validation: Validation) -> list[str]:
    return [check.name for check in validation.verdict.checks if not check.passed]


def test_good_rows_pass_every_rule(tmp_path: Path) -> None:
    result = held(tmp_path, rows(), contract())
    assert result.verdict.passed
    assert failed(result) == []
    assert result.rows == ROWS
    assert result.examples == {}
    assert result.profile.features["temp"].missing == 50
    assert check(result, "distance: at most 6000").found == "0 of 1,000 rows"
    assert check(result, "distance: at least 0").passed


BROKEN: list[tuple[str, int, Any, str, str]] = [
    ("distance", 17, 7125, "distance: at most 6000", "1 of 1,000 rows, for example 7125.0 in row 18"),
    ("distance", 17, -0.5, "distance: at least 0", "1 of 1,000 rows, for example -0.5 in row 18"),
    ("distance", 3, None, "distance: never missing", "1 of 1,000 rows, for example row 4"),
    ("distance", 3, float("inf"), "distance: number", "1 of 1,000 rows, for example inf in row 4"),
    ("distance", 999, "far", "distance: number", '1 of 1,000 rows, for example "far" in row 1,000'),
    ("carrier", 0, "UAX", "carrier: like [A-Z]{2}", '1 of 1,000 rows, for example "UAX" in row 1'),
    ("carrier", 0, "UA\n", "carrier: like [A-Z]{2}", '1 of 1,000 rows, for example "UA " in row 1'),
    ("origin", 5, "LGA", "origin: one of EWR, JFK", '1 of 1,000 rows, for example "LGA" in row 6'),
    (
        "key",
        9,
        8,
        "rows: told apart by key",
        "1 of 1,000 rows repeat an earlier one, for example key 8 in row 10",
    ),
    ("late", 2, 2, "late: boolean", "1 of 1,000 rows, for example 2 in row 3"),
    (
        "when",
        4,
        "2014-01-01",
        "when: at most 2013-12-31 23:59:59",
        '1 of 1,000 rows, for example "2014-01-01" in row 5',
    ),
    ("when", 4, "2013-02-31", "when: timestamp", '1 of 1,000 rows, for example "2013-02-31" in row 5'),
]


@pytest.mark.parametrize(("column", "row", "value", "name", "found"), BROKEN)
def test_one_bad_value_is_found(
    tmp_path: Path,
    column: str,
    row: int,
    value: float | str | None,
    name: str,
    found: str,
) -> None:
    data = rows()
    if isinstance(value, str) and not isinstance(data[column][0], str):
        data[column] = [str(item) for item in data[column]]
    data[column][row] = value
    result = held(tmp_path, data, contract())
    assert failed(result) == [name]
    assert not result.verdict.passed
    assert check(result, name).found == found
    assert name in result.verdict.summary


def test_counts_are_exact_and_examples_bounded(tmp_path: Path) -> None:
    data = rows()
    data["distance"] = [9000.0 + index if index % 2 else 1.0 for index in range(ROWS)]
    result = held(tmp_path, data, contract())
    assert check(result, "distance: at most 6000").found.startswith("500 of 1,000 rows")
    assert result.examples["distance: at most 6000"][:2] == [(2, 9001.0), (4, 9003.0)]
    assert len(result.examples["distance: at most 6000"]) == MAX_EXAMPLES


def test_missing_values_have_a_limit_and_a_nan_is_one(tmp_path: Path) -> None:
    data = rows()
    data["temp"] = [float("nan")] * 100 + [1.0] * 900
    assert held(tmp_path, data, contract()).verdict.passed
    data["temp"][100] = None
    result = held(tmp_path, data, contract())
    assert failed(result) == ["temp: at most 0.1 of the rows missing"]
    assert result.verdict.passed, "a warning is told and does not fail the gate"
    assert "1 warning" in result.verdict.summary
    assert not held(tmp_path, data, contract(temp={"severity": "error"})).verdict.passed


def test_columns_that_lack_or_were_not_asked_for(tmp_path: Path) -> None:
    data = rows()
    data["distnace"] = data.pop("distance")
    result = held(tmp_path, data, contract())
    assert failed(result) == ["distance: there", "columns: no others"]
    assert 'did you mean "distnace"' in check(result, "distance: there").found
    ignoring = held(tmp_path, rows() | {"more": [1] * ROWS}, contract(table={"extra_columns": "ignore"}))
    assert ignoring.verdict.passed


def test_too_few_rows_and_duplicates_within_a_limit(tmp_path: Path) -> None:
    data = rows()
    assert failed(held(tmp_path, data, contract(table={"min_rows": 1001}))) == ["rows: at least 1,001"]
    data["key"] = [index % 990 for index in range(ROWS)]
    lenient = {"max_duplicate_fraction": 0.01}
    assert held(tmp_path, data, contract(table=lenient)).verdict.passed
    data["key"][500] = 1
    assert failed(held(tmp_path, data, contract(table=lenient))) == ["rows: told apart by key"]
    whole = contract(table={"primary_key": None, "max_duplicate_fraction": 0})
    assert held(tmp_path, rows(), whole).verdict.passed
    twice = {name: values + values[:1] for name, values in rows().items()}
    assert failed(held(tmp_path, twice, whole)) == ["rows: told apart by whole rows"]


@pytest.mark.parametrize("slice_rows", [1, 7, 1000])
def test_repeats_are_counted_in_any_number_of_slices(
    slice_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uniqueness, "SLICE_ROWS", slice_rows)
    frame = pl.DataFrame({"a": [1, 1, 2, None, None, 3, 1], "b": list("xxyzzxy")}).lazy()
    assert uniqueness.repeated(frame, ["a", "b"], 7) == 2
    assert uniqueness.repeated(frame, ["a"], 7) == 3
    assert uniqueness.example(frame, ["a", "b"]) == (2, {"a": 1, "b": "x"})


@given(
    values=st.lists(
        st.none() | st.floats(allow_subnormal=False, width=32) | st.integers(-5, 5), min_size=1, max_size=40
    ),
    low=st.integers(-4, 0),
    high=st.integers(0, 4),
)
def test_rules_count_what_a_plain_loop_counts(
    tmp_path_factory: pytest.TempPathFactory, values: list[float | None], low: int, high: int
) -> None:
    number = {"kind": "number", "min": low, "max": high}
    document = {"version": 1, "columns": {"x": number, "y": {"kind": "boolean", "role": "target"}}}
    folder = tmp_path_factory.mktemp("rows")
    frame = {"x": pl.Series(values, dtype=pl.Float64, strict=False), "y": [True] * len(values)}
    pl.DataFrame(frame).write_parquet(folder / "table")
    result = validate(folder / "table", Contract.parse(document, "x"))
    there = [value for value in values if value is not None and value == value]
    finite = [value for value in there if abs(value) != float("inf")]
    expected = {
        "x: number": len(there) - len(finite),
        "x: never missing": len(values) - len(there),
        f"x: at least {low}": sum(value < low for value in finite),
        f"x: at most {high}": sum(value > high for value in finite),
    }
    for name, count in expected.items():
        assert check(result, name).found.startswith(f"{count} of {len(values)} rows")
        assert check(result, name).passed == (count == 0)


KINDS: list[tuple[str, pl.Series, list[Any], int]] = [
    ("number", pl.Series(["1", " 2.5 ", "x", None]), [1.0, 2.5, None, None], 1),
    ("number", pl.Series([1, 2**60], dtype=pl.Int64), [1.0, float(2**60)], 0),
    ("integer", pl.Series([1.0, 2.5, None]), [1, None, None], 1),
    ("integer", pl.Series([2**64 - 1, 1], dtype=pl.UInt64), [None, 1], 1),
    ("integer", pl.Series(["1", "1.5"]), [1, None], 1),
    ("categorical", pl.Series([7, 8]), ["7", "8"], 0),
    ("categorical", pl.Series([True, None]), ["true", None], 0),
    ("categorical", pl.Series(["a", "b"], dtype=pl.Categorical), ["a", "b"], 0),
    ("categorical", pl.Series([1.5, 2.0]), [None, None], 2),
    ("boolean", pl.Series([1, 0, 2]), [True, False, None], 1),
    ("boolean", pl.Series(["True", "false", "yes"]), [True, False, None], 1),
    ("boolean", pl.Series([1.0, float("nan")]), [True, None], 0),
    ("text", pl.Series([1, 2]), [None, None], 2),
    (
        "timestamp",
        pl.Series(
            ["2013-10-01", "2013-10-01 05:06", "2013-10-01T05:06:07.5", "2013-10-01T05:06:07+02:00", "Oct 1"]
        ),
        [
            datetime.datetime(2013, 10, 1),
            datetime.datetime(2013, 10, 1, 5, 6),
            datetime.datetime(2013, 10, 1, 5, 6, 7, 500000),
            datetime.datetime(2013, 10, 1, 3, 6, 7),
            None,
        ],
        1,
    ),
    ("timestamp", pl.Series([datetime.date(2013, 10, 1)]), [datetime.datetime(2013, 10, 1)], 0),
    ("timestamp", pl.Series([1380585600]), [None], 1),
]


@pytest.mark.parametrize(("kind", "raw", "conformed", "unfit"), KINDS)
def test_each_kind_takes_what_fits_and_tells_what_does_not(
    kind: str, raw: pl.Series, conformed: list[Any], unfit: int
) -> None:
    from canaryflow.data import kinds

    frame = raw.alias("x").to_frame()
    assert frame.select(kinds.conform("x", kind, raw.dtype))["x"].to_list() == conformed  # type: ignore[arg-type]
    found = frame.select(kinds.unfit("x", kind, raw.dtype).sum()).item()  # type: ignore[arg-type]
    assert found == unfit
    assert unfit == 0 or kinds.may_be_unfit(kind, raw.dtype)  # type: ignore[arg-type]


def test_the_report_opens_and_names_the_reason(tmp_path: Path) -> None:
    data = rows()
    data["distance"][17] = 7125.0
    data["carrier"][3] = "<script>"
    result = held(tmp_path, data, contract())
    write_report(result, contract(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert read_verdict(tmp_path / "report.html") == result.verdict
    assert "The data breaks its contract" in page
    assert page.count("<svg") == 2
    assert "7125" in page
    assert "<script>" not in page.replace('<script type="application/json" id="verdict">', "").replace(
        "\\u003cscript>", ""
    )


def test_validating_needs_no_report() -> None:
    report = "canaryflow.data.validation_report"
    code = f"import sys, canaryflow.data.validation; sys.exit({report!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        validate(tmp_path / "nothing", contract())
