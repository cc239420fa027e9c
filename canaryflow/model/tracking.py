"""MLflow: runs, the registry and its aliases. Imported when first used, in the background of other work.

Importing MLflow and opening its store takes longer than all that is then done with it, so `Tracking.start`
does both on a thread while a search runs.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any

from canaryflow.bundle.format import Bundle
from canaryflow.errors import InputError, NotFound, PlatformError
from canaryflow.model.mlflow_client import answering, connect, open_experiment, redacted
from canaryflow.names import check_name
from canaryflow.storage import put_bundle

CHALLENGER = "challenger"
CHAMPION = "champion"
_VERSION_TAG = "bundle_version"
_URI_TAG = "bundle_uri"
_PARAM_LENGTH = 500


class Tracking:
    """An experiment of an MLflow tracking server or database.

    Args:
        uri: MLflow's tracking URI: ``sqlite:///file.db`` (artifacts go to ``mlartifacts`` beside the file),
            ``http(s)://...``, or a folder.
        experiment: The experiment's name, by the rule for a model's; made when it is not there.

    Raises:
        InputError: The name cannot be one.
    """

    def __init__(self, uri: str, experiment: str):
        check_name(experiment)
        self.uri = uri
        self.experiment = experiment
        self._opened: Future[tuple[Any, str]] | None = None

    def start(self) -> None:
        """Import MLflow and open the experiment in the background; the first use waits for it."""
        if self._opened is None:
            self._opened = opened = Future[tuple[Any, str]]()
            Thread(target=self._open, args=(opened,), name="mlflow", daemon=True).start()

    def _open(self, opened: Future[tuple[Any, str]]) -> None:
        try:
            with connect(self.uri) as client:
                opened.set_result((client, open_experiment(client, self.uri, self.experiment)))
        except BaseException as error:
            opened.set_exception(error)

    def _client(self) -> tuple[Any, str]:
        self.start()
        assert self._opened is not None  # noqa: S101 - start has set it
        return self._opened.result()

    @contextmanager
    def run(self, name: str, tags: Mapping[str, str], started: float | None = None) -> Iterator[Run]:
        """A new run: finished when the body ends, failed when it raises.

        Args:
            name: The run's name.
            tags: Its tags.
            started: When its work began, seconds since the epoch; now by default.

        Raises:
            PlatformError: MLflow cannot be reached or refuses.
        """
        client, experiment = self._client()
        with answering(self.uri):
            created = client.create_run(
                experiment,
                start_time=int(1000 * (started or time.time())),
                tags=dict(tags),
                run_name=name,
            )
        run = Run(client, self.uri, created.info.run_id)
        try:
            yield run
        except BaseException:
            with answering(self.uri):
                client.set_terminated(run.id, "FAILED")
            raise
        with answering(self.uri):
            client.set_terminated(run.id, "FINISHED")

    def resume(self, run_id: str) -> Run:
        """A run made before, to log more to it.

        Raises:
            NotFound: MLflow has no such run.
            PlatformError: MLflow cannot be reached.
        """
        client, _ = self._client()
        with answering(self.uri, f"run {run_id!r}"):
            client.get_run(run_id)
        return Run(client, self.uri, run_id)


class Run:
    """A run to log to.

    Attributes:
        id: MLflow's id of it.
    """

    def __init__(self, client: Any, uri: str, run_id: str):  # noqa: ANN401 - mlflow is imported late
        self.id = run_id
        self._client = client
        self._uri = uri

    def log(
        self,
        params: Mapping[str, object] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log parameters, metrics (those that are numbers) and tags in one request.

        Raises:
            PlatformError: MLflow cannot be reached or refuses.
        """
        from mlflow.entities import Metric, Param, RunTag

        now = int(1000 * time.time())
        with answering(self._uri):
            self._client.log_batch(
                self.id,
                [Metric(name, value, now, 0) for name, value in (metrics or {}).items() if value == value],
                [Param(name, str(value)[:_PARAM_LENGTH]) for name, value in (params or {}).items()],
                [RunTag(name, value) for name, value in (tags or {}).items()],
            )

    def artifact(self, file: Path, name: str) -> None:
        """Keep a copy of a file under a name.

        Raises:
            PlatformError: MLflow cannot be reached or refuses.
        """
        with tempfile.TemporaryDirectory() as folder, answering(self._uri):
            shutil.copyfile(file, Path(folder) / name)
            self._client.log_artifact(self.id, str(Path(folder) / name))


