from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from canaryflow.bundle.format import ESTIMATOR, MODEL, Bundle, seal
from canaryflow.data.contract import Contract
from canaryflow.errors import BundleError, InputError
from canaryflow.model.evaluation import Gates, evaluate
from canaryflow.model.export import load_estimator
from canaryflow.model.training import TrainSpec, train
from canaryflow.report import read_verdict
from canaryflow.verdict import Verdict
from tests.model.conftest import PROBLEMS
from tests.model.tables import contract, table, write


def judge(
    tmp_path: Path, bundle: Path, test: Path, problem: str, champion: Path | None = None, **gates: object
) -> Verdict:
    chosen = Gates(**gates)  # type: ignore[arg-type]
    return evaluate(bundle, test, contract(problem), champion, chosen, tmp_path / "report.html", None)


def failed(verdict: Verdict) -> list[str]:
    return [check.name for check in verdict.checks if not check.passed]


@pytest.fixture(scope="module")
def poor(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Bundle]:
    """A bundle per problem that learnt from answers without sense."""
    bundles = {}
    for problem in PROBLEMS:
        folder = tmp_path_factory.mktemp("poor")
        source = write(folder, problem, learnable=False)
        spec = TrainSpec("poor", search_trials=1, cv_folds=2)
        bundles[problem] = train(source, contract(problem), spec, folder / "bundle", None)
    return bundles


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_good_model_passes_and_its_report_says_so(
    trained: dict[str, Bundle], tests_of, tmp_path: Path, problem: str
) -> None:
    verdict = judge(tmp_path, trained[problem].path, tests_of(problem), problem)
    assert verdict.passed, verdict.reasons
    assert "no champion yet" in verdict.summary
    assert read_verdict(tmp_path / "report.html") == verdict
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") >= 2
    assert "What the model leans on" in page


@pytest.mark.parametrize("problem", PROBLEMS)
def test_the_champion_meets_itself_as_an_equal(
    trained: dict[str, Bundle], tests_of, tmp_path: Path, problem: str
) -> None:
    bundle = trained[problem].path
    verdict = judge(tmp_path, bundle, tests_of(problem), problem, bundle, champion_margin=0.0)
    assert verdict.passed, verdict.reasons


@pytest.mark.parametrize("problem", PROBLEMS)
def test_a_challenger_worse_than_the_champion_fails(
    trained: dict[str, Bundle], poor: dict[str, Bundle], tests_of, tmp_path: Path, problem: str
) -> None:
    champion = trained[problem]
    test = tests_of(problem)
    verdict = judge(tmp_path, poor[problem].path, test, problem, champion.path)
    assert f"no worse than the champion {champion.version}" in failed(verdict)
    assert champion.version in " ".join(verdict.reasons)
    # And the other way round it passes: the check is about the two models, not about having a champion.
    assert judge(tmp_path, champion.path, test, problem, poor[problem].path).passed


def test_a_model_without_sense_is_worse_than_a_constant(
    poor: dict[str, Bundle], tests_of, tmp_path: Path
) -> None:
    verdict = judge(tmp_path, poor["regression"].path, tests_of("regression"), "regression")
    assert "better than a constant answer" in failed(verdict)
    assert not verdict.passed


@pytest.mark.parametrize(
    ("problem", "thresholds", "ok"),
    [
        ("binary", {"roc_auc": 0.7, "log_loss": 0.6}, True),
        ("binary", {"roc_auc": 0.999}, False),
        ("binary", {"log_loss": 0.001}, False),
        ("regression", {"rmse": 1000.0, "r2": 0.3}, True),
        ("regression", {"rmse": 1.0}, False),
        ("multiclass", {"f1": 0.5}, True),
        ("multiclass", {"brier": 0.0001}, False),
    ],
)
def test_thresholds_bound_from_the_right_side(
    trained: dict[str, Bundle], tests_of, tmp_path: Path, problem: str, thresholds: dict[str, float], ok: bool
) -> None:
    verdict = judge(tmp_path, trained[problem].path, tests_of(problem), problem, thresholds=thresholds)
    assert verdict.passed is ok, verdict.reasons


