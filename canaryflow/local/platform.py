"""Start, find and stop the platform of a workspace: what its users call."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil

from canaryflow.errors import PlatformError
from canaryflow.local.process import spawn, stop

STATE, LOCK = "platform.json", "platform.lock"

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


@dataclass(frozen=True)
class Platform:
    """A platform that serves.

    Attributes:
        api: Address of its Kubernetes-shaped API.
        gateway: Address of its gateway.
        pid: Its process.
        started: Whether the call of `up` that returned this started it; it attached to it otherwise.
    """

    api: str
    gateway: str
    pid: int
    started: bool = field(default=False, compare=False)


def up(workspace: Path, port: int = 0, *, server: Sequence[str] = (), tied: bool = False) -> Platform:
    """Start the platform of a workspace in the background and wait until it serves, or attach to it.

    Args:
        workspace: Its folder; made where it is missing. What was live in it comes back.
        port: The gateway's port; 0 takes the one of last time where that is free, else any free one.
        server: The program that serves a bundle, in place of ``python -m canaryflow.serving``.
        tied: Stop the platform that this starts when the calling thread ends, however it ends. It is this
            process' own: no other one can attach to it.

    Raises:
        PlatformError: It did not start (the port is in use, for one), it already serves on another port, or
            it is tied to another process that runs.
    """
    workspace = workspace.resolve()
    workspace.mkdir(parents=True, exist_ok=True)
    found = _serving_or_gone(workspace) or _start(workspace, port, server, tied)
    owner = _state(workspace).get("tied_to")
    if not found.started and owner not in (None, os.getpid()):
        raise PlatformError(
            f"workspace {workspace}: another run is using it (pid {owner}); "
            "wait, or `canaryflow local up` first"
        )
    if port and found.gateway != f"http://127.0.0.1:{port}":
        raise PlatformError(
            f"workspace {workspace}: its platform already serves at {found.gateway}, expected port {port}; "
            "take it down first"
        )
    return found


def down(workspace: Path, pid: int = 0) -> bool:
    """Stop the platform of a workspace and everything it started.

    Args:
        workspace: Its folder.
        pid: Stop it only where it is this process; 0 stops any.

    Returns:
        Whether one was running.

    Raises:
        PlatformError: It did not stop within 20 seconds; it was killed then, and its children with it.
    """
    workspace = workspace.resolve()
    deadline = time.monotonic() + _STOP_SECONDS
    told: set[int] = set()
    running = False
    while _locked(workspace):
        holder = _holder(workspace)
        if pid and holder not in (0, pid):
            break
        running = True
        if holder and holder not in told:
            told.add(holder)
            _signal(holder, signal.SIGTERM)
        if time.monotonic() > deadline:
            if holder:
                _signal(holder, signal.SIGKILL)
            ended = "killed" if holder else "its process is not known"
            raise PlatformError(
                f"workspace {workspace}: its platform did not stop in {_STOP_SECONDS:.0f} s: {ended}"
            )
        time.sleep(0.05)
    # The lock goes a moment before the process does.
    while any(map(_runs, told)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return running


def status(workspace: Path) -> dict[str, Any]:
    """Whether the platform of a workspace runs, where it serves, and what is live.

    Returns:
        ``running``; where it serves also ``api``, ``gateway``, ``pid``, ``started``, ``tied_to`` (the process
        whose own it is, or None) and ``live``: for every SeldonDeployment its namespace, name, state, and per
        predictor the version, weight and ready pods.

    Raises:
        PlatformError: It runs and does not answer.
    """
    workspace = workspace.resolve()
    if not _locked(workspace):
        return {"running": False}
    state = _state(workspace)
    if not state:
        return {"running": True, "live": []}
    keys = ("api", "gateway", "pid", "started", "tied_to")
    return {"running": True, **{key: state[key] for key in keys}, "live": _fetch(state["api"] + "/live")}


def _start(workspace: Path, port: int, server: Sequence[str], tied: bool) -> Platform:
    log = workspace / "logs" / "platform.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "canaryflow.local", str(workspace), "--port", str(port)]
    command += ["--server", shlex.join(server)] if server else []
    written = log.stat().st_size if log.exists() else 0
    if tied:
        process = spawn([*command, "--tied-to", str(os.getpid())], log)
    else:
        with log.open("ab") as output:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    try:
        found = _await(workspace, process, log, written)
        return replace(found, started=found.pid == process.pid)
    except BaseException:  # a Ctrl-C too: it does not reach the platform, which is in a session of its own
        stop(process)
        raise


def _await(workspace: Path, process: subprocess.Popen[bytes], log: Path, written: int) -> Platform:
    """Wait until the platform serves that was just started, or another one that was faster."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        found = _serving(workspace)
        if found is not None:
            return found
        if process.poll() is not None and not _locked(workspace):
            with log.open("rb") as lines:
                lines.seek(written)
                said = lines.read().decode(errors="replace").strip().splitlines()
            reason = (said or [f"ended with status {process.returncode}; see {log}"])[-1]
            raise PlatformError(reason.removeprefix("error: "))
        time.sleep(0.03)
    raise PlatformError(
        f"workspace {workspace}: its platform did not serve in {_START_SECONDS:.0f} s; see {log}"
    )


def _serving_or_gone(workspace: Path) -> Platform | None:
    """The platform that serves now, if one does; one that is just stopping is waited for, and is none."""
    deadline = time.monotonic() + _STOP_SECONDS
    while (found := _serving(workspace)) is None and _state(workspace) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def _serving(workspace: Path) -> Platform | None:
    """The platform that serves now and goes on to, if one does: one whose owner is gone is stopping."""
    state = _state(workspace)
    if state and (state["tied_to"] is None or _runs(state["tied_to"])):
        with suppress(PlatformError):
            if _fetch(state["api"] + "/gateway").get("url") == state["gateway"]:
                return Platform(state["api"], state["gateway"], state["pid"])
    return None


def _state(workspace: Path) -> dict[str, Any]:
    """What the platform that runs now said when it began to serve; empty before that."""
    holder = _holder(workspace)
    with suppress(OSError, ValueError):
        state = json.loads((workspace / STATE).read_text())
        if isinstance(state, dict) and holder and state.get("pid") == holder:
            return state
    return {}


def _holder(workspace: Path) -> int:
    """The process that holds the lock; 0 where none does, or it has not said yet that it does."""
    lock = workspace / LOCK
    try:
        pid = int(lock.read_text())
        # What a killed platform wrote stays there, and its number may be another process' by now.
        if any(Path(file.path) == lock for file in psutil.Process(pid).open_files()):
            return pid
    except (OSError, ValueError, psutil.Error):
        pass
    return 0


def _signal(pid: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _runs(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def _locked(workspace: Path) -> bool:
    """Whether a platform's process lives: the kernel lets go of the lock when that ends, however it ends."""
    try:
        with (workspace / LOCK).open("r") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _fetch(url: str) -> Any:  # noqa: ANN401 - JSON
    try:
        with urllib.request.urlopen(url, timeout=5.0) as answer:  # noqa: S310 - the platform's own address
            return json.load(answer)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise PlatformError(f"{url}: the platform does not answer ({error})") from error
