"""Log lines: few, one JSON object each, on standard error."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import orjson


def log(event: str, **facts: object) -> None:
    """Write one line: the time, the event and its facts."""
    time = datetime.now(UTC).isoformat(timespec="milliseconds")
    line = orjson.dumps({"time": time, "event": event} | facts, default=str).decode()
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
