"""What a rollout has observed, and what may be concluded from it at any moment.

Two metrics are compared between the arms, errors and slow answers, each by two tests of
`canaryflow.delivery.sequential`: one that the canary is worse (roll back), one that it is not worse by the
margin (promote). An absolute objective for the canary's error rate stands beside them. All may be watched for
ever.

alpha is the chance that a canary as good as main is ever rolled back. It is split: 45 % each for errors and
for latency, 10 % for the objective. Promotion needs the proof of every metric at once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from canaryflow.delivery.comparison import Comparison, Objective
from canaryflow.delivery.metrics import ArmCounters, difference
from canaryflow.delivery.sequential import Block, NonInferiority, TwoSampleTest
from canaryflow.errors import InputError

__all__ = [
    "Action",
    "Block",
    "Decision",
    "Evidence",
    "EvidencePlan",
    "NonInferiority",
    "TwoSampleTest",
    "choose_latency_edge",
]

Action = Literal["roll back", "promote", "continue"]

MAIN, CANARY = "main", "canary"
MINIMUM_REQUESTS = 500
"""No promotion before the canary has answered this many, whatever the tests say."""
COMPARED_SHARE, OBJECTIVE_SHARE = 0.9, 0.1
"""How alpha is split: the first in equal parts over the compared metrics."""
ERROR_TOLERANCE, LATENCY_TOLERANCE = 0.05, 1.0
"""The part of the margin that is no reason to roll back: a rare stray error, a canary that is colder."""
LATENCY_DISPERSION = (4.0, 2.0)
"""How many requests count as one for latency: a burst or a pause makes neighbours slow together. More to roll
back, which alpha is promised for, than to promote."""


class EvidencePlan(Protocol):
    """The part of a rollout's plan that the evidence needs."""

    @property
    def alpha(self) -> float: ...  # noqa: D102
    @property
    def error_margin(self) -> float: ...  # noqa: D102
    @property
    def latency_margin(self) -> float: ...  # noqa: D102
    @property
    def max_error_rate(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Decision:
    """What the evidence says now.

    Attributes:
        action: "roll back", "promote" (every claim of non-inferiority is proved) or "continue".
        reasons: One sentence each, ready for a report; never empty.
    """

    action: Action
    reasons: tuple[str, ...]


class Evidence:
    """The tests of one rollout: errors and latency, main against canary, and the absolute objective.

    Args:
        plan: Margins and alpha.
        latency_edge: The histogram edge in seconds whose exceedance is compared (`choose_latency_edge`);
            0 compares errors alone.

    Raises:
        InputError: alpha is not in (0, 1), or a margin not in [0, 1).
    """

    def __init__(self, plan: EvidencePlan, latency_edge: float = 0.0) -> None:
        _check(plan)
        self._edge = latency_edge
        alpha = plan.alpha * COMPARED_SHARE / (2 if latency_edge else 1)
        margin, slow = plan.error_margin, plan.latency_margin
        self._comparisons = [Comparison("errors", "errors", ERROR_TOLERANCE * margin, margin, alpha)]
        if latency_edge:
            events = f"answers slower than {1000 * latency_edge:g} ms"
            tolerance = LATENCY_TOLERANCE * slow
            self._comparisons.append(
                Comparison("latency", events, tolerance, slow, alpha, LATENCY_DISPERSION)
            )
        self._objective = Objective(plan.max_error_rate, plan.alpha * OBJECTIVE_SHARE)

    def observe(self, before: Mapping[str, ArmCounters], after: Mapping[str, ArmCounters]) -> None:
        """Add what happened between two readings (keys "main" and "canary").

        A counter that fell was reset and counts from 0; an arm or a histogram that ``before`` does not know
        was born since, and counts from 0 too; one that ``after`` does not know tells nothing; nor does a
        reading that contradicts itself (more errors than requests).
        """
        seen = {arm: difference(before, after, arm) for arm in (MAIN, CANARY)}
        errors = {arm: (counters.requests, counters.errors) for arm, counters in seen.items()}
        if _add(self._comparisons[0], errors):
            self._objective.test.update(*errors[CANARY])
        if self._edge:
            _add(
                self._comparisons[1],
                {arm: _slow(before.get(arm), after.get(arm), self._edge) for arm in (MAIN, CANARY)},
            )

    def decision(self) -> Decision:
        """What the evidence so far says; may be asked as often as one likes."""
        worse = [comparison.proof_of_worse() for comparison in self._comparisons if comparison.is_worse]
        totals = self._comparisons[0].totals
        broken = self._objective.against(totals)
        if worse or broken:
            return Decision("roll back", tuple(worse + broken))
        missing = self._objective.unproved(totals)
        if totals[2] < MINIMUM_REQUESTS:
            missing.append(f"the canary answered {totals[2]:,} requests, {MINIMUM_REQUESTS:,} are needed")
        proofs = [comparison.state_of_proof() for comparison in self._comparisons]
        if missing or not all(comparison.is_safe for comparison in self._comparisons):
            return Decision("continue", tuple(missing + proofs))
        return Decision("promote", tuple(proofs))

    def summary(self) -> dict[str, dict[str, float]]:
        """The numbers behind the decision, by metric ("errors", "latency").

        Each has main_n, main_k, canary_n, canary_k (counts), e_value (that the canary is worse), e_safe (that
        it is not worse by the margin), threshold (both decide at it) and upper_bound (of canary's rate minus
        main's).
        """
        return {comparison.name: comparison.numbers() for comparison in self._comparisons}

    def to_dict(self) -> dict[str, Any]:
        """The state, small enough for an annotation (under 6 kB as JSON)."""
        data: dict[str, Any] = {"edge": self._edge, "objective": self._objective.test.to_dict()}
        for comparison in self._comparisons:
            data[comparison.name] = comparison.to_dict()
        return data

    @classmethod
    def from_dict(cls, plan: EvidencePlan, data: Mapping[str, Any]) -> Evidence:
        """Carry on from what `to_dict` wrote.

        Raises:
            InputError: The state is not one of this plan's evidence.
        """
        try:
            evidence = cls(plan, float(data["edge"]))
            for comparison in evidence._comparisons:
                comparison.restore(data[comparison.name])
            evidence._objective.test.restore(data["objective"])
        except (KeyError, TypeError, ValueError) as error:
            wanted = "expected what Evidence.to_dict wrote"
            raise InputError(f"the rollout's saved evidence: found {error!r}, {wanted}") from error
        return evidence


def choose_latency_edge(baseline: ArmCounters, share: float = 0.2, least: float = 0.001) -> float:
    """The edge above which an answer is slow: the least that at most ``share`` of main's answers exceed.

    Args:
        baseline: Main's own histogram (what it counted before the ramp).
        share: In (0, 1); near the middle a small shift shows most, far from it only what is really slow.
        least: Edges under this (seconds) are passed over: gateways count whole milliseconds, and what is
            faster is the scheduler's doing more than the model's.

    Returns:
        The edge in seconds; the last finite one where more than ``share`` of the answers exceed them all.

    Raises:
        InputError: There is no histogram, or nothing in it.
    """
    finite = [(edge, count) for edge, count in baseline.buckets if math.isfinite(edge)]
    edges = [(edge, count) for edge, count in finite if edge >= least] or finite[-1:]
    total = max((count for _, count in baseline.buckets), default=0)
    if not edges or not total:
        raise InputError("main's latency histogram: found it empty, expected answers to choose the edge from")
    return next((edge for edge, count in edges if total - count <= share * total), edges[-1][0])


def _check(plan: EvidencePlan) -> None:
    for name, value, low, high in (
        ("alpha", plan.alpha, 1e-12, 1 - 1e-12),
        ("error_margin", plan.error_margin, 0.0, 0.99),
        ("latency_margin", plan.latency_margin, 0.0, 0.99),
        ("max_error_rate", plan.max_error_rate, 0.0, 1.0),
    ):
        if not low <= value <= high:
            raise InputError(f"{name}: found {value}, expected a number from {low:g} to {high:g}")


def _add(comparison: Comparison, arms: Mapping[str, tuple[int, int]]) -> bool:
    """Add a block unless it contradicts itself."""
    sound = all(0 <= k <= n for n, k in arms.values())
    if sound:
        comparison.update(Block(*arms[MAIN], *arms[CANARY]))
    return sound


def _slow(before: ArmCounters | None, after: ArmCounters | None, edge: float) -> tuple[int, int]:
    """Answers and those above the edge of one arm between two readings."""
    new = _over(after, edge)
    if new is None:
        return 0, 0
    old = _over(before, edge) or (0, 0)
    if new[0] < old[0] or new[1] < old[1]:
        return new
    return new[0] - old[0], new[1] - old[1]


def _over(counters: ArmCounters | None, edge: float) -> tuple[int, int] | None:
    if counters is None or not counters.buckets:
        return None
    total = counters.buckets[-1][1]
    under = next((count for at, count in counters.buckets if math.isclose(at, edge, rel_tol=1e-9)), None)
    return None if under is None else (total, total - under)
