"""A bench for delivery: the one-machine platform's real API and store, with pods that only exist on paper.

Pods get ready after they were looked at a few times, the weights freeze as Seldon's operator freezes them,
and time passes only when somebody sleeps. So a whole rollout takes a fraction of a second, and can be killed
at every call.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from canaryflow.bundle.format import Bundle, Feature, Signature, seal
from canaryflow.delivery import seldon
from canaryflow.delivery.clock import Clock
from canaryflow.delivery.cluster import Cluster, Operation, Unavailable, connect
from canaryflow.delivery.metrics import ArmCounters, MetricsUnavailable
from canaryflow.delivery.seldon import ServerSpec
from canaryflow.local.api import application
from canaryflow.local.store import SELDON_DEPLOYMENT, VIRTUAL_SERVICE, ApiFailure, Kind, Object, Store

T = TypeVar("T")

NAMESPACE = "default"
EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, float("inf"))


class FakeTime:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.clock = Clock(lambda: self.now, lambda: self.now, self.sleep)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class PaperPods:
    """What the API shows beside its objects: an operator whose pods are numbers.

    Attributes:
        broken: Bundle URIs whose pods never get ready.
        lying: Bundle URIs whose servers answer their samples wrongly.
        lag: How often new pods are looked at before they are ready.
        stuck_main: Main has a pod that never gets ready, unless its most replicas are the ready ones.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.broken: set[str] = set()
        self.lying: set[str] = set()
        self.lag = 2
        self.stuck_main = False
        self.trail: list[dict[str, Any]] = []
        self.ports: dict[str, int] = {}
        self._seen: dict[tuple[str, str, str], int] = {}
        store.subscribe(self._changed)

    def _changed(self, kind: Kind, namespace: str, name: str) -> None:
        if kind == SELDON_DEPLOYMENT:
            self._reconcile(namespace, name)

    def _ready(self, name: str, predictor: Mapping[str, Any]) -> int:
        """Ready pods of a predictor now."""
        uri = seldon.bundle_uri(predictor)
        least, most = seldon.scaling(predictor)
        if uri in self.broken or self._seen.get((name, predictor["name"], uri), 0) < self.lag:
            return 0
        if self.stuck_main and predictor["name"] == "main" and most > 2:
            return least - 1
        return least

    def _reconcile(self, namespace: str, name: str) -> None:
        try:
            sdep = self.store.get(SELDON_DEPLOYMENT, namespace, name)
        except ApiFailure:
            return
        predictors = sdep["spec"]["predictors"]
        complete = all(self._ready(name, entry) >= seldon.scaling(entry)[0] for entry in predictors)
        if complete:
            self._route(namespace, name, seldon.weights(sdep))
        ready = {entry["name"]: self._ready(name, entry) >= seldon.scaling(entry)[0] for entry in predictors}
        self.trail.append({"sdep": sdep, "routed": self.routed(name), "ready": ready})

    def _route(self, namespace: str, name: str, weights: Mapping[str, int]) -> None:
        routes = [
            {"destination": {"host": f"{name}-{arm}.{namespace}.svc.cluster.local", "subset": arm}}
            | ({"weight": weight} if weight and len(weights) > 1 else {})
            for arm, weight in weights.items()
        ]
        body = {"metadata": {"name": name}, "spec": {"http": [{"route": routes}]}}
        try:
            current = self.store.get(VIRTUAL_SERVICE, namespace, name)
            self.store.replace(VIRTUAL_SERVICE, namespace, name, current | {"spec": body["spec"]})
        except ApiFailure:
            self.store.create(VIRTUAL_SERVICE, namespace, body)

    def routed(self, name: str) -> dict[str, int]:
        try:
            route = self.store.get(VIRTUAL_SERVICE, NAMESPACE, name)["spec"]["http"][0]["route"]
        except ApiFailure:
            return {}
        return {
            entry["destination"]["subset"]: entry.get("weight", 100 if len(route) == 1 else 0)
            for entry in route
        }

    def deployments(self, namespace: str) -> list[Object]:
        found = []
        for sdep in self.store.list(SELDON_DEPLOYMENT, namespace):
            name = sdep["metadata"]["name"]
            for predictor in sdep["spec"]["predictors"]:
                key = (name, predictor["name"], seldon.bundle_uri(predictor))
                self._seen[key] = self._seen.get(key, 0) + 1
                found.append(self._deployment(name, predictor))
            self._reconcile(namespace, name)
        return found

    def _deployment(self, name: str, predictor: Mapping[str, Any]) -> Object:
        labels = {"seldon-deployment-id": name, "seldon-app": f"{name}-{predictor['name']}"}
        least, _ = seldon.scaling(predictor)
        return {
            "metadata": {"name": f"{name}-{predictor['name']}-0-model", "labels": labels, "generation": 1},
            "spec": {
                "replicas": least,
                "template": {
                    "metadata": {"labels": labels},
                    "spec": predictor["componentSpecs"][0]["spec"],
                },
            },
            "status": {
                "observedGeneration": 1,
                "replicas": least,
                "updatedReplicas": least,
                "readyReplicas": self._ready(name, predictor),
            },
        }

    def pods(self, namespace: str) -> list[Object]:
        found = []
        for sdep in self.store.list(SELDON_DEPLOYMENT, namespace):
            for predictor in sdep["spec"]["predictors"]:
                if seldon.bundle_uri(predictor) in self.broken:
                    name = f"{sdep['metadata']['name']}-{predictor['name']}"
                    waiting = {"reason": "CrashLoopBackOff", "message": "back-off restarting"}
                    status = {"name": "model", "ready": False, "state": {"waiting": waiting}}
                    metadata = {"name": f"{name}-0", "labels": {"seldon-app": name}}
                    found.append({"metadata": metadata, "status": {"containerStatuses": [status]}})
        return found

    def services(self, namespace: str) -> list[Object]:
        return [
            {
                "metadata": {"name": f"{sdep['metadata']['name']}-{predictor['name']}"},
                "spec": {
                    "clusterIP": "127.0.0.1",
                    "ports": [{"name": "http", "port": self.ports[predictor["name"]]}],
                },
            }
            for sdep in self.store.list(SELDON_DEPLOYMENT, namespace)
            for predictor in sdep["spec"]["predictors"]
        ]

    def pod_log(self, namespace: str, name: str, tail: int) -> str | None:
        return None

    def gateway(self) -> Object:
        return {}

    async def gateway_metrics(self) -> str:
        return ""

    def set_fault(self, namespace: str, name: str, predictor: str, kind: str | None) -> None:
        raise NotImplementedError

    def faults(self) -> list[Object]:
        return []

    def server(self, predictor: str) -> web.Application:
        """Answers a bundle's samples as recorded: the server of one predictor (of any SeldonDeployment)."""

        async def predictions(request: web.Request) -> web.Response:
            rows = (await request.json())["data"]["ndarray"]
            for sdep in self.store.list(SELDON_DEPLOYMENT, NAMESPACE):
                entry = seldon.find(sdep, predictor)
                uri = seldon.bundle_uri(entry) if entry else ""
                samples = json.loads((Path(uri) / "samples.json").read_text()) if uri else {}
                if uri and [[row["x"]] for row in samples["inputs"]] == rows:
                    answers = samples["answers"] if uri not in self.lying else [[0.5, 0.5]] * len(rows)
                    return web.json_response({"data": {"names": ["no", "yes"], "ndarray": answers}})
            return web.json_response({"status": {"info": "no such model"}}, status=503)

        app = web.Application()
        app.router.add_post("/api/v1.0/predictions", predictions)
        return app


