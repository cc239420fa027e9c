"""The platform's HTTP API: the Kubernetes REST paths that delivery uses, and a few of the platform's own."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, cast

import jsonpatch
from aiohttp import web

from canaryflow.local.store import KINDS, SELDON_DEPLOYMENT, ApiFailure, Kind, Object, Store, not_found
from canaryflow.local.webhook import admit

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Live(Protocol):
    """What the API shows of the running platform beside the stored objects."""

    def deployments(self, namespace: str) -> list[Object]:
        """Deployments, as ``apps/v1`` shows them."""

    def pods(self, namespace: str) -> list[Object]:
        """Pods, as ``v1`` shows them."""

    def services(self, namespace: str) -> list[Object]:
        """Services of predictors, as ``v1`` shows them."""

    def pod_log(self, namespace: str, name: str, tail: int) -> str | None:
        """The end of a pod's log; None where there is no such pod."""

    def gateway(self) -> Object:
        """``url``, ``metrics`` and ``admin`` of the gateway."""

    async def gateway_metrics(self) -> str:
        """The gateway's counters and histograms in Prometheus' text format."""

    def set_fault(self, namespace: str, name: str, predictor: str, kind: str | None) -> None:
        """Sabotage the pods of a predictor, or stop doing so."""

    def faults(self) -> list[Object]:
        """The faults that are set."""

    def live(self) -> list[Object]:
        """What is live, in short: see `canaryflow.local.platform.status`."""


def application(store: Store, live: Live) -> web.Application:
    """The API as an aiohttp application.

    Errors are Kubernetes ``Status`` bodies. Requests from a browser's page (``Origin``, or a foreign
    ``Host``) are refused: any page a developer opens could otherwise reach a port of the loopback.
    """
    app = web.Application(middlewares=[_guard, _failures])
    api = _Api(store, live)
    for kind in KINDS:
        base = f"/apis/{kind.api_version}/namespaces/{{namespace}}/{kind.plural}"
        app.router.add_get(base, api.bind(kind, api.list))
        app.router.add_get(base + "/{name}", api.bind(kind, api.get))
    base = f"/apis/{SELDON_DEPLOYMENT.api_version}/namespaces/{{namespace}}/{SELDON_DEPLOYMENT.plural}"
    app.router.add_post(base, api.create)
    app.router.add_delete(base + "/{name}", api.delete)
    for path in (base + "/{name}", base + "/{name}/status"):
        app.router.add_put(path, api.put)
        app.router.add_patch(path, api.patch)
    app.router.add_get(base + "/{name}/status", api.bind(SELDON_DEPLOYMENT, api.get))
    for root, plural, kind_name, read in (
        ("/apis/apps/v1", "deployments", "Deployment", live.deployments),
        ("/api/v1", "services", "Service", live.services),
        ("/api/v1", "pods", "Pod", live.pods),
    ):
        view = _View(root, plural, kind_name, read)
        app.router.add_get(f"{root}/namespaces/{{namespace}}/{plural}", view.list)
        app.router.add_get(f"{root}/namespaces/{{namespace}}/{plural}/{{name}}", view.get)
    app.router.add_get("/api/v1/namespaces/{namespace}/pods/{name}/log", api.pod_log)
    app.router.add_get("/gateway", api.gateway)
    app.router.add_get("/gateway/metrics", api.gateway_metrics)
    app.router.add_get("/live", api.live)
    app.router.add_get("/faults", api.faults)
    app.router.add_post("/faults", api.set_fault)
    return app


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    host = request.host.rsplit(":", 1)[0]
    if host not in ("127.0.0.1", "localhost") or "Origin" in request.headers:
        failure = ApiFailure(403, "Forbidden", "this API answers local programs only, no browser's page")
        return web.json_response(failure.body, status=403)
    return await handler(request)


