"""The compiled pipeline on one machine: live, canaried, promoted; and every way in which it says no."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import psutil
import pytest

from canaryflow.report import read_verdict
from canaryflow.storage import fetch_bundle
from tests.e2e.machine import QUICK, Machine

pytestmark = pytest.mark.e2e

ROW = {"sepal_length": 5.1, "sepal_width": 3.5, "petal_length": 1.4, "petal_width": 0.2}
STEPS = ["ingest", "validate", "split", "train", "evaluate", "register", "deploy", "rollout"]
LOOSE = "champion_margin=5.0"  # thirty flowers cannot prove that one model is no worse than another


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("e2e") / "workspace")
    up = machine.command("local", "up", "--workspace", str(machine.workspace))
    assert up.returncode == 0, up.stderr
    yield machine
    machine.command("local", "down", "--workspace", str(machine.workspace))
    assert machine.processes() == []


@pytest.fixture(scope="module")
def first(machine: Machine) -> str:
    """The version that goes live first."""
    done = machine.run()
    assert done.returncode == 0, done.stdout + done.stderr
    return machine.live("iris")["main"]


@pytest.fixture(scope="module")
def second(machine: Machine, first: str) -> str:
    """The version that came after it, as a canary."""
    done = machine.run("seed=1", LOOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    return machine.live("iris")["main"]


def champion(machine: Machine) -> str:
    from canaryflow.model.tracking import champion_uri

    uri = champion_uri(f"sqlite:///{machine.workspace}/mlflow.db", "iris")
    assert uri is not None
    return uri.rsplit("/", 1)[-1]


def test_the_first_version_goes_live_and_every_step_left_its_report(machine: Machine, first: str) -> None:
    run = machine.workspace / "runs" / "001"
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert [event["stage"] for event in events if event["event"] == "stage ended"] == STEPS
    assert {path.name for path in (run / "reports").iterdir()} == {
        "validate.html",
        "train.html",
        "evaluate.html",
        "rollout.html",
    }
    assert all(event["peak_mib"] > 0 for event in events if event["event"] == "stage ended")
    assert fetch_bundle(f"{machine.workspace}/store/iris/{first}", Path("unused")).is_dir()


def test_what_is_live_answers_through_the_gateway(machine: Machine, first: str) -> None:
    answer = machine.ask("/seldon/default/iris/predict", {"rows": [ROW]})
    assert "setosa" in json.dumps(answer)
    assert machine.live("iris")["main"] in json.dumps(answer)


def test_a_second_version_is_canaried_on_real_requests_and_promoted(
    machine: Machine, first: str, second: str
) -> None:
    assert second != first
    assert machine.live("iris") == {"main": second}
    assert champion(machine) == second
    replay = json.loads((machine.workspace / "runs" / "002" / "replay.json").read_text())
    assert replay["errors"] == 0
    assert replay["arms"]["canary"]["requests"] > 0
    verdict = read_verdict(machine.workspace / "runs" / "002" / "reports" / "rollout.html")
    assert verdict.passed and "promoted" in verdict.summary


def test_the_same_run_again_changes_nothing(machine: Machine, second: str) -> None:
    done = machine.run("seed=1", LOOSE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.live("iris") == {"main": second}
    assert champion(machine) == second


def test_data_that_breaks_its_contract_ends_red_with_a_report(machine: Machine, second: str) -> None:
    contract = json.dumps(
        {
            "version": 1,
            "columns": {
                "sepal_length": {"kind": "number", "max": 6.5},
                "sepal_width": {"kind": "number"},
                "petal_length": {"kind": "number"},
                "petal_width": {"kind": "number"},
                "species": {"kind": "categorical", "role": "target"},
            },
        }
    )
    done = machine.run(f"contract={contract}")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "sepal_length" in done.stderr and "6.5" in done.stderr
    assert "Traceback" not in done.stderr
    verdict = read_verdict(machine.last_run() / "reports" / "validate.html")
    assert not verdict.passed and any("sepal_length" in reason for reason in verdict.reasons)
    assert [event["stage"] for event in machine.events("stage ended")] == ["ingest", "validate"]
    assert machine.live("iris") == {"main": second}


def test_a_challenger_worse_than_the_champion_ends_red(machine: Machine, second: str) -> None:
    from canaryflow import pipeline_path
    from canaryflow.parameters import parameters_of

    contract = parameters_of(pipeline_path())["contract"].default
    for column in ("petal_length", "petal_width", "sepal_length"):
        contract["columns"][column]["role"] = "ignore"
    done = machine.run(f"contract={json.dumps(contract)}", "champion_margin=0.02")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "champion" in done.stderr
    verdict = read_verdict(machine.last_run() / "reports" / "evaluate.html")
    assert any("champion" in reason for reason in verdict.reasons)
    assert machine.live("iris") == {"main": second}
    assert champion(machine) == second


@pytest.mark.parametrize(
    ("pair", "words"),
    [
        ("estimator=hist_gradient_bosting", ["hist_gradient_bosting", "hist_gradient_boosting"]),
        ("source=missing.csv", ["missing.csv"]),
        ('contract={"version": 1, "colums": {}}', ["colums", "columns"]),
        ('thresholds={"roc_acu": 0.7}', ["roc_acu"]),
        ("canary_steps=[50, 20]", ["canary_steps"]),
        ("on_inconclusive=hope", ["on_inconclusive", "hope"]),
        ("name=My_Iris", ["My_Iris"]),
        ("source=sample:wine", ["contract infer"]),
        ("test_fraction=1.5", ["test_fraction"]),
        ("max_replicas=1", ["max_replicas"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(
    machine: Machine, second: str, pair: str, words: list[str]
) -> None:
    done = machine.run("seed=2", pair)
    assert done.returncode == 2, done.stdout + done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert all(word in lines[0] for word in words), lines
    assert machine.live("iris") == {"main": second}


def test_a_canary_that_gets_no_traffic_is_rolled_back_at_the_time_limit(
    machine: Machine, second: str
) -> None:
    done = machine.run("seed=3", LOOSE, "max_minutes=0.1", extra=("--replay", "none"))
    assert done.returncode == 1, done.stdout + done.stderr
    assert machine.live("iris") == {"main": second}
    assert champion(machine) == second


def test_a_table_that_cannot_be_replayed_is_refused_at_once(machine: Machine, second: str) -> None:
    table = machine.workspace.parent / "rows.parquet"
    pl.DataFrame({"sepal_length": [5.0]}).write_parquet(table)
    for path, words in ((table, "no column"), (table.with_name("none.parquet"), "none.parquet")):
        done = machine.run("seed=4", LOOSE, extra=("--replay", str(path)))
        assert done.returncode == 2, done.stdout + done.stderr
        assert words in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_replay_that_dies_takes_its_canary_back(machine: Machine, second: str) -> None:
    options = [word for pair in (*QUICK, "seed=5", LOOSE, "step_requests=100000") for word in ("-p", pair)]
    run = subprocess.Popen(
        machine.words("run", "--workspace", str(machine.workspace), *options),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 90
    while not (replays := [line for line in psutil.process_iter(["cmdline"]) if _replays(line, machine)]):
        assert time.monotonic() < deadline and run.poll() is None
        time.sleep(0.1)
    time.sleep(3)
    replays[0].kill()
    _, said = run.communicate(timeout=60)
    assert run.returncode == 2, said
    assert "replay ended with -9" in said
    assert machine.live("iris") == {"main": second}


def _replays(process: psutil.Process, machine: Machine) -> bool:
    words = process.info["cmdline"] or []
    return "replay" in words and any(str(machine.workspace) in word for word in words)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_leaves_no_process_and_the_same_command_carries_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    machine = Machine(tmp_path / "workspace")
    options = ["--workspace", str(machine.workspace), "-p", "search_trials=1"]
    process = subprocess.Popen(
        machine.words("run", *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(machine.workspace.glob("runs/001/artifacts/**/dataset")):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else 143), said
    assert "Traceback" not in said
    assert machine.processes() == []
    if number == signal.SIGTERM:
        done = machine.command("run", *options)
        assert done.returncode == 0, done.stderr
        assert machine.processes() == []


@pytest.mark.parametrize(("sample", "answer"), [("breast_cancer", "malignant"), ("diabetes", "")])
def test_binary_models_and_regressions_go_live_too(machine: Machine, sample: str, answer: str) -> None:
    target = {"breast_cancer": "diagnosis", "diabetes": "progression"}[sample]
    inferred = machine.command("contract", "infer", f"sample:{sample}", "--target", target)
    assert inferred.returncode == 0, inferred.stderr
    contract = machine.workspace / f"{sample}.yaml"
    contract.write_text(inferred.stdout)
    done = machine.run(f"source=sample:{sample}", f"name={sample.replace('_', '-')}", f"contract={contract}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert machine.live(sample.replace("_", "-"))["main"]


def test_a_person_may_promote_and_the_champion_follows(machine: Machine, second: str) -> None:
    paused = machine.run(
        "seed=6", LOOSE, "max_minutes=0.05", "on_inconclusive=pause", extra=("--replay", "none")
    )
    assert paused.returncode == 1, paused.stdout + paused.stderr
    waiting = machine.live("iris")["canary"]
    words = ("iris", "--workspace", str(machine.workspace))
    told = machine.command("rollout", "status", *words)
    assert told.returncode == 0 and waiting in told.stdout and "paused" in told.stdout, told.stdout
    done = machine.command("rollout", "promote", *words)
    assert done.returncode == 0, done.stderr
    assert machine.live("iris") == {"main": waiting}
    assert champion(machine) == waiting
    again = machine.command("rollout", "abort", *words)
    assert again.returncode == 2 and "nothing to abort" in again.stderr
