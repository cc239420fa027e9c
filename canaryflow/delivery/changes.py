"""The changes that deploy and rollout make to the spec, as JSON Patch operations.

Each one tests the names of the predictors it touches: positions in a list mean nothing when somebody else
has edited it. Weights always change together, so they always sum to 100.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from canaryflow.delivery.cluster import Operation
from canaryflow.delivery.seldon import CANARY, MAIN, Predictor, floor_is_movable, scaling

_PREDICTORS = "/spec/predictors"
_INDEX = {MAIN: 0, CANARY: 1}


def _named(predictor: str) -> Operation:
    return {"op": "test", "path": f"{_PREDICTORS}/{_INDEX[predictor]}/name", "value": predictor}


def _set(predictor: str, field: str, value: object) -> Operation:
    return {"op": "add", "path": f"{_PREDICTORS}/{_INDEX[predictor]}/{field}", "value": value}


def shift(canary: int) -> list[Operation]:
    """Give the canary so many percent, and main the rest."""
    return [
        _named(MAIN),
        _named(CANARY),
        _set(MAIN, "traffic", 100 - canary),
        _set(CANARY, "traffic", canary),
    ]


def append_canary(body: Predictor, resource_version: str) -> list[Operation]:
    """Add the canary behind main, at the weight it says (0).

    The resourceVersion is tested, because a patch cannot ask that there is no canary yet.
    """
    return [
        {"op": "test", "path": "/metadata/resourceVersion", "value": resource_version},
        _named(MAIN),
        _set(MAIN, "traffic", 100),
        {"op": "add", "path": f"{_PREDICTORS}/-", "value": body},
    ]


def remove_canary() -> list[Operation]:
    """Take the canary away and give main everything: the one roll-back that frozen weights cannot hold up."""
    return [
        _named(MAIN),
        _named(CANARY),
        _set(MAIN, "traffic", 100),
        {"op": "remove", "path": f"{_PREDICTORS}/{_INDEX[CANARY]}"},
    ]


def scale(body: Mapping[str, Any], least: int, most: int | None = None) -> list[Operation]:
    """Change a predictor's floor (and its ceiling); no operations where it would restart the pods.

    Args:
        body: The predictor as last read.
        least: Its new fewest replicas.
        most: Its new most replicas; None leaves them.
    """
    now = scaling(body)
    wanted = (least, now[1] if most is None else most)
    if now == wanted or not floor_is_movable(body):
        return []
    name = body["name"]
    hpa = "componentSpecs/0/hpaSpec"
    return [
        _named(name),
        _set(name, f"{hpa}/minReplicas", wanted[0]),
        _set(name, f"{hpa}/maxReplicas", wanted[1]),
    ]


def copy_canary_into_main(main: Mapping[str, Any], canary: Mapping[str, Any], floor: int) -> list[Operation]:
    """Let main run what the canary runs; main's own weight, labels and disruption budget stay.

    Args:
        main: As last read.
        canary: As last read.
        floor: The fewest replicas that main keeps until the canary has gone.
    """
    source = copy.deepcopy(canary["componentSpecs"][0])
    operations = [
        _named(MAIN),
        _named(CANARY),
        _set(MAIN, "graph", copy.deepcopy(canary["graph"])),
        _set(MAIN, "annotations", {**(main.get("annotations") or {}), **(canary.get("annotations") or {})}),
        _set(MAIN, "componentSpecs/0/spec", source["spec"]),
    ]
    if hpa := source.get("hpaSpec"):
        least, most = max(floor, hpa["minReplicas"]), max(floor, hpa["maxReplicas"])
        operations.append(
            _set(MAIN, "componentSpecs/0/hpaSpec", hpa | {"minReplicas": least, "maxReplicas": most})
        )
    if "svcOrchSpec" in canary:
        operations.append(_set(MAIN, "svcOrchSpec", copy.deepcopy(canary["svcOrchSpec"])))
    return operations
