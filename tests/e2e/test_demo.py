"""The whole mission on real flights, as `make run` and `make run-rollback` do it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from canaryflow.report import read_verdict
from tests.e2e.machine import Machine

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]


def demo(workspace: Path, *options: str) -> tuple[Machine, str]:
    machine = Machine(workspace)
    done = machine.command("demo", "--workspace", str(workspace), *options, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.processes() == [], "without a terminal it stops everything and exits"
    return machine, done.stdout


def test_a_second_model_of_the_flights_is_promoted_by_its_requests(tmp_path: Path) -> None:
    machine, said = demo(tmp_path / "workspace")
    run = machine.last_run()
    replay = json.loads((run / "replay.json").read_text())
    assert replay["errors"] == 0 and replay["requests"] > 5000
    assert replay["feedback"]["sent"] > 0
    rollout = read_verdict(run / "reports" / "rollout.html")
    assert rollout.passed and "promoted" in rollout.summary
    evaluation = {check.name: check for check in read_verdict(run / "reports" / "evaluate.html").checks}
    assert evaluation["area under the ROC curve"].expected == "at least 0.7"
    weights = [event["text"] for event in machine.events("rollout") if re.search(r"\d %$", event["text"])]
    assert weights == [f"canary takes {weight} %" for weight in (5, 10, 25, 50)]
    for place in re.findall(r"file://(\S+)", said):
        assert Path(place).is_file(), place
    assert "curl -s http://127.0.0.1" in said and "mlflow server" in said


@pytest.mark.parametrize("kind", ["errors", "slow"])
def test_a_sabotaged_model_is_rolled_back_and_main_never_suffers(tmp_path: Path, kind: str) -> None:
    machine, said = demo(tmp_path / "workspace", "--sabotage", kind)
    rollout = read_verdict(machine.last_run() / "reports" / "rollout.html")
    assert not rollout.passed
    assert any("sequential" in check.name and not check.passed for check in rollout.checks)
    assert "main: 0 errors" in said
    arms = json.loads((machine.last_run() / "replay.json").read_text())["arms"]
    assert arms["main"]["errors"] == 0
    assert (arms["canary"]["errors"] > 0) == (kind == "errors")
