"""Every source becomes the same table, or one line that names what is wrong; nothing half-written stays."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest

from canaryflow.data import sqlite
from canaryflow.data.contract import infer
from canaryflow.data.kinds import conform
from canaryflow.data.sources import ingest
from canaryflow.data.tables import TableWriter
from canaryflow.errors import InputError, PlatformError


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "da ta.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE points (a INTEGER, b, c TEXT)")
        rows = [
            (index, None if index < 5 else index + 0.5 * (index > 10), f"t{index}") for index in range(20)
        ]
        connection.executemany("INSERT INTO points VALUES (?, ?, ?)", rows)
        connection.commit()
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(source: str, to: Path, query: str = "", **arguments: Any) -> pl.DataFrame:  # noqa: ANN401
    summary = ingest(source, query, arguments, to)
    table = pl.read_parquet(to)
    assert (summary.rows, summary.columns) == (len(table), table.columns)
    assert len(summary.digest) == 64
    return table


def test_csv_types_are_settled_by_every_row(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("a,b,c\n" + "1,2,x\n" * 5000 + "N/A,2.5,\n")
    table = read(str(path), tmp_path / "out")
    assert table.schema == {"a": pl.String, "b": pl.Float64, "c": pl.String}
    assert table["a"][-1] == "N/A"
    assert table["c"][-1] is None
    assert read(path.as_uri(), tmp_path / "out").equals(table)


def test_csv_labels_keep_their_leading_zeros(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    lines = [
        f"0{index:04},{index},0.{index:02},{index % 2},2013-0{index % 9 + 1}-01,{index % 2 == 0}".lower()
        for index in range(100)
    ]
    path.write_text("\n".join(["post,count,share,flag,day,late", *lines, ",7,-0.5,0,,true"]) + "\n")
    table = read(str(path), tmp_path / "out")
    assert table["post"].to_list() == [*(f"0{index:04}" for index in range(100)), None]
    assert table.dtypes == [pl.String, pl.Int64, pl.Float64, pl.Int64, pl.String, pl.Boolean]
    guessed = {name: column["kind"] for name, column in infer(tmp_path / "out")["columns"].items()}
    assert guessed == {
        "post": "text",
        "count": "integer",
        "share": "number",
        "flag": "boolean",
        "day": "timestamp",
        "late": "boolean",
    }
    # As long as the contract says so it is a number, and few enough labels are categories.
    assert pl.read_parquet(tmp_path / "out").select(conform("post", "integer", pl.String()))["post"][7] == 7
    path.write_text("post,late\n" + "01234,1\n1234,0\n" * 20)
    read(str(path), tmp_path / "out")
    assert infer(tmp_path / "out")["columns"]["post"] == {"kind": "categorical"}


def test_parquet_comes_out_in_small_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    frame = pl.DataFrame({"a": range(300_000)})
    frame.write_parquet(path, row_group_size=300_000)
    assert read(str(path), tmp_path / "out").equals(frame)
    metadata = pq.read_metadata(tmp_path / "out")
    assert max(metadata.row_group(index).num_rows for index in range(metadata.num_row_groups)) <= 128 * 1024


@pytest.mark.parametrize(
    ("name", "rows", "target", "dtype"),
    [
        ("iris", 150, "species", pl.String),
        ("wine", 178, "cultivar", pl.String),
        ("breast_cancer", 569, "diagnosis", pl.String),
        ("diabetes", 442, "progression", pl.Float64),
    ],
)
def test_samples(tmp_path: Path, name: str, rows: int, target: str, dtype: pl.DataType) -> None:
    table = read(f"sample:{name}", tmp_path / "out")
    assert (len(table), table.columns[-1], table.schema[target]) == (rows, target, dtype)
    if name == "iris":
        assert table.columns[:4] == ["sepal_length", "sepal_width", "petal_length", "petal_width"]
        assert set(table["species"]) == {"setosa", "versicolor", "virginica"}


def test_a_query_gives_its_rows(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    query = "SELECT a, b, c FROM points WHERE a < :until -- not :this\n ORDER BY a"
    whole = read(f"sqlite:///{database}", tmp_path / "out", query, until=15)
    assert whole.schema == {"a": pl.Int64, "b": pl.Float64, "c": pl.String}
    assert whole["a"].to_list() == list(range(15))
    assert whole["b"].null_count() == 5
    # Types that change on the way (nothing, whole numbers, fractions) give the same table.
    monkeypatch.setattr(sqlite, "FETCH_ROWS", 3)
    assert read(f"sqlite:///{database}", tmp_path / "out", query, until=15).equals(whole)
    assert names(tmp_path) == [database.name, "out"]


def test_values_are_bound_never_pasted(tmp_path: Path, database: Path) -> None:
    with pytest.raises(InputError, match="no rows"):
        read(
            f"sqlite:///{database}",
            tmp_path / "out",
            "SELECT a FROM points WHERE c = :name",
            name="x' OR '1'='1",
        )


@pytest.mark.parametrize(
    ("query", "arguments", "words"),
    [
        ("", {}, ["no query"]),
        ("SELECT a FROM points WHERE a < :until", {"untill": 3}, [":until", 'did you mean "untill"']),
        ("SELECT a FROM points", {"until": 3}, ['"until"', "the query uses"]),
        ("SELECT a FROM points WHERE a < :until", {"until": [3]}, ["query_args.until", "a list"]),
        ("SELECT a FROM pionts", {}, ["no such table: pionts"]),
        ("SELECT a FROM points; DROP TABLE points", {}, ["one statement"]),
        ("DELETE FROM points", {}, ["readonly"]),
        ("SELECT a, b AS a FROM points", {}, ['"a" twice']),
        ("SELECT x'00' AS raw", {}, ['"raw"', "binary"]),
        ("SELECT a FROM points WHERE a > 100", {}, ["no rows"]),
    ],
)
def test_a_wrong_query_is_one_line(
    tmp_path: Path, database: Path, query: str, arguments: Mapping[str, Any], words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        ingest(f"sqlite:///{database}", query, arguments, tmp_path / "out")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert names(tmp_path) == [database.name]
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT count(*) FROM points").fetchone() == (20,)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("missing.csv", ["missing.csv", "no such file"]),
        ("folder", ["a folder", ".parquet"]),
        ("notes.txt", ['".txt"', ".csv"]),
        ("empty.csv", ["empty.csv", "empty"]),
        ("header.csv", ["header.csv", "no rows"]),
        ("ragged.csv", ["ragged.csv", "fields"]),
        ("latin.csv", ["latin.csv", "utf-8"]),
        ("twice.csv", ['"a" twice']),
        ("broken.parquet", ["broken.parquet", "Parquet"]),
        ("sqlite:///missing.db", ["missing.db", "no such file", "SQLite"]),
        ("sqlite:missing.db", ["sqlite:///PATH"]),
        ("sample:irs", ["sample:irs", 'did you mean "iris"']),
        ("sample:flights", ["canaryflow sample flights"]),
        ("s3://bucket/key", ["s3://bucket/key", "sqlite:///PATH"]),
    ],
)
def test_a_wrong_source_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("notes.txt").write_text("x")
    Path("empty.csv").write_text("")
    Path("header.csv").write_text("a,b\n")
    Path("ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    Path("latin.csv").write_bytes(b"a,b\n1,\xff\n")
    Path("twice.csv").write_text("a,a\n1,2\n")
    Path("broken.parquet").write_bytes(b"PAR1 nothing")
    before = names(Path())
    with pytest.raises(InputError) as caught:
        ingest(source, "SELECT 1 AS a" if source.startswith("sqlite") else "", {}, Path("out"))
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)
    assert names(Path()) == before


def test_a_query_beside_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a query"):
        ingest("sample:iris", "SELECT 1", {}, tmp_path / "out")
    with pytest.raises(InputError, match="until"):
        ingest("sample:iris", "", {"until": 1}, tmp_path / "out")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.fail("expected /dev/full, as Linux has")
    writer = TableWriter(tmp_path / "table")
    with pytest.raises(PlatformError) as caught, writer:
        (tmp_path / f".table.{os.getpid()}.part").symlink_to(full)
        writer.write(pl.DataFrame({"a": range(200_000)}))
    assert "No space left" in str(caught.value)
    assert names(tmp_path) == []


def test_a_table_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(KeyError), TableWriter(tmp_path / "table") as writer:
        writer.write(pl.DataFrame({"a": [1]}))
        raise KeyError
    assert names(tmp_path) == []
    with TableWriter(tmp_path / "table") as writer:
        writer.write(pl.DataFrame({"a": [1]}))
        assert "table" not in names(tmp_path)
    assert names(tmp_path) == ["table"]


def test_a_failed_read_leaves_the_old_table(tmp_path: Path, database: Path) -> None:
    out = tmp_path / "out"
    read("sample:iris", out)
    before = out.read_bytes()
    with pytest.raises(InputError):
        ingest(
            f"sqlite:///{database}", "SELECT abs(-9223372036854775807 - (a > 15)) AS a FROM points", {}, out
        )
    assert out.read_bytes() == before
