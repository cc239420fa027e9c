"""The few calls that delivery makes to Kubernetes, or to the one-machine platform, which speaks its paths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol
from urllib.parse import quote

import kubernetes.client
import kubernetes.config
import urllib3
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from canaryflow.delivery.seldon import GROUP, PLURAL, VERSION
from canaryflow.errors import Conflict, InputError, NotFound, PlatformError

Operation = dict[str, Any]

_TIMEOUT = (3.0, 20.0)  # seconds: to connect, to read
_STALE_TEST = "due to an error in our request"  # what the API server says of a `test` that does not hold
_SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_JSON_PATCH = "application/json-patch+json"


class Unavailable(PlatformError):  # noqa: N818 - a state of affairs, like NotFound
    """The API cannot answer now (no connection, a time-out, a 5xx); whether a write was made is unknown."""


class Cluster(Protocol):
    """What `deploy` and `rollout` ask of a platform. Every call is bounded in time.

    Every method raises `Unavailable` when the API cannot answer now, and `PlatformError` when it refuses.
    """

    @property
    def namespace(self) -> str:
        """The namespace that all names are in."""
        ...

    def get(self, name: str) -> dict[str, Any]:
        """The SeldonDeployment; `NotFound` if there is none."""
        ...

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """Create a SeldonDeployment; `Conflict` if it exists."""
        ...

    def patch(self, name: str, operations: Sequence[Operation]) -> dict[str, Any]:
        """Apply a JSON Patch, all or nothing; `Conflict` if one of its ``test`` operations does not hold."""
        ...

    def delete(self, name: str, resource_version: str = "") -> None:
        """Delete the SeldonDeployment; nothing happens if there is none.

        Args:
            name: Its name.
            resource_version: As it was read; `Conflict` if it has changed since. Empty deletes it as it is.
        """
        ...

    def deployments(self, name: str) -> list[dict[str, Any]]:
        """The Deployments that the operator made for it."""
        ...

    def weights(self, name: str) -> dict[str, int]:
        """The weights that the gateway was told, by predictor; one that is missing has 0, a sole one 100."""
        ...

    def service_url(self, name: str, predictor: str) -> str:
        """Where one predictor alone answers; `NotFound` until it has a Service."""
        ...

    def troubles(self, name: str, predictor: str) -> list[str]:
        """Why a predictor's pods are not ready, one line each; empty where nothing is known."""
        ...


def connect(platform: str, namespace: str = "") -> Cluster:
    """A client of the platform.

    Args:
        platform: ``kubernetes`` (in a pod its own cluster, else the current context of the kubeconfig), or
            the address of the one-machine platform ("http://127.0.0.1:8001").
        namespace: Where the SeldonDeployments are; empty takes the pod's own, or the kubeconfig's.

    Raises:
        InputError: The platform is neither.
        PlatformError: No cluster is configured here, or no namespace is known.
    """
    configuration = kubernetes.client.Configuration()
    configuration.retries = urllib3.Retry(total=0)
    if platform.startswith(("http://", "https://")):
        configuration.host = platform.rstrip("/")
        return KubernetesCluster(kubernetes.client.ApiClient(configuration), namespace or "default")
    if platform != "kubernetes":
        raise InputError(
            f"platform: found {platform!r}, expected 'kubernetes' or the address of the one-machine platform"
        )
    own = _configure(configuration)
    if not (namespace or own):
        raise PlatformError("namespace: none given and none configured; expected the name of a namespace")
    return KubernetesCluster(kubernetes.client.ApiClient(configuration), namespace or own)


def _configure(configuration: kubernetes.client.Configuration) -> str:
    """Fill in how to reach the cluster; the namespace that comes with it."""
    try:
        kubernetes.config.load_incluster_config(client_configuration=configuration)
        with open(_SERVICE_ACCOUNT, encoding="utf-8") as file:  # noqa: PTH123 - a mount, not a path of ours
            return file.read().strip()
    except (ConfigException, OSError):
        pass
    try:
        kubernetes.config.load_kube_config(client_configuration=configuration)
        context = kubernetes.config.list_kube_config_contexts()[1]
    except (ConfigException, OSError) as error:
        raise PlatformError(
            f"kubernetes: no cluster is configured here ({error}); expected to run in a pod, or a kubeconfig"
        ) from error
    return str(context.get("context", {}).get("namespace") or "default")


