from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from canaryflow.delivery import seldon
from canaryflow.delivery.deploy import deploy
from canaryflow.delivery.driver import Busy, Driver, Listener
from canaryflow.delivery.metrics import ArmCounters
from canaryflow.delivery.moves import DRAIN_SECONDS
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout import Outcome, rollout
from canaryflow.delivery.rollout_state import Command, read_command, read_lease, read_state
from canaryflow.delivery.status import command, status
from canaryflow.errors import Conflict, InputError, PlatformError
from tests.delivery.bench import Bench, Killed, Mortal, Traffic, Unavailable

PLAN = RolloutPlan(steps=(10, 50), step_requests=400, interval_seconds=2.0, max_minutes=10.0)


def put(paper: Bench, label: str, **changes: int) -> str:
    spec = paper.spec(label, **changes)
    deploy(paper.cluster, "iris", spec, paper.bundle(label), 60.0, clock=paper.time.clock)
    return spec.version


def run(paper: Bench, traffic: Traffic, plan: RolloutPlan = PLAN, **options: object) -> Outcome:
    return rollout(paper.cluster, "iris", plan, traffic, clock=paper.time.clock, **options)


def check_end(paper: Bench, version: str, scaling: tuple[int, int] = (1, 4)) -> None:
    """One version has everything, and nothing of the rollout is left but its record."""
    sdep = paper.cluster.get("iris")
    assert [entry["name"] for entry in sdep["spec"]["predictors"]] == ["main"]
    main = seldon.main_of(sdep)
    assert seldon.version_of(main) == version
    assert seldon.scaling(main) == scaling
    assert paper.pods.routed("iris") == {"main": 100}
    assert read_lease(sdep) is None
    assert read_state(sdep).phase == "done"


def check_trail(paper: Bench) -> None:
    """At every moment: weights sum to 100, and who has the traffic back has the floor to carry it."""
    for moment in paper.pods.trail:
        predictors = moment["sdep"]["spec"]["predictors"]
        assert sum(seldon.weights(moment["sdep"]).values()) == 100
        state = read_state(moment["sdep"])
        if state is None or len(predictors) == 1:
            continue
        for predictor in predictors:
            if moment["routed"].get(predictor["name"], 0) == 100:
                assert seldon.scaling(predictor)[0] >= state.floor


def test_a_good_canary_is_promoted_step_by_step(paper: Bench):
    put(paper, "one", min_replicas=3)
    version = put(paper, "two", min_replicas=2, max_replicas=6)
    events: list[str] = []
    outcome = run(paper, Traffic(paper, "iris"), on_event=lambda event: events.append(str(event)))
    assert (outcome.promoted, outcome.decision) == (True, "promoted")
    assert outcome.verdict.passed, outcome.verdict.reasons
    assert outcome.verdict.summary.startswith(f"Canary {version} was promoted")
    check_end(paper, version, (2, 6))
    check_trail(paper)
    weights = [moment["routed"].get("canary", 0) for moment in paper.pods.trail if moment["routed"]]
    order = [weight for index, weight in enumerate(weights) if index == 0 or weights[index - 1] != weight]
    assert order == [0, 10, 50, 100, 0]
    assert any("main, idle, is updated" in event for event in events)


