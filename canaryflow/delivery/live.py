"""What a SeldonDeployment is really doing: its pods and the gateway, not its own ``status``.

``status.state`` may be stale, flaps while things change, and says Available before an HPA has lifted a
Deployment to its minimum. So the Deployments, their pods' versions and the gateway's weights are read, and
must agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from canaryflow.delivery import seldon
from canaryflow.delivery.cluster import Cluster


@dataclass(frozen=True)
class Live:
    """One look at a SeldonDeployment, its Deployments and the gateway.

    Attributes:
        sdep: The object.
        deployments: What the operator made of it, by predictor.
        weights: What the gateway was told, by predictor.
    """

    sdep: Mapping[str, Any]
    deployments: Mapping[str, Mapping[str, Any]]
    weights: Mapping[str, int]

    def ready_replicas(self, predictor: str) -> int:
        """Pods of a predictor that are ready."""
        return int(self.deployments.get(predictor, {}).get("status", {}).get("readyReplicas") or 0)

    def replicas(self, predictor: str) -> int:
        """Pods that a predictor's Deployment asks for at present (its HPA moves this)."""
        return int(self.deployments.get(predictor, {}).get("spec", {}).get("replicas") or 0)

    def ready(self, predictor: str) -> bool:
        """Whether all pods of a predictor run what the spec says, are ready, and are as many as its floor."""
        wanted = seldon.find(self.sdep, predictor)
        deployment = self.deployments.get(predictor)
        if wanted is None or deployment is None:
            return False
        status = deployment.get("status", {})
        asked = self.replicas(predictor)
        seen = int(status.get("observedGeneration") or 0) >= int(
            deployment["metadata"].get("generation") or 0
        )
        counts = {int(status.get(key) or 0) for key in ("replicas", "updatedReplicas", "readyReplicas")}
        enough = asked >= seldon.scaling(wanted)[0] >= 1
        return seen and counts == {asked} and enough and _same_bundle(wanted, deployment)

    @property
    def frozen(self) -> bool:
        """Whether the operator holds the weights: it moves them only when every pod is ready."""
        names = [entry["name"] for entry in self.sdep["spec"]["predictors"]]
        return not all(self.ready(name) for name in names)

    def carries(self, canary: int) -> bool:
        """Whether the gateway sends the canary this share of the traffic, and main the rest."""
        return (
            self.weights.get(seldon.CANARY, 0) == canary and self.weights.get(seldon.MAIN, 0) == 100 - canary
        )


def look(cluster: Cluster, name: str, sdep: Mapping[str, Any] | None = None) -> Live:
    """Read the object (unless it is given), its Deployments and the gateway's weights."""
    body = cluster.get(name) if sdep is None else sdep
    found = {}
    for deployment in cluster.deployments(name):
        if arm := _arm(deployment, name):
            found[arm] = deployment
    return Live(body, found, cluster.weights(name))


def _arm(deployment: Mapping[str, Any], name: str) -> str:
    """The predictor that a Deployment belongs to, by the label that its Service selects."""
    metadata = deployment.get("metadata", {})
    template = deployment.get("spec", {}).get("template", {}).get("metadata", {})
    app = (
        (template.get("labels") or {}).get("seldon-app")
        or (metadata.get("labels") or {}).get("seldon-app")
        or ""
    )
    return str(app).removeprefix(f"{name}-") if str(app).startswith(f"{name}-") else ""


def _same_bundle(predictor: Mapping[str, Any], deployment: Mapping[str, Any]) -> bool:
    """Whether the Deployment was told of the predictor's bundle: a spec is seen some time after its write."""
    return seldon.bundle_uri(predictor) == seldon.bundle_uri(
        {"componentSpecs": [deployment.get("spec", {}).get("template", {})]}
    )