class KubernetesCluster:
    """`Cluster` over the REST API of Kubernetes.

    Args:
        client: Knows the address and the credentials.
        namespace: Where the SeldonDeployments are.
    """

    def __init__(self, client: kubernetes.client.ApiClient, namespace: str) -> None:
        self._client = client
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        """The namespace that all names are in."""
        return self._namespace

    def get(self, name: str) -> dict[str, Any]:
        """See `Cluster.get`."""
        return self._call("GET", self._sdep(name))

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """See `Cluster.create`."""
        return self._call("POST", self._sdeps, body)

    def patch(self, name: str, operations: Sequence[Operation]) -> dict[str, Any]:
        """See `Cluster.patch`."""
        return self._call("PATCH", self._sdep(name), list(operations), content_type=_JSON_PATCH)

    def delete(self, name: str, resource_version: str = "") -> None:
        """See `Cluster.delete`."""
        options: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if resource_version:
            options["preconditions"] = {"resourceVersion": resource_version}
        try:
            self._call("DELETE", self._sdep(name), options)
        except NotFound:
            return

    def deployments(self, name: str) -> list[dict[str, Any]]:
        """See `Cluster.deployments`."""
        path = f"/apis/apps/v1/namespaces/{self._namespace}/deployments"
        found = self._call("GET", path, query={"labelSelector": f"seldon-deployment-id={name}"})
        return list(found.get("items") or [])

    def weights(self, name: str) -> dict[str, int]:
        """See `Cluster.weights`."""
        base = f"/apis/networking.istio.io/v1beta1/namespaces/{self._namespace}/virtualservices"
        try:
            found = self._call("GET", f"{base}/{name}")
        except NotFound:
            return {}
        return routed(found, name)

    def service_url(self, name: str, predictor: str) -> str:
        """See `Cluster.service_url`."""
        service = f"{name}-{predictor}"
        found = self._call("GET", f"/api/v1/namespaces/{self._namespace}/services/{service}")
        spec = found.get("spec", {})
        ports = spec.get("ports") or []
        port = next(
            (entry for entry in ports if entry.get("name") in ("http", "http2")), ports[0] if ports else None
        )
        if port is None:
            raise NotFound(f"Service {service}: has no port, expected one named http")
        address = spec.get("clusterIP") or "None"
        host = f"{service}.{self._namespace}.svc" if address == "None" else address
        return f"http://{f'[{host}]' if ':' in host else host}:{port['port']}"

    def troubles(self, name: str, predictor: str) -> list[str]:
        """See `Cluster.troubles`."""
        selector = {"labelSelector": f"seldon-app={name}-{predictor}"}
        try:
            pods = self._call("GET", f"/api/v1/namespaces/{self._namespace}/pods", query=selector).get(
                "items"
            )
        except PlatformError:
            return []  # it only explains; without the right to list pods the decision stands as it is
        lines = [line for pod in pods or [] for line in _pod_troubles(pod)]
        return list(dict.fromkeys(lines))[:5]

    @property
    def _sdeps(self) -> str:
        return f"/apis/{GROUP}/{VERSION}/namespaces/{self._namespace}/{PLURAL}"

    def _sdep(self, name: str) -> str:
        # An empty name would read the list, and one with a slash another object.
        return f"{self._sdeps}/{quote(name, safe='') or '-'}"

    def _call(
        self,
        method: str,
        path: str,
        body: object = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> dict[str, Any]:
        try:
            answer = self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                response_type="object",
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _request_timeout=_TIMEOUT,
            )
        except ApiException as error:
            raise _translate(error, method, path) from error
        except (urllib3.exceptions.HTTPError, OSError) as error:
            host = self._client.configuration.host
            raise Unavailable(f"{host}: {method} {path}: no answer ({_one_line(error)})") from error
        return answer if isinstance(answer, dict) else {}


def routed(virtual_service: Mapping[str, Any], name: str) -> dict[str, int]:
    """The weights in a VirtualService of the operator, by predictor.

    Args:
        virtual_service: As the API gives it.
        name: The SeldonDeployment, which the hosts' names begin with.
    """
    routes = virtual_service.get("spec", {}).get("http") or []
    found: dict[str, int] = {}
    for entry in (routes[0].get("route") or []) if routes else []:
        target = entry.get("destination", {})
        host = str(target.get("host", "")).split(".")[0]
        arm = (
            host.removeprefix(f"{name}-") if host.startswith(f"{name}-") else str(target.get("subset", host))
        )
        # The only route carries everything, and its weight is left out then.
        found[arm] = int(entry.get("weight") or (100 if len(routes[0]["route"]) == 1 else 0))
    return found


def _pod_troubles(pod: Mapping[str, Any]) -> list[str]:
    name = pod.get("metadata", {}).get("name", "?")
    status = pod.get("status", {})
    lines = []
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            lines.append(f"pod {name}: {condition.get('reason', '')}: {condition.get('message', '')}")
    for container in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        if container.get("ready"):
            continue
        last = (container.get("lastState") or {}).get("terminated") or {}
        state = container.get("state") or {}
        why = state.get("waiting") or state.get("terminated") or last
        if why and why.get("reason") != "Completed":
            message = why.get("message") or last.get("message") or ""
            text = (
                f"pod {name}, container {container.get('name')}: {why.get('reason', 'not ready')}: {message}"
            )
            lines.append(_one_line(text).rstrip(": "))
    return lines


def _translate(error: ApiException, method: str, path: str) -> PlatformError:
    try:
        status = json.loads(error.body or "{}")
        message = status.get("message", "") if isinstance(status, dict) else ""
    except (ValueError, TypeError):
        message = ""
    message = _one_line(message or error.body or error.reason or "no message")
    where = f"{method} {path}"
    if error.status == 404:
        return NotFound(f"{where}: {message}")
    if error.status == 409 or (error.status == 422 and _STALE_TEST in message):
        return Conflict(f"{where}: {message}")
    if error.status == 429 or error.status >= 500:
        return Unavailable(f"{where}: {error.status}: {message}")
    if error.status in (401, 403):
        return PlatformError(f"{where}: not allowed ({error.status}): {message}")
    return PlatformError(f"{where}: refused ({error.status}): {message}")


def _one_line(text: object) -> str:
    return re.sub(r"\s+", " ", str(text)).strip()[:500]
