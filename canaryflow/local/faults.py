"""A sabotaged server: ``python -m canaryflow.local.faults KIND [--delay-ms X] BUNDLE ...``.

The rest of the arguments are the server's own. The faults are put around its application from outside; the
server's code knows nothing of them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from canaryflow.serving.__main__ import main as serve

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WSGIApp = Callable[[Environ, StartResponse], list[bytes]]

ERROR_EVERY = 20
_PREDICTIONS = ("/predict", "/api/v1.0/predictions", "/api/v0.1/predictions")


def failing(app: WSGIApp, every: int = ERROR_EVERY) -> WSGIApp:
    """Answer 500 to every 20th prediction, and leave all else to the server."""
    turns = itertools.count(1)
    body = json.dumps({"status": {"code": 500, "status": "FAILURE", "info": "injected fault"}}).encode()

    def sabotaged(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] in _PREDICTIONS and next(turns) % every == 0:
            # Unread, the body would spoil the connection for the request after it.
            environ["wsgi.input"].read()
            headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
            start_response("500 Internal Server Error", headers)
            return [body]
        return app(environ, start_response)

    return sabotaged


def slow(app: WSGIApp, delay: float) -> WSGIApp:
    """Answer every prediction ``delay`` seconds later."""

    def sabotaged(environ: Environ, start_response: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] in _PREDICTIONS:
            time.sleep(delay)
        return app(environ, start_response)

    return sabotaged


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a bundle, sabotaged."""
    parser = argparse.ArgumentParser(prog="python -m canaryflow.local.faults", description=main.__doc__)
    parser.add_argument("kind", choices=("errors", "slow"))
    parser.add_argument("--delay-ms", type=float, default=0.0, help="added to each answer of slow")
    arguments, rest = parser.parse_known_args(argv)

    def wrap(app: WSGIApp) -> WSGIApp:
        return failing(app) if arguments.kind == "errors" else slow(app, arguments.delay_ms / 1000)

    return serve(rest, wrap)


if __name__ == "__main__":
    sys.exit(main())