def test_main_gets_traffic_back_only_when_its_new_pods_are_ready(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    paper.pods.lag = 6
    run(paper, Traffic(paper, "iris"))
    asked = [(seldon.weights(moment["sdep"]), moment["ready"]) for moment in paper.pods.trail]
    given_back = [ready for (before, _), (now, ready) in pairwise(asked) if before["main"] == 0 < now["main"]]
    assert given_back == [{"main": True, "canary": True}]


def test_a_split_that_is_not_obeyed_never_ramps_up(paper: Bench):
    old = put(paper, "one")
    put(paper, "two")
    traffic = Traffic(paper, "iris")
    traffic.deaf = True
    plan = RolloutPlan(steps=(10, 50), step_requests=400, interval_seconds=5.0, max_minutes=2.0)
    assert run(paper, traffic, plan).decision == "rolled back"
    assert max(moment["routed"].get("canary", 0) for moment in paper.pods.trail) == 10
    check_end(paper, old)


def test_no_request_meets_the_old_version_after_the_first_full_switch(paper: Bench):
    old = put(paper, "one")
    put(paper, "two")
    run(paper, Traffic(paper, "iris"))
    switched = False
    for moment in paper.pods.trail:
        if switched and moment["routed"].get("main"):
            assert seldon.version_of(seldon.main_of(moment["sdep"])) != old
        switched = switched or moment["routed"].get("canary") == 100
    assert switched


@pytest.mark.parametrize("fault", ["errors", "slow"])
def test_a_bad_canary_is_rolled_back_by_the_test(paper: Bench, fault: str):
    old = put(paper, "one", min_replicas=2)
    new = put(paper, "two")
    traffic = Traffic(paper, "iris")
    getattr(traffic, fault)[new] = 0.05 if fault == "errors" else 1.0
    plan = RolloutPlan(steps=(10, 50), step_requests=400, interval_seconds=2.0, max_error_rate=1.0)
    outcome = run(paper, traffic, plan)
    assert (outcome.promoted, outcome.decision) == (False, "rolled back")
    assert not outcome.verdict.passed
    word = "error" if fault == "errors" else "slow"
    assert any(word in reason and "E = " in reason for reason in outcome.verdict.reasons)
    check_end(paper, old, (2, 4))
    check_trail(paper)


def test_main_that_degrades_as_well_does_not_blame_the_canary(paper: Bench):
    old, new = put(paper, "one"), put(paper, "two")
    traffic = Traffic(paper, "iris")
    traffic.errors = {old: 0.03, new: 0.03}
    assert run(paper, traffic).promoted


def test_without_a_canary_there_is_nothing_to_do(paper: Bench):
    put(paper, "one")
    before = paper.cluster.get("iris")["spec"]
    outcome = run(paper, Traffic(paper, "iris"))
    assert (outcome.promoted, outcome.decision, outcome.verdict.passed) == (True, "first", True)
    assert paper.cluster.get("iris")["spec"] == before


@pytest.mark.parametrize("good", [True, False])
def test_a_rollout_that_is_over_says_again_how_it_ended(paper: Bench, good: bool):
    """A step that is retried after its last write must not take a roll-back for a success."""
    put(paper, "one")
    new = put(paper, "two")
    traffic = Traffic(paper, "iris")
    traffic.errors[new] = 0.0 if good else 0.5
    first, again = run(paper, traffic), run(paper, traffic)
    assert (again.promoted, again.decision) == (first.promoted, first.decision)
    assert first.promoted is good
    put(paper, "two" if good else "one")
    assert run(paper, traffic).promoted


def test_a_version_that_was_superseded_is_not_promoted(paper: Bench, tmp_path: Path):
    old, new = put(paper, "one"), put(paper, "two")
    put(paper, "one")
    report = tmp_path / "rollout.html"
    outcome = run(paper, Traffic(paper, "iris"), version=new, report=report)
    assert (outcome.promoted, outcome.verdict.passed) == (False, False)
    (reason,) = outcome.verdict.reasons
    assert old in reason
    assert new in reason
    assert f"{new} is not live: {old} serves all traffic" in report.read_text()
    assert run(paper, Traffic(paper, "iris"), version=old).promoted


def test_a_canary_of_another_version_is_not_rolled_out(paper: Bench):
    put(paper, "one")
    new, other = put(paper, "two"), put(paper, "three")
    before = paper.cluster.get("iris")["spec"]
    with pytest.raises(PlatformError, match=f"a rollout of {other} is under way, expected one of {new}"):
        run(paper, Traffic(paper, "iris"), version=new)
    assert paper.cluster.get("iris")["spec"] == before
    assert read_lease(paper.cluster.get("iris")) is None
    assert run(paper, Traffic(paper, "iris"), version=other).promoted
    assert not run(paper, Traffic(paper, "iris"), version=new).promoted


@pytest.mark.parametrize("good", [True, False])
def test_a_rollout_that_is_over_is_told_apart_by_version(paper: Bench, good: bool):
    old, new = put(paper, "one"), put(paper, "two")
    traffic = Traffic(paper, "iris")
    traffic.errors[new] = 0.0 if good else 0.5
    first, again = run(paper, traffic, version=new), run(paper, traffic, version=new)
    assert (again.promoted, again.decision) == (first.promoted, first.decision)
    assert first.decision == ("promoted" if good else "rolled back")
    assert run(paper, traffic, version=old).promoted is not good


def test_a_promoted_version_that_somebody_replaced_is_not_live(paper: Bench):
    put(paper, "one")
    new = put(paper, "two")
    assert run(paper, Traffic(paper, "iris"), version=new).promoted
    other = seldon.predictor("main", paper.spec("three"), 100)
    paper.cluster.patch("iris", [{"op": "replace", "path": "/spec/predictors/0", "value": other}])
    assert run(paper, Traffic(paper, "iris"), version=new).decision == "superseded"


@pytest.mark.parametrize(
    ("on_inconclusive", "decision"),
    [("rollback", "rolled back"), ("promote", "promoted"), ("pause", "paused")],
)
@pytest.mark.parametrize("why", ["no traffic", "no metrics"])
def test_the_time_limit_decides_what_evidence_did_not(
    paper: Bench, on_inconclusive: str, decision: str, why: str
):
    put(paper, "one")
    put(paper, "two")
    traffic = Traffic(paper, "iris", rate=0.0 if why == "no traffic" else 200.0)
    traffic.silent = why == "no metrics"
    plan = RolloutPlan(steps=(10,), max_minutes=1.0, interval_seconds=5.0, on_inconclusive=on_inconclusive)
    outcome = run(paper, traffic, plan)
    assert outcome.decision == decision
    assert outcome.promoted is (decision == "promoted")
    assert "nothing was proved in 1 minutes" in outcome.verdict.summary
    if decision != "paused":
        return
    assert run(paper, traffic, plan).decision == "paused"
    assert "promoted" in command(paper.cluster, "iris", "promote", "ann", clock=paper.time.clock)
    check_end(paper, paper.bundle("two").manifest.version)


def test_traffic_that_stops_and_comes_back_is_waited_for(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    traffic = Traffic(paper, "iris")
    stopped: list[float] = []

    def read() -> dict[str, ArmCounters]:
        if paper.pods.routed("iris").get("canary") and (not stopped or paper.time.now - stopped[0] < 120):
            stopped.append(paper.time.now)
        traffic.rate = 0.0 if stopped and paper.time.now - stopped[0] < 120 else 200.0
        return Traffic.read(traffic)

    traffic.read = read  # type: ignore[method-assign]
    outcome = run(paper, traffic)
    assert outcome.promoted
    assert outcome.state.elapsed > 120


def test_a_canary_whose_pods_die_on_the_way_is_rolled_back_from_frozen_weights(paper: Bench):
    old = put(paper, "one", min_replicas=4)
    put(paper, "two", min_replicas=1, max_replicas=4)
    traffic = Traffic(paper, "iris")

    def die(event: object) -> None:
        if "10 %" in str(event):
            paper.pods.broken.add(str(paper.bundle("two").path))

    outcome = run(paper, traffic, on_event=die)
    assert outcome.decision == "rolled back"
    assert "CrashLoopBackOff" in outcome.verdict.summary
    check_end(paper, old, (4, 4))


def test_a_pending_pod_of_main_does_not_hold_up_a_roll_back(paper: Bench):
    old = put(paper, "one", min_replicas=3)
    new = put(paper, "two")
    traffic = Traffic(paper, "iris")

    def stick(event: object) -> None:
        if "50 %" in str(event):
            traffic.errors[new] = 0.5
            paper.pods.stuck_main = True

    moments: list[tuple[str, float]] = []
    outcome = run(
        paper, traffic, on_event=lambda event: (stick(event), moments.append((str(event), paper.time.now)))
    )
    assert outcome.decision == "rolled back"
    (decided,) = [at for text, at in moments if text.startswith("rolling back")]
    assert moments[-1][1] - decided < 3.0
    limited = [
        moment for moment in paper.pods.trail if seldon.scaling(seldon.main_of(moment["sdep"])) == (2, 2)
    ]
    assert limited
    assert limited[-1]["routed"] == {"main": 100}
    paper.pods.stuck_main = False
    check_end(paper, old, (3, 4))


def test_two_drivers_never_drive_one_deployment(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    first = Driver(paper.cluster, "iris", clock=paper.time.clock)
    first.acquire()
    waited = paper.time.now
    with pytest.raises(Busy, match="driven by process"):
        Driver(paper.cluster, "iris", clock=paper.time.clock).acquire(patience=5.0)
    assert paper.time.now - waited >= 5.0
    paper.time.sleep(60)
    second = Driver(paper.cluster, "iris", clock=paper.time.clock)
    second.acquire()
    with pytest.raises(PlatformError):
        first.write([])
    with pytest.raises(Busy, match="lost its lease"):
        first.read()
    second.write([])
    second.release()


@pytest.mark.parametrize("error", [Conflict, Unavailable])
def test_patience_begins_with_the_first_failure(paper: Bench, error: type[PlatformError]):
    put(paper, "one")
    driver = Driver(paper.cluster, "iris", clock=paper.time.clock, lease_seconds=1e6)
    driver.acquire()
    failures = [error("once")]

    def slow() -> str:
        paper.time.sleep(400)
        if failures:
            raise failures.pop()
        return "done"

    assert driver.insist(slow, patience=300.0) == "done"
    began = paper.time.now

    def broken() -> None:
        raise error("for ever")

    with pytest.raises(error, match="for ever"):
        driver.insist(broken, patience=300.0)
    assert 300 <= paper.time.now - began <= 306


def test_a_dead_process_on_this_machine_is_not_waited_for(paper: Bench):
    put(paper, "one")
    code = (
        "import sys, time; from canaryflow.delivery.cluster import connect; "
        "from canaryflow.delivery.driver import Driver; "
        "d = Driver(connect(sys.argv[1], 'default'), 'iris', lease_seconds=1e9); d.acquire(); "
        "print('held', flush=True); "
        "time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", code, paper.url], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline() == b"held\n"
        with pytest.raises(Busy):
            Driver(paper.cluster, "iris", clock=paper.time.clock).acquire(patience=1.0)
    finally:
        child.kill()
        child.wait()
    before = paper.time.now
    Driver(paper.cluster, "iris", clock=paper.time.clock).acquire()
    assert paper.time.now == before


@pytest.mark.parametrize("good", [True, False])
@pytest.mark.parametrize("how", [Killed, Unavailable])
def test_killed_between_any_two_calls_it_ends_all_the_same(
    paper: Bench, good: bool, how: type[BaseException]
):
    """Exhaustive over its writes, where alone a death leaves something new; and at a spread of its reads."""
    new = paper.bundle("two").manifest.version
    ending = new if good else paper.bundle("one").manifest.version
    calls = ["patch"]
    attempt = -1  # the first run is killed nowhere, and tells which calls there are
    while attempt < len(calls):
        write = attempt < 0 or calls[attempt] == "patch"
        for after in (False, True) if write else (False,):
            if not write and attempt % 16:
                continue
            paper.cluster.delete("iris")
            paper.pods.trail.clear()
            put(paper, "one", min_replicas=2)
            put(paper, "two", min_replicas=2)
            traffic = Traffic(paper, "iris", rate=1000.0)
            traffic.errors[new] = 0.0 if good else 0.2
            mortal = Mortal(paper.cluster, attempt, after=after, how=how)
            try:
                outcome = rollout(mortal, "iris", PLAN, traffic, clock=paper.time.clock)
            except Killed:
                outcome = run(paper, traffic)
            calls = mortal.calls if attempt < 0 else calls
            assert outcome.promoted is good
            check_end(paper, ending, (2, 4))
            check_trail(paper)
        attempt += 1
    assert calls.count("patch") > 8


# -- what a person says


def tell_at(paper: Bench, word: str, verb: str) -> Listener:
    told: list[str] = []

    def listen(event: object) -> None:
        if word in str(event) and not told:
            told.append(command(paper.cluster, "iris", verb, "ann", clock=paper.time.clock))
            assert "left for process" in told[0]

    return listen


def test_a_person_promotes(paper: Bench):
    put(paper, "one")
    new = put(paper, "two")
    outcome = run(paper, Traffic(paper, "iris"), on_event=tell_at(paper, "takes 10 %", "promote"))
    assert outcome.promoted
    assert "by ann" in outcome.verdict.summary
    assert {sample["weight"] for sample in outcome.history} <= {0, 10}
    check_end(paper, new)


def test_a_person_aborts(paper: Bench):
    old = put(paper, "one")
    put(paper, "two")
    outcome = run(paper, Traffic(paper, "iris"), on_event=tell_at(paper, "takes 50 %", "abort"))
    assert (outcome.promoted, outcome.decision) == (False, "aborted")
    check_end(paper, old)


@pytest.mark.parametrize("when", ["promoting: ", "takes all traffic", "while it drains"])
def test_an_abort_during_the_hand_over_is_obeyed(paper: Bench, when: str):
    old = put(paper, "one", min_replicas=3)
    put(paper, "two")
    tell = tell_at(paper, "" if when == "while it drains" else when, "abort")
    sleep = paper.time.sleep

    def drain(seconds: float) -> None:
        if seconds == DRAIN_SECONDS:
            tell("")
        sleep(seconds)

    if when == "while it drains":
        paper.time.clock = replace(paper.time.clock, sleep=drain)
    events: list[str] = []
    outcome = run(
        paper,
        Traffic(paper, "iris"),
        on_event=lambda event: (events.append(str(event)), when != "while it drains" and tell(event)),
    )
    assert (outcome.promoted, outcome.decision) == (False, "aborted")
    assert any("promoting: " in event for event in events)
    assert not any("is updated" in event for event in events)
    check_end(paper, old, (3, 4))
    check_trail(paper)


def test_an_abort_does_not_wait_for_the_pods_of_a_hand_over(paper: Bench):
    old = put(paper, "one")
    new = put(paper, "two")
    tell = tell_at(paper, "", "abort")
    sleep, promoting = paper.time.sleep, []

    def wait(seconds: float) -> None:
        sleep(seconds)
        if promoting and paper.time.now - promoting[0] > 5:
            tell("")

    def listen(event: object) -> None:
        if "promoting: " in str(event):
            promoting.append(paper.time.now)
            paper.pods.broken.add(str(paper.bundle("two").path))

    paper.time.clock = replace(paper.time.clock, sleep=wait)
    outcome = run(paper, Traffic(paper, "iris"), on_event=listen)
    assert outcome.decision == "aborted"
    assert outcome.state.canary_version == new
    assert paper.time.now - promoting[0] < 30
    check_end(paper, old)


@pytest.mark.parametrize("verb", ["resume", "promote"])
def test_another_command_does_not_hold_up_the_hand_over(paper: Bench, verb: str):
    put(paper, "one")
    new = put(paper, "two")
    assert run(paper, Traffic(paper, "iris"), on_event=tell_at(paper, "takes all traffic", verb)).promoted
    check_end(paper, new)


def test_an_abort_is_too_late_once_main_was_updated(paper: Bench):
    put(paper, "one")
    new = put(paper, "two")
    outcome = run(paper, Traffic(paper, "iris"), on_event=tell_at(paper, "idle, is updated", "abort"))
    assert outcome.decision == "promoted"
    assert [text for _, text in outcome.state.events if "abort by ann: too late" in text]
    check_end(paper, new)
    assert read_command(paper.cluster.get("iris")) is None


def test_an_abort_of_an_orphan_is_too_late_once_main_was_updated(paper: Bench):
    put(paper, "one")
    new = put(paper, "two")

    def die(event: object) -> None:
        if "idle, is updated" in str(event):
            raise Killed

    with pytest.raises(Killed):
        rollout(paper.cluster, "iris", PLAN, Traffic(paper, "iris"), on_event=die, clock=paper.time.clock)
    paper.time.sleep(60)
    events: list[str] = []
    command(paper.cluster, "iris", "abort", "ann", lambda event: events.append(str(event)), paper.time.clock)
    assert any("too late" in event for event in events)
    check_end(paper, new)


def test_a_pause_holds_the_weight_and_resume_goes_on(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    traffic = Traffic(paper, "iris")
    seen: list[tuple[float, int]] = []
    tell = tell_at(paper, "takes 10 %", "pause")
    resumed = False
    paused_at = 0.0

    def read() -> dict[str, ArmCounters]:
        nonlocal resumed, paused_at
        state = read_state(paper.cluster.get("iris"))
        if state.paused_by:
            paused_at = paused_at or paper.time.now
            seen.append((paper.time.now, paper.pods.routed("iris").get("canary", 0)))
            if paper.time.now - paused_at > 120 and not resumed:
                resumed = True
                command(paper.cluster, "iris", "resume", "ann", clock=paper.time.clock)
        return Traffic.read(traffic)

    traffic.read = read  # type: ignore[method-assign]
    outcome = run(paper, traffic, on_event=tell)
    assert outcome.promoted
    assert len(seen) > 20
    assert {weight for _, weight in seen} == {10}
    assert outcome.state.elapsed < 120


def test_a_pause_is_no_shelter_for_a_bad_canary(paper: Bench):
    put(paper, "one")
    new = put(paper, "two")
    traffic = Traffic(paper, "iris")
    traffic.errors[new] = 0.2
    assert run(paper, traffic, on_event=tell_at(paper, "takes 10 %", "pause")).decision == "rolled back"


@pytest.mark.parametrize(("verb", "label"), [("abort", "one"), ("promote", "two")])
def test_a_command_needs_no_driver(paper: Bench, verb: str, label: str):
    put(paper, "one")
    put(paper, "two")
    mortal = Mortal(paper.cluster, 60)
    with pytest.raises(Killed):
        rollout(mortal, "iris", PLAN, Traffic(paper, "iris"), clock=paper.time.clock)
    paper.time.sleep(60)
    assert "done" in command(paper.cluster, "iris", verb, "ann", clock=paper.time.clock)
    check_end(paper, paper.bundle(label).manifest.version)


def test_commands_that_make_no_sense_are_refused(paper: Bench):
    put(paper, "one")
    with pytest.raises(InputError, match="expected one of pause, resume, promote, abort"):
        command(paper.cluster, "iris", "stop", "ann")
    with pytest.raises(PlatformError, match="no rollout is under way"):
        command(paper.cluster, "iris", "abort", "ann")
    assert read_command(paper.cluster.get("iris")) is None


def test_a_broken_command_is_reported_and_dropped(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    operation = {
        "op": "add",
        "path": "/metadata/annotations/canaryflow.io~1rollout-command",
        "value": "{stop",
    }
    paper.cluster.patch("iris", [operation])
    events: list[str] = []
    assert run(paper, Traffic(paper, "iris"), on_event=lambda event: events.append(str(event))).promoted
    assert any("expected a command" in event for event in events)


def test_status_tells_how_it_stands(paper: Bench):
    old, new = put(paper, "one"), put(paper, "two")
    shown: list[list[str]] = []

    def listen(event: object) -> None:
        if "takes 50 %" in str(event):
            shown.append(status(paper.cluster, "iris").lines())

    run(paper, Traffic(paper, "iris"), on_event=listen)
    during, after = "\n".join(shown[0]), "\n".join(status(paper.cluster, "iris").lines())
    assert "ramp (step 2 of 2)" in during
    assert old in during
    assert new in during
    assert "driven by: process" in during
    assert "errors: canary 0 of" in during
    assert "canary:    none" in after
    assert "decision:  promoted" in after
    assert "driven by: nobody" in after


def test_the_state_stays_small(paper: Bench):
    put(paper, "one")
    put(paper, "two")
    traffic = Traffic(paper, "iris", rate=100.0)
    plan = RolloutPlan(step_requests=5_000, interval_seconds=1.0)
    largest = 0

    def read() -> dict[str, ArmCounters]:
        nonlocal largest
        annotations = paper.cluster.get("iris")["metadata"]["annotations"]
        largest = max(largest, sum(len(value) for value in annotations.values()))
        return Traffic.read(traffic)

    traffic.read = read  # type: ignore[method-assign]
    outcome = run(paper, traffic, plan)
    assert outcome.promoted
    assert 60 <= len(outcome.history) <= 120
    assert outcome.history[-1]["t"] > 190
    assert largest < 32 * 1024


def test_a_listener_that_is_slow_loses_nothing_to_another_thread(paper: Bench):
    """A command that comes while the driver writes is obeyed, whichever of them is first."""
    put(paper, "one")
    put(paper, "two")
    threads: list[threading.Thread] = []

    def listen(event: object) -> None:
        if "takes 10 %" in str(event):
            thread = threading.Thread(
                target=command, args=(paper.cluster, "iris", "abort", "ann", lambda e: None, paper.time.clock)
            )
            thread.start()
            threads.append(thread)

    outcome = run(paper, Traffic(paper, "iris"), on_event=listen)
    for thread in threads:
        thread.join(10)
    assert outcome.decision == "aborted"
    assert Command("abort", "ann", 0.0).verb == "abort"
