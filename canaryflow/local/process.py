"""Child processes that never outlive who started them."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def _die_with_parent() -> None:
    """Between fork and exec: ask the kernel for a SIGTERM when the parent is gone, however it went."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def spawn(
    command: Sequence[str], log: Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, its output appended to a log.

    It gets SIGTERM when the thread that called this ends in any way (Linux), and a Ctrl-C at the terminal
    does not reach it, so that its parent decides when and how it stops.

    Raises:
        OSError: The program or the log's folder is missing.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
            # One system call that takes no lock: safe between fork and exec, also where threads run.
            preexec_fn=_die_with_parent,  # noqa: PLW1509
        )


def stop(process: subprocess.Popen[bytes], grace: float = 10.0) -> int:
    """End a process and its whole group: SIGTERM, and SIGKILL after `grace` seconds.

    Returns:
        Its exit status.
    """
    if process.poll() is None:
        _signal_group(process, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    _signal_group(process, signal.SIGKILL)
    return process.wait()


def _signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
