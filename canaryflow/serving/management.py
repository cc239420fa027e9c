"""The management port: readiness, metrics and the drain, closed to the gateway.

It has threads of its own, so the preStop hook may wait on it while the serving port goes on answering.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

from canaryflow.serving.lifecycle import Lifecycle
from canaryflow.serving.metrics import CONTENT_TYPE

_TIMEOUT = 10.0
_CONNECTIONS = 16


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, lifecycle: Lifecycle, render: Callable[[], bytes]):
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.lifecycle = lifecycle
        self.render = render
        self._slots = threading.BoundedSemaphore(_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - inherited
        if self._slots.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - inherited
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 - inherited
        """A probe that went away is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT

    def do_GET(self) -> None:
        lifecycle = self.server.lifecycle
        path = self.path.partition("?")[0]
        if path == "/health/status":
            self._answer(200 if lifecycle.ready else 503, orjson.dumps(lifecycle.status()))
        elif path == "/health/ping":
            self._answer(200, b'"pong"')
        elif path in ("/prometheus", "/metrics"):
            self._answer(200, self.server.render(), CONTENT_TYPE)
        elif path == "/drain":
            time.sleep(lifecycle.drain.begin())
            self._answer(200, orjson.dumps(lifecycle.status()))
        else:
            self._answer(
                404, orjson.dumps({"reason": "known: /drain, /health/ping, /health/status, /prometheus"})
            )

    def _answer(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Probes come every second: not logged."""


def start(listener: socket.socket, lifecycle: Lifecycle, render: Callable[[], bytes]) -> None:
    """Answer on a listening socket, from a thread that ends with the process."""
    server = _Server(listener, lifecycle, render)
    threading.Thread(target=server.serve_forever, name="management", daemon=True).start()
