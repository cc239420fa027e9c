"""Delivery on the one-machine platform: Envoy, server processes, real requests, no client retries."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from canaryflow.bundle.format import Bundle
from canaryflow.delivery.cluster import connect
from canaryflow.delivery.deploy import deploy
from canaryflow.delivery.metrics import connect_metrics
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout import Outcome, rollout
from canaryflow.delivery.seldon import ServerSpec
from canaryflow.local import platform
from tests.bundle.models import make, rows

PLAN = RolloutPlan(steps=(10, 50), step_requests=300, interval_seconds=0.3, max_minutes=1.0)


class Users:
    """Requests at a steady rate through the gateway; who answered what is counted."""

    def __init__(self, url: str, rate: float) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.versions: list[str] = []
        self._url, self._rate = url, rate
        self._stop = threading.Event()

    async def _ask(self, session: aiohttp.ClientSession, row: dict) -> None:
        try:
            async with session.post(self._url, json={"rows": [row]}) as answer:
                await answer.read()
                self.answers[(answer.headers.get("x-canaryflow-predictor", ""), answer.status)] += 1
        except aiohttp.ClientError as error:
            self.answers[(type(error).__name__, 0)] += 1

    async def _run(self) -> None:
        samples, tasks, sent, started = rows(50), set(), 0, time.monotonic()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64)) as session:
            while not self._stop.is_set():
                while sent < (time.monotonic() - started) * self._rate:
                    task = asyncio.create_task(self._ask(session, samples[sent % len(samples)]))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    sent += 1
                await asyncio.sleep(0.005)
            await asyncio.gather(*tasks)

    @contextmanager
    def asking(self) -> Iterator[Users]:
        thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(30)


class Machine:
    def __init__(self, workspace: Path) -> None:
        self.live = platform.up(workspace, tied=True)
        self.cluster = connect(self.live.api, "default")
        self.metrics = connect_metrics("", self.live.api, "default", "iris")

    def put(self, bundle: Bundle) -> str:
        spec = ServerSpec(
            "server:1", str(bundle.path), bundle.manifest.version, min_replicas=1, max_replicas=2
        )
        return deploy(self.cluster, "iris", spec, bundle, 60.0).arm

    def roll_out(self) -> Outcome:
        return rollout(self.cluster, "iris", PLAN, self.metrics)

    def sabotage(self, kind: str | None) -> None:
        body = {"namespace": "default", "name": "iris", "predictor": "canary", "kind": kind}
        request = urllib.request.Request(
            f"{self.live.api}/faults", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        urllib.request.urlopen(request, timeout=10).close()

    def users(self) -> Users:
        return Users(f"{self.live.gateway}/seldon/default/iris/predict", 250.0)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    try:
        yield Machine(tmp_path / "workspace")
    finally:
        platform.down(tmp_path / "workspace")


_DRIVER = """
import json, sys
from canaryflow.delivery.cluster import connect
from canaryflow.delivery.metrics import connect_metrics
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout import rollout
api, plan = sys.argv[1], RolloutPlan.from_dict(json.loads(sys.argv[2]))
rollout(connect(api, "default"), "iris", plan, connect_metrics("", api, "default", "iris"),
        on_event=lambda event: print(event, flush=True))
"""


def kill_driver_at(words: str, machine: Machine) -> None:
    command = [sys.executable, "-c", _DRIVER, machine.live.api, json.dumps(PLAN.to_dict())]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        for line in driver.stdout:
            if words in line:
                driver.send_signal(signal.SIGKILL)
                break
    assert driver.returncode == -signal.SIGKILL


def test_promoted_and_rolled_back_under_load_and_nothing_is_lost(machine: Machine, tmp_path: Path):
    bundles = [make("binary", tmp_path / f"b{seed}", seed=seed) for seed in (0, 1, 2)]
    assert machine.put(bundles[0]) == "main"
    assert machine.put(bundles[1]) == "canary"
    with machine.users().asking() as users:
        kill_driver_at("canary takes 50 %", machine)
        outcome = machine.roll_out()
    assert outcome.promoted, outcome.verdict.summary
    assert {status for _, status in users.answers} == {200}, users.answers
    assert users.answers["canary", 200] > 100
    assert machine.put(bundles[1]) == "main"

    assert machine.put(bundles[2]) == "canary"
    machine.sabotage("errors")
    with machine.users().asking() as users:
        outcome = machine.roll_out()
    assert outcome.decision == "rolled back"
    assert "errors" in outcome.verdict.summary
    assert {status for arm, status in users.answers if arm != "canary"} == {200}, users.answers
    assert {status for arm, status in users.answers if arm == "canary"} == {200, 500}
    assert machine.cluster.weights("iris")["main"] == 100
    assert machine.put(bundles[1]) == "main"
