"""What a rollout sees at each look: counters in, evidence and samples for the report out."""

from __future__ import annotations

import math
from collections.abc import Mapping

from canaryflow.delivery.driver import Driver
from canaryflow.delivery.evidence import Decision, Evidence, choose_latency_edge
from canaryflow.delivery.metrics import ArmCounters, MetricSource, MetricsUnavailable, difference
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.delivery.seldon import CANARY, MAIN

_OWN_SHARE = 0.5  # a step is full only when the canary got at least this part of its share of the requests


class Observer:
    """Reads the metrics, and keeps the evidence in the driver's state.

    Args:
        driver: Whose state it is.
        plan: The claims.
        metrics: Where the counters come from.
    """

    def __init__(self, driver: Driver, plan: RolloutPlan, metrics: MetricSource) -> None:
        self._driver = driver
        self._plan = plan
        self._metrics = metrics
        self._before: Mapping[str, ArmCounters] | None = None
        self._evidence: Evidence | None = None

    def find_objective(self) -> bool:
        """Look at main alone; True once enough was seen, and the latency objective is set."""
        state, plan = self._driver.state, self._plan
        now = self._read()
        if now is None:
            return False
        if self._before is None:
            self._before = now
        seen = difference(self._before, now, MAIN)
        if seen.requests < plan.step_requests or state.paused_by:
            return False
        state.latency_edge = _edge(seen, plan.latency_objective_ms / 1000)
        self._evidence = Evidence(plan, state.latency_edge)
        state.evidence = self._evidence.to_dict()
        self._sample(0)
        self._before = now
        return True

    def start(self) -> None:
        """Take the counters from which the next look counts, where this process has none yet."""
        if self._before is None:
            self._before = self._read()

    def look(self, weight: int) -> bool:
        """Add what happened since the last look; False when the metrics could not be read now or then."""
        before, after = self._before, self._read()
        if before is None or after is None:
            self._before = before or after
            return False
        state = self._driver.state
        evidence = self._current()
        evidence.observe(before, after)
        self._before = after
        state.evidence = evidence.to_dict()
        for arm in (MAIN, CANARY):
            requests = difference(before, after, arm).requests
            state.step_requests[arm] = state.step_requests.get(arm, 0) + requests
        self._sample(weight)
        return True

    def _sample(self, weight: int) -> None:
        """Keep what is known now, for the report."""
        self._driver.pass_time()
        looks = {}
        for metric, numbers in self._current().summary().items():
            counts = [int(numbers[key]) for key in ("main_n", "main_k", "canary_n", "canary_k")]
            looks[metric] = [*counts, _log10(numbers["e_value"]), _log10(numbers["e_safe"])]
        state = self._driver.state
        state.sample({"t": round(state.age, 2), "weight": weight, "metrics": looks})

    def decision(self) -> Decision:
        """What the evidence says; "continue" while there is none."""
        if not self._driver.state.evidence:
            return Decision("continue", ("main had too few requests to begin with",))
        return self._current().decision()

    def step_is_full(self, weight: int) -> bool:
        """Whether this step has seen its requests, and the canary its share of them."""
        seen = self._driver.state.step_requests
        share = self._plan.step_requests * weight / 100
        return sum(seen.values()) >= self._plan.step_requests and seen.get(CANARY, 0) >= _OWN_SHARE * share

    def _current(self) -> Evidence:
        if self._evidence is None:
            self._evidence = Evidence.from_dict(self._plan, self._driver.state.evidence)
        return self._evidence

    def _read(self) -> Mapping[str, ArmCounters] | None:
        try:
            return self._metrics.read()
        except MetricsUnavailable as error:
            self._driver.note(f"no metrics: {error}")
            return None


def _edge(baseline: ArmCounters, objective: float) -> float:
    """The histogram's edge that is judged: the nearest to the objective, or one from main's own latencies."""
    edges = [edge for edge, _ in baseline.buckets if 0 < edge < math.inf]
    if not edges:
        return 0.0
    if objective > 0:
        return min(edges, key=lambda edge: abs(math.log(edge / objective)))
    return choose_latency_edge(baseline)


def _log10(value: float) -> float:
    return round(math.log10(min(max(value, 1e-300), 1e300)), 3)
