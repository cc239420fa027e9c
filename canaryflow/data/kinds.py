"""From the types that files and databases happen to have to the contract's kinds.

A value that does not fit its kind becomes null here, and `unfit` tells which ones did: a gate reports them,
nothing converts them silently.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from canaryflow.data.contract import Column, Kind

DTYPES: dict[Kind, pl.DataType] = {
    "number": pl.Float64(),
    "integer": pl.Int64(),
    "categorical": pl.String(),
    "boolean": pl.Boolean(),
    "timestamp": pl.Datetime("us"),
    "text": pl.String(),
}
"""The one type in which each kind is kept on disk after the split. Timestamps are naive and in UTC."""

EXPECTED: dict[Kind, str] = {
    "number": "a finite number",
    "integer": "a whole number",
    "categorical": "a label (text, whole number or boolean)",
    "boolean": "true or false (or 1 and 0)",
    "timestamp": "a date or time in ISO form (2013-10-01 12:00:00)",
    "text": "text",
}
"""What a message says was expected."""


def conform(name: str, kind: Kind, dtype: pl.DataType) -> pl.Expr:
    """The column as its kind's type; null where a value is missing or does not fit.

    Args:
        name: The column's name.
        kind: The kind the contract gives it.
        dtype: The type it has in the table.
    """
    column = pl.col(name)
    if kind == "number":
        return _number(column, dtype).alias(name)
    if kind == "integer":
        return _integer(column, dtype).alias(name)
    if kind == "boolean":
        return _boolean(column, dtype).alias(name)
    if kind == "timestamp":
        return _timestamp(column, dtype).alias(name)
    return _label(column, dtype, kind).alias(name)


def missing(name: str, dtype: pl.DataType) -> pl.Expr:
    """Whether the raw value is missing: null, or not a number."""
    column = pl.col(name)
    return column.is_null() | column.is_nan().fill_null(False) if dtype.is_float() else column.is_null()


def unfit(name: str, kind: Kind, dtype: pl.DataType) -> pl.Expr:
    """Whether there is a raw value and it does not fit its kind."""
    return ~missing(name, dtype) & conform(name, kind, dtype).is_null()


def may_be_unfit(kind: Kind, dtype: pl.DataType) -> bool:
    """False when every value of this type fits the kind, so that nothing needs to be counted."""
    always: dict[Kind, bool] = {
        "number": dtype.is_integer() or dtype.is_decimal() or dtype == pl.Boolean,
        "integer": (dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128)) or dtype == pl.Boolean,
        "categorical": dtype == pl.String
        or dtype.is_integer()
        or dtype in (pl.Boolean, pl.Categorical, pl.Enum),
        "boolean": dtype == pl.Boolean,
        "timestamp": dtype == pl.Date or isinstance(dtype, pl.Datetime),
        "text": dtype in (pl.String, pl.Categorical, pl.Enum),
    }
    return dtype != pl.Null and not always[kind]


def padded(name: str) -> pl.Expr:
    """Whether a text is a number that begins with a zero too many: a label, such as a postal code."""
    return pl.col(name).str.contains(r"^\s*[+-]?0[0-9]").fill_null(False)


def conformed(frame: pl.LazyFrame, columns: Mapping[str, Column]) -> pl.LazyFrame:
    """The named columns of a frame, each in its kind's type; columns the frame does not have are left out."""
    schema = frame.collect_schema()
    return frame.select(
        conform(name, column.kind, schema[name]) for name, column in columns.items() if name in schema
    )


def kind_of(dtype: pl.DataType) -> Kind:
    """The kind that a type suggests (a text may turn out to be a label)."""
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_integer():
        return "integer"
    if dtype.is_numeric():
        return "number"
    if dtype == pl.Date or isinstance(dtype, pl.Datetime):
        return "timestamp"
    return "text"


def _none(column: pl.Expr, kind: Kind) -> pl.Expr:
    # As many nulls as there are rows; a literal alone would be one.
    return pl.when(column.is_null()).then(pl.lit(None, dtype=DTYPES[kind]))


def _number(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        value = column.str.strip_chars().cast(pl.Float64, strict=False)
    elif dtype.is_numeric() or dtype in (pl.Boolean, pl.Null):
        value = column.cast(pl.Float64)
        if not dtype.is_float():
            return value
    else:
        return _none(column, "number")
    return pl.when(value.is_finite()).then(value)


def _integer(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype == pl.String:
        return column.str.strip_chars().cast(pl.Int64, strict=False)
    if dtype.is_float() or dtype.is_decimal():
        value = column.cast(pl.Float64)
        return pl.when(value == value.round()).then(value).cast(pl.Int64, strict=False)
    if dtype.is_integer() or dtype in (pl.Boolean, pl.Null):
        return column.cast(pl.Int64, strict=False)
    return _none(column, "integer")


def _label(column: pl.Expr, dtype: pl.DataType, kind: Kind) -> pl.Expr:
    texts = dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)
    labels = kind == "categorical" and (dtype.is_integer() or dtype == pl.Boolean)
    return column.cast(pl.String) if texts or labels else _none(column, kind)


def _boolean(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if dtype in (pl.Boolean, pl.Null):
        return column.cast(pl.Boolean)
    if dtype == pl.String:
        word = column.str.strip_chars().str.to_lowercase()
        return pl.when(word == "true").then(True).when(word == "false").then(False)
    if dtype.is_numeric():
        return pl.when(column == 1).then(True).when(column == 0).then(False)
    return _none(column, "boolean")


def _timestamp(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    if isinstance(dtype, pl.Datetime):
        utc = column.dt.convert_time_zone("UTC").dt.replace_time_zone(None) if dtype.time_zone else column
        return utc.cast(pl.Datetime("us"))
    if dtype in (pl.Date, pl.Null):
        return column.cast(pl.Datetime("us"))
    if dtype != pl.String:
        return _none(column, "timestamp")
    text = column.str.strip_chars().str.replace("T", " ", literal=True).str.replace(r"Z$", "+00:00")
    naive = [
        text.str.to_datetime(form, strict=False, time_unit="us")
        for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M", "%Y-%m-%d")
    ]
    zoned = text.str.to_datetime("%Y-%m-%d %H:%M:%S%.f%:z", strict=False, time_unit="us", time_zone="UTC")
    return pl.coalesce(*naive, zoned.dt.replace_time_zone(None))
