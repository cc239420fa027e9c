"""The pods of a predictor: what a server runs, as a PodSpec that Pod Security "restricted" admits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from canaryflow.errors import InputError

CONTAINER = "model"
HTTP_PORT, MANAGEMENT_PORT = 9000, 6000
BUNDLE_ENV = "CANARYFLOW_BUNDLE_URI"
BUNDLE_DIR = "/bundle"

_DRAIN_SECONDS = 5


@dataclass(frozen=True)
class ServerSpec:
    """What one predictor runs, and how far it scales.

    Attributes:
        image: The server's image.
        bundle_uri: Where the bundle is: a local path, file:// or s3://.
        version: The bundle's version; it labels the metrics, so it must change with the bundle.
        min_replicas: The fewest pods.
        max_replicas: The most pods.
        cpu_target: The HPA's target for the model's container, in percent of its request.
        memory_target: The same for memory.
        cpu_request: A Kubernetes quantity, as are the next three.
        memory_request: See above.
        cpu_limit: See above.
        memory_limit: See above.
        executor: Put Seldon's executor before the server.
        fetch_image: The image whose ``python -m canaryflow.storage`` brings the bundle; empty takes
            ``image``.
        store_secret: A Secret whose keys become the fetching container's environment; empty for none.

    Raises:
        InputError: A value is empty or out of its range.
    """

    image: str
    bundle_uri: str
    version: str
    min_replicas: int = 2
    max_replicas: int = 10
    cpu_target: int = 70
    memory_target: int = 80
    cpu_request: str = "250m"
    memory_request: str = "512Mi"
    cpu_limit: str = "500m"
    memory_limit: str = "1Gi"
    executor: bool = False
    fetch_image: str = ""
    store_secret: str = ""

    def __post_init__(self) -> None:
        for name in ("image", "bundle_uri", "version"):
            if not getattr(self, name):
                raise InputError(f"{name}: found nothing, expected a value")
        if not 1 <= self.min_replicas <= self.max_replicas <= 1000:
            raise InputError(
                f"min_replicas, max_replicas: found {self.min_replicas}, {self.max_replicas}, "
                "expected 1 <= min_replicas <= max_replicas <= 1000"
            )
        for name in ("cpu_target", "memory_target"):
            if not 1 <= getattr(self, name) <= 100:
                raise InputError(f"{name}: found {getattr(self, name)}, expected a percentage from 1 to 100")


def pod_spec(spec: ServerSpec) -> dict[str, Any]:
    """The PodSpec: an init container brings the bundle, the server serves it.

    Args:
        spec: What is to run.
    """
    bundle = {"name": BUNDLE_ENV, "value": spec.bundle_uri}
    fetch: dict[str, Any] = {
        "name": "bundle",
        "image": spec.fetch_image or spec.image,
        "command": ["python", "-m", "canaryflow.storage", "fetch", spec.bundle_uri, BUNDLE_DIR],
        "env": [bundle],
        "resources": {
            "requests": {"cpu": "100m", "memory": "128Mi"},
            "limits": {"cpu": spec.cpu_limit, "memory": spec.memory_limit},
        },
        "securityContext": _locked_down(),
        "volumeMounts": [{"name": "bundle", "mountPath": BUNDLE_DIR}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108 - in the pod
    }
    if spec.store_secret:
        fetch["envFrom"] = [{"secretRef": {"name": spec.store_secret}}]
    return {
        "terminationGracePeriodSeconds": 30,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "runAsGroup": 10001,
            "fsGroup": 10001,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "initContainers": [fetch],
        "containers": [_server(spec, bundle)],
        "volumes": [{"name": "bundle", "emptyDir": {}}, {"name": "tmp", "emptyDir": {}}],
    }


def _server(spec: ServerSpec, bundle: dict[str, str]) -> dict[str, Any]:
    return {
        "name": CONTAINER,
        "image": spec.image,
        "command": ["python", "-m", "canaryflow.serving"],
        "args": [
            BUNDLE_DIR,
            "--host=0.0.0.0",
            f"--port={HTTP_PORT}",
            f"--management-port={MANAGEMENT_PORT}",
            f"--drain-seconds={_DRAIN_SECONDS}",
        ],
        "env": [bundle],
        "ports": [
            {"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"},
            {"name": "metrics", "containerPort": MANAGEMENT_PORT, "protocol": "TCP"},
        ],
        "resources": {
            "requests": {"cpu": spec.cpu_request, "memory": spec.memory_request},
            "limits": {"cpu": spec.cpu_limit, "memory": spec.memory_limit},
        },
        "readinessProbe": _probe("/health/status", period=2, failures=2),
        "livenessProbe": _probe("/health/ping", period=5, failures=6),
        "startupProbe": _probe("/health/ping", period=1, failures=120),
        # Readiness goes first, then the route holds: no request meets a server that has gone.
        "lifecycle": {"preStop": {"httpGet": {"path": "/drain", "port": MANAGEMENT_PORT, "scheme": "HTTP"}}},
        "securityContext": _locked_down(),
        "volumeMounts": [
            {"name": "bundle", "mountPath": BUNDLE_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - in the pod
        ],
    }


def _probe(path: str, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": HTTP_PORT, "scheme": "HTTP"},
        "periodSeconds": period,
        "timeoutSeconds": 2,
        "failureThreshold": failures,
        "successThreshold": 1,
    }


def _locked_down() -> dict[str, Any]:
    """What Pod Security "restricted" asks of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
