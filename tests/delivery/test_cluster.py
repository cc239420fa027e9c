from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from canaryflow.delivery import seldon
from canaryflow.delivery.cluster import Unavailable, connect, routed
from canaryflow.errors import Conflict, InputError, NotFound, PlatformError
from tests.delivery.bench import Bench


def put(paper: Bench) -> dict:
    return paper.cluster.create(seldon.seldon_deployment("iris", "default", paper.spec("one")))


def test_objects_come_and_go(paper: Bench):
    with pytest.raises(NotFound, match='"iris" not found'):
        paper.cluster.get("iris")
    put(paper)
    assert paper.cluster.get("iris")["metadata"]["name"] == "iris"
    with pytest.raises(Conflict, match="already exists"):
        put(paper)
    paper.cluster.delete("iris")
    paper.cluster.delete("iris")
    with pytest.raises(NotFound):
        paper.cluster.get("iris")


def test_a_stale_patch_is_a_conflict_and_changes_nothing(paper: Bench):
    version = put(paper)["metadata"]["resourceVersion"]
    add = {"op": "add", "path": "/metadata/annotations/x", "value": "1"}
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    assert paper.cluster.patch("iris", [test, add])["metadata"]["annotations"]["x"] == "1"
    with pytest.raises(Conflict):
        paper.cluster.patch("iris", [test, {**add, "value": "2"}])
    assert paper.cluster.get("iris")["metadata"]["annotations"]["x"] == "1"


def test_what_the_webhook_refuses_is_no_conflict(paper: Bench):
    put(paper)
    canary = seldon.predictor("canary", paper.spec("two"), 10)
    with pytest.raises(PlatformError, match="denied the request") as caught:
        paper.cluster.patch("iris", [{"op": "add", "path": "/spec/predictors/-", "value": canary}])
    assert not isinstance(caught.value, Conflict)
    assert "\n" not in str(caught.value)


def test_weights_and_services_are_those_of_the_gateway(paper: Bench):
    assert paper.cluster.weights("iris") == {}
    put(paper)
    for _ in range(3):
        paper.cluster.deployments("iris")
    assert paper.cluster.weights("iris") == {"main": 100}
    assert paper.cluster.service_url("iris", "main") == f"http://127.0.0.1:{paper.pods.ports['main']}"
    with pytest.raises(NotFound):
        paper.cluster.service_url("iris", "canary")


@pytest.mark.parametrize(
    ("route", "expected"),
    [
        ([], {}),
        ([{"destination": {"host": "iris-main.ml.svc.cluster.local"}}], {"main": 100}),
        (
            [
                {"destination": {"host": "iris-main", "subset": "main"}, "weight": 95},
                {"destination": {"host": "iris-canary", "subset": "canary"}, "weight": 5},
            ],
            {"main": 95, "canary": 5},
        ),
        (
            [
                {"destination": {"host": "iris-main", "subset": "main"}, "weight": 100},
                {"destination": {"host": "seldon-0a1b2c", "subset": "canary"}},
            ],
            {"main": 100, "canary": 0},
        ),
    ],
)
def test_a_virtual_service_is_read_as_the_operator_writes_it(route: list, expected: dict):
    assert routed({"spec": {"http": [{"route": route}]}}, "iris") == expected


def test_names_cannot_reach_another_object(paper: Bench):
    put(paper)
    for name in ("", "../seldondeployments/iris", "iris/status", "iris?x=1"):
        with pytest.raises(PlatformError):
            paper.cluster.get(name)


def test_nobody_there_is_one_clear_line():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}.*no answer") as caught:
        connect(f"http://127.0.0.1:{port}", "default").get("iris")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "body", "expected", "words"),
    [
        (
            500,
            b'{"message": "failed calling webhook: connection refused"}',
            Unavailable,
            "failed calling webhook",
        ),
        (503, b"<html>upstream\nis gone</html>", Unavailable, "upstream is gone"),
        (429, b"{}", Unavailable, "429"),
        (403, b'{"message": "cannot patch resource"}', PlatformError, "not allowed .403.: cannot patch"),
        (401, b"not json", PlatformError, "not allowed"),
        (409, b'{"message": "modified"}', Conflict, "modified"),
        (
            422,
            b'{"message": "the server rejected our request due to an error in our request"}',
            Conflict,
            "rejected our request",
        ),
        (422, b'{"message": "admission webhook denied the request"}', PlatformError, "refused .422."),
    ],
)
def test_every_refusal_is_what_it_means(status: int, body: bytes, expected: type, words: str):
    with answering(lambda: (status, body)) as url, pytest.raises(expected, match=words) as caught:
        connect(url, "default").patch("iris", [])
    assert type(caught.value) is expected
    assert "\n" not in str(caught.value)


def test_a_delete_says_which_state_of_the_object_it_means():
    asked: list[bytes] = []
    with answering(lambda: (409, b'{"message": "the object has changed"}'), asked) as url:
        cluster = connect(url, "default")
        with pytest.raises(Conflict, match="has changed"):
            cluster.delete("iris", "17")
        assert json.loads(asked.pop())["preconditions"] == {"resourceVersion": "17"}
        with pytest.raises(Conflict):
            cluster.delete("iris")
        assert "preconditions" not in json.loads(asked.pop())


class answering:
    """An API server that says one thing, and keeps what it was asked."""

    def __init__(self, say: Callable[[], tuple[int, bytes]], asked: list[bytes] | None = None) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_PATCH(self) -> None:
                question = self.rfile.read(int(self.headers["Content-Length"]))
                if asked is not None:
                    asked.append(question)
                status, body = say()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_DELETE = do_PATCH

            def log_message(self, *arguments: object) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def __enter__(self) -> str:
        self._thread.start()
        return f"http://127.0.0.1:{self._server.server_port}"

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def test_a_platform_that_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path):
    with pytest.raises(InputError, match="expected 'kubernetes' or the address"):
        connect("minikube", "default")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(PlatformError, match="no cluster is configured"):
        connect("kubernetes", "default")
