"""Small real bundles of every problem type, made with scikit-learn and skl2onnx."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from canaryflow.bundle.format import MODEL, PROFILE, SAMPLES, Bundle, Feature, Signature, seal

CLASSES = {"binary": ("no", "yes"), "multiclass": ("low", "mid", "top"), "regression": ()}
FEATURES = (
    Feature("distance", "number", nullable=False, minimum=0.0, maximum=5000.0),
    Feature("temp", "number", nullable=True, minimum=-30.0, maximum=45.0),
    Feature("carrier", "categorical", nullable=False, categories=("AA", "B6", "UA")),
    Feature("origin", "categorical", nullable=True, categories=("EWR", "JFK", "LGA")),
    Feature("holiday", "boolean", nullable=True),
)
TOLERANCE = 1e-5


def signature(problem: str, threshold: float | None = 0.4) -> Signature:
    return Signature(problem, "late", FEATURES, CLASSES[problem], threshold if problem == "binary" else None)


def rows(count: int, seed: int = 0) -> list[dict[str, object]]:
    """Rows as JSON objects, with nulls and unknown categories among them."""
    rng = np.random.default_rng(seed)
    made: list[dict[str, object]] = []
    for index in range(count):
        row = {
            "distance": round(float(rng.uniform(100, 4000)), 1),
            "temp": None if index % 5 == 4 else round(float(rng.normal(15, 9)), 1),
            "carrier": "ZZ" if index % 7 == 6 else str(rng.choice(["AA", "B6", "UA"])),
            "origin": None if index % 6 == 5 else str(rng.choice(["EWR", "JFK", "LGA"])),
            "holiday": None if index % 9 == 8 else bool(rng.random() < 0.3),
        }
        made.append(row)
    return made


def frame(records: list[dict[str, object]]) -> pd.DataFrame:
    """The table that the estimator is fitted on: float32 with NaN, text with ""."""
    table = pd.DataFrame(records)
    for name in ("distance", "temp", "holiday"):
        table[name] = table[name].astype("float64").astype("float32")
    for name in ("carrier", "origin"):
        table[name] = table[name].astype(object).where(table[name].notna(), "")
    return table


def make(problem: str, path: Path, trees: int = 12, seed: int = 0) -> Bundle:
    """Train, export and seal a bundle of ``problem`` in ``path``."""
    path.mkdir(parents=True, exist_ok=True)
    table = frame(rows(400, seed))
    rng = np.random.default_rng(seed)
    signal = (
        table["distance"] / 1000
        + table["temp"].fillna(10) / 15
        + (table["carrier"] == "UA")
        + rng.normal(0, 0.3, 400)
    )
    forest = RandomForestRegressor if problem == "regression" else RandomForestClassifier
    estimator = Pipeline(
        [
            (
                "columns",
                ColumnTransformer(
                    [
                        ("numbers", SimpleImputer(), ["distance", "temp", "holiday"]),
                        (
                            "text",
                            OneHotEncoder(handle_unknown="ignore", sparse_output=False),
                            ["carrier", "origin"],
                        ),
                    ]
                ),
            ),
            ("model", forest(trees, max_depth=5, random_state=seed)),
        ]
    )
    target = {
        "binary": np.where(signal > 3.5, "yes", "no"),
        "multiclass": np.array(["low", "mid", "top"])[np.digitize(signal, [2.5, 4.0])],
        "regression": signal * 100,
    }[problem]
    estimator.fit(table, target)
    kinds = [
        (feature.name, (StringTensorType if feature.kind == "categorical" else FloatTensorType)([None, 1]))
        for feature in FEATURES
    ]
    options = {} if problem == "regression" else {id(estimator): {"zipmap": False}}
    (path / MODEL).write_bytes(to_onnx(estimator, initial_types=kinds, options=options).SerializeToString())
    inputs = rows(40, seed + 1)
    answers = (
        estimator.predict(frame(inputs))
        if problem == "regression"
        else estimator.predict_proba(frame(inputs))
    )
    (path / SAMPLES).write_text(json.dumps({"inputs": inputs, "answers": answers.tolist()}))
    (path / PROFILE).write_text("{}")
    return seal(
        path,
        f"tiny-{problem}",
        signature(problem),
        TOLERANCE,
        {"data_digest": "d" * 12, "metrics": {"auc": 0.9}},
    )
