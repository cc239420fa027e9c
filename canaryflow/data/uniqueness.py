"""Whether rows can be told apart, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import polars as pl

SLICE_ROWS = 20_000_000
"""Rows whose hashes are held at once (16 to 32 bytes each); more rows take more passes, not more memory."""


def repeated(table: pl.LazyFrame, key: Sequence[str], rows: int) -> int:
    """Count the rows whose key was there before.

    Rows are compared by a 64-bit hash first; only where hashes repeat are the keys themselves compared.

    Args:
        table: The rows.
        key: The columns that together should tell rows apart. Missing values are equal to each other.
        rows: Number of rows.
    """
    hashed = table.select(*key, pl.struct(list(key)).hash(0).alias("hash|"))
    slices = -(-rows // SLICE_ROWS) or 1
    total = 0
    for index in range(slices):
        part = hashed.filter(pl.col("hash|") % slices == index) if slices > 1 else hashed
        seen = part.select(pl.len().alias("rows"), pl.col("hash|").n_unique().alias("keys"))
        found = seen.collect(engine="streaming")
        if found["rows"][0] > found["keys"][0]:
            total += _repeated_exactly(part, key)
    return total


def _repeated_exactly(part: pl.LazyFrame, key: Sequence[str]) -> int:
    suspects = part.group_by("hash|").len().filter(pl.col("len") > 1).select("hash|")
    groups = part.join(suspects, on="hash|", how="semi").group_by(list(key)).len()
    return int(groups.select((pl.col("len") - 1).sum()).collect(engine="streaming").item())


def example(table: pl.LazyFrame, key: Sequence[str]) -> tuple[int, dict[str, Any]] | None:
    """The first row (counted from 1) whose key was there before, with its key."""
    numbered = table.select(*key).with_row_index("row|", offset=1)
    later = numbered.filter(pl.int_range(pl.len()).over(list(key)) > 0) if key else numbered
    found = later.head(1).collect()
    if not len(found):
        return None
    row = found.row(0, named=True)
    return int(row.pop("row|")), row
