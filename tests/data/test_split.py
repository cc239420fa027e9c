"""A split keeps every row once, never lets the future teach the past, and is the same every time."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.data.contract import Contract
from canaryflow.data.split import SplitSummary, split
from canaryflow.errors import InputError

HOUR = datetime.timedelta(hours=1)
START = datetime.datetime(2013, 1, 1)


def contract(**columns: dict[str, Any]) -> Contract:
    return Contract.parse({"version": 1, "columns": {"row": {"kind": "integer"}} | columns}, "x")


TIMED = contract(when={"kind": "timestamp", "role": "time"}, late={"kind": "boolean", "role": "target"})
LABELLED = contract(species={"kind": "categorical", "role": "target"})
VALUED = contract(price={"kind": "number", "role": "target"})


def halves(
    folder: Path, frame: pl.DataFrame, against: Contract, fraction: float = 0.2, seed: int = 0
) -> tuple[SplitSummary, pl.DataFrame, pl.DataFrame]:
    frame.write_parquet(folder / "table", row_group_size=100)
    summary = split(folder / "table", against, fraction, seed, folder / "train", folder / "test")
    train, test = pl.read_parquet(folder / "train"), pl.read_parquet(folder / "test")
    assert (summary.train_rows, summary.test_rows) == (len(train), len(test))
    assert sorted([*train["row"], *test["row"]]) == sorted(frame["row"])
    assert train.schema == test.schema
    return summary, train, test


@given(
    hours=st.lists(st.integers(0, 12), min_size=2, max_size=80).filter(lambda found: len(set(found)) > 1),
    fraction=st.floats(0.05, 0.95),
)
def test_the_newest_rows_are_the_test_set(
    tmp_path_factory: pytest.TempPathFactory, hours: list[int], fraction: float
) -> None:
    times = [START + hour * HOUR for hour in hours]
    frame = pl.DataFrame({"row": range(len(hours)), "when": times, "late": [True] * len(hours)})
    summary, train, test = halves(tmp_path_factory.mktemp("split"), frame, TIMED, fraction)
    assert train["when"].max() < test["when"].min()  # type: ignore[operator]
    assert summary.boundary == str(test["when"].min())
    assert train["row"].is_sorted()
    assert test["row"].is_sorted()
    # No other boundary between two times comes nearer to the share that was asked for.
    wanted = fraction * len(hours)
    possible = [sum(time >= bound for time in times) for bound in sorted(set(times))[1:]]
    assert abs(len(test) - wanted) == pytest.approx(min(abs(size - wanted) for size in possible))


def test_columns_come_out_in_their_kinds_and_others_not_at_all(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {
            "late": ["true", "False"] * 50,
            "row": [float(index) for index in range(100)],
            "when": [f"2013-01-01T{index % 24:02}:00:00Z" for index in range(100)],
            "more": [1] * 100,
        }
    )
    _, train, _ = halves(tmp_path, frame, TIMED)
    assert dict(train.schema) == {"row": pl.Int64, "when": pl.Datetime("us"), "late": pl.Boolean}


@given(
    counts=st.lists(st.integers(2, 60), min_size=2, max_size=4),
    fraction=st.floats(0.3, 0.7),
    seed=st.integers(0, 9),
)
def test_classes_keep_their_shares(
    tmp_path_factory: pytest.TempPathFactory, counts: list[int], fraction: float, seed: int
) -> None:
    labels = [f"class {index}" for index, count in enumerate(counts) for _ in range(count)]
    frame = pl.DataFrame({"row": range(len(labels)), "species": labels})
    summary, _, test = halves(tmp_path_factory.mktemp("split"), frame, LABELLED, fraction, seed)
    assert summary.method == "stratified"
    for index, count in enumerate(counts):
        assert abs((test["species"] == f"class {index}").sum() - fraction * count) <= 0.5 + 1e-9


def test_a_seed_decides(tmp_path: Path) -> None:
    frame = pl.DataFrame({"row": range(1000), "price": [float(index) for index in range(1000)]})
    summary, _, first = halves(tmp_path, frame, VALUED, seed=1)
    assert (summary.method, summary.test_rows, summary.boundary) == ("random", 200, None)
    bytes_before = (tmp_path / "test").read_bytes()
    _, _, again = halves(tmp_path, frame, VALUED, seed=1)
    assert (tmp_path / "test").read_bytes() == bytes_before
    assert again.equals(first)
    assert not halves(tmp_path, frame, VALUED, seed=2)[2].equals(first)


BAD: list[tuple[dict[str, list[Any]], float, list[str]]] = [
    ({"row": [1, 2], "price": [1.0, 2.0]}, 0.0, ["test_fraction", "0.0"]),
    ({"row": [1, 2], "price": [1.0, 2.0]}, 1.0, ["test_fraction", "1.0"]),
    ({"row": [1, 2], "prise": [1.0, 2.0]}, 0.5, ['no column "price"', 'did you mean "prise"']),
    ({"row": [1, 2], "price": [1.0, None]}, 0.5, ["1 rows without a usable price"]),
    ({"row": ["1", "two"], "price": [1.0, 2.0]}, 0.5, ["row: ", '"two" in row 2', "a whole number"]),
    ({"row": [1], "price": [1.0]}, 0.2, ["1 rows", "none to test"]),
]


@pytest.mark.parametrize(("data", "fraction", "words"), BAD)
def test_what_cannot_be_split_is_told_and_nothing_stays(
    tmp_path: Path, data: dict[str, list[Any]], fraction: float, words: list[str]
) -> None:
    pl.DataFrame(data).write_parquet(tmp_path / "table")
    with pytest.raises(InputError) as caught:
        split(tmp_path / "table", VALUED, fraction, 0, tmp_path / "train", tmp_path / "test")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]


def test_one_time_alone_cannot_be_split(tmp_path: Path) -> None:
    frame = pl.DataFrame({"row": [1, 2], "when": [START, START], "late": [True, False]})
    frame.write_parquet(tmp_path / "table")
    with pytest.raises(InputError, match="a split by time"):
        split(tmp_path / "table", TIMED, 0.5, 0, tmp_path / "train", tmp_path / "test")
