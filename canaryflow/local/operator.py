"""Seldon's operator, as far as a rollout can tell: SeldonDeployments to Deployments, weights and a status.

It does what the operator of Seldon Core 1.17 was seen to do, the traps included: weights and removals wait
until every Deployment is ready, readiness is judged by a status from before the change, a removed predictor's
Deployment goes at once, and nearly every edit of a predictor replaces its pods.
"""

from __future__ import annotations

import asyncio
import logging

from canaryflow.errors import PlatformError
from canaryflow.local.deployments import Deployment
from canaryflow.local.gateway import Gateway
from canaryflow.local.planning import Planned, plan, virtual_service, weights_of
from canaryflow.local.pods import Surroundings
from canaryflow.local.sabotage import Sabotage
from canaryflow.local.store import SELDON_DEPLOYMENT, VIRTUAL_SERVICE, ApiFailure, Kind, Object, Store
from canaryflow.local.xds import Arm

log = logging.getLogger(__name__)

Key = tuple[str, str]

_SETTLE_SECONDS = 0.05
_TICK_SECONDS = 1.0


class Operator:
    """Brings the platform to what the stored SeldonDeployments say, over and over.

    Args:
        store: Where they are; the VirtualServices are kept there too.
        gateway: What routes the requests.
        around: What all pods share.
        sabotage: The faults that predictors have.
    """

    def __init__(self, store: Store, gateway: Gateway, around: Surroundings, sabotage: Sabotage) -> None:
        self._store, self._gateway, self._around, self._sabotage = store, gateway, around, sabotage
        self._deployments: dict[Key, dict[str, Deployment]] = {}
        self._leaving: list[Deployment] = []
        self._services: dict[Arm, int] = {}
        self._weights: dict[Key, dict[str, int]] = {}
        self._dirty: set[Key] = set()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        for kept in store.list(VIRTUAL_SERVICE):
            key = (kept["metadata"]["namespace"], kept["metadata"]["name"])
            self._weights[key] = weights_of(kept)
            self._dirty.add(key)
        store.subscribe(self._on_change)

    async def run(self) -> None:
        """Reconcile until cancelled."""
        while True:
            self._dirty |= {
                (found["metadata"]["namespace"], found["metadata"]["name"])
                for found in self._store.list(SELDON_DEPLOYMENT)
            }
            dirty, self._dirty = self._dirty, set()
            for key in sorted(dirty):
                await self._try(key)
            try:
                await asyncio.wait_for(self._wake.wait(), _TICK_SECONDS)
                await asyncio.sleep(_SETTLE_SECONDS)
            except TimeoutError:
                pass
            self._wake.clear()

    async def quit(self, grace: float) -> None:
        """End every pod without a drain."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*(deployment.quit(grace) for deployment in self._all()))

    def deployments(self, namespace: str) -> list[Object]:
        """The Deployments, as ``apps/v1`` shows them."""
        return [
            deployment.to_object()
            for key, named in sorted(self._deployments.items())
            for deployment in named.values()
            if key[0] == namespace
        ]

    def pods(self, namespace: str) -> list[Object]:
        """The pods, those that are about to end too, as ``v1`` shows them."""
        return [
            pod.to_object(namespace)
            for deployment in self._all()
            for pod in deployment.pods
            if deployment.arm.namespace == namespace
        ]

    def pod_log(self, namespace: str, name: str, tail: int) -> str | None:
        """The end of a pod's log."""
        for deployment in self._all():
            for pod in deployment.pods:
                if (deployment.arm.namespace, pod.name) == (namespace, name):
                    return pod.log_tail(tail)
        return None

    def services(self, namespace: str) -> list[Object]:
        """The predictors' Services, as ``v1`` shows them."""
        return [
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": f"{arm.name}-{arm.predictor}",
                    "namespace": namespace,
                    "labels": {"seldon-deployment-id": arm.name},
                },
                "spec": {
                    "type": "ClusterIP",
                    "clusterIP": "127.0.0.1",
                    "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
                    "selector": {"seldon-app": f"{arm.name}-{arm.predictor}"},
                },
            }
            for arm, port in sorted(self._services.items())
            if arm.namespace == namespace
        ]

    def live(self) -> list[Object]:
        """What is live, in short."""
        return [self._summary(sdep) for sdep in self._store.list(SELDON_DEPLOYMENT)]

    def _summary(self, sdep: Object) -> Object:
        namespace, name = key = (sdep["metadata"]["namespace"], sdep["metadata"]["name"])
        weights = self._weights.get(key, {})
        ready = {each.arm: each.counts[1] for each in self._deployments.get(key, {}).values()}
        return {
            "namespace": namespace,
            "name": name,
            "state": (sdep.get("status") or {}).get("state", ""),
            "predictors": [
                {
                    "name": each["name"],
                    "version": (each.get("annotations") or {}).get("version", ""),
                    "weight": weights.get(each["name"], 0),
                    "ready": ready.get(Arm(namespace, name, each["name"]), 0),
                }
                for each in sdep["spec"]["predictors"]
            ],
        }

    def wake(self, key: Key) -> None:
        """Reconcile one SeldonDeployment soon."""
        self._dirty.add(key)
        self._wake.set()

    def _on_change(self, kind: Kind, namespace: str, name: str) -> None:
        if kind == SELDON_DEPLOYMENT:
            self.wake((namespace, name))

    def _all(self) -> list[Deployment]:
        live = [deployment for named in self._deployments.values() for deployment in named.values()]
        return live + self._leaving

    async def _try(self, key: Key) -> None:
        try:
            await self._reconcile(key)
        except ApiFailure as failure:  # the object was changed or deleted meanwhile: the next round sees it
            log.info("%s/%s: %s", *key, failure.message)
        except PlatformError as error:
            log.error("%s/%s: %s", *key, error)
            self._set_status(key, "Failed", str(error), [])
        except Exception:
            log.exception("%s/%s: reconciling failed", *key)

    async def _reconcile(self, key: Key) -> None:
        planned = await self._plan(key)
        named = self._deployments.setdefault(key, {})
        for one in planned:
            if one.name not in named:
                named[one.name] = Deployment(
                    one.name, one.arm, self._around, self._on_pod, self._bring_endpoints
                )
            named[one.name].apply(one.template, one.replicas)
        await self._bring_services(key, planned)
        # By the Deployments' status from before this change, as the operator reads it: see trap 1.
        ready = all(named[one.name].available for one in planned)
        shown = dict(named)
        if ready:
            await self._bring_weights(key, {one.arm.predictor: one.traffic for one in planned})
            for name in set(named) - {one.name for one in planned}:
                deployment = named.pop(name)
                deployment.delete()
                self._leaving.append(deployment)
        for deployment in named.values():
            deployment.sync()
        self._leaving = [deployment for deployment in self._leaving if deployment.pods]
        if planned:
            self._set_status(key, *_state(ready, planned, named), list(shown.values()))
        else:
            del self._deployments[key]

    async def _plan(self, key: Key) -> list[Planned]:
        try:
            sdep = self._store.get(SELDON_DEPLOYMENT, *key)
        except ApiFailure:
            return []
        await self._sabotage.prepare(sdep)
        return plan(sdep, self._sabotage.wrapper)

    async def _bring_services(self, key: Key, planned: list[Planned]) -> None:
        """A Service for every predictor that is wanted, has pods left, or is still routed to."""
        needed = {one.arm for one in planned} | {deployment.arm for deployment in self._all()}
        needed |= {Arm(*at, predictor) for at, shares in self._weights.items() for predictor in shares}
        services = {arm: self._services.get(arm) or self._around.ports.take() for arm in sorted(needed)}
        if services == self._services:
            return
        await self._gateway.apply(services, self._weights)
        self._around.ports.give_back(*(set(self._services.values()) - set(services.values())))
        self._services = services

    async def _bring_weights(self, key: Key, weights: dict[str, int]) -> None:
        if not weights:
            self._weights.pop(key, None)
        elif self._weights.get(key) == weights:
            return
        else:
            self._weights[key] = weights
        await self._gateway.apply(self._services, self._weights)
        try:
            current = self._store.get(VIRTUAL_SERVICE, *key)
        except ApiFailure:
            if weights:
                self._store.create(VIRTUAL_SERVICE, key[0], virtual_service(key, weights))
            return
        if weights:
            current["spec"] = virtual_service(key, weights)["spec"]
            self._store.replace(VIRTUAL_SERVICE, *key, current)
        else:
            self._store.delete(VIRTUAL_SERVICE, *key)

    def _on_pod(self, arm: Arm) -> None:
        task = asyncio.create_task(self._bring_endpoints(arm))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.wake((arm.namespace, arm.name))

    async def _bring_endpoints(self, arm: Arm) -> None:
        ports = [port for each in self._all() if each.arm == arm for port in each.serving_ports]
        try:
            await self._gateway.set_endpoints(arm, ports)
        except PlatformError as error:
            log.error("%s: %s", arm.cluster, error)

    def _set_status(self, key: Key, state: str, description: str, deployments: list[Deployment]) -> None:
        try:
            sdep = self._store.get(SELDON_DEPLOYMENT, *key)
            counts = {each.name: each.counts for each in deployments}
            path = f"/seldon/{key[0]}/{key[1]}/api/v1.0/predictions"
            sdep["status"] = {
                "state": state,
                "description": description,
                "address": {"url": self._gateway.url + path},
                "replicas": sum(replicas for replicas, _ in counts.values()),
                "deploymentStatus": {
                    name: {"replicas": replicas, "availableReplicas": available}
                    for name, (replicas, available) in counts.items()
                },
                "conditions": [{"type": "Ready", "status": str(state == "Available")}],
            }
            self._store.replace(SELDON_DEPLOYMENT, *key, sdep, status=True)
        except ApiFailure as failure:
            log.info("%s/%s: %s", *key, failure.message)


def _state(ready: bool, planned: list[Planned], named: dict[str, Deployment]) -> tuple[str, str]:
    if ready:
        return "Available", ""
    for one in planned:
        deployment = named[one.name]
        # A Deployment that was complete once is never Failed again, however broken its newest pods are.
        if not deployment.was_complete and deployment.unfinished_seconds > one.deadline:
            return "Failed", f"Deployment {one.name} exceeded its progress deadline"
    return "Creating", ""
