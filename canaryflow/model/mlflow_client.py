"""The way to MLflow: a client with bounded waits, and its errors as one line."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from canaryflow.errors import CanaryflowError, InputError, NotFound, PlatformError

_SQLITE = "sqlite:///"
# Whose exceptions mean that MLflow cannot do what was asked; any other is a defect and keeps its traceback.
_FOREIGN = frozenset({"mlflow", "requests", "sqlalchemy", "urllib3", "alembic"})
_USERINFO = re.compile(r"(?<=://)[^/?#\s]+(?=@)")


def redacted(text: str) -> str:
    """A text whose URIs no longer tell a user's name and password."""
    return _USERINFO.sub("***", text)


def open_experiment(client: Any, uri: str, name: str) -> str:  # noqa: ANN401 - mlflow is imported late
    """The id of an experiment, made when it is not there (its artifacts beside an SQLite file).

    Raises:
        PlatformError: It was deleted.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is None:
        location = None
        if uri.startswith(_SQLITE):
            location = (Path(uri[len(_SQLITE) :]).absolute().parent / "mlartifacts" / name).as_uri()
        try:
            return str(client.create_experiment(name, artifact_location=location))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise PlatformError(
            f"{redacted(uri)}: experiment {name!r} is deleted, expected an active one (restore it)"
        )
    return str(found.experiment_id)


@contextmanager
def connect(uri: str) -> Iterator[Any]:
    """A client of a tracking server or database; what goes wrong inside becomes one line.

    Args:
        uri: MLflow's tracking and registry URI.

    Raises:
        InputError: There is no URI, or an SQLite file's folder is not there.
        PlatformError: MLflow cannot be reached or refuses.
    """
    if not uri:
        raise InputError("tracking URI: found none, expected one such as sqlite:///mlflow.db")
    # MLflow reads these when imported: bounded waits, no calls home, no looking for git.
    for variable, value in {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(variable, value)
    if uri.startswith(_SQLITE):
        folder = Path(uri[len(_SQLITE) :]).absolute().parent
        if not folder.is_dir():
            raise InputError(f"tracking URI {uri}: no folder {folder}, expected one that exists")
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with answering(uri):
        yield MlflowClient(uri, registry_uri=uri)


@contextmanager
def answering(uri: str, thing: str = "") -> Iterator[None]:
    """Turn what MLflow raises inside into one line.

    Args:
        uri: Whose errors they are.
        thing: What is asked for; a "does not exist" then becomes `NotFound`.

    Raises:
        NotFound: MLflow has no such thing.
        PlatformError: MLflow cannot be reached or refuses.
    """
    try:
        yield
    except CanaryflowError:
        raise
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in _FOREIGN:
            raise
        reason = redacted((str(error).strip().splitlines() or [type(error).__name__])[0])[:300]
        uri = redacted(uri)
        if thing and getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST":
            raise NotFound(f"{uri}: MLflow has no {thing}, expected one that was logged before") from error
        raise PlatformError(f"{uri}: MLflow cannot be used: {reason}") from error
