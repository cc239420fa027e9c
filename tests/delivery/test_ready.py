from __future__ import annotations

import copy

import pytest

from canaryflow.delivery import seldon
from canaryflow.delivery.live import Live
from canaryflow.delivery.seldon import ServerSpec

SDEP = seldon.seldon_deployment("iris", "ml", ServerSpec("server:1", "s3://b/new", "new", min_replicas=2))
SETTLED = {
    "metadata": {"generation": 7},
    "spec": {"replicas": 3, "template": {"spec": SDEP["spec"]["predictors"][0]["componentSpecs"][0]["spec"]}},
    "status": {"observedGeneration": 7, "replicas": 3, "updatedReplicas": 3, "readyReplicas": 3},
}


def live(deployment: dict) -> Live:
    return Live(SDEP, {"main": deployment}, {"main": 100})


def test_all_agree():
    assert live(SETTLED).ready("main")
    assert not live(SETTLED).frozen


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("status", "observedGeneration"), 6),
        (("status", "readyReplicas"), 2),
        (("status", "updatedReplicas"), 1),
        (("status", "replicas"), 4),
        (("spec", "replicas"), 1),
        (("spec", "template"), {"spec": {"containers": []}}),
    ],
)
def test_whatever_lags_behind_is_waited_for(path: tuple[str, str], value: object):
    """A status from before the change, an HPA that has not lifted it yet, pods of the old bundle."""
    deployment = copy.deepcopy(SETTLED)
    deployment[path[0]][path[1]] = value
    if path == ("spec", "replicas"):
        deployment["status"] |= {"replicas": 1, "updatedReplicas": 1, "readyReplicas": 1}
    assert not live(deployment).ready("main")
    assert live(deployment).frozen


def test_what_is_not_there_is_not_ready():
    assert not Live(SDEP, {}, {}).ready("main")
    assert not live(SETTLED).ready("canary")
