from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from canaryflow.bundle.format import Bundle
from canaryflow.errors import InputError, NotFound, PlatformError
from canaryflow.model.evaluation import Gates, evaluate
from canaryflow.model.tracking import Tracking, champion_uri, promote_champion, register
from canaryflow.model.training import TrainSpec, train
from tests.model.tables import contract, table, write


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def uri(workspace: Path) -> str:
    return f"sqlite:///{workspace}/mlflow.db"


@pytest.fixture(scope="module")
def tracked(workspace: Path, uri: str) -> Bundle:
    spec = TrainSpec("shop", search_trials=2)
    source = write(workspace, "binary")
    return train(source, contract("binary"), spec, workspace / "bundle", Tracking(uri, "shop"))


def run_of(uri: str, bundle: Bundle):
    from mlflow.tracking import MlflowClient

    return MlflowClient(uri).get_run(bundle.manifest.provenance["run_id"])


def test_a_training_and_its_evaluation_are_one_run(
    workspace: Path, uri: str, tracked: Bundle, tmp_path: Path
) -> None:
    test = write(tmp_path, "binary", seed=99)
    tracking = Tracking(uri, "shop")
    report = tmp_path / "report.html"
    evaluate(tracked.path, test, contract("binary"), None, Gates(), report, tracking)
    run = run_of(uri, tracked)
    assert run.info.status == "FINISHED"
    assert run.data.params["estimator"] == "hist_gradient_boosting"
    wanted = {"train_roc_auc", "folds_mean_roc_auc", "fold0_roc_auc", "test_roc_auc", "gap_roc_auc"}
    assert wanted <= run.data.metrics.keys()
    gap = run.data.metrics["train_roc_auc"] - run.data.metrics["test_roc_auc"]
    assert run.data.metrics["gap_roc_auc"] == pytest.approx(gap)
    assert run.data.tags["bundle_version"] == tracked.version
    assert run.data.tags["evaluation"] == "passed"
    kept = {path.name for path in (workspace / "mlartifacts").rglob("*.html")}
    assert kept == {"training.html", "evaluation.html"}


def test_from_challenger_to_champion(workspace: Path, uri: str, tracked: Bundle) -> None:
    store = str(workspace / "store")
    assert champion_uri(uri, "shop") is None
    first = register(tracked.path, store, uri, "shop")
    assert first.uri == f"{store}/shop/{tracked.version}"
    assert register(tracked.path, store, uri, "shop") == first
    assert champion_uri(uri, "shop") is None
    for _ in range(2):
        promote_champion(uri, "shop", tracked.version)
        assert champion_uri(uri, "shop") == first.uri

    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    assert client.get_model_version_by_alias("shop", "challenger").version == int(first.version)
    assert len(client.search_model_versions("name = 'shop'")) == 1


def test_mlflow_loads_what_is_served(workspace: Path, uri: str, tracked: Bundle) -> None:
    import mlflow

    registered = register(tracked.path, str(workspace / "store"), uri, "shop")
    info = mlflow.models.get_model_info(registered.uri)
    assert info.signature.inputs.input_names() == list(tracked.signature.names)
    rows = pd.DataFrame(table("binary", 50).select(tracked.signature.names).to_dict(as_series=False))
    answers = mlflow.pyfunc.load_model(registered.uri).predict(rows)
    assert list(answers.columns) == ["answer", "probability_false", "probability_true"]
    assert np.allclose(answers["probability_false"] + answers["probability_true"], 1, atol=1e-6)
    without = mlflow.pyfunc.load_model(registered.uri).predict(rows.drop(columns="price"))
    nulls = mlflow.pyfunc.load_model(registered.uri).predict(rows.assign(price=np.nan))
    assert without.equals(nulls)
    said = answers["probability_true"] >= tracked.signature.threshold
    assert (answers["answer"] == np.where(said, "true", "false")).all()


def test_what_was_never_registered_is_not_promoted(uri: str, tracked: Bundle) -> None:
    with pytest.raises(NotFound, match="no version of model 'other' with bundle 'abcdef012345'"):
        promote_champion(uri, "other", "abcdef012345")


def test_names_that_cannot_be_are_refused(uri: str, tracked: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="name: found 'a/b'"):
        register(tracked.path, str(tmp_path), uri, "a/b")
    assert not any(tmp_path.iterdir())


def test_a_server_that_is_not_there_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    source = write(tmp_path, "binary")
    started = time.monotonic()
    with pytest.raises(PlatformError, match=r"^http://127\.0\.0\.1:9: MLflow cannot be used: [^\n]*$"):
        train(
            source,
            contract("binary"),
            TrainSpec("shop", search_trials=1),
            tmp_path / "bundle",
            Tracking("http://127.0.0.1:9", "shop"),
        )
    assert time.monotonic() - started < 30
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


@pytest.mark.parametrize(
    "secret",
    [
        "http://me:p@ss@127.0.0.1:9/mlflow",
        "postgresql+none://me:pass@127.0.0.1:9/db",
        "ftp://me:pass@127.0.0.1:9",
    ],
)
def test_no_message_tells_a_password(secret: str) -> None:
    with pytest.raises(PlatformError) as caught:
        champion_uri(secret, "shop")
    assert "***@127.0.0.1:9" in str(caught.value)
    assert "me:p" not in str(caught.value) and "ss@" not in str(caught.value)


@pytest.mark.parametrize("bad", ["", "sqlite:////no/such/folder/mlflow.db"])
def test_a_uri_that_cannot_be_is_an_input_error(bad: str) -> None:
    with pytest.raises(InputError, match="tracking URI"):
        champion_uri(bad, "shop")


def test_a_training_that_fails_leaves_a_failed_run(uri: str) -> None:
    tracking = Tracking(uri, "shop")
    with pytest.raises(ValueError, match="broken"), tracking.run("shop", {}) as run:
        raise ValueError("broken")
    from mlflow.tracking import MlflowClient

    assert MlflowClient(uri).get_run(run.id).info.status == "FAILED"
