"""A step's process: its events, and one line instead of a traceback for what a person can mend."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BODY = """
from canaryflow.errors import InputError, GateFailed
from canaryflow.stage import emit, stage
with stage("work"):
    emit("did", rows=3)
    {action}
"""


def run(tmp_path: Path, action: str) -> tuple[subprocess.CompletedProcess[str], list[dict]]:
    events = tmp_path / "events.jsonl"
    process = subprocess.run(
        [sys.executable, "-c", BODY.format(action=action)],
        env={**os.environ, "CANARYFLOW_EVENTS": str(events)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return process, [json.loads(line) for line in events.read_text().splitlines()]


def test_a_step_says_what_it_took(tmp_path: Path) -> None:
    process, events = run(tmp_path, "held = bytearray(80 * 2**20)")
    assert process.returncode == 0
    assert [event["event"] for event in events] == ["stage started", "did", "stage ended"]
    assert events[-1]["peak_mib"] > 80
    assert events[-1]["seconds"] > 0
    assert events[1]["rows"] == 3


@pytest.mark.parametrize(
    ("action", "status", "message"),
    [
        ("raise InputError('rows.csv: no such file')", 2, "rows.csv: no such file"),
        ("raise GateFailed('roc_auc is low')", 1, "roc_auc is low"),
        ("open('/nowhere/x')", 2, "/nowhere/x: No such file or directory"),
        ("open('/dev/full', 'wb', buffering=0).write(b'x')", 2, "work: No space left on device"),
    ],
)
def test_an_error_for_a_person_is_one_line(tmp_path: Path, action: str, status: int, message: str) -> None:
    process, events = run(tmp_path, action)
    assert process.returncode == status
    assert "Traceback" not in process.stderr
    assert events[-1]["event"] == "stage failed"
    assert events[-1]["message"] == message
    assert events[-1]["exit_code"] == status


def test_a_defect_keeps_its_traceback(tmp_path: Path) -> None:
    process, events = run(tmp_path, "1 / 0")
    assert process.returncode == 1
    assert "Traceback" in process.stderr
    assert events[-1]["exit_code"] == 3
