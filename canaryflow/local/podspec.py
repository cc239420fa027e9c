"""What a PodSpec says, read for a pod that is a process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from canaryflow.errors import PlatformError

BUNDLE_ENV = "CANARYFLOW_BUNDLE_URI"
_MANAGEMENT_PORT = 6000


@dataclass(frozen=True)
class Probe:
    """An HTTP probe.

    Attributes:
        path: What is asked.
        management: Ask the management port instead of the serving port.
        period: Seconds between two asks.
        timeout: Seconds an answer may take.
        failures: How many failures in a row count.
    """

    path: str = "/health/status"
    management: bool = False
    period: float = 2.0
    timeout: float = 2.0
    failures: int = 3


@dataclass(frozen=True)
class PodSpec:
    """What the platform needs to know to run a pod.

    Attributes:
        container: The name of the container.
        image: Its image, for show.
        bundle: Where the bundle is, as the container's environment says.
        environment: The container's variables with plain values.
        readiness: When requests may come.
        liveness: When the process must be killed and started again; None for never.
        pre_stop: What is asked before SIGTERM; None for nothing.
        grace: Seconds from the beginning of the stop to SIGKILL.
    """

    container: str
    image: str
    bundle: str
    environment: Mapping[str, str]
    readiness: Probe
    liveness: Probe | None
    pre_stop: Probe | None
    grace: float


def read_pod_spec(spec: Mapping[str, Any], container_name: str) -> PodSpec:
    """Read the container that serves.

    Args:
        spec: The PodSpec of a componentSpec.
        container_name: The container to run; the others (a pod is one process here) are left out.

    Raises:
        PlatformError: There is no such container.
    """
    containers = spec.get("containers") or []
    found = next((entry for entry in containers if entry.get("name") == container_name), None)
    if found is None:
        names = [entry.get("name") for entry in containers]
        raise PlatformError(f"pod: found containers {names}, expected one named {container_name}")
    environment = {
        entry["name"]: str(entry["value"])
        for entry in found.get("env") or []
        if entry.get("value") is not None
    }
    hook = ((found.get("lifecycle") or {}).get("preStop") or {}).get("httpGet")
    grace = spec.get("terminationGracePeriodSeconds")
    return PodSpec(
        container=container_name,
        image=str(found.get("image", "")),
        bundle=_local_path(environment.get(BUNDLE_ENV, "")),
        environment=environment,
        readiness=_probe(found, found.get("readinessProbe")) or Probe(),
        liveness=_probe(found, found.get("livenessProbe")),
        pre_stop=_probe(found, {"httpGet": hook}) if hook else None,
        grace=20.0 if grace is None else float(grace),
    )


def _probe(container: Mapping[str, Any], probe: Mapping[str, Any] | None) -> Probe | None:
    if not probe or not probe.get("httpGet"):
        return None
    asked = probe["httpGet"]
    return Probe(
        path=str(asked.get("path", "/")),
        management=_is_management(container, asked.get("port")),
        period=float(probe.get("periodSeconds", 10)),
        timeout=float(probe.get("timeoutSeconds", 1)),
        failures=int(probe.get("failureThreshold", 3)),
    )


def _is_management(container: Mapping[str, Any], port: object) -> bool:
    """Whether a port, by number or by name, is the management port: 6000 in the container."""
    named = {entry.get("name"): entry.get("containerPort") for entry in container.get("ports") or []}
    return bool(named.get(port, port) == _MANAGEMENT_PORT)


def _local_path(uri: str) -> str:
    parts = urlsplit(uri)
    return unquote(parts.path) if parts.scheme == "file" else uri
