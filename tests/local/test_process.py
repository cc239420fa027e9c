"""A child ends with its parent, also with one that ended before the child could ask for that."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from canaryflow.local import process

SAY = (sys.executable, "-c", "print('ran')")


def run(log: Path) -> int:
    return process.spawn(SAY, log).wait(20)


def run_async(log: Path) -> int:
    async def main() -> int:
        return await (await process.spawn_async(SAY, log, os.environ, signal.SIGKILL)).wait()

    return asyncio.run(main())


@pytest.mark.parametrize("start", [run, run_async])
def test_a_child_whose_parent_is_gone_already_never_runs(
    start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    assert start(log) == 0
    assert log.read_text() == "ran\n"
    # The parent's end between fork and the child's first call cannot be timed: another parent than the one
    # the child finds is what the child sees of it.
    monkeypatch.setattr(os, "getpid", lambda: 1)
    assert start(log) == 1
    assert log.read_text() == "ran\n"
