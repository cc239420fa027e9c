"""A contract says what a person wrote, or one line that says what is wrong with it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.data.contract import Contract, infer
from canaryflow.data.validation import validate
from canaryflow.errors import InputError

GOOD: dict[str, Any] = {
    "version": 1,
    "table": {"min_rows": 10, "primary_key": ["key"]},
    "columns": {
        "key": {"kind": "integer", "role": "id"},
        "carrier": {"kind": "categorical", "pattern": "[A-Z0-9]{2}"},
        "distance": {"kind": "number", "min": 0, "max": 6000, "unit": "miles"},
        "when": {"kind": "timestamp", "role": "time", "min": "2013-01-01"},
        "late": {"kind": "boolean", "role": "target"},
    },
}


def edited(change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    data = copy.deepcopy(GOOD)
    change(data)
    return data


def test_what_it_says_is_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "contract.yaml"
    path.write_text(
        "version: 1\ntable: {min_rows: 10, primary_key: [key]}\ncolumns:\n"
        "  key: {kind: integer, role: id}\n"
        '  carrier: {kind: categorical, pattern: "[A-Z0-9]{2}"}\n'
        "  distance: {kind: number, min: 0, max: 6000, unit: miles}\n"
        "  when: {kind: timestamp, role: time, min: 2013-01-01}\n"
        "  late: {kind: boolean, role: target}\n"
    )
    contract = Contract.load(path)
    assert list(contract.features) == ["carrier", "distance"]
    assert contract.target[0] == "late"
    assert contract.time == "when"
    # A date of YAML and its text in JSON are the same contract.
    assert contract.digest == Contract.parse(GOOD, "json").digest


def test_reads_back_what_it_writes_and_numbers_may_come_as_floats() -> None:
    contract = Contract.parse(GOOD, "x")
    assert Contract.parse(contract.to_dict(), "x") == contract
    through_kfp = edited(lambda data: (data.update(version=1.0), data["table"].update(min_rows=10.0)))
    assert Contract.parse(through_kfp, "x").digest == contract.digest
    other = edited(lambda data: data["columns"]["distance"].update(max=5999))
    assert Contract.parse(other, "x").digest != contract.digest


WRONG: list[tuple[Callable[[dict[str, Any]], object], list[str]]] = [
    (
        lambda d: d["columns"]["late"].update(nulable=True),
        ["columns.late", '"nulable"', 'did you mean "nullable"'],
    ),
    (lambda d: d.update(colums={}), ['"colums"', 'did you mean "columns"']),
    (lambda d: d["table"].update(min_row=3), ["table", 'did you mean "min_rows"']),
    (lambda d: d["columns"]["late"].update(kind="bool"), ["columns.late.kind", '"bool"', '"boolean"']),
    (lambda d: d["columns"]["distance"].update(min="3"), ["columns.distance", "min", '"3"', "a number"]),
    (lambda d: d["columns"]["distance"].update(min=True), ["min", "true", "a number"]),
    (lambda d: d["columns"]["distance"].update(min=7000), ["min 7000", "max 6000"]),
    (
        lambda d: d["columns"]["distance"].update(nullable="yes"),
        ["columns.distance.nullable", '"yes"', "boolean"],
    ),
    (lambda d: d["columns"]["distance"].update(pattern="x"), ["pattern", "kind number"]),
    (lambda d: d["columns"]["distance"].update(max_missing_fraction=0.1), ["nullable: true"]),
    (lambda d: d["columns"]["carrier"].update(pattern="("), ["pattern", '"("', "unclosed group"]),
    (lambda d: d["columns"]["carrier"].update(allowed=[False]), ["allowed", "false", "quote it"]),
    (lambda d: d["columns"]["when"].update(min="yesterday"), ["min", '"yesterday"', "ISO"]),
    (lambda d: d["columns"]["when"].update(role="feature"), ["columns.when", "timestamp", "feature"]),
    (
        lambda d: d["columns"]["late"].update(kind="integer"),
        ["columns.late", "integer", "target", "regression"],
    ),
    (lambda d: d["columns"]["late"].update(nullable=True), ["columns.late", "nullable", "target"]),
    (lambda d: d["columns"]["late"].update(role="id"), ["role target", "exactly one", "none"]),
    (lambda d: d["columns"]["carrier"].update(role="target", pattern=None), ["carrier, late", "exactly one"]),
    (lambda d: d["columns"].update(then={"kind": "number", "role": "time"}), ["when, then", "at most one"]),
    (
        lambda d: [d["columns"][x].update(role="id") for x in ("carrier", "distance")],
        ["role feature", "at least one"],
    ),
    (lambda d: d["table"].update(primary_key=["kye"]), ["primary_key", '"kye"', 'did you mean "key"']),
    (lambda d: d["table"].update(min_rows=-1), ["table.min_rows", "-1"]),
    (lambda d: d.update(version=2), ["version", "2"]),
    (lambda d: d.pop("version"), ["version", "missing"]),
    (lambda d: d.update(versoin=d.pop("version")), ['"versoin"', 'did you mean "version"']),
    (lambda d: d["columns"].update(late=3), ["columns.late", "3"]),
]


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_a_wrong_contract_is_one_line(change: Callable[[dict[str, Any]], object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        Contract.parse(edited(change), "contract.yaml")
    message = str(caught.value)
    assert message.startswith("contract.yaml: ")
    assert "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, ["no such file"]),
        ("version: [1\n", ["line 2", "YAML"]),
        ("version: 1\ncolumns:\n  a: {kind: number}\n  a: {kind: text}\n", ['the key "a" twice', "line 4"]),
        ("just words\n", ["just words", "a mapping"]),
        ("version: !!python/object/apply:os.system [ls]\n", ["YAML"]),
    ],
)
def test_a_file_that_is_no_contract_is_named(tmp_path: Path, text: str | None, words: list[str]) -> None:
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError) as caught:
        Contract.load(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
JUNK = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["version", "table", "columns", "kind", "role", "min", "allowed", "a"])
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(JUNK)
def test_no_data_makes_it_fail_otherwise(data: Any) -> None:  # noqa: ANN401
    try:
        Contract.parse(data, "x")
    except InputError as error:
        assert "\n" not in str(error)


def test_an_inferred_contract_holds_for_its_own_table(tmp_path: Path) -> None:
    table = tmp_path / "table"
    pl.DataFrame(
        {
            "id": [f"customer number {index}" for index in range(600)],
            "when": ["2024-01-02T03:04:05Z"] * 600,
            "plan": ["a", "b", None] * 200,
            "age": ["31", "32", "33"] * 200,
            "churned": [0, 1] * 300,
            "spent": [1.5, float("nan")] * 300,
        }
    ).write_parquet(table)
    data = infer(table)
    kinds = {name: column["kind"] for name, column in data["columns"].items()}
    assert kinds == {
        "id": "text",
        "when": "timestamp",
        "plan": "categorical",
        "age": "integer",
        "churned": "boolean",
        "spent": "number",
    }
    contract = Contract.parse(data, "inferred")
    assert (contract.target[0], contract.time) == ("churned", "when")
    assert validate(table, contract).verdict.passed


def test_nothing_to_predict_is_told(tmp_path: Path) -> None:
    table = tmp_path / "table"
    pl.DataFrame({"a": [None, 1.0], "b": [1.0, None]}).write_parquet(table)
    with pytest.raises(InputError, match="a target"):
        infer(table)


def test_the_tables_order_is_the_features_order_whatever_a_mapping_became_on_its_way() -> None:
    columns = {name: {"kind": "number"} for name in ("b", "c", "a")} | {
        "y": {"kind": "number", "role": "target"}
    }
    shuffled = dict(reversed(columns.items()))
    for written in (columns, shuffled):
        contract = Contract.parse({"version": 1, "columns": written}, "test").in_order_of(["a", "y", "b"])
        assert list(contract.features) == ["a", "b", "c"]
    assert Contract.parse({"version": 1, "columns": columns}, "x").digest == contract.digest
