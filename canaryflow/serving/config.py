"""How a server is set up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

THREADS = 16
"""Threads that read bodies and score.

The session runs outside of Python's lock, so more than one helps; each body that arrives slowly keeps one.
"""


@dataclass(frozen=True)
class Limits:
    """What one request may ask for.

    Attributes:
        body_bytes: Bytes of its body.
        body_seconds: How long its body may take to arrive.
        rows: Rows to score.
    """

    body_bytes: int = 16 * 1024 * 1024
    rows: int = 10_000
    body_seconds: float = 10.0


@dataclass(frozen=True)
class ServerConfig:
    """How to serve a bundle.

    Attributes:
        bundle: The bundle's folder.
        host: The address to listen on.
        port: The serving port.
        management_port: The port of probes, metrics and the drain; None for none.
        drain_seconds: How long requests are still answered after readiness was turned off.
        limits: What one request may ask for.
        labels: Constant labels of the metrics; None takes what Seldon's operator tells a container.
    """

    bundle: Path
    host: str = "127.0.0.1"
    port: int = 9000
    management_port: int | None = None
    drain_seconds: float = 5.0
    limits: Limits = field(default_factory=Limits)
    labels: dict[str, str] | None = None
