"""A table's rows as request bodies, over and over, a few hundred at a time."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from canaryflow.errors import InputError

_BATCH_ROWS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """One row: the body in Seldon's form (names and ``ndarray``), and the truth as JSON."""

    body: bytes
    truth: bytes


def requests(table: Path, target: str, features: Sequence[str]) -> Iterator[Request]:
    """The rows of a Parquet file as requests, from the start again when they are used up.

    Args:
        table: The file. It is streamed: memory does not grow with it.
        target: The column with the truth.
        features: The columns to send.

    Raises:
        InputError: The file is missing, is no Parquet, has no rows, or lacks a column.
    """
    try:
        schema = pq.read_schema(table)
        rows = pq.read_metadata(table).num_rows
    except FileNotFoundError:
        raise InputError(f"{table}: no such file, expected a Parquet table") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{table}: cannot be read as Parquet: {' '.join(str(error).split())}") from None
    if rows == 0:
        raise InputError(f"{table}: found no rows, expected at least one")
    for name in [target, *features]:
        if name not in schema.names:
            near = difflib.get_close_matches(name, schema.names, 1)
            hint = f" (nearest: {near[0]})" if near else ""
            raise InputError(f"{table}: no column {name!r}{hint}, expected one of: {', '.join(schema.names)}")
    return _endless(table, target, list(features))


def _endless(table: Path, target: str, names: list[str]) -> Iterator[Request]:
    opening = b'{"data":{"names":' + orjson.dumps(names) + b',"ndarray":['
    while True:
        with pq.ParquetFile(table) as file:
            for batch in file.iter_batches(_BATCH_ROWS, columns=[*names, target], use_threads=False):
                truths = batch.column(target).to_pylist()
                rows = zip(*(batch.column(name).to_pylist() for name in names), strict=True)
                for row, truth in zip(rows, truths, strict=True):
                    yield Request(opening + orjson.dumps(row) + b"]}}", orjson.dumps(truth))