class Bench:
    """A platform on paper, reachable over HTTP."""

    def __init__(self, folder: Path, pods: PaperPods, url: str) -> None:
        self.folder = folder
        self.pods = pods
        self.url = url
        self.time = FakeTime()
        self.cluster = connect(url, NAMESPACE)

    def bundle(self, label: str) -> Bundle:
        """A bundle whose answers, and so whose version, depend on the label."""
        path = self.folder / "bundles" / label
        if not path.exists():
            path.mkdir(parents=True)
            share = (sum(label.encode()) % 97) / 100
            answers = [[round(1 - share, 4), round(share, 4)]] * 3
            samples = {"inputs": [{"x": float(index)} for index in range(3)], "answers": answers}
            (path / "model.onnx").write_bytes(label.encode())
            (path / "samples.json").write_text(json.dumps(samples))
            (path / "profile.json").write_text("{}")
            signature = Signature("binary", "y", (Feature("x", "number"),), ("no", "yes"), 0.5)
            seal(path, "paper", signature, 1e-6, {})
        return Bundle.open(path)

    def spec(self, label: str, **changes: int) -> ServerSpec:
        bundle = self.bundle(label)
        values: dict[str, Any] = {"min_replicas": 1, "max_replicas": 4} | changes
        return ServerSpec("server:1", str(bundle.path), bundle.manifest.version, **values)


