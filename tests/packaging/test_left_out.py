"""A test that cannot run here says so, and may not stay unnoticed in CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def run_pytest(folder: Path, test: str, path: str, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = needs(program): x\n")
    (folder / "test_it.py").write_text(f"import pytest\n\n{test}\n")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider", "-q", str(folder)],
        env={**os.environ, "PYTHONPATH": str(CHECKOUT), "PATH": path, "CI": ci},
        capture_output=True,
        text=True,
        timeout=60,
    )


NEEDS = '@pytest.mark.needs("curl")\ndef test_needs(): pass'


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_a_missing_program_leaves_the_test_out_and_fails_in_ci(tmp_path, ci, status):
    done = run_pytest(tmp_path, NEEDS, path="/nowhere", ci=ci)
    assert done.returncode == status, done.stdout
    assert "needs curl (Debian: apt-get install curl)" in done.stdout


@pytest.mark.parametrize(("ci", "status"), [("", 0), ("true", 1)])
def test_any_skip_is_a_failure_in_ci(tmp_path, ci, status):
    done = run_pytest(tmp_path, "def test_it(): pytest.skip('why not')", path=os.environ["PATH"], ci=ci)
    assert done.returncode == status, done.stdout
    assert "why not" in done.stdout


def test_a_program_that_is_there_runs_the_test(tmp_path):
    program = tmp_path / "bin" / "curl"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    done = run_pytest(tmp_path, NEEDS, path=str(program.parent), ci="true")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_program_that_nobody_installs_is_an_error(tmp_path):
    done = run_pytest(tmp_path, NEEDS.replace("curl", "emacs"), path="/nowhere", ci="")
    assert done.returncode != 0
    assert "system.txt does not list" in done.stdout
