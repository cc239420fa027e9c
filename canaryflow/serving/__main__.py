"""``python -m canaryflow.serving BUNDLE``: serve a bundle."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from canaryflow.errors import CanaryflowError
from canaryflow.serving.config import Limits, ServerConfig
from canaryflow.serving.server import serve

if TYPE_CHECKING:
    from canaryflow.serving.wsgi import Wrap


def main(argv: Sequence[str] | None = None, wrap: Wrap | None = None) -> int:
    """Parse the command line and serve.

    Args:
        argv: Arguments without the program's name; None takes the process's own.
        wrap: See `canaryflow.serving.server.serve`.

    Returns:
        The exit status: 0 after SIGTERM, 2 on bad input or a port in use, 130 on Ctrl-C.
    """
    arguments = _parser().parse_args(argv)
    config = ServerConfig(
        bundle=arguments.bundle,
        host=arguments.host,
        port=arguments.port,
        management_port=arguments.management_port,
        drain_seconds=arguments.drain_seconds,
        limits=Limits(arguments.max_body_bytes, arguments.max_rows, arguments.max_body_seconds),
    )
    try:
        serve(config, wrap)
    except CanaryflowError as error:
        sys.stderr.write(f"canaryflow serve: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="canaryflow serve", description="Serve a bundle behind Seldon's protocol."
    )
    parser.add_argument("bundle", type=Path, help="the bundle's folder")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=9000, help="serving port (default: %(default)s)")
    parser.add_argument("--management-port", type=_port, help="port of /drain, /health/status, /prometheus")
    parser.add_argument(
        "--drain-seconds",
        type=_seconds,
        default=5.0,
        help="answered after readiness is off (default: %(default)s)",
    )
    limits = Limits()
    parser.add_argument(
        "--max-body-bytes", type=int, default=limits.body_bytes, help="(default: %(default)s)"
    )
    parser.add_argument(
        "--max-rows", type=int, default=limits.rows, help="rows a request (default: %(default)s)"
    )
    parser.add_argument(
        "--max-body-seconds",
        type=partial(_seconds, least=0.1),
        default=limits.body_seconds,
        help="for a body to arrive (default: %(default)s)",
    )
    return parser


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"{port}, expected 1 to 65535")
    return port


def _seconds(text: str, least: float = 0.0) -> float:
    seconds = float(text)
    if not least <= seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{text}, expected {least:g} to 3600")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
