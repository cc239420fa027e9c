"""Small tables of every kind of column, as the split writes them, with an answer that can be learnt."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from canaryflow.data.contract import Contract

FEATURES = {
    "city": {"kind": "categorical", "nullable": True},
    "shop": {"kind": "categorical"},
    "price": {"kind": "number", "nullable": True},
    "count": {"kind": "integer", "min": 0},
    "open": {"kind": "boolean", "nullable": True},
    "noise": {"kind": "number"},
}
TARGETS = {"binary": "boolean", "multiclass": "categorical", "regression": "number"}


def contract(problem: str, time: bool = False) -> Contract:
    columns: dict[str, object] = dict(FEATURES) | {"answer": {"kind": TARGETS[problem], "role": "target"}}
    if time:
        columns["at"] = {"kind": "timestamp", "role": "time"}
    return Contract.parse({"version": 1, "columns": columns}, "test")


def table(problem: str, rows: int = 600, seed: int = 0, learnable: bool = True) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    city = generator.choice(["Oslo", "Rome", "Łódź", "Lima"], rows)
    price = generator.gamma(2.0, 10.0, rows)
    count = generator.integers(0, 40, rows)
    is_open = generator.random(rows) < 0.7
    truth = 0.08 * price + np.where(city == "Rome", 2.0, 0.0) + 0.03 * count + is_open
    if not learnable:
        truth = generator.permutation(truth)
    truth = truth + generator.normal(0, 0.5, rows)
    answer = {
        "binary": truth > 3.5,
        "multiclass": np.array(["low", "mid", "top"])[np.digitize(truth, [2.5, 4.5])],
        "regression": 1000 * truth,
    }[problem]

    def holes(values: np.ndarray, share: float) -> list[object]:
        gone = generator.random(rows) < share
        return [None if hole else value for value, hole in zip(values.tolist(), gone, strict=True)]

    start = datetime(2024, 1, 1)
    return pl.DataFrame(
        {
            "city": pl.Series(holes(city, 0.05), dtype=pl.String),
            "shop": generator.choice([f"s{index}" for index in range(25)], rows),
            "price": pl.Series(holes(price, 0.1), dtype=pl.Float64),
            "count": count,
            "open": pl.Series(holes(is_open, 0.05), dtype=pl.Boolean),
            "noise": generator.normal(0, 1, rows),
            "answer": answer,
            "at": [start + timedelta(hours=int(index) // 5) for index in range(rows)],
        }
    )


def write(folder: Path, problem: str, name: str = "train", **options: object) -> Path:
    path = folder / name
    table(problem, **options).write_parquet(path)  # type: ignore[arg-type]
    return path
