"""A query on an SQLite database, streamed into a table."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl

from canaryflow.data import tables
from canaryflow.data.wording import nearest, shown
from canaryflow.errors import InputError

BUSY_SECONDS = 30.0
FETCH_ROWS = tables.BATCH_ROWS


def read(path: Path, query: str, arguments: Mapping[str, Any], to: Path) -> None:
    """Stream the rows of one SELECT into a Parquet file; the database is opened read-only.

    SQLite has a type per value, not per column: a column of whole numbers with one fraction in it becomes
    Float64, a column with text among its numbers becomes text (for validation to name what does not
    belong).

    Args:
        path: The database.
        query: One SELECT statement.
        arguments: Values of its named parameters.
        to: Where to write the table.

    Raises:
        InputError: There is no query, an argument is missing or not used, the statement fails, or a value
            is binary.
    """
    if not query.strip():
        raise InputError(f"{path}: found no query, expected one SELECT statement beside a database")
    _check_arguments(query, arguments)
    uri = f"{path.absolute().as_uri()}?mode=ro"
    parts: list[Path] = []
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS)) as connection:
            connection.execute("PRAGMA query_only = ON")
            cursor = connection.execute(query, dict(arguments))
            names = _names(path, cursor.description)
            _write_parts(_batches(cursor, names), to, parts)
        frames = [pl.scan_parquet(part, glob=False) for part in parts]
        if len(parts) == 1:
            parts[0].replace(to)
        else:
            tables.sink(pl.concat(_same_types(frames)), to)
    except sqlite3.Error as error:
        raise InputError(
            f"{path}: the query failed ({_reason(error)}), expected one SELECT statement"
        ) from None
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def _check_arguments(query: str, arguments: Mapping[str, Any]) -> None:
    # Text in quotes and comments may hold a colon that is no parameter.
    bare = re.sub(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", " ", query, flags=re.DOTALL)
    wanted = set(re.findall(r"[:@$]([A-Za-z_]\w*)", bare))
    for name in wanted - arguments.keys():
        hint = nearest(name, arguments)
        raise InputError(
            f'query_args: found none for the query\'s parameter ":{name}", expected a value{hint}'
        )
    for name, value in arguments.items():
        if name not in wanted:
            raise InputError(
                f'query_args: found "{name}", expected one the query uses{nearest(name, wanted)}'
            )
        if value is not None and not isinstance(value, str | int | float):
            raise InputError(f"query_args.{name}: found {shown(value)}, expected text, a number or a boolean")


def _names(path: Path, description: Sequence[Sequence[Any]] | None) -> list[str]:
    if description is None:
        raise InputError(f"{path}: found a statement that gives no rows, expected one SELECT statement")
    names = [str(column[0]) for column in description]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(
            f'{path}: the query gives the column "{twice}" twice, expected every name once (use AS)'
        )
    return names


def _batches(cursor: sqlite3.Cursor, names: list[str]) -> Iterator[pl.DataFrame]:
    while rows := cursor.fetchmany(FETCH_ROWS):
        yield pl.DataFrame(
            [_series(name, values) for name, values in zip(names, zip(*rows, strict=True), strict=True)]
        )


def _series(name: str, values: Sequence[Any]) -> pl.Series:
    kinds = set(map(type, values)) - {type(None)}
    if bytes in kinds:
        raise InputError(f'query: the column "{name}" holds binary values, expected numbers or text')
    if not kinds:
        return pl.Series(name, values, dtype=pl.Null)
    if kinds == {int}:
        return pl.Series(name, values, dtype=pl.Int64)
    if kinds <= {int, float}:
        return pl.Series(name, values, dtype=pl.Float64, strict=False)
    if kinds == {str}:
        return pl.Series(name, values, dtype=pl.String)
    return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)


def _write_parts(batches: Iterator[pl.DataFrame], to: Path, parts: list[Path]) -> None:
    """One file for as long as the batches' types stay the same; a new one when they change."""
    batch = next(batches, None)
    if batch is None:
        raise InputError("query: found no rows, expected at least one")
    while batch is not None:
        part = to.with_name(f".{to.name}.{len(parts)}.rows")
        parts.append(part)
        schema = batch.schema
        with tables.TableWriter(part) as writer:
            while batch is not None and batch.schema == schema:
                writer.write(batch)
                batch = next(batches, None)


def _same_types(frames: Sequence[pl.LazyFrame]) -> list[pl.LazyFrame]:
    """Each column in the narrowest type that holds all of its parts: nothing < Int64 < Float64 < text."""
    order = [pl.Null, pl.Int64, pl.Float64, pl.String]
    schemas = [frame.collect_schema() for frame in frames]
    widest: dict[Any, Any] = {
        name: max((schema[name] for schema in schemas), key=lambda dtype: order.index(type(dtype)))
        for name in schemas[0].names()
    }
    return [frame.cast(widest) for frame in frames]


def _reason(error: sqlite3.Error) -> str:
    return " ".join(str(error).split())
