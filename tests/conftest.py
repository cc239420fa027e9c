"""What all tests share: programs beyond Python that a test needs.

`@pytest.mark.needs("curl")` leaves a test out where the program is missing, and says how to get it. With
CI=true any test left out fails the session: what is left out there would be left out for good.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

_LIST = Path(__file__).resolve().parents[1] / "requirements" / "system.txt"


def _packages() -> dict[str, str]:
    """Each program that a test may need, and the Debian package that has it."""
    lines = (line.split() for line in _LIST.read_text(encoding="utf-8").splitlines())
    return {words[0]: words[1] for words in lines if words and not words[0].startswith("#")}


def _missing(item: pytest.Item) -> Iterator[str]:
    for mark in item.iter_markers("needs"):
        for program in mark.args:
            if program not in _packages():
                raise pytest.UsageError(f"{item.nodeid} needs {program!r}, which {_LIST.name} does not list")
            if shutil.which(program) is None:
                yield program


def pytest_runtest_setup(item: pytest.Item) -> None:
    missing = list(_missing(item))
    if missing:
        packages = " ".join(_packages()[program] for program in missing)
        pytest.skip(f"needs {', '.join(missing)} (Debian: apt-get install {packages})")


def _left_out(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.stats.get("skipped", []) if reporter else []


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if os.environ.get("CI") == "true" and exitstatus == 0 and _left_out(session.config):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    consequence = " (with CI=true this is a failure)" if os.environ.get("CI") == "true" else ""
    for report in _left_out(config):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        terminalreporter.write_line(
            f"left out{consequence}: {report.nodeid}: {reason.removeprefix('Skipped: ')}"
        )
