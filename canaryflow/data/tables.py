"""A table on disk: one Parquet file with small row groups, read as a stream, written whole or not at all."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from types import TracebackType

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from canaryflow.errors import InputError, PlatformError

BATCH_ROWS = 128 * 1024
"""Rows in a row group and in a batch of a stream: large groups make readers hold many times their memory."""


def scan(path: Path) -> pl.LazyFrame:
    """Open a table as a lazy frame.

    Args:
        path: A Parquet file; its name needs no extension.

    Raises:
        InputError: The file is missing or is not Parquet.
    """
    _check(path)
    return pl.scan_parquet(path, glob=False)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a table for reading in batches.

    Raises:
        InputError: The file is missing or is not Parquet.
    """
    _check(path)
    return pq.ParquetFile(path)


def _check(path: Path) -> None:
    if not path.is_file():
        raise InputError(
            f"{path}: found {'a folder' if path.is_dir() else 'no such file'}, expected a Parquet file"
        )
    try:
        pq.read_metadata(path)
    except (pa.ArrowInvalid, OSError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: found something that cannot be read as Parquet ({reason[:120]})") from None


class TableWriter:
    """Writes batches into a table that appears under its name only when all of it is there.

    Use it as a context manager; an exception inside leaves nothing behind.
    """

    def __init__(self, path: Path) -> None:
        self.rows = 0
        self._path = path
        self._temporary = _temporary(path)
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> TableWriter:
        return self

    def write(self, batch: pl.DataFrame) -> None:
        """Append rows; the first batch's schema is the table's.

        Raises:
            PlatformError: The disk is full or cannot be written.
        """
        arrow = batch.to_arrow(compat_level=pl.CompatLevel.oldest())
        try:
            if self._writer is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._writer = pq.ParquetWriter(self._temporary, arrow.schema, compression="zstd")
            self._writer.write_table(arrow.cast(self._writer.schema), row_group_size=BATCH_ROWS)
        except OSError as error:
            raise _unwritable(self._path, error) from None
        self.rows += len(batch)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if kind is None and self._writer is not None:
                os.replace(self._temporary, self._path)  # noqa: PTH105 - the atomic one, by its name
        except OSError as failure:
            raise _unwritable(self._path, failure) from None
        finally:
            self._temporary.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> PlatformError:
    return PlatformError(f"{path}: cannot be written ({error.strerror or error}), expected a disk with room")


def sink(frame: pl.LazyFrame, path: Path) -> None:
    """Stream a lazy frame into a table that appears under its name only when all of it is there.

    Raises:
        PlatformError: The disk is full or cannot be written.
        polars.exceptions.PolarsError: The frame cannot be computed.
    """
    temporary = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.sink_parquet(temporary, compression="zstd", row_group_size=BATCH_ROWS)
        os.replace(temporary, path)  # noqa: PTH105 - the atomic one, by its name
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """SHA-256 of a file's bytes (hex, 64 characters)."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
