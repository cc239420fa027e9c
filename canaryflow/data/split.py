"""The split: one table into rows to learn from and rows to be judged on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
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


@dataclass(frozen=True)
class SplitSummary:
    """What a split did.

    Attributes:
        train_rows: Rows to learn from.
        test_rows: Rows to be judged on.
        method: ``time`` (the newest rows are the test), ``stratified`` (seeded, classes in equal shares) or
            ``random``.
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
    near to ``test_fraction`` as the times allow. Otherwise rows are drawn by the seed, the same share of each
    class where the target is a label or a boolean. Rows keep their order.

    Args:
        table: A Parquet file that meets the contract.
        contract: Names the columns, their kinds, the target and the time.
        test_fraction: Share of the rows to be judged on, between 0 and 1.
        seed: Decides the draw where there is no time column.
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
    mask, method, boundary = _test_rows(lazy, contract, test_fraction, seed)
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


def _test_rows(
    lazy: pl.LazyFrame, contract: Contract, fraction: float, seed: int
) -> tuple[Mask, str, str | None]:
    target, column = contract.target
    if contract.time is not None:
        return _newest(_column(lazy, contract, contract.time), fraction)
    if column.kind == "number":
        rows = lazy.select(pl.len()).collect().item()
        return _drawn(np.zeros(rows, dtype=np.int64), fraction, seed), "random", None
    labels = _column(lazy, contract, target).cast(pl.String)
    classes = pl.Enum(labels.unique().sort())
    return _drawn(labels.cast(classes).to_physical().to_numpy(), fraction, seed), "stratified", None


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


def _drawn(classes: npt.NDArray[np.integer], fraction: float, seed: int) -> Mask:
    generator = np.random.default_rng(seed)
    mask: Mask = np.zeros(len(classes), dtype=np.bool_)
    for label in np.unique(classes):
        rows = np.flatnonzero(classes == label)
        drawn = generator.permutation(rows)[: int(len(rows) * fraction + 0.5)]
        mask[drawn] = True
    return mask


def _write(table: Path, contract: Contract, mask: Mask, train: Path, test: Path) -> None:
    with ExitStack() as stack:
        to_train, to_test = (stack.enter_context(TableWriter(path)) for path in (train, test))
        start = 0
        for batch in _batches(table, contract, start):
            inside = pl.Series(mask[start : start + len(batch)])
            to_train.write(batch.filter(~inside))
            to_test.write(batch.filter(inside))
            start += len(batch)


def _batches(table: Path, contract: Contract, start: int) -> Iterator[pl.DataFrame]:
    for raw in open_parquet(table).iter_batches(BATCH_ROWS, columns=list(contract.columns)):
        frame = pl.DataFrame(raw)
        for name, column in contract.columns.items():
            dtype = frame.schema[name]
            if may_be_unfit(column.kind, dtype):
                wrong = frame.with_row_index("row|").filter(unfit(name, column.kind, dtype))
                if len(wrong):
                    row = start + wrong["row|"][0] + 1
                    raise InputError(
                        f"{table}: {name}: found {shown(wrong[name][0])} in row {row}, "
                        f"expected {EXPECTED[column.kind]}"
                    )
        yield frame.select(conform(name, c.kind, frame.schema[name]) for name, c in contract.columns.items())
        start += len(frame)
