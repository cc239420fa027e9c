"""Who imports whom, and what an import costs."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
MAX_SECONDS = 0.2


def test_importing_the_package_takes_no_time():
    def measure() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import canaryflow"], cwd=CHECKOUT, check=True, timeout=30)
        return time.perf_counter() - started

    assert statistics.median(measure() for _ in range(7)) < MAX_SECONDS


@pytest.mark.parametrize("module", ["", ".errors", ".verdict", ".bundle.format"])
def test_these_need_the_standard_library_alone(module):
    code = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); import canaryflow{module}"
    # -S leaves site-packages out of the path, -I everything else that is not Python's own.
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


def test_the_rooms_know_only_whom_they_may():
    lint_imports = Path(sys.executable).parent / "lint-imports"
    done = subprocess.run(
        [lint_imports, "--no-logo", "--no-cache"], cwd=CHECKOUT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout
