"""A pipeline's step as the library sees it: one clear line on failure, and what it took.

Every component's body runs inside `stage`. In a pod it logs structured lines. On one machine
`canaryflow run` sets ``CANARYFLOW_EVENTS`` to a file and reads there what its steps did.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from canaryflow.errors import CanaryflowError

EVENTS = "CANARYFLOW_EVENTS"

#: The exit code in the event of a step that met a defect of the program; its log has the traceback.
DEFECT = 3


def emit(event: str, **fields: object) -> None:
    """Log one event as a line of JSON, and append it to the run's events file if there is one."""
    line = json.dumps({"time": round(time.time(), 3), "event": event, **fields}, default=str)
    # A full disk is often the very thing to be told: neither sink may replace the error by its own.
    with contextlib.suppress(OSError):
        print(line, file=sys.stderr, flush=True)
    if path := os.environ.get(EVENTS):
        with contextlib.suppress(OSError), Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Run a step's body: its start, end, seconds and peak memory are events, its errors one line.

    An error meant for a person ends the process with the error's exit status and no traceback; any
    other is a defect and keeps its traceback.
    """
    process = psutil.Process()
    emit("stage started", stage=name, started=process.create_time())
    try:
        yield
    except CanaryflowError as error:
        emit("stage failed", stage=name, message=one_line(error), exit_code=error.exit_code, **_cost(process))
        raise SystemExit(error.exit_code) from None
    except OSError as error:
        # A full disk or a folder without permission names its file; a traceback would only hide it.
        message = f"{error.filename or name}: {error.strerror or error}"
        emit("stage failed", stage=name, message=message, exit_code=2, **_cost(process))
        raise SystemExit(2) from error
    except Exception as error:
        emit(
            "stage failed",
            stage=name,
            message=f"{type(error).__name__}: {error}",
            exit_code=DEFECT,
            **_cost(process),
        )
        raise
    emit("stage ended", stage=name, **_cost(process))


def one_line(error: BaseException) -> str:
    """An error's message on one line: libraries wrap theirs."""
    return " ".join(str(error).split())


def _cost(process: psutil.Process) -> dict[str, float]:
    """Seconds since the process began (imports count), and its peak resident memory in MiB."""
    peak = process.memory_info().rss
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
    return {"seconds": round(time.time() - process.create_time(), 2), "peak_mib": round(peak / 2**20, 1)}