@dataclass(frozen=True)
class Registered:
    """A version in the registry.

    Attributes:
        version: MLflow's version number, as text.
        uri: Where the store keeps the bundle.
        bundle_version: The bundle's version.
    """

    version: str
    uri: str
    bundle_version: str


def register(bundle_dir: Path, store: str, tracking_uri: str, name: str) -> Registered:
    """Copy a bundle into the store and make it the registry's ``challenger``. Idempotent.

    The model version's source is the copy, which is a folder that ``mlflow.pyfunc`` loads as it is.

    Args:
        bundle_dir: The bundle.
        store: A folder or an ``s3://`` URI.
        tracking_uri: MLflow's URI.
        name: The registered model's name; made when it is not there.

    Raises:
        BundleError: The bundle is not whole.
        InputError: The name cannot be one.
        PlatformError: The store or MLflow cannot be reached or refuses.
    """
    check_name(name)
    bundle = Bundle.open(bundle_dir)
    uri = put_bundle(bundle_dir, store, name)
    with connect(tracking_uri) as client:
        version = _find(client, name, bundle.version)
        if version is None:
            version = _create(client, name, bundle, uri)
        client.set_registered_model_alias(name, CHALLENGER, version.version)
        return Registered(str(version.version), uri, bundle.version)


def champion_uri(tracking_uri: str, name: str) -> str | None:
    """Where the reigning champion's bundle is; None when there is none.

    Raises:
        PlatformError: MLflow cannot be reached, or its champion was not registered by `register`.
    """
    check_name(name)
    with connect(tracking_uri) as client:
        champion = _by_alias(client, name, CHAMPION)
    if champion is None:
        return None
    uri = champion.tags.get(_URI_TAG)
    if not uri:
        raise PlatformError(
            f"{redacted(tracking_uri)}: champion {name!r} version {champion.version} has no tag "
            f"{_URI_TAG!r}, expected one that canaryflow registered"
        )
    return str(uri)


def promote_champion(tracking_uri: str, name: str, bundle_version: str) -> None:
    """Make the version that holds a bundle the ``champion``. Idempotent.

    Raises:
        NotFound: No version of the model holds this bundle.
        PlatformError: MLflow cannot be reached or refuses.
    """
    check_name(name)
    with connect(tracking_uri) as client:
        version = _find(client, name, bundle_version)
        if version is None:
            raise NotFound(
                f"{redacted(tracking_uri)}: no version of model {name!r} with bundle {bundle_version!r}, "
                "expected one that `register` made"
            )
        client.set_registered_model_alias(name, CHAMPION, version.version)


def _find(client: Any, name: str, bundle_version: str) -> Any:  # noqa: ANN401 - mlflow is imported late
    if not re.fullmatch(r"[0-9a-f]{6,64}", bundle_version):
        raise InputError(f"bundle version: found {bundle_version!r}, expected hex digits")
    # The filter's language cannot join a name and a tag on every store; a model has few versions.
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", max_results=200, page_token=token)
        for version in page:
            if version.tags.get(_VERSION_TAG) == bundle_version:
                return version
        token = page.token
        if not token:
            return None


def _create(client: Any, name: str, bundle: Bundle, uri: str) -> Any:  # noqa: ANN401 - mlflow is imported late
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    tags = {_VERSION_TAG: bundle.version, _URI_TAG: uri}
    run_id = bundle.manifest.provenance.get("run_id")
    return client.create_model_version(name, uri, run_id=run_id or None, tags=tags, await_creation_for=0)


def _by_alias(client: Any, name: str, alias: str) -> Any:  # noqa: ANN401 - mlflow is imported late
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
