"""A SeldonDeployment, built from typed values and read back.

The types are those of ``machinelearning.seldon.io/v1`` in Seldon Core 1.17 and 1.18. Without Seldon's
executor (the default) the model's server answers the external API itself, pods drain, and an HPA can be
edited without a restart of the pods.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from canaryflow import names
from canaryflow.delivery.pod import BUNDLE_ENV, CONTAINER, pod_spec
from canaryflow.delivery.pod import ServerSpec as ServerSpec
from canaryflow.errors import PlatformError

GROUP, VERSION, PLURAL = "machinelearning.seldon.io", "v1", "seldondeployments"
MAIN: Final = "main"
CANARY: Final = "canary"
NO_EXECUTOR = "seldon.io/no-engine"

Predictor = dict[str, Any]


def check_name(name: str) -> None:
    """Refuse a name of a SeldonDeployment that the API or the operator would not take as it is.

    Raises:
        InputError: The name is no DNS label, or is too long.
    """
    names.check_name(name)


def seldon_deployment(name: str, namespace: str, main: ServerSpec) -> dict[str, Any]:
    """A SeldonDeployment with one predictor, main, that takes all traffic.

    Args:
        name: A DNS label; with the longest predictor and container it must stay under 63 characters, or the
            operator replaces the names of what it makes by digests.
        namespace: Where it goes.
        main: What main runs.

    Raises:
        InputError: The name is no DNS label, or is too long.
    """
    check_name(name)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "SeldonDeployment",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/managed-by": "canaryflow"},
            "annotations": {},
        },
        "spec": {
            "name": name,
            "protocol": "seldon",
            "predictors": [predictor(MAIN, main, 100)],
        },
    }


def predictor(name: str, spec: ServerSpec, traffic: int, min_replicas: int | None = None) -> Predictor:
    """One predictor.

    Args:
        name: ``main`` or ``canary``.
        spec: What it runs.
        traffic: Percent of the requests.
        min_replicas: A floor other than the spec's own, while a rollout lasts.
    """
    component: dict[str, Any] = {
        "metadata": {"labels": {"app.kubernetes.io/part-of": "canaryflow"}},
        "spec": pod_spec(spec),
        "hpaSpec": {
            "minReplicas": spec.min_replicas if min_replicas is None else min_replicas,
            "maxReplicas": spec.max_replicas,
            "metricsv2": [_utilization("cpu", spec.cpu_target), _utilization("memory", spec.memory_target)],
        },
    }
    if name == MAIN:
        # Its selector matches every pod of the SeldonDeployment: a second one would overlap and block
        # evictions.
        component["pdbSpec"] = {"maxUnavailable": 1}
    body: Predictor = {
        "name": name,
        "traffic": traffic,
        "annotations": {"version": spec.version},
        "graph": {"name": CONTAINER, "type": "MODEL", "endpoint": {"type": "REST"}, "children": []},
        "componentSpecs": [component],
    }
    if spec.executor:
        body["svcOrchSpec"] = {
            "resources": {
                "requests": {"cpu": "100m", "memory": "64Mi"},
                "limits": {"cpu": "500m", "memory": "256Mi"},
            }
        }
    else:
        body["annotations"][NO_EXECUTOR] = "true"
    return body


def _utilization(resource: str, percent: int) -> dict[str, Any]:
    """Of the model's container alone: with the whole pod's, the executor would dilute it."""
    return {
        "type": "ContainerResource",
        "containerResource": {
            "name": resource,
            "container": CONTAINER,
            "target": {"type": "Utilization", "averageUtilization": percent},
        },
    }


def find(sdep: Mapping[str, Any], name: str) -> Predictor | None:
    """The predictor of that name, or None."""
    for entry in sdep.get("spec", {}).get("predictors", []):
        if entry.get("name") == name:
            found: Predictor = entry
            return found
    return None


def main_of(sdep: Mapping[str, Any]) -> Predictor:
    """The main predictor.

    Raises:
        PlatformError: The first predictor is not main, or there are others than main and canary: not ours
            to drive.
    """
    names = [entry.get("name") for entry in sdep.get("spec", {}).get("predictors", [])]
    if names not in ([MAIN], [MAIN, CANARY]):
        name = sdep.get("metadata", {}).get("name", "?")
        raise PlatformError(
            f"SeldonDeployment {name}: found predictors {names}, "
            f"expected {MAIN} first and at most {CANARY} after it"
        )
    found: Predictor = sdep["spec"]["predictors"][0]
    return found


def weights(sdep: Mapping[str, Any]) -> dict[str, int]:
    """The weights that the spec asks for; a sole predictor's is 100 whatever it says."""
    predictors = sdep.get("spec", {}).get("predictors", [])
    if len(predictors) == 1:
        return {predictors[0]["name"]: 100}
    return {entry["name"]: int(entry.get("traffic") or 0) for entry in predictors}


def version_of(entry: Mapping[str, Any]) -> str:
    """The version that a predictor serves; empty when it does not say."""
    return str((entry.get("annotations") or {}).get("version", ""))


def bundle_uri(entry: Mapping[str, Any]) -> str:
    """Where a predictor's bundle is; empty when it does not say."""
    for component in entry.get("componentSpecs") or []:
        for container in component.get("spec", {}).get("containers", []):
            for variable in container.get("env") or []:
                if variable.get("name") == BUNDLE_ENV:
                    return str(variable.get("value", ""))
    return ""


def scaling(entry: Mapping[str, Any]) -> tuple[int, int]:
    """The fewest and the most replicas of a predictor."""
    hpa = (entry.get("componentSpecs") or [{}])[0].get("hpaSpec") or {}
    if not hpa:
        replicas = int(entry.get("replicas") or 1)
        return replicas, replicas
    most = int(hpa.get("maxReplicas") or 1)
    return int(hpa.get("minReplicas") or 1), most


def floor_is_movable(entry: Mapping[str, Any]) -> bool:
    """Whether minReplicas can change without a restart: only with an HPA, and without the executor."""
    without = str((entry.get("annotations") or {}).get(NO_EXECUTOR, "")).lower() == "true"
    return without and bool((entry.get("componentSpecs") or [{}])[0].get("hpaSpec"))
