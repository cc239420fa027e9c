from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest

from canaryflow.bundle.format import ESTIMATOR, MODEL, PROFILE, REPORT, SAMPLES, Bundle, seal
from canaryflow.bundle.scorer import Scorer
from canaryflow.errors import BundleError, GateFailed, InputError
from canaryflow.model import estimators
from canaryflow.model.estimators import FAMILIES
from canaryflow.model.export import UNKNOWN_CATEGORY
from canaryflow.model.training import TrainSpec, train
from tests.model.conftest import PROBLEMS
from tests.model.tables import contract, table, write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_bundle_is_whole_and_proves_itself(trained: dict[str, Bundle], problem: str) -> None:
    bundle = Bundle.open(trained[problem].path)
    assert Scorer(bundle).prove() >= 32
    assert bundle.signature.problem == problem
    assert bundle.signature.names == tuple(contract(problem).features)
    assert {ESTIMATOR, PROFILE, REPORT, "MLmodel"} <= bundle.manifest.files.keys()
    assert bundle.manifest.provenance["contract_digest"] == contract(problem).digest


@pytest.mark.parametrize("unit", [1e-12, 1e-6, 1e6])
def test_samples_prove_something_in_every_unit(tmp_path: Path, unit: float) -> None:
    rows = table("regression").with_columns(answer=pl.col("answer") / 1000 * unit)
    rows.write_parquet(tmp_path / "train")
    spec = TrainSpec("shop", search_trials=1, cv_folds=2)
    bundle = train(tmp_path / "train", contract("regression"), spec, tmp_path / "bundle", None)
    assert Scorer(bundle).prove() >= 32
    samples = json.loads(bundle.file(SAMPLES).read_text())
    # A hundredth of the answers' spread is nothing that rounding explains.
    samples["answers"][0] += 0.01 * statistics.stdev(samples["answers"])
    bundle.file(SAMPLES).write_text(json.dumps(samples))
    manifest = bundle.manifest
    altered = seal(bundle.path, manifest.name, manifest.signature, manifest.tolerance, manifest.provenance)
    with pytest.raises(BundleError, match="sample 0"):
        Scorer(altered).prove()


def test_samples_hold_nulls_and_unknown_categories(trained: dict[str, Bundle]) -> None:
    rows = json.loads(trained["binary"].file(SAMPLES).read_text())["inputs"]
    for name in ("city", "price", "open"):
        assert any(row[name] is None for row in rows), name
    for name in ("city", "shop"):
        assert any(row[name] == UNKNOWN_CATEGORY for row in rows), name
    assert all(row["count"] is not None and isinstance(row["count"], int) for row in rows)
    assert {type(row["open"]) for row in rows} == {bool, type(None)}


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "hist_gradient_boosting"])
@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_every_estimator_serves_exactly_what_it_learnt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, problem: str
) -> None:
    family = FAMILIES[name]
    if "n_estimators" in family.start:
        small = replace(family, start=family.start | {"n_estimators": 10})
        monkeypatch.setitem(estimators.FAMILIES, name, small)  # type: ignore[arg-type]
    spec = TrainSpec("shop", name, search_trials=1, cv_folds=2)
    bundle = train(write(tmp_path, problem), contract(problem), spec, tmp_path / "bundle", None)
    assert Scorer(bundle).prove() >= 32
    metrics = bundle.manifest.provenance["metrics"]["folds_mean"]
    if problem == "regression":
        assert metrics["r2"] > 0.3 or name == "neural_network"  # it gets too few steps at this size
    else:
        assert metrics["balanced_accuracy"] > 1.2 / len(bundle.signature.classes)


def test_what_onnx_would_get_wrong_is_refused_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # ONNX's forests misread NaN, which is why the registry imputes for them.
    monkeypatch.setitem(
        estimators.FAMILIES,  # type: ignore[arg-type]
        "random_forest",
        replace(FAMILIES["random_forest"], columns="nan", start={"n_estimators": 10}),
    )
    spec = TrainSpec("shop", "random_forest", search_trials=1, cv_folds=2)
    with pytest.raises(GateFailed, match=r"differ from the estimator's by up to .* expected at most 1e-05"):
        train(write(tmp_path, "binary"), contract("binary"), spec, tmp_path / "bundle", None)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_the_same_data_and_seed_give_the_same_version_in_another_process(
    trained: dict[str, Bundle], tmp_path: Path
) -> None:
    script = (
        "from pathlib import Path\n"
        "from canaryflow.model.training import TrainSpec, train\n"
        "from tests.model.tables import contract, write\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "for problem in ('binary', 'regression'):\n"
        "    spec = TrainSpec('shop-' + problem, search_trials=2)\n"
        "    out = folder / problem\n"
        "    print(train(write(folder, problem), contract(problem), spec, out, None).version)\n"
    )
    # Another hash seed and another number of threads: orders of sets and of sums change.
    environment = os.environ | {"PYTHONHASHSEED": "17", "POLARS_MAX_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, cwd=ROOT
    )
    assert done.stdout.split() == [trained["binary"].version, trained["regression"].version], done.stderr


