"""A pod as a process: started, probed, started again when it dies, drained before it stops."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import aiohttp

from canaryflow.local.podspec import PodSpec, Probe
from canaryflow.local.ports import Ports
from canaryflow.local.process import kill_group, spawn_async, terminate
from canaryflow.local.store import Object

log = logging.getLogger(__name__)

Phase = Literal["Pending", "Running", "Terminating"]

# The gateway has let go of a pod before it is asked to drain, so only what is in flight needs the time.
DRAIN_SECONDS = 1.0
_STARTUP_PERIOD = 0.1
_BACKOFF = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)  # seconds before the 1st, 2nd, ... start after a crash
_STEADY_SECONDS = 60.0  # a pod that ran this long starts over with the first
_LOG_TAIL = 4096


@dataclass(frozen=True)
class Surroundings:
    """What all pods of a platform share.

    Attributes:
        server: The program that serves a bundle; the bundle and the ports are appended.
        logs: Folder of the pods' logs.
        ports: Where their ports come from.
        session: What probes them.
    """

    server: Sequence[str]
    logs: Path
    ports: Ports
    session: aiohttp.ClientSession


class Pod:
    """One server process.

    Args:
        name: The pod's name.
        labels: Its labels.
        revision: What its template's digest is.
        spec: What it runs.
        wrapper: A program in place of the server's, for a sabotaged predictor; empty for none.
        around: What all pods share.
        changed: Called after every change of readiness or state.
    """

    def __init__(
        self,
        name: str,
        labels: Mapping[str, str],
        revision: str,
        spec: PodSpec,
        wrapper: Sequence[str],
        around: Surroundings,
        changed: Callable[[], None],
    ) -> None:
        self.name, self.labels, self.revision, self.spec = name, dict(labels), revision, spec
        self.phase: Phase = "Pending"
        self.ready = False
        self.restarts = 0
        self.started = time.time()
        self._stopping = 0.0
        self.port = 0
        self.log_file = around.logs / f"{name}.log"
        self._command = list(wrapper or around.server)
        self._around, self._changed = around, changed
        self._management_port = 0
        self._waiting = ("ContainerCreating", "")
        self._last_status: int | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._life = asyncio.create_task(self._live())

    @property
    def pid(self) -> int | None:
        """The server's process, while there is one."""
        return self._process.pid if self._process and self._process.returncode is None else None

    @property
    def serving(self) -> bool:
        """Whether requests may be sent to it."""
        return self.ready and self.phase == "Running"

    async def stop(self, out_of_gateway: Callable[[], Awaitable[None]]) -> None:
        """Let the gateway go first, then the preStop hook, SIGTERM, and SIGKILL when the grace is over."""
        self.phase, self._stopping = "Terminating", time.time()
        self._changed()
        self._life.cancel()
        await asyncio.wait([self._life])
        deadline = time.monotonic() + self.spec.grace
        await out_of_gateway()
        if self.pid is not None and self.spec.pre_stop is not None:
            with suppress(aiohttp.ClientError, TimeoutError):
                await self._ask(self.spec.pre_stop, max(0.1, deadline - time.monotonic()))
        await self._end(max(0.1, deadline - time.monotonic()))

    async def quit(self, grace: float) -> None:
        """Stop without a drain: the platform itself is going down."""
        self.phase = "Terminating"
        self._life.cancel()
        await asyncio.wait([self._life])
        await self._end(grace)

    async def _end(self, grace: float) -> None:
        if self._process is not None:
            await terminate(self._process, grace)
        self._around.ports.give_back(self.port, self._management_port)

    async def _live(self) -> None:
        crashes = 0
        while True:
            began = time.monotonic()
            try:
                await self._start()
                await self._watch()
            except OSError as error:
                self._waiting = ("CreateContainerError", str(error))
            crashes = 1 if time.monotonic() - began > _STEADY_SECONDS else crashes + 1
            self.phase, self.ready = "Pending", False
            self.restarts += 1
            wait = _BACKOFF[min(crashes, len(_BACKOFF)) - 1]
            if wait:
                message = f"back-off {wait:.0f}s restarting failed container; {self.log_tail_line()}"
                self._waiting = ("CrashLoopBackOff", message)
            self._changed()
            await asyncio.sleep(wait)

    async def _start(self) -> None:
        ports = self._around.ports
        ports.give_back(self.port, self._management_port)
        self.port, self._management_port = ports.take(), ports.take()
        command = [
            *self._command, self.spec.bundle,
            "--host", "127.0.0.1",
            "--port", str(self.port),
            "--management-port", str(self._management_port),
            "--drain-seconds", str(DRAIN_SECONDS),
        ]  # fmt: skip
        # SIGTERM, so that a server with workers of its own takes them with it.
        environment = os.environ | self.spec.environment
        self._process = await spawn_async(command, self.log_file, environment, signal.SIGTERM)
        self.phase, self._waiting = "Running", ("NotReady", "")
        self._changed()

    async def _watch(self) -> None:
        """Probe until the process ends; end it when its liveness fails."""
        assert self._process is not None  # noqa: S101 - just started
        process = self._process
        probes = [asyncio.create_task(self._probe_readiness())]
        if self.spec.liveness is not None:
            probes.append(asyncio.create_task(self._probe_liveness(self.spec.liveness)))
        try:
            self._last_status = await process.wait()
        finally:
            for probe in probes:
                probe.cancel()
            await asyncio.wait(probes)
        kill_group(process.pid)
        log.error("pod %s: its process ended with status %s", self.name, self._last_status)

    async def _probe_readiness(self) -> None:
        probe, failed = self.spec.readiness, 0
        while True:
            good = await self._holds(probe)
            failed = 0 if good else failed + 1
            if good != self.ready and (good or failed >= probe.failures):
                self.ready = good
                self._changed()
            await asyncio.sleep(probe.period if self.ready else min(probe.period, _STARTUP_PERIOD))

    async def _probe_liveness(self, probe: Probe) -> None:
        failed = 0
        while failed < probe.failures:
            await asyncio.sleep(probe.period)
            failed = 0 if await self._holds(probe) else failed + 1
        log.error("pod %s: %s failed %d times: killed", self.name, probe.path, failed)
        if self._process is not None:
            await terminate(self._process, self.spec.grace)

    async def _holds(self, probe: Probe) -> bool:
        try:
            status, text = await self._ask(probe, probe.timeout)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._waiting = ("NotReady", f"{probe.path}: no answer ({type(error).__name__})")
            return False
        if status < 400:
            return True
        self._waiting = ("NotReady", f"{probe.path} answered {status}: {' '.join(text.split())[:300]}")
        return False

    async def _ask(self, probe: Probe, timeout: float) -> tuple[int, str]:
        port = self._management_port if probe.management else self.port
        limit = aiohttp.ClientTimeout(total=timeout)
        async with self._around.session.get(f"http://127.0.0.1:{port}{probe.path}", timeout=limit) as answer:
            return answer.status, (await answer.content.read(_LOG_TAIL)).decode(errors="replace")

    def log_tail(self, lines: int) -> str:
        """The end of its log."""
        try:
            with self.log_file.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 200 * lines - _LOG_TAIL))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        return "".join(text.splitlines(keepends=True)[-lines:])

    def log_tail_line(self) -> str:
        """The last line it wrote: mostly why it died."""
        return self.log_tail(1).strip()[:300] or f"ended with status {self._last_status}"

    def to_object(self, namespace: str) -> Object:
        """As ``v1`` shows a pod."""
        started = _timestamp(self.started)
        reason, message = self._waiting
        container: Object = {
            "name": self.spec.container,
            "image": self.spec.image,
            "imageID": self.revision,
            "ready": self.serving,
            "started": self.pid is not None,
            "restartCount": self.restarts,
            "state": {"running": {"startedAt": started}}
            if self.serving
            else {"waiting": {"reason": reason, "message": message}},
        }
        if self._last_status is not None:
            last = {"exitCode": self._last_status, "reason": "Error", "message": self.log_tail_line()}
            container["lastState"] = {"terminated": last}
        metadata: Object = {"name": self.name, "namespace": namespace, "labels": self.labels}
        if self.phase == "Terminating":
            metadata["deletionTimestamp"] = _timestamp(self._stopping)
        ready = {"type": "Ready", "status": str(self.serving), "message": "" if self.serving else message}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata | {"annotations": {"canaryflow.io/pid": str(self.pid or 0)}},
            "spec": {"containers": [{"name": self.spec.container, "image": self.spec.image}]},
            "status": {
                "phase": "Pending" if self.phase == "Pending" else "Running",
                "podIP": "127.0.0.1",
                "startTime": started,
                "conditions": [ready],
                "containerStatuses": [container],
            },
        }


def _timestamp(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
