"""Rows in: a file, a query or a built-in sample, streamed into one Parquet table."""

from __future__ import annotations

import os
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from canaryflow.data import kinds, sqlite, tables
from canaryflow.data.toys import TOYS, toy
from canaryflow.data.wording import nearest, shown
from canaryflow.errors import InputError

FORMS = "a path to .csv or .parquet, file://PATH, sqlite:///PATH or sample:NAME"


@dataclass(frozen=True)
class IngestSummary:
    """What was read.

    Attributes:
        rows: Number of rows.
        columns: Names of the columns, in order.
        digest: SHA-256 of the table's file (hex).
    """

    rows: int
    columns: list[str]
    digest: str


def ingest(source: str, query: str, query_args: Mapping[str, Any], to: Path) -> IngestSummary:
    """Stream a source into a Parquet file, in bounded memory, whole or not at all.

    Args:
        source: A path to a ``.csv`` or ``.parquet`` file (also as ``file://...``);
            ``sqlite:///relative/path.db`` or ``sqlite:////absolute/path.db``; ``sample:NAME`` for one of
            scikit-learn's small data sets.
        query: For a database, one SELECT statement; otherwise empty.
        query_args: Values of the query's named parameters (``:until``), bound by the database, never pasted
            into the text.
        to: Where to write the table.

    Raises:
        InputError: The source is of no known form or missing, cannot be read, or has no rows; or the query
            or its arguments are wrong.
        PlatformError: The disk is full.
    """
    scheme, separator, rest = source.partition(":")
    readers: dict[str, Callable[[str], None]] = {
        "sqlite": lambda rest: sqlite.read(_sqlite_path(rest), query, query_args, to),
        "sample": lambda rest: _sample(rest, to),
        "file": lambda rest: _file(Path(urllib.parse.unquote(rest.removeprefix("//"))), to),
    }
    if scheme != "sqlite" and (query.strip() or query_args):
        found = "a query" if query.strip() else f"query_args ({', '.join(query_args)})"
        raise InputError(
            f"source {shown(source)}: found {found} beside it, expected one with sqlite:/// only"
        )
    if separator and scheme in readers:
        readers[scheme](rest)
    elif "://" in source:
        raise InputError(f"source: found {shown(source)}, expected {FORMS}{nearest(scheme, readers)}")
    else:
        _file(Path(source), to)
    return _summary(source, to)


def _summary(source: str, to: Path) -> IngestSummary:
    metadata = pq.read_metadata(to)
    if not metadata.num_rows:
        to.unlink()
        raise InputError(f"source {shown(source)}: found no rows, expected at least one")
    return IngestSummary(metadata.num_rows, list(metadata.schema.to_arrow_schema().names), tables.digest(to))


def _sqlite_path(rest: str) -> Path:
    if not rest.startswith("///"):
        raise InputError(f"source: found {shown('sqlite:' + rest)}, expected sqlite:///PATH")
    path = Path(rest[3:])
    if not path.is_file():
        absolute = Path("/") / path
        hint = f"; did you mean sqlite:///{absolute}?" if absolute.is_file() and absolute != path else ""
        raise InputError(f"{path}: found no such file, expected an SQLite database{hint}")
    return path


def _sample(name: str, to: Path) -> None:
    if name not in TOYS:
        wanted = ", ".join(sorted(TOYS))
        hint = nearest(name, TOYS)
        if name == "flights":
            hint = "; `canaryflow sample flights --to DIR` writes the flights as a database"
        raise InputError(
            f"source: found {shown('sample:' + name)}, expected sample: and one of {wanted}{hint}"
        )
    tables.sink(toy(name).lazy(), to)


def _file(path: Path, to: Path) -> None:
    if path.is_dir() or not path.exists():
        found = "a folder" if path.is_dir() else "no such file"
        raise InputError(f"{path}: found {found}, expected a .csv or .parquet file")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: found a file that may not be read, expected read permission")
    try:
        if path.suffix.lower() == ".csv":
            tables.sink(_scan_csv(path), to)
        elif path.suffix.lower() in (".parquet", ".pq"):
            tables.sink(tables.scan(path), to)
        else:
            raise InputError(f"{path}: found a file of type {shown(path.suffix)}, expected .csv or .parquet")
    except pl.exceptions.NoDataError:
        raise InputError(f"{path}: found an empty file, expected a header line and rows") from None
    except pl.exceptions.PolarsError as error:
        reason = " ".join(str(error).split("\n\n")[0].split())[:200]
        raise InputError(f"{path}: cannot be read ({reason}), expected {path.suffix[1:]} in UTF-8") from None


def _scan_csv(path: Path) -> pl.LazyFrame:
    # Types are settled by every row: a guess from the first ones would break on a late "N/A".
    frame = pl.scan_csv(path, infer_schema_length=None, glob=False)
    names = frame.collect_schema().names()
    for name in names:
        original = name.partition("_duplicated_")[0]
        if original != name and original in names:
            raise InputError(f'{path}: found the column "{original}" twice, expected every name once')
    labels = _labels(path, frame.collect_schema())
    return pl.scan_csv(path, infer_schema_length=None, glob=False, schema_overrides=labels)


def _labels(path: Path, schema: pl.Schema) -> dict[str, type[pl.String]]:
    """Columns that look like numbers and are labels: as numbers, "01234" and "1234" would be the same."""
    numbers = [name for name, dtype in schema.items() if dtype.is_numeric()]
    found = (
        pl.scan_csv(path, infer_schema=False, glob=False)
        .select(kinds.padded(name).any() for name in numbers)
        .collect(engine="streaming")
    )
    return {name: pl.String for name in numbers if found[name].item()}