def test_the_operator_sets_have_one_order(trained: dict[str, Bundle]) -> None:
    # The converter's own order follows the hash seed, so a version would be a matter of luck.
    domains = [item.domain for item in onnx.load(trained["binary"].file(MODEL)).opset_import]
    assert domains == sorted(domains)
    assert len(domains) > 1


def test_another_seed_gives_another_version(trained: dict[str, Bundle], tmp_path: Path) -> None:
    spec = TrainSpec("shop-binary", search_trials=1, seed=1)
    other = train(write(tmp_path, "binary"), contract("binary"), spec, tmp_path / "bundle", None)
    assert other.version != trained["binary"].version


def test_with_a_time_column_folds_go_forward(tmp_path: Path) -> None:
    spec = TrainSpec("shop", search_trials=1)
    rules = contract("binary", time=True)
    bundle = train(write(tmp_path, "binary"), rules, spec, tmp_path / "bundle", None)
    assert "forward in time" in bundle.file(REPORT).read_text()
    assert "at" not in bundle.signature.names


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (TrainSpec("m", "random_forrest"), r"'random_forrest', expected one of hist_.*mean 'random_forest'"),
        (TrainSpec("m", search_trials=0), "search_trials: found 0"),
        (TrainSpec("m", cv_folds=1), "cv_folds: found 1"),
        (TrainSpec("m", seed=-1), "seed: found -1"),
    ],
)
def test_a_wrong_spec_is_named(tmp_path: Path, spec: TrainSpec, message: str) -> None:
    with pytest.raises(InputError, match=message):
        train(write(tmp_path, "binary"), contract("binary"), spec, tmp_path / "bundle", None)


def _broken(frame: pl.DataFrame, how: str) -> pl.DataFrame:
    answer = pl.col("answer")
    return {
        "missing": frame.drop("price"),
        "null": frame.with_columns(pl.when(pl.col("count") > 3).then(answer).alias("answer")),
        "one": frame.with_columns(pl.lit(True).alias("answer")),
        "huge": frame.with_columns(pl.lit(1e300).alias("noise")),
        "empty": frame[:0],
        "few": frame[:3],
    }[how]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "no column 'price'"),
        ("null", r"target 'answer' has \d+ nulls"),
        ("one", "always 'true', expected at least two classes"),
        ("huge", "column 'noise' holds numbers that float32 cannot"),
        ("empty", "no rows"),
        ("few", "found 3 rows, expected at least 6"),
    ],
)
def test_a_table_that_cannot_be_learnt_from_is_named(tmp_path: Path, how: str, message: str) -> None:
    source = tmp_path / "train"
    _broken(table("binary"), how).write_parquet(source)
    with pytest.raises(InputError, match=message):
        train(source, contract("binary"), TrainSpec("m"), tmp_path / "bundle", None)
    assert not (tmp_path / "bundle").exists()


def test_a_folder_in_use_is_refused(tmp_path: Path, trained: dict[str, Bundle]) -> None:
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "mine").write_text("keep")
    with pytest.raises(InputError, match="is not empty"):
        train(write(tmp_path, "binary"), contract("binary"), TrainSpec("m"), tmp_path / "bundle", None)
    assert (tmp_path / "bundle" / "mine").read_text() == "keep"


def test_a_feature_that_is_always_null_is_carried(tmp_path: Path) -> None:
    source = tmp_path / "train"
    table("binary").with_columns(pl.lit(None, dtype=pl.Float64).alias("price")).write_parquet(source)
    for name in ("hist_gradient_boosting", "linear"):
        spec = TrainSpec("m", name, search_trials=1, cv_folds=2)
        bundle = train(source, contract("binary"), spec, tmp_path / name, None)
        row = {"city": "Oslo", "shop": "s1", "count": 3, "open": True, "noise": 0.1}
        scorer = Scorer(bundle)
        assert np.isfinite(scorer.score(scorer.rows.from_records([row])).values).all()
