"""What the custom resource's schema and Seldon's webhook do to a SeldonDeployment before it is stored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from canaryflow.local.store import ApiFailure, Object

_SPEC_FIELDS = {
    "annotations", "name", "oauth_key", "oauth_secret", "predictors", "protocol", "replicas",
    "serverType", "transport",
}  # fmt: skip
_PREDICTOR_FIELDS = {
    "annotations", "componentSpecs", "engineResources", "explainer", "graph", "labels", "name",
    "progressDeadlineSeconds", "replicas", "shadow", "ssl", "svcOrchSpec", "traffic",
}  # fmt: skip
_COMPONENT_FIELDS = {"hpaSpec", "kedaSpec", "metadata", "pdbSpec", "replicas", "spec"}
_HOOK_FIELDS = {"exec", "httpGet", "tcpSocket"}


def admit(body: Object) -> Object:
    """Prune what the schema does not know, in silence as in Kubernetes, and refuse what the webhook refuses.

    Args:
        body: The SeldonDeployment as it was sent or as a patch made it.

    Returns:
        The pruned copy.

    Raises:
        ApiFailure: 422, with the webhook's words or the schema's.
    """
    name = (body.get("metadata") or {}).get("name")
    spec = body.get("spec")
    if not isinstance(spec, dict):
        raise _invalid(name, "spec: Required value")
    predictors = spec.get("predictors")
    if not isinstance(predictors, list) or not predictors:
        raise _invalid(name, "spec.predictors: Required value")
    for index, predictor in enumerate(predictors):
        _check_schema(name, f"spec.predictors[{index}]", predictor)
    pruned = copy.deepcopy(body)
    pruned["spec"] = _prune(pruned["spec"])
    _check_predictors(name, pruned["spec"]["predictors"])
    return pruned


def _invalid(name: object, message: str) -> ApiFailure:
    return ApiFailure(
        422, "Invalid", f'SeldonDeployment.machinelearning.seldon.io "{name}" is invalid: {message}'
    )


def _denied(name: object, field: str, value: object, message: str) -> ApiFailure:
    inner = _invalid(name, f"{field}: Invalid value: {value!r}: {message}").message
    return ApiFailure(
        422, "Invalid", f'admission webhook "v1.vseldondeployment.kb.io" denied the request: {inner}'
    )


def _check_schema(name: object, where: str, predictor: object) -> None:
    if not isinstance(predictor, dict):
        raise _invalid(name, f"{where}: Invalid value: must be of type object")
    for field in ("name", "graph"):
        if not predictor.get(field):
            raise _invalid(name, f"{where}.{field}: Required value")
    if not isinstance(predictor["graph"], dict) or not predictor["graph"].get("name"):
        raise _invalid(name, f"{where}.graph.name: Required value")
    for field in ("traffic", "replicas", "progressDeadlineSeconds"):
        value = predictor.get(field)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            found = {str: "string", float: "number", bool: "boolean"}.get(type(value), "object")
            raise _invalid(
                name, f'{where}.{field}: Invalid value: "{found}": must be of type integer: "{found}"'
            )
    for component in predictor.get("componentSpecs") or []:
        if not isinstance(component, dict) or not isinstance(component.get("spec"), dict):
            raise _invalid(name, f"{where}.componentSpecs: Invalid value: each needs a spec of type object")
        if not component["spec"].get("containers"):
            raise _invalid(name, f"{where}.componentSpecs.spec.containers: Required value")


def _prune(spec: Mapping[str, Any]) -> Object:
    kept = {key: value for key, value in spec.items() if key in _SPEC_FIELDS}
    kept["predictors"] = [
        {key: value for key, value in predictor.items() if key in _PREDICTOR_FIELDS}
        for predictor in spec["predictors"]
    ]
    for predictor in kept["predictors"]:
        if "componentSpecs" not in predictor:
            continue
        predictor["componentSpecs"] = [
            {key: value for key, value in component.items() if key in _COMPONENT_FIELDS}
            for component in predictor["componentSpecs"]
        ]
        for component in predictor["componentSpecs"]:
            for container in component["spec"]["containers"]:
                hook = (container.get("lifecycle") or {}).get("preStop")
                if hook is not None:
                    container["lifecycle"]["preStop"] = {k: v for k, v in hook.items() if k in _HOOK_FIELDS}
    return kept


def _check_predictors(name: object, predictors: list[Object]) -> None:
    seen: set[str] = set()
    for index, predictor in enumerate(predictors):
        where = f"spec.predictors[{index}]"
        if predictor["name"] in seen:
            raise _denied(name, f"{where}.name", predictor["name"], "Duplicate predictor name")
        seen.add(predictor["name"])
        graph = predictor["graph"]
        containers = [
            container.get("name")
            for component in predictor.get("componentSpecs") or []
            for container in component["spec"]["containers"]
        ]
        if not graph.get("implementation") and graph["name"] not in containers:
            raise _denied(
                name,
                f"{where}.graph",
                graph["name"],
                "Can't find container for predictive unit in componentSpecs",
            )
        if predictor.get("shadow"):
            message = "the one-machine platform mirrors no traffic: shadow predictors need Kubernetes"
            raise _denied(name, f"{where}.shadow", True, message)
    # The real webhook checks the sum and not the range: 150 and -50 pass here too.
    traffic = [predictor.get("traffic") or 0 for predictor in predictors]
    if len(predictors) > 1 and sum(traffic) != 100:
        raise _denied(
            name, "spec.predictors", sum(traffic), "Traffic must sum to 100 for multiple predictors"
        )
    if len(predictors) == 1 and 1 <= traffic[0] <= 99:
        raise _denied(
            name,
            "spec.predictors[0].traffic",
            traffic[0],
            "Traffic must be 100 for a single predictor when set",
        )
