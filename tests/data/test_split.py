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


@pytest.mark.parametrize("fraction", [0.1, 0.2, 0.5])
def test_classes_keep_about_their_shares(tmp_path: Path, fraction: float) -> None:
    counts = {"common": 8000, "rare": 800}
    labels = [label for label, count in counts.items() for _ in range(count)]
    frame = pl.DataFrame({"row": range(len(labels)), "species": labels})
    summary, _, test = halves(tmp_path, frame, LABELLED, fraction)
    assert (summary.method, summary.boundary) == ("draw", None)
    for label, count in counts.items():
        four_deviations = 4 * (count * fraction * (1 - fraction)) ** 0.5
        assert abs((test["species"] == label).sum() - fraction * count) <= four_deviations


def test_a_row_keeps_its_side_whatever_comes_and_whatever_the_seed(tmp_path: Path) -> None:
    frame = pl.DataFrame({"row": range(1000), "price": [index / 7 for index in range(1000)]})
    _, _, first = halves(tmp_path, frame, VALUED, seed=1)
    bytes_before = (tmp_path / "test").read_bytes()
    halves(tmp_path, frame, VALUED, seed=2)
    assert (tmp_path / "test").read_bytes() == bytes_before
    # More rows, in another order, the columns too, and whole numbers that came as fractions.
    more = pl.DataFrame({"row": range(-300, 1500), "price": [index / 7 for index in range(-300, 1500)]})
    shuffled = more.sample(fraction=1, shuffle=True, seed=3).select("price", pl.col("row").cast(pl.Float64))
    _, train, test = halves(tmp_path, shuffled, VALUED)
    assert set(first["row"]) <= set(test["row"])
    assert not set(first["row"]) & set(train["row"])
    assert set(test["row"]) & set(range(1000)) == set(first["row"])
    # A larger share only adds rows to the test set.
    assert set(first["row"]) <= set(halves(tmp_path, frame, VALUED, 0.4)[2]["row"])


def test_a_primary_key_keeps_a_row_on_its_side_when_its_values_change(tmp_path: Path) -> None:
    keyed = Contract.parse(VALUED.model_dump(mode="json") | {"table": {"primary_key": ["row"]}}, "x")
    frame = pl.DataFrame({"row": range(1000), "price": [1.0] * 1000})
    _, _, first = halves(tmp_path, frame, keyed)
    _, _, later = halves(tmp_path, frame.with_columns(price=pl.col("row") * 2.0), keyed)
    assert later["row"].to_list() == first["row"].to_list()
    assert 140 < len(first) < 260


def test_the_same_rows_are_on_the_same_side_in_every_release(tmp_path: Path) -> None:
    frame = pl.DataFrame({"row": range(30), "price": [index / 8 for index in range(30)]})
    assert halves(tmp_path, frame, VALUED)[2]["row"].to_list() == [7, 12, 14, 27]


BAD: list[tuple[dict[str, list[Any]], float, list[str]]] = [
    ({"row": [1, 2], "price": [1.0, 2.0]}, 0.0, ["test_fraction", "0.0"]),
    ({"row": [1, 2], "price": [1.0, 2.0]}, 1.0, ["test_fraction", "1.0"]),
    ({"row": [1, 2], "prise": [1.0, 2.0]}, 0.5, ['no column "price"', 'did you mean "prise"']),
    ({"row": [1, 2], "price": [1.0, None]}, 0.5, ["1 rows without a usable price"]),
    ({"row": ["1", "two"], "price": [1.0, 2.0]}, 0.5, ["row: ", '"two" in row 2', "a whole number"]),
    ({"row": [1], "price": [1.0]}, 0.2, ["a split by draw of 1 rows", "leaves none to"]),
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
