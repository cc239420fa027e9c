"""What a person asks of a rollout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from canaryflow.errors import InputError

OnInconclusive = Literal["rollback", "pause", "promote"]


@dataclass(frozen=True)
class RolloutPlan:
    """The ramp, the claims that the canary must hold, and the limits.

    Attributes:
        steps: The canary's weights in percent, rising, each 1 to 99; 100 is the promotion and is not a step.
        step_requests: Requests that both arms together must have answered before a step ends; before the
            ramp, as many of main's give the latency objective.
        interval_seconds: Time between two looks at the metrics.
        alpha: Chance of rolling back a canary that is as good as main, for the whole rollout and all metrics.
        error_margin: How much higher than main's the canary's error rate may be (a rate, 0.01 is one in a
            hundred).
        latency_objective_ms: A request above this is slow; 0 takes it from main's own histogram before the
            ramp.
        latency_margin: How much higher than main's the canary's share of slow requests may be.
        max_error_rate: The canary's error rate must stay under this, whatever main's is.
        max_minutes: Time that the rollout may take, not counting the time it was paused by a person.
        on_inconclusive: What happens when that time is over and nothing is proved.

    Raises:
        InputError: A value is out of its range.
    """

    steps: tuple[int, ...] = (5, 10, 25, 50)
    step_requests: int = 1000
    interval_seconds: float = 10.0
    alpha: float = 0.01
    error_margin: float = 0.01
    latency_objective_ms: float = 0.0
    latency_margin: float = 0.1
    max_error_rate: float = 0.05
    max_minutes: float = 60.0
    on_inconclusive: OnInconclusive = "rollback"

    def __post_init__(self) -> None:
        object.__setattr__(self, "steps", tuple(self.steps))
        steps = self.steps
        whole = all(
            isinstance(step, int) and not isinstance(step, bool) and 1 <= step <= 99 for step in steps
        )
        if not steps or not whole or list(steps) != sorted(set(steps)) or len(steps) > 50:
            raise InputError(
                f"canary_steps: found {list(steps)}, "
                "expected rising whole percentages from 1 to 99, such as [5, 10, 25, 50]"
            )
        _within("step_requests", self.step_requests, 1, 1e9)
        _within("interval_seconds", self.interval_seconds, 0.01, 3600)
        _within("alpha", self.alpha, 1e-9, 0.5)
        _within("error_margin", self.error_margin, 0, 0.5)
        _within("latency_objective_ms", self.latency_objective_ms, 0, 3.6e6)
        _within("latency_margin", self.latency_margin, 0, 0.9)
        _within("max_error_rate", self.max_error_rate, 0, 1)
        _within("max_minutes", self.max_minutes, 0.001, 60 * 24 * 30)
        if self.on_inconclusive not in get_args(OnInconclusive):
            raise InputError(
                f"on_inconclusive: found {self.on_inconclusive!r}, "
                f"expected one of {', '.join(get_args(OnInconclusive))}"
            )

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` reads it back."""
        return asdict(self) | {"steps": list(self.steps)}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> RolloutPlan:
        """The plan that a pipeline's parameters ask for; those that are not the rollout's are left alone.

        KFP has one kind of number: a step of 5 arrives as 5.0.

        Raises:
            InputError: A value is out of its range.
        """
        values = {field.name: parameters[field.name] for field in fields(cls) if field.name in parameters}
        if "canary_steps" in parameters:
            values["steps"] = tuple(
                int(step) if isinstance(step, float) and step.is_integer() else step
                for step in parameters["canary_steps"]
            )
        if "step_requests" in values:
            values["step_requests"] = int(values["step_requests"])
        return cls(**values)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RolloutPlan:
        """Read what `to_dict` wrote.

        Raises:
            InputError: A key is unknown, or a value out of its range.
        """
        unknown = sorted(set(data) - {field.name for field in fields(cls)})
        if unknown:
            raise InputError(f"rollout plan: unknown {', '.join(unknown)} in {json.dumps(dict(data))[:200]}")
        return cls(**dict(data))


def _within(name: str, value: float, lowest: float, highest: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not lowest <= value <= highest:
        raise InputError(f"{name}: found {value!r}, expected a number from {lowest:g} to {highest:g}")
