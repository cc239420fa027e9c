"""The flights sample: all rows, no answer among the features, and a question that can be answered."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import yaml
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from canaryflow.data.contract import Contract
from canaryflow.data.kinds import DTYPES
from canaryflow.data.samples import FlightsSample, write_flights
from canaryflow.data.sources import ingest
from canaryflow.data.split import split
from canaryflow.data.validation import validate
from canaryflow.errors import PlatformError

JUNE, SEPTEMBER = "2013-07-01", "2013-10-01"
LEAKING = ("dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> FlightsSample:
    return write_flights(tmp_path_factory.mktemp("flights"))


@pytest.fixture(scope="module")
def tables(sample: FlightsSample, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("ingested")
    return {until: ingested(sample, sample.database, until, folder / until) for until in (JUNE, SEPTEMBER)}


@pytest.fixture
def copy(sample: FlightsSample, tmp_path: Path) -> Iterator[sqlite3.Connection]:
    path = tmp_path / "copy.db"
    path.write_bytes(sample.database.read_bytes())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        yield connection


def parameters(sample: FlightsSample) -> dict[str, Any]:
    return dict(yaml.safe_load(sample.params.read_text()))


def ingested(sample: FlightsSample, database: Path, until: str, to: Path) -> Path:
    ingest(f"sqlite:///{database}", parameters(sample)["query"], {"until": until}, to)
    return to


def test_every_flight_is_there(sample: FlightsSample) -> None:
    with closing(sqlite3.connect(sample.database)) as connection:
        assert connection.execute("SELECT count(*) FROM flights").fetchone() == (336_776,)
        assert connection.execute("SELECT count(*) FROM weather").fetchone() == (26_115,)
        assert connection.execute("SELECT count(*) FROM flights WHERE arr_delay IS NULL").fetchone() == (
            9_430,
        )


def test_it_meets_its_contract(sample: FlightsSample, tables: dict[str, Path]) -> None:
    contract = Contract.load(sample.contract)
    assert (contract.target[0], contract.time) == ("late", "time_hour")
    for table in tables.values():
        verdict = validate(table, contract).verdict
        assert verdict.passed, verdict.reasons
    assert pl.scan_parquet(tables[JUNE]).select(pl.len()).collect().item() == 160_590
    assert pl.read_parquet(tables[SEPTEMBER], columns=["time_hour"])["time_hour"].max() < SEPTEMBER


def test_no_feature_knows_what_happened(
    sample: FlightsSample, tables: dict[str, Path], copy: sqlite3.Connection, tmp_path: Path
) -> None:
    """What is known only later is replaced; which side of 15 minutes a flight was on stays."""
    copy.execute(
        "UPDATE flights SET dep_time = abs(random() % 2400), dep_delay = random() % 500, tailnum = 'x',"
        " arr_time = abs(random() % 2400), air_time = abs(random() % 600),"
        " arr_delay = CASE WHEN arr_delay >= 15 THEN 15 + abs(random() % 999)"
        " WHEN arr_delay < 15 THEN 14 - abs(random() % 999) END"
    )
    copy.commit()
    again = ingested(sample, tmp_path / "copy.db", JUNE, tmp_path / "again")
    original = pl.read_parquet(tables[JUNE])
    assert pl.read_parquet(again).equals(original)
    assert not set(original.columns) & set(LEAKING)
    # The proof above would be worth nothing if the answer did not come from what was replaced.
    copy.execute("UPDATE flights SET arr_delay = -arr_delay")
    copy.commit()
    turned = pl.read_parquet(ingested(sample, tmp_path / "copy.db", JUNE, tmp_path / "turned"))
    assert turned.drop("late").equals(original.drop("late"))
    assert not turned["late"].equals(original["late"])


@pytest.mark.parametrize("until", [JUNE, SEPTEMBER])
def test_the_question_can_be_answered(
    sample: FlightsSample, tables: dict[str, Path], until: str, tmp_path: Path
) -> None:
    contract = Contract.load(sample.contract)
    summary = split(tables[until], contract, 0.2, 0, tmp_path / "train", tmp_path / "test")
    share = summary.test_rows / (summary.train_rows + summary.test_rows)
    assert share == pytest.approx(0.2, abs=0.001)
    train, test = pl.read_parquet(tmp_path / "train"), pl.read_parquet(tmp_path / "test")
    labels = [name for name, column in contract.features.items() if column.kind == "categorical"]
    numbers = [name for name in contract.features if name not in labels]
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    model = make_pipeline(
        ColumnTransformer([("labels", encoder, labels)], remainder="passthrough"),
        HistGradientBoostingClassifier(max_iter=50, random_state=0, early_stopping=False),
    )

    def inputs(frame: pl.DataFrame) -> Any:  # noqa: ANN401
        return frame.select(*labels, pl.col(numbers).cast(pl.Float32)).to_pandas()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(inputs(train), train["late"].to_numpy())
        scores = model.predict_proba(inputs(test))[:, 1]
    late = test["late"].to_numpy()
    assert roc_auc_score(late, scores) >= 0.71
    assert log_loss(late, scores) < log_loss(late, np.full(len(late), late.mean())) - 0.02


def test_the_replay_is_october_in_order_and_looks_like_the_rows_learned_from(sample: FlightsSample) -> None:
    contract = Contract.load(sample.contract)
    replay = pl.read_parquet(sample.replay)
    wanted = contract.features | {"late": contract.columns["late"]}
    assert dict(replay.schema) == {name: DTYPES[column.kind] for name, column in wanted.items()}
    assert len(replay) == 30_000
    # The first of October is 76 days after midsummer, and days only pass.
    days = replay["days_from_midsummer"]
    assert days[0] == 76
    assert days.is_sorted()


def test_what_was_edited_stays_and_what_is_missing_comes_back(sample: FlightsSample, tmp_path: Path) -> None:
    for path in (sample.database, sample.replay, sample.contract):
        (tmp_path / path.name).hardlink_to(path)
    (tmp_path / "params.yaml").write_text("mine")
    assert write_flights(tmp_path).params.read_text() == "mine"
    (tmp_path / "params.yaml").unlink()
    told: list[str] = []
    assert parameters(write_flights(tmp_path, told.append))["name"] == "flights"
    assert told == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="file"):
        write_flights(tmp_path / "file")