@pytest.mark.parametrize(
    ("gates", "message"),
    [
        ({"thresholds": {"roc_auk": 0.7}}, r"unknown metric 'roc_auk' of a binary .*did you mean 'roc_auc'"),
        ({"thresholds": {"rmse": 1.0}}, "unknown metric 'rmse' of a binary problem"),
        ({"thresholds": {"roc_auc": "high"}}, "found 'high', expected a finite number"),
        ({"champion_margin": -0.1}, "champion_margin: found -0.1"),
        ({"max_latency_ms": 0.0}, "max_latency_ms: found 0.0"),
    ],
)
def test_a_gate_that_cannot_be_is_named(
    trained: dict[str, Bundle], tests_of, tmp_path: Path, gates: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        judge(tmp_path, trained["binary"].path, tests_of("binary"), "binary", **gates)
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("file", [MODEL, ESTIMATOR])
def test_a_served_model_that_is_not_the_trained_one_fails_parity(
    trained: dict[str, Bundle], poor: dict[str, Bundle], tests_of, tmp_path: Path, file: str
) -> None:
    good = trained["binary"]
    swapped = tmp_path / "swapped"
    shutil.copytree(good.path, swapped)
    shutil.copyfile(poor["binary"].file(file), swapped / file)
    manifest = good.manifest
    seal(swapped, manifest.name, manifest.signature, manifest.tolerance, manifest.provenance)
    verdict = judge(tmp_path, swapped, tests_of("binary"), "binary")
    assert any("serves what was trained" in name for name in failed(verdict))
    assert not verdict.passed


def test_latency_is_bounded(trained: dict[str, Bundle], tests_of, tmp_path: Path) -> None:
    verdict = judge(tmp_path, trained["binary"].path, tests_of("binary"), "binary", max_latency_ms=1e-6)
    assert failed(verdict) == ["latency of one row, 99th percentile"]
    assert "over 300 rows, the quietest of 3 rounds" in verdict.reasons[0]


def test_a_champion_of_other_classes_cannot_be_compared(
    trained: dict[str, Bundle], tests_of, tmp_path: Path
) -> None:
    verdict = judge(
        tmp_path, trained["binary"].path, tests_of("binary"), "binary", trained["multiclass"].path
    )
    assert not verdict.passed
    assert "a multiclass model of 'answer'" in verdict.reasons[0]


def test_a_champion_robbed_of_a_feature_is_not_beaten_by_that(
    trained: dict[str, Bundle], tmp_path: Path
) -> None:
    rules = contract("binary")
    fewer = Contract(
        version=rules.version, columns={name: item for name, item in rules.columns.items() if name != "price"}
    )
    source, test = write(tmp_path, "binary"), tmp_path / "test"
    challenger = train(source, fewer, TrainSpec("shop", search_trials=1), tmp_path / "bundle", None)
    table("binary", seed=99).drop("price").write_parquet(test)
    verdict = evaluate(
        challenger.path, test, fewer, trained["binary"].path, Gates(), tmp_path / "report.html", None
    )
    check = next(check for check in verdict.checks if "champion" in check.name)
    assert not check.passed
    assert check.found == "cannot score the test rows: no column 'price'"


def test_a_bundle_of_another_problem_is_refused(trained: dict[str, Bundle], tests_of, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        judge(tmp_path, trained["binary"].path, tests_of("multiclass"), "multiclass")


def test_an_estimator_with_types_off_the_list_is_not_loaded(
    trained: dict[str, Bundle], tmp_path: Path
) -> None:
    import skops.io
    from sklearn.preprocessing import FunctionTransformer

    folder = tmp_path / "strange"
    shutil.copytree(trained["binary"].path, folder)
    skops.io.dump(FunctionTransformer(shutil.rmtree), folder / ESTIMATOR)
    manifest = trained["binary"].manifest
    bundle = seal(folder, manifest.name, manifest.signature, manifest.tolerance, manifest.provenance)
    with pytest.raises(BundleError, match=r"shutil\.rmtree, expected only types on the allow-list"):
        load_estimator(bundle)
