"""What a SeldonDeployment asks for: its Deployments, its weights and its VirtualService."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from canaryflow.errors import PlatformError
from canaryflow.local.deployments import Template
from canaryflow.local.store import VIRTUAL_SERVICE, Object
from canaryflow.local.xds import Arm

Wrapper = Callable[[Arm], tuple[str, ...]]

NO_EXECUTOR = "seldon.io/no-engine"
_PROGRESS_DEADLINE = 600.0  # seconds


@dataclass(frozen=True)
class Planned:
    """A Deployment as it should be.

    Attributes:
        name: ``<sdep>-<predictor>-<index>-<container>``.
        arm: The predictor.
        template: What its pods run.
        replicas: How many: the HPA's fewest (nothing scales by load here), at most its most.
        traffic: The predictor's share, in percent.
        deadline: Seconds after which a new one that is not ready counts as failed.
    """

    name: str
    arm: Arm
    template: Template
    replicas: int
    traffic: int
    deadline: float


def plan(sdep: Object, wrapper: Wrapper) -> list[Planned]:
    """The Deployments that a SeldonDeployment asks for, one for each predictor.

    Raises:
        PlatformError: It asks for what this platform does not do.
    """
    namespace, name = sdep["metadata"]["namespace"], sdep["metadata"]["name"]
    predictors = sdep["spec"]["predictors"]
    return [
        _planned(
            sdep, index, Arm(namespace, name, predictor["name"]), predictor, len(predictors) == 1, wrapper
        )
        for index, predictor in enumerate(predictors)
    ]


def _planned(sdep: Object, index: int, arm: Arm, predictor: Object, alone: bool, wrapper: Wrapper) -> Planned:
    components = predictor.get("componentSpecs") or []
    if len(components) != 1:
        raise PlatformError(
            f"predictor {arm.predictor}: found {len(components)} componentSpecs, expected 1 on this platform"
        )
    component, container = components[0], predictor["graph"]["name"]
    traffic = 100 if alone else predictor.get("traffic") or 0
    if not 0 <= traffic <= 100:
        raise PlatformError(f"predictor {arm.predictor}: found traffic {traffic}, expected 0 to 100")
    names = "-".join(entry["name"] for entry in component["spec"]["containers"])
    annotations = predictor.get("annotations") or {}
    return Planned(
        name=f"{arm.name}-{arm.predictor}-{index}-{names}",
        arm=arm,
        template=Template(component["spec"], annotations, container, _hashed(predictor), wrapper(arm)),
        replicas=_replicas(sdep, predictor, component),
        traffic=traffic,
        deadline=float(predictor.get("progressDeadlineSeconds") or _PROGRESS_DEADLINE),
    )


def _hashed(predictor: Object) -> Object:
    """What the operator replaces pods for: all but traffic and replicas, and hpaSpec without the executor."""
    hashed = copy.deepcopy(
        {key: value for key, value in predictor.items() if key not in ("traffic", "replicas")}
    )
    if str((predictor.get("annotations") or {}).get(NO_EXECUTOR, "")).lower() == "true":
        for component in hashed["componentSpecs"]:
            component.pop("hpaSpec", None)
    return hashed


def _replicas(sdep: Object, predictor: Object, component: Object) -> int:
    hpa = component.get("hpaSpec")
    if hpa:
        least = int(hpa.get("minReplicas") or 1)
        return max(1, min(least, int(hpa.get("maxReplicas") or least)))
    wanted = component.get("replicas") or predictor.get("replicas") or sdep["spec"].get("replicas") or 1
    return max(1, int(wanted))


def virtual_service(key: tuple[str, str], weights: Mapping[str, int]) -> Object:
    """The VirtualService that Istio would be given: weight 0, and a sole predictor's weight, are left out."""
    namespace, name = key
    routes: list[Object] = []
    for predictor, weight in weights.items():
        host = f"{name}-{predictor}.{namespace}.svc.cluster.local"
        route: Object = {"destination": {"host": host, "subset": predictor, "port": {"number": 8000}}}
        if weight and len(weights) > 1:
            route["weight"] = weight
        routes.append(route)
    return {
        "apiVersion": VIRTUAL_SERVICE.api_version,
        "kind": VIRTUAL_SERVICE.kind,
        "metadata": {"name": name, "labels": {"seldon-deployment-id": name}},
        "spec": {
            "hosts": ["*"],
            "gateways": ["istio-system/seldon-gateway"],
            "http": [
                {
                    "match": [{"uri": {"prefix": f"/seldon/{namespace}/{name}/"}}],
                    "rewrite": {"uri": "/"},
                    "route": routes,
                }
            ],
        },
    }


def weights_of(virtual_service: Mapping[str, Any]) -> dict[str, int]:
    """Read the weights back: missing is 0, and all where there is one route."""
    routes = virtual_service["spec"]["http"][0]["route"]
    left_out = 100 if len(routes) == 1 else 0
    return {route["destination"]["subset"]: route.get("weight", left_out) for route in routes}
