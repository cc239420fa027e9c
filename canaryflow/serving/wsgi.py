"""The application as WSGI: bodies read within bounds, answers written.

Several threads read bodies, because a body that arrives slowly keeps its thread: granian hands a request over
when its headers are there, not its body. Some threads are kept free of bodies, so that probes are answered
while slow clients hold all the others, and a body's time is bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from canaryflow.serving.app import Application
from canaryflow.serving.arrivals import Arrivals
from canaryflow.serving.config import THREADS
from canaryflow.serving.protocol import Refusal

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], list[bytes]]
Wrap = Callable[[WSGIApp], WSGIApp]

_BODIES = THREADS - 4
_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}


def wsgi(application: Application) -> WSGIApp:
    """Wrap an application for a WSGI server that calls it from up to `THREADS` threads."""
    limit = application.limits.body_bytes
    arrivals = Arrivals(_BODIES, application.limits.body_seconds)
    lifecycle = application.lifecycle

    def read(environ: Environ) -> bytes:
        announced = environ.get("CONTENT_LENGTH") or "0"
        if not announced.isdigit() or int(announced) > limit:
            raise Refusal(413, "too_large", f"a body of {announced[:20]} bytes, expected at most {limit}")
        if environ.get("CONTENT_TYPE", "").startswith("multipart/"):
            raise Refusal(415, "content_type", "a multipart body, expected application/json")
        if not arrivals.begin():
            raise Refusal(503, "busy", f"{_BODIES} other bodies are still arriving")
        try:
            body: bytes = environ["wsgi.input"].read(limit + 1)
        finally:
            late = arrivals.end()
        if len(body) > limit:
            raise Refusal(413, "too_large", f"a body of more than {limit} bytes")
        if late and len(body) != int(announced):
            raise Refusal(
                408, "late_body", f"{len(body)} bytes in {arrivals.seconds:g} s, expected the whole body"
            )
        return body

    def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
        method = environ["REQUEST_METHOD"]
        body: bytes | Refusal = b""
        if method == "POST":
            try:
                body = read(environ)
            except Refusal as refusal:
                body = refusal
        response = application.answer(method, environ["PATH_INFO"], body)
        headers = [("content-type", response.content_type), *response.headers]
        if lifecycle.draining or response.status == 408:
            # A client that keeps its connection would send its next request to a server that is about to
            # stop.
            headers.append(("connection", "close"))
        start_response(_LINES[response.status], headers)
        return [response.body]

    return app
