"""The way in: the interpreter that is chosen, the list of targets, the one thing that CI calls."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAKE_VENV = CHECKOUT / "requirements" / "venv"


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{script}\n")
    path.chmod(0o755)
    return path


def python_of(version: str) -> str:
    """An interpreter that says it has a version; everything else it does as the real one."""
    real = f'exec {sys.executable} "$@" $([[ $1 != -m ]] || echo --without-pip)'
    fake = f"sys.version_info = ({version.replace('.', ', ')}, 'final', 0)"
    probe = f'exec {sys.executable} -c "import sys, venv, ensurepip; {fake}; $2"'
    return f"if [[ $1 == -c ]]; then {probe}; fi\n{real}"


def make_venv(tmp_path: Path, wanted: str = "") -> subprocess.CompletedProcess[str]:
    tools = tmp_path / "bin"
    tools.mkdir(exist_ok=True)
    for name in ("rm", "bash"):
        found = shutil.which(name)
        assert found
        if not (tools / name).exists():
            (tools / name).symlink_to(found)
    return subprocess.run(
        [MAKE_VENV, str(tmp_path / "venv"), wanted],
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_shim_that_does_not_run_is_passed_over(tmp_path):
    program(tmp_path / "bin" / "python3.11", "echo 'command not found' >&2; exit 127")
    program(tmp_path / "bin" / "python3.12", "exit 1")
    program(tmp_path / "bin" / "python3", python_of("3.12.1"))
    done = make_venv(tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv" / "bin" / "python").exists()


@pytest.mark.parametrize("version", ["3.10.13", "3.14.0", "2.7.18"])
def test_another_version_is_refused_in_one_line(tmp_path, version):
    program(tmp_path / "bin" / "python3", python_of(version))
    done = make_venv(tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "python3 (Python" in done.stderr
    assert "expected Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_python_at_all_is_told(tmp_path):
    done = make_venv(tmp_path)
    assert done.returncode == 2
    assert "found no Python" in done.stderr


def test_the_one_that_was_asked_for_is_not_replaced_by_another(tmp_path):
    program(tmp_path / "bin" / "python3", python_of("3.11.7"))
    program(tmp_path / "bin" / "python9", "exit 1")
    done = make_venv(tmp_path, wanted="python9")
    assert done.returncode == 2
    assert "python9 (does not run)" in done.stderr


@pytest.mark.needs("make")
def test_help_tells_of_every_target():
    text = (CHECKOUT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE)) - {"system"}
    assert {"run", "run-rollback", "test", "lint", "compile", "bench", "images", "clean"} <= targets
    done = subprocess.run(
        ["make", "help"], cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=30
    )
    assert {line.split()[1] for line in done.stdout.splitlines() if line.startswith("  make ")} == targets


def test_ci_calls_make_test():
    script = (CHECKOUT / ".ci" / "run").read_text().splitlines()
    assert script[0].startswith("#!")
    assert "set -euo pipefail" in script
    assert script[-1] == "make test"