@web.middleware
async def _failures(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except ApiFailure as error:
        failure = error
    except web.HTTPException as error:
        failure = ApiFailure(error.status, error.reason.replace(" ", ""), f"{error.reason}: {request.path}")
    except Exception as error:
        log.exception("%s %s", request.method, request.path)
        failure = ApiFailure(500, "InternalError", f"{type(error).__name__}: {error}")
    return web.json_response(failure.body, status=failure.code)


class _Api:
    def __init__(self, store: Store, live: Live) -> None:
        self._store, self._live = store, live

    def bind(self, kind: Kind, method: Callable[[Kind, web.Request], Awaitable[web.Response]]) -> Handler:
        async def handler(request: web.Request) -> web.StreamResponse:
            return await method(kind, request)

        return handler

    async def list(self, kind: Kind, request: web.Request) -> web.Response:
        _refuse_watch(request)
        found = self._store.list(kind, request.match_info["namespace"])
        return web.json_response(_list(kind.api_version, kind.kind, _selected(found, request)))

    async def get(self, kind: Kind, request: web.Request) -> web.Response:
        return web.json_response(self._store.get(kind, *_target(request)))

    async def create(self, request: web.Request) -> web.Response:
        body = admit(await _body(request))
        created = self._store.create(SELDON_DEPLOYMENT, request.match_info["namespace"], body)
        return web.json_response(created, status=201)

    async def put(self, request: web.Request) -> web.Response:
        return self._replace(request, await _body(request))

    async def patch(self, request: web.Request) -> web.Response:
        sent = await _json(request)
        current = self._store.get(SELDON_DEPLOYMENT, *_target(request))
        if request.content_type == "application/json-patch+json":
            return self._replace(request, _patched(current, sent))
        if request.content_type == "application/merge-patch+json":
            return self._replace(request, _merged(current, sent))
        message = f"the body of the request was in an unknown format: {request.content_type}"
        raise ApiFailure(415, "UnsupportedMediaType", message)

    def _replace(self, request: web.Request, body: Object) -> web.Response:
        status = request.path.endswith("/status")
        new = body if status else admit(body)
        return web.json_response(
            self._store.replace(SELDON_DEPLOYMENT, *_target(request), new, status=status)
        )

    async def delete(self, request: web.Request) -> web.Response:
        gone = self._store.delete(SELDON_DEPLOYMENT, *_target(request))
        details = {
            "name": gone["metadata"]["name"],
            "kind": SELDON_DEPLOYMENT.plural,
            "uid": gone["metadata"]["uid"],
        }
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
        return web.json_response(body)

    async def pod_log(self, request: web.Request) -> web.Response:
        namespace, name = _target(request)
        lines = request.query.get("tailLines", "1000")
        text = self._live.pod_log(namespace, name, int(lines) if lines.isdecimal() else 1000)
        if text is None:
            raise not_found("pods", name)
        return web.Response(text=text)

    async def gateway(self, request: web.Request) -> web.Response:
        return web.json_response(self._live.gateway())

    async def gateway_metrics(self, request: web.Request) -> web.Response:
        return web.Response(text=await self._live.gateway_metrics())

    async def live(self, request: web.Request) -> web.Response:
        return web.json_response(self._live.live())

    async def faults(self, request: web.Request) -> web.Response:
        return web.json_response({"items": self._live.faults()})

    async def set_fault(self, request: web.Request) -> web.Response:
        body = await _body(request)
        unknown = set(body) - {"namespace", "name", "predictor", "kind"}
        values = [body.get(key) for key in ("namespace", "name", "predictor")]
        kind = body.get("kind")
        if unknown or not all(isinstance(value, str) and value for value in values):
            message = f"expected namespace, name, predictor (strings) and kind, found {sorted(body)}"
            raise ApiFailure(400, "BadRequest", message)
        if kind not in ("errors", "slow", None):
            raise ApiFailure(400, "BadRequest", f"kind: expected errors, slow or null, found {kind!r}")
        namespace, name, predictor = cast("list[str]", values)
        self._live.set_fault(namespace, name, predictor, kind)
        return web.json_response({"items": self._live.faults()})


class _View:
    """Read-only objects that follow from the running platform and are stored nowhere."""

    def __init__(self, root: str, plural: str, kind: str, read: Callable[[str], list[Object]]) -> None:
        self._version = root.removeprefix("/apis/").removeprefix("/api/")
        self._plural, self._kind, self._read = plural, kind, read

    async def list(self, request: web.Request) -> web.Response:
        _refuse_watch(request)
        found = self._read(request.match_info["namespace"])
        return web.json_response(_list(self._version, self._kind, _selected(found, request)))

    async def get(self, request: web.Request) -> web.Response:
        namespace, name = _target(request)
        for found in self._read(namespace):
            if found["metadata"]["name"] == name:
                return web.json_response(found)
        group = self._version.partition("/")[0] if "/" in self._version else ""
        raise not_found(f"{self._plural}.{group}".rstrip("."), name)


def _target(request: web.Request) -> tuple[str, str]:
    return request.match_info["namespace"], request.match_info["name"]


async def _json(request: web.Request) -> Any:  # noqa: ANN401 - a patch is a list or an object
    try:
        return json.loads(await request.read())
    except ValueError as error:
        raise ApiFailure(400, "BadRequest", f"the body is no JSON: {error}") from error


async def _body(request: web.Request) -> Object:
    body = await _json(request)
    if not isinstance(body, dict):
        raise ApiFailure(400, "BadRequest", f"the body must be a JSON object, found {type(body).__name__}")
    return body


def _patched(current: Object, operations: object) -> Object:
    # A `test` that fails, a path that is missing: the API server answers all of them with these words.
    generic = ApiFailure(422, "Invalid", "the server rejected our request due to an error in our request")
    if not isinstance(operations, list):
        raise ApiFailure(400, "BadRequest", "a JSON Patch is a list of operations")
    try:
        patched = jsonpatch.apply_patch(current, operations)
    except (
        jsonpatch.JsonPatchException,
        jsonpatch.JsonPointerException,
        TypeError,
        KeyError,
        IndexError,
    ) as error:
        raise generic from error
    if not isinstance(patched, dict):
        raise generic
    return patched


def _merged(current: Object, patch: object) -> Object:
    """RFC 7386."""
    if not isinstance(patch, dict):
        raise ApiFailure(400, "BadRequest", "a merge patch of an object is an object")
    merged = dict(current)
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        elif isinstance(value, dict):
            below = merged.get(key)
            merged[key] = _merged(below if isinstance(below, dict) else {}, value)
        else:
            merged[key] = value
    return merged


def _list(version: str, kind: str, items: list[Object]) -> Object:
    return {"apiVersion": version, "kind": f"{kind}List", "metadata": {"resourceVersion": ""}, "items": items}


def _selected(objects: list[Object], request: web.Request) -> list[Object]:
    selector = request.query.get("labelSelector", "")
    wanted = [term.partition("=")[::2] for term in selector.split(",") if term]
    return [
        found
        for found in objects
        if all((found["metadata"].get("labels") or {}).get(key) == value.lstrip("=") for key, value in wanted)
    ]


def _refuse_watch(request: web.Request) -> None:
    if request.query.get("watch", "").lower() in ("1", "true"):
        raise ApiFailure(405, "MethodNotAllowed", "the one-machine platform serves no watches: poll instead")
