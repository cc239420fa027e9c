"""A Deployment: replicas of one pod template, changed by rolling updates that keep enough pods ready."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from canaryflow.local.pods import Pod, Surroundings
from canaryflow.local.podspec import read_pod_spec
from canaryflow.local.store import Object
from canaryflow.local.xds import Arm


@dataclass(frozen=True)
class Template:
    """What the pods of a Deployment run.

    Attributes:
        spec: The PodSpec.
        annotations: The pods' annotations.
        container: Which of its containers serves.
        digest_of: What decides whether pods must be replaced: the operator hashes more than the PodSpec.
        wrapper: A program in place of the server's, for a sabotaged predictor.
    """

    spec: Object
    annotations: Object
    container: str
    digest_of: Object
    wrapper: tuple[str, ...] = ()

    @property
    def revision(self) -> str:
        """A digest of what decides."""
        told = json.dumps([self.digest_of, self.wrapper], sort_keys=True)
        return hashlib.sha256(told.encode()).hexdigest()[:10]


@dataclass
class _Status:
    observed_generation: int = 0
    replicas: int = 0
    updated: int = 0
    ready: int = 0
    wanted: int = 0

    @property
    def unavailable(self) -> int:
        return max(self.wanted, self.replicas) - self.ready


@dataclass
class _Desired:
    template: Template
    replicas: int
    generation: int
    since: float = field(default_factory=time.monotonic)


class Deployment:
    """One Deployment and its pods.

    Its status is what the last `sync` saw, as in Kubernetes, where a controller writes it some time after a
    change: who reads it at once reads the state before.

    Args:
        name: The Deployment's name.
        arm: The predictor it belongs to.
        around: What all pods share.
        wake: Called when a pod changed; the answer to it is a call of `sync`.
        let_go: Brings the gateway's endpoints of an arm up to date, and returns when it works by them.
    """

    def __init__(
        self,
        name: str,
        arm: Arm,
        around: Surroundings,
        wake: Callable[[Arm], None],
        let_go: Callable[[Arm], Awaitable[None]],
    ) -> None:
        self.name, self.arm = name, arm
        self.pods: list[Pod] = []
        self.was_complete = False
        self._around, self._wake, self._let_go = around, wake, let_go
        self._desired: _Desired | None = None
        self._status = _Status()
        self._stops: set[asyncio.Task[None]] = set()

    @property
    def available(self) -> bool:
        """What the operator waits for: there are pods, and none of them is not ready."""
        return self._status.ready > 0 and self._status.unavailable == 0

    @property
    def counts(self) -> tuple[int, int]:
        """Pods, and ready pods, as of the last `sync`."""
        return self._status.replicas, self._status.ready

    @property
    def unfinished_seconds(self) -> float:
        """How long the newest change has been under way; 0 when it is complete."""
        if self._desired is None or self._complete:
            return 0.0
        return time.monotonic() - self._desired.since

    @property
    def serving_ports(self) -> list[int]:
        """Where requests may be sent."""
        return sorted(pod.port for pod in self.pods if pod.serving)

    @property
    def _complete(self) -> bool:
        return self.available and self._status.updated == self._status.wanted == self._status.replicas

    def apply(self, template: Template, replicas: int) -> None:
        """Want so many pods of this template; the next `sync` begins to bring it about."""
        if self._desired is None:
            self._desired = _Desired(template, replicas, 1)
        elif (self._desired.template, self._desired.replicas) != (template, replicas):
            self._desired = _Desired(template, replicas, self._desired.generation + 1)

    def sync(self) -> None:
        """One step towards what is wanted: at most a quarter more pods than that, never fewer ready ones."""
        if self._desired is None:
            return
        template, wanted = self._desired.template, self._desired.replicas
        pods = [pod for pod in self.pods if pod.phase != "Terminating"]
        new = [pod for pod in pods if pod.revision == template.revision]
        old = [pod for pod in pods if pod.revision != template.revision]
        # Kubernetes' order: what is not ready goes first, then the youngest.
        surplus = sorted(new, key=lambda pod: (pod.serving, -pod.started))[: max(0, len(new) - wanted)]
        spare = max(0, sum(pod.serving for pod in pods if pod not in surplus) - wanted)
        leaving = surplus + [pod for pod in old if not pod.serving]
        leaving += [pod for pod in old if pod.serving][:spare]
        room = wanted + math.ceil(wanted / 4) - (len(pods) - len(leaving))
        for _ in range(min(room, wanted - len(new))):
            new.append(self._add(template))
        for pod in leaving:
            self._stop(pod)
        staying = [pod for pod in self.pods if pod.phase != "Terminating"]
        self._status = _Status(
            observed_generation=self._desired.generation,
            replicas=len(staying),
            updated=sum(pod.revision == template.revision for pod in staying),
            ready=sum(pod.serving for pod in staying),
            wanted=wanted,
        )
        self.was_complete = self.was_complete or self._complete

    def delete(self) -> None:
        """Begin to stop every pod."""
        self._desired = None
        for pod in self.pods:
            if pod.phase != "Terminating":
                self._stop(pod)

    async def quit(self, grace: float) -> None:
        """End every pod without a drain."""
        for stop in self._stops:
            stop.cancel()
        if self._stops:
            await asyncio.wait(self._stops)
        await asyncio.gather(*(pod.quit(grace) for pod in self.pods))

    def _add(self, template: Template) -> Pod:
        pod = Pod(
            name=f"{self.name}-{template.revision}-{secrets.token_hex(3)[:5]}",
            labels=self._labels,
            revision=template.revision,
            spec=read_pod_spec(template.spec, template.container),
            wrapper=template.wrapper,
            around=self._around,
            changed=lambda: self._wake(self.arm),
        )
        self.pods.append(pod)
        return pod

    def _stop(self, pod: Pod) -> None:
        async def stop() -> None:
            await pod.stop(lambda: self._let_go(self.arm))
            self.pods.remove(pod)
            self._wake(self.arm)

        # Terminating from this moment: the task itself begins a little later.
        pod.phase = "Terminating"
        task = asyncio.create_task(stop())
        self._stops.add(task)
        task.add_done_callback(self._stops.discard)

    @property
    def _labels(self) -> dict[str, str]:
        return {
            "app": self.name,
            "app.kubernetes.io/managed-by": "seldon-core",
            "seldon-app": f"{self.arm.name}-{self.arm.predictor}",
            "seldon-deployment-id": self.arm.name,
        }

    def to_object(self) -> Object:
        """As ``apps/v1`` shows a Deployment."""
        assert self._desired is not None  # noqa: S101 - shown only between apply and delete
        template = self._desired.template
        status: Object = {
            "observedGeneration": self._status.observed_generation,
            "replicas": self._status.replicas,
            "updatedReplicas": self._status.updated,
            "readyReplicas": self._status.ready,
            "availableReplicas": self._status.ready,
            "unavailableReplicas": self._status.unavailable,
            "conditions": [
                {"type": "Available", "status": str(self._status.ready >= self._status.wanted > 0)},
                {"type": "Progressing", "status": "True"},
            ],
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": self.name,
                "namespace": self.arm.namespace,
                "labels": self._labels,
                "generation": self._desired.generation,
            },
            "spec": {
                "replicas": self._desired.replicas,
                "selector": {"matchLabels": {"app": self.name}},
                "strategy": {
                    "type": "RollingUpdate",
                    "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0},
                },
                "template": {
                    "metadata": {"labels": self._labels, "annotations": template.annotations},
                    "spec": template.spec,
                },
            },
            "status": status,
        }
