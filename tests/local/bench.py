"""A platform under test: its API by the standard library, and a steady load without client retries."""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from canaryflow.local import platform

STAND_IN = (sys.executable, str(Path(__file__).with_name("stand_in_server.py")))
SDEP = "/apis/machinelearning.seldon.io/v1/namespaces/default/seldondeployments"


def write_bundle(root: Path, version: str, **behaviour) -> str:
    folder = root / version
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "behaviour.json").write_text(json.dumps({"version": version, **behaviour}))
    return str(folder)


def predictor(
    name: str, bundle: str, traffic: int, replicas: int = 1, *, drains: bool = True, **extra
) -> dict:
    container = {
        "name": "model",
        "image": "canaryflow-server:test",
        "env": [{"name": "CANARYFLOW_BUNDLE_URI", "value": bundle}],
        "ports": [{"name": "http", "containerPort": 9000}, {"name": "metrics", "containerPort": 6000}],
        "readinessProbe": {
            "httpGet": {"path": "/health/status", "port": "http"},
            "periodSeconds": 1,
            "timeoutSeconds": 2,
            "failureThreshold": 2,
        },
    }
    if drains:
        container["lifecycle"] = {"preStop": {"httpGet": {"path": "/drain", "port": 6000}}}
    return {
        "name": name,
        "traffic": traffic,
        "annotations": {"seldon.io/no-engine": "true", "version": Path(bundle).name},
        "graph": {"name": "model", "type": "MODEL", "children": []},
        "componentSpecs": [
            {
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 10},
                "hpaSpec": {"minReplicas": replicas, "maxReplicas": 10, "metricsv2": []},
            }
        ],
        **extra,
    }


def sdep(*predictors: dict, name: str = "iris") -> dict:
    return {"metadata": {"name": name}, "spec": {"protocol": "seldon", "predictors": list(predictors)}}


@dataclass
class Answer:
    status: int
    body: dict


@dataclass
class Bench:
    """One platform, and what a test asks of it."""

    workspace: Path
    live: platform.Platform

    def call(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Answer:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.live.api + path, data, {"content-type": kind}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return Answer(answer.status, json.load(answer))
        except urllib.error.HTTPError as error:
            return Answer(error.code, json.load(error))

    def create(self, body: dict) -> dict:
        answer = self.call("POST", SDEP, body)
        assert answer.status == 201, answer
        return answer.body

    def patch(self, *operations: tuple, name: str = "iris") -> Answer:
        body = [dict(zip(("op", "path", "value"), operation, strict=False)) for operation in operations]
        return self.call("PATCH", f"{SDEP}/{name}", body, "application/json-patch+json")

    def set_weights(self, main: int, canary: int) -> None:
        answer = self.patch(
            ("replace", "/spec/predictors/0/traffic", main), ("replace", "/spec/predictors/1/traffic", canary)
        )
        assert answer.status == 200, answer

    def append_canary(self, canary: dict) -> None:
        weight = canary["traffic"]
        answer = self.patch(
            ("add", "/spec/predictors/-", canary), ("replace", "/spec/predictors/0/traffic", 100 - weight)
        )
        assert answer.status == 200, answer

    def remove_canary(self) -> None:
        answer = self.patch(("remove", "/spec/predictors/1"), ("replace", "/spec/predictors/0/traffic", 100))
        assert answer.status == 200, answer

    def get(self, name: str = "iris") -> dict:
        return self.call("GET", f"{SDEP}/{name}").body

    def state(self) -> str:
        return self.get().get("status", {}).get("state", "")

    def weights(self, name: str = "iris") -> dict[str, int]:
        found = self.call(
            "GET", f"/apis/networking.istio.io/v1beta1/namespaces/default/virtualservices/{name}"
        )
        if found.status == 404:
            return {}
        routes = found.body["spec"]["http"][0]["route"]
        return {
            route["destination"]["subset"]: route.get("weight", 100 if len(routes) == 1 else 0)
            for route in routes
        }

    def deployments(self) -> dict[str, dict]:
        selector = "?labelSelector=seldon-deployment-id%3Diris"
        items = self.call("GET", "/apis/apps/v1/namespaces/default/deployments" + selector).body["items"]
        return {item["metadata"]["name"]: item for item in items}

    def pods(self, arm: str = "") -> list[dict]:
        items = self.call("GET", "/api/v1/namespaces/default/pods").body["items"]
        return [pod for pod in items if not arm or pod["metadata"]["labels"]["seldon-app"] == f"iris-{arm}"]

    def pids(self, arm: str = "") -> list[int]:
        return [int(pod["metadata"]["annotations"]["canaryflow.io/pid"]) for pod in self.pods(arm)]

    def service_url(self, arm: str) -> str:
        port = self.call("GET", f"/api/v1/namespaces/default/services/iris-{arm}").body["spec"]["ports"][0]
        return f"http://127.0.0.1:{port['port']}"

    def settled(self, **weights: int) -> bool:
        """Whether everything agrees, as a careful client would judge it."""
        deployments = self.deployments().values()
        # A Deployment that has not been told yet agrees with itself: its template must be the wanted one.
        wanted = sorted(str(each.get("annotations")) for each in self.get()["spec"]["predictors"])
        told = sorted(str(each["spec"]["template"]["metadata"]["annotations"]) for each in deployments)
        return (
            self.state() == "Available"
            and self.weights() == weights
            and len(deployments) == len(weights)
            and wanted == told
            and all(
                each["status"]["observedGeneration"] == each["metadata"]["generation"]
                and each["status"]["replicas"]
                == each["status"]["updatedReplicas"]
                == each["status"]["readyReplicas"]
                == each["spec"]["replicas"]
                for each in deployments
            )
        )

    def wait(self, holds, what: str, seconds: float = 15.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, f"not in {seconds} s: {what}; {self.get()}; {self.pods()}"
            time.sleep(0.02)

    def wait_settled(self, **weights: int) -> None:
        self.wait(lambda: self.settled(**weights), f"settled at {weights}")


@dataclass
class Load:
    """What a steady load was answered."""

    statuses: Counter = field(default_factory=Counter)
    versions: Counter = field(default_factory=Counter)
    arms: Counter = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def lost(self) -> int:
        return len(self.failures)


@asynccontextmanager
async def load(bench: Bench, rate: float = 150.0, url: str = ""):
    """Send requests at a steady rate while the block runs; each is sent once."""
    result, pending = Load(), set()
    target = url or f"{bench.live.gateway}/seldon/default/iris/api/v1.0/predictions"

    async def one(session: aiohttp.ClientSession) -> None:
        try:
            async with session.post(target, json={"data": {"ndarray": [[1.0]]}}) as answer:
                result.statuses[answer.status] += 1
                if answer.status != 200:
                    result.failures.append(f"{answer.status}: {(await answer.text())[:100]}")
                    return
                result.versions[(await answer.json(content_type=None))["version"]] += 1
                result.arms[answer.headers["x-canaryflow-predictor"]] += 1
        except (aiohttp.ClientError, TimeoutError) as error:
            result.failures.append(repr(error))

    async def run(session: aiohttp.ClientSession) -> None:
        due = asyncio.get_running_loop().time()
        while True:
            task = asyncio.create_task(one(session))
            pending.add(task)
            task.add_done_callback(pending.discard)
            due += 1 / rate
            await asyncio.sleep(due - asyncio.get_running_loop().time())

    # aiohttp sends an idempotent request again on a connection that was just closed; a POST never.
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        runner = asyncio.create_task(run(session))
        try:
            yield result
        finally:
            runner.cancel()
            if pending:
                await asyncio.wait(pending)
