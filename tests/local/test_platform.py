"""The platform comes up once, comes back with what was live, and leaves no process behind."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from canaryflow.cli.live import platform_of
from canaryflow.errors import PlatformError
from canaryflow.local import platform
from canaryflow.local.ports import Ports
from tests.local.bench import STAND_IN, Bench, predictor, sdep, write_bundle


def family(pid: int) -> list[psutil.Process]:
    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def gone(processes: list[psutil.Process], seconds: float = 10.0) -> bool:
    alive = psutil.wait_procs(processes, timeout=seconds)[1]
    return not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def test_what_was_live_comes_back_at_the_same_address(bench: Bench, bundles: Path) -> None:
    bench.create(sdep(predictor("main", write_bundle(bundles, "v1"), 100)))
    bench.wait_settled(main=100)
    before, processes = bench.get(), family(bench.live.pid)
    assert len(processes) == 3  # the platform, Envoy, one pod
    assert platform.up(bench.workspace, server=STAND_IN) == bench.live  # attached, not started
    assert platform.status(bench.workspace)["live"] == [
        {
            "namespace": "default",
            "name": "iris",
            "state": "Available",
            "predictors": [{"name": "main", "version": "v1", "weight": 100, "ready": 1}],
        }
    ]
    assert platform.down(bench.workspace) is True
    assert gone(processes, 1.0)
    assert platform.status(bench.workspace) == {"running": False}
    assert platform.down(bench.workspace) is False

    address = bench.live.gateway
    bench.live = platform.up(bench.workspace, server=STAND_IN, tied=True)
    assert bench.live.gateway == address
    bench.wait_settled(main=100)
    assert bench.get()["metadata"]["uid"] == before["metadata"]["uid"]
    request = urllib.request.Request(f"{address}/seldon/default/iris/api/v1.0/predictions", b"{}")
    with urllib.request.urlopen(request, timeout=5) as answer:
        assert answer.headers["x-canaryflow-predictor"] == "main"


def test_a_killed_platform_takes_its_children_with_it(bench: Bench, bundles: Path) -> None:
    bench.create(sdep(predictor("main", write_bundle(bundles, "v1"), 100, replicas=2)))
    bench.wait_settled(main=100)
    processes = family(bench.live.pid)
    assert len(processes) == 4
    os.kill(bench.live.pid, signal.SIGKILL)
    assert gone(processes)
    assert platform.status(bench.workspace) == {"running": False}


@pytest.mark.parametrize("reuse", [False, True])
def test_a_port_in_use_is_one_line_and_leaves_nothing(tmp_path: Path, reuse: bool) -> None:
    with socket.socket() as other:
        if reuse:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PlatformError) as refused:
            platform.up(tmp_path, port, server=STAND_IN, tied=True)
    assert str(refused.value) == f"gateway: port {port} of 127.0.0.1 is in use, expected a free port"
    assert platform.status(tmp_path) == {"running": False}


def test_another_port_than_the_running_one_is_refused(bench: Bench) -> None:
    other = Ports().take()
    with pytest.raises(PlatformError, match=f"already serves at {bench.live.gateway}, expected port {other}"):
        platform.up(bench.workspace, other, server=STAND_IN)
    assert platform.up(bench.workspace, int(bench.live.gateway.rsplit(":")[-1])) == bench.live


def test_two_never_run_on_one_workspace(bench: Bench) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "canaryflow.local", str(bench.workspace)],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert second.returncode == 2
    assert second.stderr.strip().splitlines() == [
        f"error: workspace {bench.workspace}: a platform already runs on it"
    ]
    assert bench.call("GET", "/gateway").status == 200


def test_a_look_at_the_lock_keeps_no_platform_from_starting(tmp_path: Path) -> None:
    lock = tmp_path / platform.LOCK
    with lock.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)  # as status and down do, for a moment
        daemon = subprocess.Popen([sys.executable, "-m", "canaryflow.local", str(tmp_path)])
        process = psutil.Process(daemon.pid)
        try:
            until(lambda: str(lock) in [file.path for file in process.open_files()], "it tries the lock")
            looking.close()
            until((tmp_path / platform.STATE).exists, "it serves")
        finally:
            daemon.terminate()
            assert daemon.wait(20) == 0


def test_a_workspace_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "canaryflow.local", str(tmp_path / "file" / "workspace")],
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "Not a directory" in done.stderr


def test_an_interrupt_in_the_foreground_stops_everything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "canaryflow.local", str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as foreground:
        deadline = time.monotonic() + 20
        while not (tmp_path / platform.STATE).exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        processes = family(foreground.pid)
        foreground.send_signal(signal.SIGINT)
        assert foreground.wait(10) == 0
    assert len(processes) == 2
    assert gone(processes, 1.0)


def until(holds: Callable[[], bool], what: str, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not in {seconds} s: {what}"
        time.sleep(0.005)


def locked(workspace: Path) -> bool:
    lock = workspace / platform.LOCK
    if not lock.exists():
        return False
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def test_down_during_a_start_stops_the_platform_and_no_other_process(tmp_path: Path) -> None:
    other = subprocess.Popen(["sleep", "60"])
    # What a killed platform leaves behind: its process' number belongs to another by now.
    left = {"pid": other.pid, "api": "http://127.0.0.1:9", "gateway": "http://127.0.0.1:9"}
    (tmp_path / platform.STATE).write_text(json.dumps(left))
    daemon = subprocess.Popen([sys.executable, "-m", "canaryflow.local", str(tmp_path)])
    try:
        until(lambda: locked(tmp_path), "the lock is held")
        assert json.loads((tmp_path / platform.STATE).read_text()) == left
        assert platform.status(tmp_path) == {"running": True, "live": []}
        assert platform.down(tmp_path) is True
        assert daemon.wait(1) == 0
        assert other.poll() is None
    finally:
        for each in (daemon, other):
            each.kill()
            each.wait()


def test_an_interrupt_of_up_leaves_nothing_running(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys; from canaryflow.local import platform; platform.up(pathlib.Path(sys.argv[1]))"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stderr=subprocess.PIPE) as starting:
        until(lambda: bool(psutil.Process(starting.pid).children()), "the platform's process is there")
        processes = psutil.Process(starting.pid).children()
        starting.send_signal(signal.SIGINT)
        said = starting.communicate(timeout=20)[1]
    assert said.endswith(b"KeyboardInterrupt\n")
    assert gone(processes, 0.0)
    assert platform.status(tmp_path) == {"running": False}


@contextmanager
def command(workspace: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command that works on the workspace's platform until its standard input is closed."""
    code = (
        "import pathlib, sys; from canaryflow.cli.live import platform_of\n"
        "with platform_of(pathlib.Path(sys.argv[1]), 0): print('up', flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    running = subprocess.Popen([sys.executable, "-c", code, str(workspace)], **pipes)
    try:
        assert running.stdout.readline() == b"up\n"
        yield running
    finally:
        running.kill()
        running.communicate()


def test_the_platform_of_a_running_command_is_its_own(tmp_path: Path) -> None:
    with command(tmp_path) as first:
        assert platform.status(tmp_path)["tied_to"] == first.pid
        for tied in (True, False):
            with pytest.raises(PlatformError) as refused:
                platform.up(tmp_path, tied=tied)
            assert str(refused.value) == (
                f"workspace {tmp_path}: another run is using it (pid {first.pid}); "
                "wait, or `canaryflow local up` first"
            )
        with pytest.raises(PlatformError), platform_of(tmp_path, 0):
            pass
        assert platform.status(tmp_path)["tied_to"] == first.pid  # still up, and whose it was
        first.communicate(timeout=20)
        assert first.returncode == 0
        assert platform.status(tmp_path) == {"running": False}


def test_a_command_leaves_a_kept_platform_running(bench: Bench) -> None:
    platform.down(bench.workspace)
    kept = platform.up(bench.workspace, server=STAND_IN)
    assert kept.started
    with command(bench.workspace) as first, platform_of(bench.workspace, 0) as live:
        assert (live, live.started) == (kept, False)
        first.communicate(timeout=20)
    assert platform.status(bench.workspace)["pid"] == kept.pid


def test_a_command_after_a_killed_one_starts_a_platform_and_stops_it(tmp_path: Path) -> None:
    with command(tmp_path) as first:
        before = platform.status(tmp_path)["pid"]
        os.kill(before, signal.SIGSTOP)  # it takes its time to die
        first.kill()
        first.wait()
        waiting = threading.Timer(1.0, os.kill, (before, signal.SIGCONT))
        waiting.start()
        with platform_of(tmp_path, 0) as live:
            assert live.started
            assert live.pid != before
            assert platform.status(tmp_path)["tied_to"] == os.getpid()
        waiting.join()
    assert platform.status(tmp_path) == {"running": False}


def test_a_command_stops_no_platform_that_is_not_its_own(tmp_path: Path) -> None:
    with platform_of(tmp_path, 0):
        platform.down(tmp_path)
        other = platform.up(tmp_path, tied=True)
    assert platform.status(tmp_path)["pid"] == other.pid
    assert platform.down(tmp_path) is True
