"""The platform's process: the API, the operator, the pods and the gateway of one workspace."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path

import aiohttp
from aiohttp import web

from canaryflow.errors import CanaryflowError, PlatformError
from canaryflow.local.api import application
from canaryflow.local.gateway import Gateway
from canaryflow.local.operator import Operator
from canaryflow.local.platform import LOCK, STATE
from canaryflow.local.pods import Surroundings
from canaryflow.local.podspec import read_pod_spec
from canaryflow.local.ports import Ports
from canaryflow.local.sabotage import Sabotage, median_through_gateway
from canaryflow.local.store import Object, Store, write_json
from canaryflow.local.xds import Arm

_STOP_SECONDS = 4.0
_LOCK_SECONDS = 0.5  # who only looks whether a platform runs holds the lock too, for much less


class _Live:
    """What the API shows and does beside the stored objects; see `canaryflow.local.api.Live`."""

    def __init__(self, operator: Operator, gateway: Gateway, sabotage: Sabotage, api_url: str) -> None:
        self._operator, self._gateway, self._sabotage, self._api_url = operator, gateway, sabotage, api_url
        self.deployments, self.pods = operator.deployments, operator.pods
        self.services, self.pod_log, self.live = operator.services, operator.pod_log, operator.live
        self.gateway_metrics, self.faults = gateway.metrics, sabotage.items

    def gateway(self) -> Object:
        return {
            "url": self._gateway.url,
            "metrics": f"{self._api_url}/gateway/metrics",
            "admin": self._gateway.admin,
        }

    def set_fault(self, namespace: str, name: str, predictor: str, kind: str | None) -> None:
        self._sabotage.set(Arm(namespace, name, predictor), kind)
        self._operator.wake((namespace, name))


async def serve(
    workspace: Path, port: int, server: Sequence[str], stop: asyncio.Event, tied_to: int | None = None
) -> None:
    """Run the platform of a workspace until ``stop`` is set, then stop everything it started.

    Args:
        workspace: Its folder; made where it is missing.
        port: The gateway's port; 0 takes the one of last time, or a free one.
        server: The program that serves a bundle.
        stop: Set from outside.
        tied_to: The process whose own the platform is; None where it is anybody's.

    Raises:
        PlatformError: The port is in use, another platform runs on the workspace, Envoy does not start.
    """
    workspace.mkdir(parents=True, exist_ok=True)
    before = _read_state(workspace)
    ports = Ports()
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_one(workspace))
        session = await stack.enter_async_context(
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10.0))
        )
        gateway = Gateway(
            workspace / "gateway",
            workspace / "logs" / "envoy.log",
            ports,
            port,
            before.get("gateway_port", 0),
        )
        stack.push_async_callback(gateway.stop)
        await gateway.start()

        async def measure(arm: Arm, predictor: Object) -> float:
            spec = read_pod_spec(predictor["componentSpecs"][0]["spec"], predictor["graph"]["name"])
            return await median_through_gateway(session, gateway.url, arm, Path(spec.bundle))

        sabotage = Sabotage(measure)
        store = Store(workspace / "resources")
        around = Surroundings(server, workspace / "logs", ports, session)
        operator = Operator(store, gateway, around, sabotage)
        stack.push_async_callback(operator.quit, _STOP_SECONDS)
        api_port = ports.take(before.get("api_port", 0))
        live = _Live(operator, gateway, sabotage, f"http://127.0.0.1:{api_port}")
        runner = web.AppRunner(application(store, live), access_log=None)
        stack.push_async_callback(runner.cleanup)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", api_port, shutdown_timeout=1.0).start()
        reconciling = asyncio.create_task(operator.run())
        stack.push_async_callback(_cancel, reconciling)
        write_json(
            workspace / STATE,
            {
                "pid": os.getpid(),
                "api": f"http://127.0.0.1:{api_port}",
                "gateway": gateway.url,
                "admin": gateway.admin,
                "api_port": api_port,
                "gateway_port": gateway.port,
                "started": time.time(),
                "tied_to": tied_to,
            },
        )
        await stop.wait()


@contextmanager
def _only_one(workspace: Path) -> Iterator[None]:
    with (workspace / LOCK).open("a+") as lock:
        deadline = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise PlatformError(f"workspace {workspace}: a platform already runs on it") from error
                time.sleep(0.01)
        # Whoever wants to stop the platform reads here whom to tell, also before it serves.
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def _read_state(workspace: Path) -> Object:
    with suppress(OSError, ValueError):
        state = json.loads((workspace / STATE).read_text())
        if isinstance(state, dict):
            return state
    return {}


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait([task])


def main(argv: Sequence[str] | None = None) -> int:
    """``python -m canaryflow.local WORKSPACE``: run a platform in the foreground."""
    parser = argparse.ArgumentParser(prog="python -m canaryflow.local", description=main.__doc__)
    parser.add_argument("workspace", type=Path)
    parser.add_argument("--port", type=int, default=0, help="the gateway's port; 0 takes a free one")
    parser.add_argument(
        "--server",
        default=shlex.join((sys.executable, "-m", "canaryflow.serving")),
        help="the program that serves a bundle (default: %(default)s)",
    )
    parser.add_argument("--tied-to", type=int, help="the process whose own the platform is")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")

    async def until_told() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        workspace, server = arguments.workspace.resolve(), shlex.split(arguments.server)
        await serve(workspace, arguments.port, server, stop, arguments.tied_to)

    try:
        asyncio.run(until_told())
    except CanaryflowError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"error: {error.filename or arguments.workspace}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0
