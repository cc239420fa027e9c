"""How a rollout stands, and what a person may tell it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, cast, get_args

from canaryflow.delivery import seldon
from canaryflow.delivery.clock import Clock
from canaryflow.delivery.cluster import Cluster
from canaryflow.delivery.driver import Busy, Driver, Listener
from canaryflow.delivery.evidence import Evidence
from canaryflow.delivery.live import look
from canaryflow.delivery.outcome import arms
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.rollout import carry_out
from canaryflow.delivery.rollout_state import (
    COMMAND,
    Command,
    RolloutState,
    Verb,
    annotations_of,
    read_lease,
    read_state,
)
from canaryflow.errors import Conflict, InputError, PlatformError

_IDLE = ("live", "done", "first")
_ATTEMPTS = 20


@dataclass(frozen=True)
class Status:
    """How a SeldonDeployment and its rollout stand.

    Attributes:
        name: The SeldonDeployment.
        phase: "live" where there is no rollout, else the rollout's.
        main_version: What main serves.
        canary_version: What the canary serves; empty without one.
        weights: What the spec asks for, by predictor.
        gateway: What the gateway was told, by predictor.
        ready: Ready pods by predictor.
        step: "2 of 4", while it ramps.
        driver: Who drives it; empty where nobody does.
        paused_by: Who paused it; empty where nobody did.
        elapsed_seconds: How long it has been driven, without pauses.
        decision: How the last rollout ended; empty while it runs.
        reasons: Why.
        evidence: A line for each metric.
        waiting: The command that nobody has obeyed yet.
        events: (age in seconds, text), the newest last.
    """

    name: str
    phase: str
    main_version: str
    canary_version: str
    weights: dict[str, int]
    gateway: dict[str, int]
    ready: dict[str, int]
    step: str
    driver: str
    paused_by: str
    elapsed_seconds: float
    decision: str
    reasons: tuple[str, ...]
    evidence: tuple[str, ...]
    waiting: str
    events: tuple[tuple[float, str], ...]

    def lines(self) -> list[str]:
        """The status, ready to print."""
        facts = {
            "phase": f"{self.phase}{f' (step {self.step})' if self.step else ''}"
            + (f", paused by {self.paused_by}" if self.paused_by else ""),
            "main": f"{self.main_version or 'no version'}, {self._arm(seldon.MAIN)}",
            "canary": f"{self.canary_version}, {self._arm(seldon.CANARY)}" if self.canary_version else "none",
            "driven by": self.driver or "nobody",
            "waiting": self.waiting,
            "decision": ": ".join(filter(None, [self.decision, "; ".join(self.reasons)])),
        }
        lines = [f"{key + ':':<11}{value}" for key, value in facts.items() if value]
        lines += [f"{'evidence:':<11}{line}" for line in self.evidence]
        return [*lines, *(f"{age:9.1f} s {text}" for age, text in self.events)]

    def _arm(self, predictor: str) -> str:
        asked, told = self.weights.get(predictor, 0), self.gateway.get(predictor, 0)
        share = f"{told} % of traffic" + ("" if asked == told else f" (asked: {asked} %)")
        return f"{share}, {self.ready.get(predictor, 0)} ready"


def status(cluster: Cluster, name: str) -> Status:
    """Look at a SeldonDeployment and its rollout; nothing is changed.

    Args:
        cluster: Where it is.
        name: The SeldonDeployment.

    Raises:
        NotFound: There is none of that name.
        PlatformError: The cluster does not answer, or its annotations are not canaryflow's.
    """
    live = look(cluster, name)
    sdep = live.sdep
    state = read_state(sdep) or RolloutState()
    lease = read_lease(sdep)
    canary = seldon.find(sdep, seldon.CANARY)
    plan = RolloutPlan.from_dict(state.plan) if state.plan else RolloutPlan()
    return Status(
        name=name,
        phase=state.phase,
        main_version=seldon.version_of(seldon.main_of(sdep)),
        canary_version=seldon.version_of(canary) if canary else "",
        weights=seldon.weights(sdep),
        gateway=dict(live.weights),
        ready={arm: live.ready_replicas(arm) for arm in live.deployments},
        step=f"{state.step + 1} of {len(plan.steps)}" if state.phase == "ramp" else "",
        driver=lease.name if lease and lease.is_alive(time.time()) else "",
        paused_by=state.paused_by,
        elapsed_seconds=state.elapsed,
        decision=state.decision,
        reasons=tuple(state.reasons),
        evidence=tuple(_evidence(state, plan)),
        waiting=annotations_of(sdep).get(COMMAND, ""),
        events=tuple(state.events),
    )


def _evidence(state: RolloutState, plan: RolloutPlan) -> list[str]:
    if not state.evidence:
        return []
    summary = Evidence.from_dict(plan, state.evidence).summary()
    return [
        f"{metric}: {arms(numbers)}; E against {numbers['e_value']:.3g}, for {numbers['e_safe']:.3g}, "
        f"deciding at {numbers['threshold']:g}"
        for metric, numbers in summary.items()
    ]


def command(
    cluster: Cluster,
    name: str,
    verb: str,
    by: str,
    on_event: Listener = lambda event: None,
    clock: Clock | None = None,
) -> str:
    """Tell a rollout to pause, resume, promote or abort.

    Where a process drives the rollout, the command is left for it, and it obeys within about a second.
    Where none does, this process carries the command out itself: it needs no metrics.

    Args:
        cluster: Where it is.
        name: The SeldonDeployment.
        verb: pause, resume, promote or abort.
        by: Who asks; it is kept with the decision.
        on_event: Told of every event, where this process does it.
        clock: Time.

    Returns:
        One line that says what was done.

    Raises:
        InputError: The verb is none of the four.
        PlatformError: There is no rollout to command.
    """
    clock = clock or Clock()
    if verb not in get_args(Verb):
        raise InputError(f"rollout command: found {verb!r}, expected one of {', '.join(get_args(Verb))}")
    wanted = Command(cast("Verb", verb), by, clock.now())
    for _ in range(_ATTEMPTS):
        sdep = cluster.get(name)
        state = read_state(sdep) or RolloutState()
        if state.phase in _IDLE:
            raise PlatformError(
                f"SeldonDeployment {name}: no rollout is under way, there is nothing to {verb}"
            )
        try:
            _leave(cluster, name, sdep, wanted)
        except Conflict:
            continue
        lease = read_lease(sdep)
        if lease is not None and lease.is_alive(clock.now()):
            return f"{verb}: left for {lease.name}, which drives the rollout"
        return _carry_out(Driver(cluster, name, on_event, clock), verb)
    raise PlatformError(f"SeldonDeployment {name}: kept changing while a command was left; try again")


def _leave(cluster: Cluster, name: str, sdep: dict[str, Any], wanted: Command) -> None:
    version = sdep["metadata"]["resourceVersion"]
    path = "/metadata/annotations/" + COMMAND.replace("/", "~1")
    cluster.patch(
        name,
        [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": path, "value": wanted.dump()},
        ],
    )


def _carry_out(driver: Driver, verb: str) -> str:
    try:
        driver.acquire(patience=0.0)
    except Busy as error:
        return f"{verb}: left for the process that has just taken over ({error})"
    try:
        carry_out(driver)
    finally:
        driver.release()
    state = driver.state
    return f"{verb}: done; {state.decision if state.phase == 'done' else 'the rollout waits for a driver'}"
