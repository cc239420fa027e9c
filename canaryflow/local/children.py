"""Child processes of the event loop that die with their parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


async def spawn(
    command: Sequence[str], log: Path, environment: Mapping[str, str], death_signal: signal.Signals
) -> asyncio.subprocess.Process:
    """Start a process in a session of its own, its output appended to a file.

    Args:
        command: The program and its arguments.
        log: Where standard output and error go.
        environment: The whole environment.
        death_signal: What the kernel sends it when this process dies, however that happens. The calling
            thread must be the one that lives as long as this process.

    Raises:
        OSError: The program cannot be started, or the log cannot be written.
    """
    parent = os.getpid()

    def die_with_parent() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
        if os.getppid() != parent:
            os._exit(1)

    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )


async def terminate(process: asyncio.subprocess.Process, grace: float) -> None:
    """SIGTERM, then after ``grace`` seconds SIGKILL; whatever the process left behind is killed too."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), grace)
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
    kill_group(process.pid)
    await process.wait()


def kill_group(pid: int) -> None:
    """Kill what is left of the session that ``pid`` led."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