@contextmanager
def bench(folder: Path) -> Iterator[Bench]:
    """Serve a bench from a thread of its own."""
    loop = asyncio.new_event_loop()
    store = Store(folder / "resources")
    pods = PaperPods(store)
    runners: list[web.AppRunner] = []

    async def serve(app: web.Application) -> int:
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        for predictor in ("main", "canary"):
            pods.ports[predictor] = _run(loop, serve(pods.server(predictor)))
        port = _run(loop, serve(application(store, pods)))
        yield Bench(folder, pods, f"http://127.0.0.1:{port}")
    finally:
        for runner in runners:
            _run(loop, runner.cleanup())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


def _run(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, loop).result(10)


class Traffic:
    """Users on paper: so many requests a second, split by what the gateway was told.

    Attributes:
        errors: Share of requests that fail, by bundle version.
        slow: Share of requests that take 20 ms instead of 2 ms, by bundle version.
        rate: Requests a second.
        silent: The source cannot be read.
        deaf: The gateway does not do what it was told: main gets everything.
    """

    def __init__(self, bench: Bench, name: str, rate: float = 200.0) -> None:
        self.errors: dict[str, float] = {}
        self.slow: dict[str, float] = {}
        self.rate = rate
        self.silent = False
        self.deaf = False
        self._bench = bench
        self._name = name
        self._last = bench.time.now
        self._counts: dict[str, list[float]] = {}

    def read(self) -> dict[str, ArmCounters]:
        self.flow()
        if self.silent:
            raise MetricsUnavailable("the paper is blank")
        return {
            arm: ArmCounters(
                round(requests),
                round(failed),
                tuple(
                    (edge, round(requests if edge > 0.02 else requests - slow if edge >= 0.002 else 0))
                    for edge in EDGES
                ),
            )
            for arm, (requests, failed, slow) in self._counts.items()
        }

    def flow(self) -> None:
        passed, self._last = self._bench.time.now - self._last, self._bench.time.now
        try:
            sdep = self._bench.cluster.get(self._name)
        except Exception:
            return
        routed = {"main": 100} if self.deaf else self._bench.pods.routed(self._name)
        for arm, weight in routed.items():
            predictor = seldon.find(sdep, arm)
            version = seldon.version_of(predictor) if predictor else ""
            counts = self._counts.setdefault(arm, [0.0, 0.0, 0.0])
            requests = self.rate * passed * weight / 100
            counts[0] += requests
            counts[1] += requests * self.errors.get(version, 0.0)
            counts[2] += requests * self.slow.get(version, 0.0)


class Killed(BaseException):
    """The driver's process dies here."""


class Mortal:
    """A cluster that kills its caller at one of its calls.

    Args:
        cluster: The real one.
        at: Which call, from 0; None never.
        after: Whether the call is made before the caller dies.
        how: What the caller sees: `Killed`, or `Unavailable` for an API that fails it.
    """

    def __init__(
        self,
        cluster: Cluster,
        at: int | None = None,
        *,
        after: bool = False,
        how: type[BaseException] = Killed,
    ) -> None:
        self._cluster = cluster
        self._at = at
        self._after = after
        self._how = how
        self.calls: list[str] = []

    @property
    def namespace(self) -> str:
        return self._cluster.namespace

    def _call(self, method: str, *arguments: object) -> Any:  # noqa: ANN401 - whatever the method gives
        mine = len(self.calls) == self._at
        self.calls.append(method)
        if mine and not self._after:
            raise self._how("the API is away")
        answer = getattr(self._cluster, method)(*arguments)
        if mine:
            raise self._how("the API is away")
        return answer

    def get(self, name: str) -> dict[str, Any]:
        return self._call("get", name)

    def create(self, body: Mapping[str, Any]) -> dict[str, Any]:
        return self._call("create", body)

    def patch(self, name: str, operations: Sequence[Operation]) -> dict[str, Any]:
        return self._call("patch", name, operations)

    def delete(self, name: str, resource_version: str = "") -> None:
        self._call("delete", name, resource_version)

    def deployments(self, name: str) -> list[dict[str, Any]]:
        return self._call("deployments", name)

    def weights(self, name: str) -> dict[str, int]:
        return self._call("weights", name)

    def service_url(self, name: str, predictor: str) -> str:
        return self._call("service_url", name, predictor)

    def troubles(self, name: str, predictor: str) -> list[str]:
        return self._call("troubles", name, predictor)


__all__ = ["NAMESPACE", "Bench", "Killed", "Mortal", "Traffic", "Unavailable", "bench"]
