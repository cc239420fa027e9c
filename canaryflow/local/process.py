"""Child processes that never outlive who started them."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int, death_signal: signal.Signals) -> None:
    """Between fork and exec: ask the kernel for a signal when the parent is gone, however it went (Linux).

    It takes no lock, so it is safe there also where threads run.

    Args:
        parent: Who forked. Where that is gone already, nobody would send the signal: the child ends at once.
        death_signal: What the kernel sends when the thread that forked ends.
    """
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:
            os._exit(1)


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
            preexec_fn=partial(die_with_parent, os.getpid(), signal.SIGTERM),  # noqa: PLW1509
        )


async def spawn_async(
    command: Sequence[str], log: Path, environment: Mapping[str, str], death_signal: signal.Signals
) -> asyncio.subprocess.Process:
    """Start a process in a session of its own from the event loop, its output appended to a file.

    Args:
        command: The program and its arguments.
        log: Where standard output and error go.
        environment: The whole environment.
        death_signal: What the kernel sends it when this process dies, however that happens. The calling
            thread must be the one that lives as long as this process.

    Raises:
        OSError: The program cannot be started, or the log cannot be written.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid(), death_signal),
        )


def stop(process: subprocess.Popen[bytes], grace: float = 10.0) -> int:
    """End a process and its whole group: SIGTERM, and SIGKILL after `grace` seconds.

    Returns:
        Its exit status.
    """
    if process.poll() is None:
        _signal_group(process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    kill_group(process.pid)
    return process.wait()


async def terminate(process: asyncio.subprocess.Process, grace: float) -> None:
    """SIGTERM, then after ``grace`` seconds SIGKILL; whatever the process left behind is killed too."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    kill_group(process.pid)
    await process.wait()


def kill_group(pid: int) -> None:
    """Kill what is left of the session that ``pid`` led."""
    _signal_group(pid, signal.SIGKILL)


def _signal_group(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
