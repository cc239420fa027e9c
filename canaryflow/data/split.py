"""The split: one table into rows to learn from and rows to be judged on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from canaryflow.data.contract import Contract
from canaryflow.data.kinds import EXPECTED, conform, conformed, may_be_unfit, unfit
from canaryflow.data.tables import BATCH_ROWS, TableWriter, open_parquet, scan
from canaryflow.data.wording import nearest, shown
from canaryflow.errors import InputError

Mask = npt.NDArray[np.bool_]

# Never to change: it decides on which side every row of every model so far is.
_SALT = b"canaryflow split"


@dataclass(frozen=True)
class SplitSummary:
    """What a split did.

    Attributes:
        train_rows: Rows to learn from.
        test_rows: Rows to be judged on.
        method: ``time`` (the newest rows are the test) or ``draw`` (each row by a digest of what it is).
        boundary: With a time column, the first time that belongs to the test set, as text; otherwise None.
    """

    train_rows: int
    test_rows: int
    method: str
    boundary: str | None = None


def split(
    table: Path, contract: Contract, test_fraction: float, seed: int, train: Path, test: Path
) -> SplitSummary:
    """Split a table in two, every column in its kind's type, columns the contract does not name left out.

    With a time column the newest rows are the test set and rows of one time stay together, so the share is as
    near to ``test_fraction`` as the times allow. Otherwise a digest of each row decides: of the contract's
    primary key, or of the whole row where there is none. So a row stays on its side when others come or go
    and whatever the seed, and a row that a champion has learnt from is never one that its challenger is
    judged on (as long as ``test_fraction`` does not grow). Each class has about the same share in both. Rows
    keep their order.

    Args:
        table: A Parquet file that meets the contract.
        contract: Names the columns, their kinds, the target and the time.
        test_fraction: Share of the rows to be judged on, between 0 and 1.
        seed: Decides nothing here, but search, folds and estimator: another draw would mix the sides.
        train: Where to write the rows to learn from.
        test: Where to write the rows to be judged on.

    Raises:
        InputError: The fraction is not between 0 and 1, a column is missing or does not fit its kind, a label
            is missing, or a side would be empty.
    """
    if not 0 < test_fraction < 1:
        raise InputError(f"test_fraction: found {test_fraction}, expected a number between 0 and 1 (0.2)")
    lazy = scan(table)
    contract = contract.in_order_of(lazy.collect_schema().names())
    _check_columns(table, lazy, contract)
    if contract.time is not None:
        mask, method, boundary = _newest(_column(lazy, contract, contract.time), test_fraction)
    else:
        mask, method, boundary = _drawn(table, contract, test_fraction), "draw", None
    if not mask.any() or mask.all():
        side, rows = ("test", len(mask)) if not mask.any() else ("train", len(mask))
        raise InputError(
            f"{table}: a split by {method} of {rows} rows leaves none to {side}, expected more rows"
        )
    _write(table, contract, mask, train, test)
    test_rows = int(mask.sum())
    return SplitSummary(len(mask) - test_rows, test_rows, method, boundary)


def _check_columns(table: Path, lazy: pl.LazyFrame, contract: Contract) -> None:
    schema = lazy.collect_schema()
    for name in contract.columns:
        if name not in schema:
            hint = nearest(name, schema.names())
            raise InputError(f'{table}: found no column "{name}", expected it by the contract{hint}')
    target, _ = contract.target
    needed = [target] if contract.time is None else [target, contract.time]
    counts = (
        conformed(lazy, {name: contract.columns[name] for name in needed})
        .null_count()
        .collect(engine="streaming")
    )
    for name in needed:
        if counts[name].item():
            raise InputError(
                f"{table}: found {counts[name].item():,} rows without a usable {name}, expected none"
            )


def _column(lazy: pl.LazyFrame, contract: Contract, name: str) -> pl.Series:
    return conformed(lazy, {name: contract.columns[name]}).collect(engine="streaming")[name]


def _newest(times: pl.Series, fraction: float) -> tuple[Mask, str, str | None]:
    """The rows from the time on at which the share of newer rows is nearest to ``fraction``."""
    counts = times.value_counts().sort(times.name)
    older = counts["count"].cum_sum().shift(1, fill_value=0).to_numpy()
    best = int(np.argmin(np.abs((len(times) - older) - fraction * len(times))))
    # Never everything, when there is a choice: a model has to learn from something.
    best = max(best, 1) if len(counts) > 1 else best
    boundary = counts[times.name][best]
    return (times >= boundary).to_numpy(), "time", str(boundary)


def _drawn(table: Path, contract: Contract, fraction: float) -> Mask:
    """The rows whose digest, as a part of the greatest one, is below ``fraction``."""
    # By name, for a source may reorder its columns; Python's text of a value is the same in every version.
    identity = sorted(contract.table.primary_key or contract.columns)
    bound = int(fraction * 2**64)
    return np.fromiter(
        (
            int.from_bytes(blake2b(repr(row).encode(), digest_size=8, key=_SALT).digest(), "big") < bound
            for batch in _batches(table, contract, identity)
            for row in batch.iter_rows()
        ),
        dtype=np.bool_,
    )


def _write(table: Path, contract: Contract, mask: Mask, train: Path, test: Path) -> None:
    with ExitStack() as stack:
        to_train, to_test = (stack.enter_context(TableWriter(path)) for path in (train, test))
        start = 0
        for batch in _batches(table, contract, list(contract.columns)):
            inside = pl.Series(mask[start : start + len(batch)])
            to_train.write(batch.filter(~inside))
            to_test.write(batch.filter(inside))
            start += len(batch)


def _batches(table: Path, contract: Contract, names: Sequence[str]) -> Iterator[pl.DataFrame]:
    columns = {name: contract.columns[name] for name in names}
    start = 0
    for raw in open_parquet(table).iter_batches(BATCH_ROWS, columns=list(columns)):
        frame = pl.DataFrame(raw)
        for name, column in columns.items():
            dtype = frame.schema[name]
            if may_be_unfit(column.kind, dtype):
                wrong = frame.with_row_index("row|").filter(unfit(name, column.kind, dtype))
                if len(wrong):
                    row = start + wrong["row|"][0] + 1
                    raise InputError(
                        f"{table}: {name}: found {shown(wrong[name][0])} in row {row}, "
                        f"expected {EXPECTED[column.kind]}"
                    )
        yield frame.select(conform(name, c.kind, frame.schema[name]) for name, c in columns.items())
        start += len(frame)
