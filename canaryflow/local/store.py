"""Objects as a Kubernetes API server keeps them: versions, generations, conflicts; one JSON file each."""

from __future__ import annotations

import copy
import json
import re
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryflow.whole import write_whole

Object = dict[str, Any]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True)
class Kind:
    """A kind of object and where the API serves it."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """As in an object's ``apiVersion``."""
        return f"{self.group}/{self.version}"


SELDON_DEPLOYMENT = Kind("machinelearning.seldon.io", "v1", "seldondeployments", "SeldonDeployment")
VIRTUAL_SERVICE = Kind("networking.istio.io", "v1beta1", "virtualservices", "VirtualService")
KINDS = (SELDON_DEPLOYMENT, VIRTUAL_SERVICE)


class ApiFailure(Exception):  # noqa: N818 - the API calls it a Failure
    """A refused call; `body` is the Kubernetes ``Status`` object that tells the client."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message

    @property
    def body(self) -> Object:
        """The ``Status`` object."""
        return {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }


def not_found(plural: str, name: str) -> ApiFailure:
    """404, in the API server's words."""
    return ApiFailure(404, "NotFound", f'{plural} "{name}" not found')


def _label(kind: Kind, field: str, value: object) -> str:
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value
    message = (
        f'{kind.kind}.{kind.group} "{value}" is invalid: metadata.{field}: Invalid value: {value!r}: '
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-'"
    )
    raise ApiFailure(422, "Invalid", message)


def write_json(path: Path, data: object) -> None:
    """Replace a file in one step, so that a reader sees the old or the new, never a part."""
    write_whole(path, json.dumps(data, separators=(",", ":")))


class Store:
    """The objects of one workspace.

    Args:
        root: Folder that holds ``<plural>/<namespace>/<name>.json``. What is there already is loaded.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._objects: dict[tuple[Kind, str, str], Object] = {}
        self._listeners: list[Callable[[Kind, str, str], None]] = []
        self._last_version = 0
        for kind in KINDS:
            for path in sorted((root / kind.plural).glob("*/[!.]*.json")):
                found = json.loads(path.read_text())
                self._objects[(kind, path.parent.name, path.stem)] = found
                self._last_version = max(self._last_version, int(found["metadata"]["resourceVersion"]))

    def subscribe(self, listener: Callable[[Kind, str, str], None]) -> None:
        """Call ``listener(kind, namespace, name)`` after every change."""
        self._listeners.append(listener)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """A copy of one object; `ApiFailure` 404 where there is none."""
        return copy.deepcopy(self._current(kind, namespace, name))

    def list(self, kind: Kind, namespace: str | None = None) -> list[Object]:
        """Copies of all objects of a kind, in one namespace or in all."""
        return [
            copy.deepcopy(found)
            for (of_kind, of_namespace, _), found in sorted(
                self._objects.items(), key=lambda item: item[0][1:]
            )
            if of_kind == kind and namespace in (None, of_namespace)
        ]

    def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Add an object; 409 where the name is taken, 422 where it is no DNS label."""
        metadata = dict(body.get("metadata") or {})
        resource = f"{kind.plural}.{kind.group}"
        name = _label(kind, "name", metadata.get("name"))
        _label(kind, "namespace", namespace)
        if (kind, namespace, name) in self._objects:
            raise ApiFailure(409, "AlreadyExists", f'{resource} "{name}" already exists')
        if metadata.get("resourceVersion"):
            raise ApiFailure(400, "BadRequest", "resourceVersion should not be set on objects to be created")
        if metadata.get("namespace") not in (None, namespace):
            raise ApiFailure(
                400, "BadRequest", "the namespace of the object does not match the namespace on the request"
            )
        created = copy.deepcopy(body)
        created.pop("status", None)
        created |= {"apiVersion": kind.api_version, "kind": kind.kind}
        created["metadata"] = metadata | {
            "namespace": namespace,
            "uid": str(uuid.uuid4()),
            "creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "generation": 1,
        }
        return self._write(kind, namespace, name, created)

    def replace(self, kind: Kind, namespace: str, name: str, body: Object, *, status: bool = False) -> Object:
        """Put a whole object.

        Args:
            kind: The object's kind.
            namespace: Its namespace.
            name: Its name.
            body: The new object. With ``metadata.resourceVersion``, the write holds only if that is
                the current one (409 otherwise). A write that changes nothing moves no version.
            status: Write ``status`` alone (the status subresource), else all but ``status``.
        """
        current = self._current(kind, namespace, name)
        metadata = dict(body.get("metadata") or {})
        expected = metadata.get("resourceVersion")
        if expected not in (None, "", current["metadata"]["resourceVersion"]):
            message = (
                f'Operation cannot be fulfilled on {kind.plural}.{kind.group} "{name}": '
                "the object has been modified; please apply your changes to the latest version and try again"
            )
            raise ApiFailure(409, "Conflict", message)
        if metadata.get("name", name) != name or metadata.get("namespace", namespace) != namespace:
            raise ApiFailure(
                400, "BadRequest", f"the name of the object does not match the one in the URL ({name})"
            )
        new = copy.deepcopy(current if status else body)
        new.pop("status", None)
        old_status = body.get("status") if status else current.get("status")
        if old_status is not None:
            new["status"] = copy.deepcopy(old_status)
        kept = {
            key: current["metadata"][key]
            for key in ("name", "namespace", "uid", "creationTimestamp", "generation", "resourceVersion")
        }
        new["metadata"] = (dict(current["metadata"]) if status else metadata) | kept
        new |= {"apiVersion": kind.api_version, "kind": kind.kind}
        if new == current:
            return copy.deepcopy(current)
        if new.get("spec") != current.get("spec"):
            new["metadata"]["generation"] += 1
        return self._write(kind, namespace, name, new)

    def delete(self, kind: Kind, namespace: str, name: str) -> Object:
        """Take an object away and return what it was."""
        gone = self._current(kind, namespace, name)
        self._path(kind, namespace, name).unlink(missing_ok=True)
        del self._objects[(kind, namespace, name)]
        self._tell(kind, namespace, name)
        return gone

    def _current(self, kind: Kind, namespace: str, name: str) -> Object:
        try:
            return self._objects[(kind, namespace, name)]
        except KeyError:
            raise not_found(f"{kind.plural}.{kind.group}", name) from None

    def _path(self, kind: Kind, namespace: str, name: str) -> Path:
        return self._root / kind.plural / namespace / f"{name}.json"

    def _write(self, kind: Kind, namespace: str, name: str, new: Object) -> Object:
        # The clock keeps versions growing over a restart, also where the newest object was deleted.
        self._last_version = max(self._last_version + 1, time.time_ns() // 1000)
        new["metadata"]["resourceVersion"] = str(self._last_version)
        path = self._path(kind, namespace, name)
        try:
            write_json(path, new)
        except OSError as error:
            raise ApiFailure(500, "InternalError", f"cannot write {path}: {error.strerror}") from error
        self._objects[(kind, namespace, name)] = new
        self._tell(kind, namespace, name)
        return copy.deepcopy(new)

    def _tell(self, kind: Kind, namespace: str, name: str) -> None:
        for listener in self._listeners:
            listener(kind, namespace, name)
