"""Ports, processes and signals of one server: granian around the application.

The first process holds the ports and the signals; the worker, forked from it, holds the model. Both end
together, also when the first one is killed.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from functools import partial
from typing import TYPE_CHECKING

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server import MPServer

from canaryflow.errors import InputError, PlatformError
from canaryflow.serving.config import THREADS, ServerConfig
from canaryflow.serving.lifecycle import Drain, Lifecycle
from canaryflow.serving.log import log

if TYPE_CHECKING:
    from canaryflow.serving.wsgi import Wrap, WSGIApp

_HEADER_TIMEOUT_MS = 10_000
_STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1


def serve(config: ServerConfig, wrap: Wrap | None = None) -> None:
    """Serve until SIGTERM or Ctrl-C; what is in flight is finished.

    SIGTERM turns readiness off and goes on answering for ``drain_seconds``, unless the management port's
    ``/drain`` has done so already. A second one, or Ctrl-C, stops at once.

    Args:
        config: How to serve.
        wrap: Put around the WSGI application, in the worker; for platforms that inject faults.

    Raises:
        InputError: There is no such folder.
        KeyboardInterrupt: Ctrl-C ended it.
        PlatformError: A port is in use, or the worker died.
    """
    if not config.bundle.is_dir():
        raise InputError(f"{config.bundle}: no such folder, expected a bundle")
    listener = _listen(config.host, config.management_port) if config.management_port is not None else None
    # granian binds with SO_REUSEPORT, so a second server on the port would silently share its traffic.
    _listen(config.host, config.port).close()
    claim = _claim(config.host, config.port)
    drain = Drain(config.drain_seconds)
    server = MPServer(
        "canaryflow.serving",
        address=config.host,
        port=config.port,
        interface=Interfaces.WSGI,
        workers=1,
        blocking_threads=THREADS,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_TIMEOUT_MS),
        websockets=False,
        log_enabled=False,
        workers_kill_timeout=_STOP_SECONDS,
    )
    stopped_by: list[int] = []
    server.on_startup(partial(_handle_signals, server, drain, stopped_by))
    log(
        "starting",
        bundle=config.bundle,
        host=config.host,
        port=config.port,
        management=config.management_port,
    )
    try:
        load = partial(_worker, config, drain, os.getpid(), listener, wrap)
        server.serve(target_loader=load, wrap_loader=False)
    except SystemExit as error:  # granian's way to say that the worker ended without being told to
        if not stopped_by:
            raise PlatformError("the worker died; its last words are above") from error
    finally:
        claim.close()
        if listener is not None:
            listener.close()
    log("stopped")
    if stopped_by[:1] == [signal.SIGINT]:
        raise KeyboardInterrupt


def _worker(
    config: ServerConfig, drain: Drain, parent: int, listener: socket.socket | None, wrap: Wrap | None
) -> WSGIApp:
    """Build the application; called in the worker."""
    _die_with(parent)
    lifecycle = Lifecycle(drain)
    # Imported here, so that the first process stays small and the fork happens before onnxruntime has
    # threads.
    from canaryflow.serving import management
    from canaryflow.serving.app import Application
    from canaryflow.serving.metrics import Metrics
    from canaryflow.serving.wsgi import wsgi

    metrics = Metrics(config.labels)

    def load() -> None:
        bundle = lifecycle.load(config.bundle)
        if bundle is not None:
            metrics.loaded(bundle.manifest)

    threading.Thread(target=load, name="load", daemon=True).start()
    if listener is not None:
        management.start(listener, lifecycle, lambda: metrics.render(lifecycle.ready))
    app = wsgi(Application(lifecycle, metrics, config.limits))
    return app if wrap is None else wrap(app)


def _handle_signals(server: MPServer, drain: Drain, stopped_by: list[int]) -> None:
    """SIGTERM: drain, then stop. Put in place after granian's handlers, before the worker is forked."""
    parent = os.getpid()

    def stop(number: int, _frame: object) -> None:
        if os.getpid() != parent:  # the worker, before it has handlers of its own: nothing is in flight
            os._exit(0)
        first = not stopped_by
        stopped_by.append(number)
        seconds = drain.begin() if first and number != signal.SIGINT else 0.0
        timer = threading.Timer(seconds, server.signal_handler_interrupt)
        timer.daemon = True
        timer.start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, stop)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket without SO_REUSEPORT: it fails where anything else listens.

    Raises:
        PlatformError: The port is in use, or cannot be listened on.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise PlatformError(f"cannot listen on {host}:{port}: {reason}; expected a free port") from error
    return listener


def _claim(host: str, port: int) -> socket.socket:
    """Hold a name of this network namespace: of two servers started at the same instant only one goes on.

    Raises:
        PlatformError: Another server holds it.
    """
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        claim.bind(f"\0canaryflow-serving-{host}-{port}")
    except OSError as error:
        claim.close()
        raise PlatformError(f"cannot listen on {host}:{port}: another server is starting there") from error
    return claim


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its parent dies; Linux alone knows how."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)
