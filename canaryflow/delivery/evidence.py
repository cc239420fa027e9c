"""What a rollout has observed, and what may be concluded from it at any moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from canaryflow.delivery.metrics import ArmCounters

Action = Literal["roll back", "promote", "continue"]


class EvidencePlan(Protocol):
    """The part of a rollout's plan that the evidence needs (`canaryflow.delivery.rollout.RolloutPlan` has it)."""

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
        action: "roll back", "promote" (the claim of non-inferiority is proved) or "continue".
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
    """

    def __init__(self, plan: EvidencePlan, latency_edge: float = 0.0) -> None:
        raise NotImplementedError

    def observe(self, before: Mapping[str, ArmCounters], after: Mapping[str, ArmCounters]) -> None:
        """Add what happened between two readings (keys "main" and "canary")."""
        raise NotImplementedError

    def decision(self) -> Decision:
        """What the evidence so far says; may be asked as often as one likes."""
        raise NotImplementedError

    def summary(self) -> dict[str, dict[str, float]]:
        """Per metric ("errors", "latency"): main_n, main_k, canary_n, canary_k, e_value (for a roll-back),
        e_safe (for promotion), upper_bound (of canary's rate minus main's), threshold (E to decide at).
        """
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The state, small enough for an annotation (under 4 kB as JSON)."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, plan: EvidencePlan, data: Mapping[str, Any]) -> Evidence:
        """Carry on from what `to_dict` wrote."""
        raise NotImplementedError


def choose_latency_edge(baseline: ArmCounters, share: float = 0.1) -> float:
    """The bucket edge (seconds) that at most ``share`` of main's own requests exceed."""
    raise NotImplementedError
