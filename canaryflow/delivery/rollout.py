"""A canary on real traffic: a few percent more at a time, judged by evidence that may be watched.

The state machine: prepared -> baseline (weight 0: main's latency gives the objective) -> ramp (each step
until enough requests were seen) -> promoting -> done; and from everywhere rolling back -> done. Its state
and evidence are in the SeldonDeployment's annotations, so a process that dies leaves a rollout that the
next call carries on.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from canaryflow.delivery import changes, moves, seldon
from canaryflow.delivery.clock import Clock
from canaryflow.delivery.cluster import Cluster
from canaryflow.delivery.driver import POLL_SECONDS, Driver, Listener
from canaryflow.delivery.metrics import ArmCounters, MetricSource
from canaryflow.delivery.observer import Observer
from canaryflow.delivery.outcome import Outcome, conclude
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout_state import Phase, read_state
from canaryflow.delivery.seldon import CANARY, MAIN
from canaryflow.errors import PlatformError

__all__ = ["Outcome", "RolloutPlan", "carry_out", "rollout"]

_FOLLOW_SECONDS = 30.0  # how long pods and gateway may take to follow before somebody is asked why


def rollout(
    cluster: Cluster,
    name: str,
    plan: RolloutPlan,
    metrics: MetricSource,
    report: Path | None = None,
    on_event: Listener = lambda event: None,
    clock: Clock | None = None,
    version: str = "",
) -> Outcome:
    """Bring the canary of a SeldonDeployment to 100 %, or take it away.

    It may be called again at any time, and carries on where an earlier process stopped. Where there is no
    canary it returns at once with the last rollout's outcome, or "first".

    Args:
        cluster: Where it is.
        name: The SeldonDeployment, with the canary that `deploy` added.
        plan: The ramp and the claims.
        metrics: What users were answered, per arm.
        report: Where the HTML report goes; None writes none.
        on_event: Told of every event.
        clock: Time.
        version: The bundle's version that this is about; empty takes whichever canary is there.

    Raises:
        PlatformError: Another process drives this deployment, the canary is of another version, or the
            platform did not answer for minutes; the rollout stays where it is, and can be carried on.
    """
    driver = Driver(cluster, name, on_event, clock)
    driver.acquire()
    try:
        _check(driver, version)
        if report is not None and driver.state.phase not in ("first", "live", "done"):
            threading.Thread(target=_prepare_report, daemon=True).start()
        _Rollout(driver, plan, metrics).run()
        serving = seldon.version_of(seldon.main_of(driver.sdep))
    finally:
        driver.release()
    outcome = conclude(driver.state, plan, version, serving)
    if report is not None:
        from canaryflow.delivery.rollout_report import write_report

        write_report(outcome, plan, name, report)
    return outcome


def _prepare_report() -> None:
    """Load what draws while the rollout waits for traffic; at its end it would cost seconds."""
    from canaryflow.delivery import rollout_report

    rollout_report.warm_up()


def carry_out(driver: Driver) -> None:
    """Obey the command that waits, and go as far as needs no metrics: to the end, or back to where it was.

    Args:
        driver: Holds the lease.
    """
    _check(driver)
    plan = RolloutPlan.from_dict(driver.state.plan) if driver.state.plan else RolloutPlan()
    _Rollout(driver, plan, _NoMetrics()).carry_out()


class _NoMetrics:
    def read(self) -> dict[str, ArmCounters]:
        return {}


def _check(driver: Driver, version: str = "") -> None:
    seldon.main_of(driver.sdep)
    canary = seldon.find(driver.sdep, CANARY)
    idle = driver.state.phase in ("live", "done", "first")
    if canary is not None and (read_state(driver.sdep) is None or idle):
        raise PlatformError(
            f"SeldonDeployment {driver.name}: has a canary that `deploy` did not add; "
            "expected to deploy before a rollout"
        )
    found = driver.state.canary_version if canary is None else seldon.version_of(canary)
    if version and not idle and found != version:
        raise PlatformError(
            f"SeldonDeployment {driver.name}: a rollout of {found or 'no version'} is under way, "
            f"expected one of {version}"
        )


class _Rollout:
    def __init__(self, driver: Driver, plan: RolloutPlan, metrics: MetricSource) -> None:
        self.driver = driver
        self.plan = plan
        self.observer = Observer(driver, plan, metrics)
        self.phases: dict[str, Callable[[], None]] = {
            "prepared": self._begin,
            "baseline": self._baseline,
            "ramp": self._ramp,
            "promoting": self._promote,
            "rolling back": lambda: moves.roll_back(self.driver),
        }

    def run(self) -> None:
        """Until it is done, or a pause has lasted too long for this process."""
        while self.driver.state.phase in self.phases and not self._left():
            self.driver.insist(self._tick)

    def carry_out(self) -> None:
        """Only what is decided."""
        self.driver.insist(self._obey)
        while self.driver.state.phase in ("promoting", "rolling back"):
            self.driver.insist(self._tick)

    def _tick(self) -> None:
        self._obey()
        if phase := self.phases.get(self.driver.state.phase):
            phase()

    def _left(self) -> bool:
        """A pause of the time limit is left to a person at once; a person's own after as long again."""
        state = self.driver.state
        waits = state.phase in ("prepared", "baseline", "ramp") and not self.driver.commanded
        limit = 0.0 if state.paused_by == "the time limit" else self.plan.max_minutes * 60
        return bool(state.paused_by) and waits and state.paused_seconds >= limit

    # -- what a person says

    def _obey(self) -> None:
        """Do what the waiting command asks, and take it away in the same write."""
        driver, state = self.driver, self.driver.state
        try:
            command = driver.command
        except PlatformError as error:
            driver.write(say=str(error), consume=True)
            return
        if command is None:
            return
        driver.pass_time()
        done = f"{command.verb} by {command.by}"
        if state.phase in ("promoting", "rolling back") and not self._may_still(command.verb):
            done += f": too late, it is {state.phase}"
        elif command.verb == "pause":
            state.paused_by = command.by
            state.paused_seconds = 0.0
        elif command.verb == "resume":
            if state.paused_by == "the time limit":
                state.elapsed = 0.0
            state.paused_by = ""
        else:
            state.by, state.paused_by = command.by, ""
            state.phase = "promoting" if command.verb == "promote" else "rolling back"
            state.decision = "promoted" if command.verb == "promote" else "aborted"
            state.reasons = [f"{command.verb} was asked for by {command.by}"]
        driver.write(say=done, consume=True)

    def _may_still(self, verb: str) -> bool:
        """An abort is too late once main was updated: its old version is gone."""
        sdep = self.driver.sdep
        updated = seldon.version_of(seldon.main_of(sdep)) == self.driver.state.canary_version
        return verb == "abort" and self.driver.state.phase == "promoting" and not updated

    def _turn(self, phase: Phase, decision: str, reasons: Sequence[str]) -> None:
        """Leave the ramp, and say why."""
        state = self.driver.state
        state.phase, state.decision, state.reasons, state.paused_by = phase, decision, list(reasons), ""
        self.driver.write(say=f"{phase}: " + "; ".join(reasons))

    # -- the phases

    def _begin(self) -> None:
        driver, state = self.driver, self.driver.state
        state.phase, state.plan, state.elapsed = "baseline", self.plan.to_dict(), 0.0
        driver.write(say=f"rollout of {state.canary_version} against {state.main_version} begins")

    def _baseline(self) -> None:
        """Main alone, until its latency is known."""
        driver, state = self.driver, self.driver.state
        if not self.observer.find_objective():
            if not self._over_time():
                self._wait(min(self.plan.interval_seconds, 1.0))
            return
        state.phase, state.step, state.step_requests = "ramp", 0, {}
        slow = f"a request is slow above {1000 * state.latency_edge:g} ms"
        errors_alone = "the metrics have no latency histogram: errors alone are judged"
        driver.write(say=slow if state.latency_edge else errors_alone)

    def _ramp(self) -> None:
        """One look at the present weight."""
        weight = self.plan.steps[min(self.driver.state.step, len(self.plan.steps) - 1)]
        if not self._set_weight(weight):
            return
        self.observer.start()
        if self._wait(self.plan.interval_seconds):
            return
        if self.observer.look(weight):
            self._judge(weight)
        if self.driver.state.phase == "ramp" and not self._over_time():
            self.driver.write()

    def _judge(self, weight: int) -> None:
        """Act on the evidence."""
        state, plan = self.driver.state, self.plan
        decision = self.observer.decision()
        full = self.observer.step_is_full(weight) and not state.paused_by
        if decision.action == "roll back":
            self._turn("rolling back", "rolled back", decision.reasons)
        elif full and state.step < len(plan.steps) - 1:
            state.step, state.step_requests = state.step + 1, {}
        elif full and decision.action == "promote":
            self._turn("promoting", "promoted", decision.reasons)

    def _promote(self) -> None:
        try:
            moves.promote(self.driver)
        except moves.CannotPromote as error:
            self._turn("rolling back", "rolled back", [str(error)])

    # -- weights, time, metrics

    def _set_weight(self, weight: int) -> bool:
        """Pods first, then the weight, then the gateway; False when the look at this weight has to wait."""
        driver, state = self.driver, self.driver.state
        live = driver.look()
        canary = seldon.find(live.sdep, CANARY)
        if canary is None:
            self._turn("rolling back", "rolled back", ["somebody removed the canary"])
            return False
        least, most = seldon.scaling(canary)
        wanted = min(most, max(state.canary_scaling[0], math.ceil(state.floor * weight / 100)))
        grow = changes.scale(canary, wanted) if wanted > least else []
        if grow:
            driver.write(grow)
            if not driver.until(lambda now: now.ready(CANARY), _FOLLOW_SECONDS):
                return self._unhealthy()
        if seldon.weights(driver.sdep) != {MAIN: 100 - weight, CANARY: weight}:
            driver.write(changes.shift(weight), say=f"canary takes {weight} %")
        elif live.carries(weight):
            return True
        return driver.until(lambda now: now.carries(weight), _FOLLOW_SECONDS) or self._unhealthy()

    def _unhealthy(self) -> bool:
        """Pods or gateway did not follow: the canary's fault ends the rollout, another is waited for."""
        driver = self.driver
        if not driver.look().ready(CANARY):
            lines = driver.cluster.troubles(driver.name, CANARY) or ["its pods give no reason"]
            self._turn("rolling back", "rolled back", ["the canary is not ready: " + "; ".join(lines)])
        elif not self._over_time():
            why = "; ".join(driver.cluster.troubles(driver.name, MAIN)) or "no pod gives a reason"
            driver.note(f"the gateway does not follow yet: {why}")
            driver.write()
        return False

    def _wait(self, seconds: float) -> bool:
        """Let time pass; True when a command came meanwhile."""
        driver = self.driver
        deadline = driver.clock.steady() + seconds
        while (rest := deadline - driver.clock.steady()) > 0:
            driver.clock.sleep(min(rest, POLL_SECONDS))
            driver.read()
            if driver.commanded:
                return True
            driver.keep()
        return False

    def _over_time(self) -> bool:
        """End it when its time is over and nothing is proved; True when the state was written."""
        driver, state, plan = self.driver, self.driver.state, self.plan
        driver.pass_time()
        if state.paused_by or state.elapsed < plan.max_minutes * 60:
            return False
        open_points = self.observer.decision().reasons
        reasons = [f"nothing was proved in {plan.max_minutes:g} minutes: " + "; ".join(open_points)]
        if plan.on_inconclusive == "pause":
            state.paused_by, state.paused_seconds, state.reasons = "the time limit", 0.0, reasons
            driver.write(say="paused: " + reasons[0])
        elif plan.on_inconclusive == "promote":
            self._turn("promoting", "promoted", reasons)
        else:
            self._turn("rolling back", "rolled back", reasons)
        return True
