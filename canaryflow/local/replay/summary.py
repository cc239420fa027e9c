"""What a replay saw: requests, errors and latency, per predictor and per phase of a rollout."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Phase = Literal["before", "during", "after"]

MAIN = "main"
CANARY = "canary"
UNKNOWN = "unknown"
"""The arm of a request that no predictor answered, or whose predictor is not known."""

_PER_OCTAVE = 32
_MAX_EXAMPLES = 20


class Histogram:
    """Durations in logarithmic buckets, 2.2 % wide: small, mergeable, exact enough for percentiles."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()
        self._max = 0.0

    def add(self, seconds: float) -> None:
        """Count one duration."""
        self._counts[math.ceil(math.log2(max(seconds, 1e-6)) * _PER_OCTAVE)] += 1
        self._max = max(self._max, seconds)

    def merge(self, other: Histogram) -> None:
        """Take over what another histogram counted."""
        self._counts.update(other._counts)
        self._max = max(self._max, other._max)

    def quantile(self, share: float) -> float:
        """The duration in seconds that a share (0 to 1) of all stay at or under, rounded up; 0 when empty."""
        rank = math.ceil(share * self._counts.total())
        for bucket in sorted(self._counts):
            rank -= self._counts[bucket]
            if rank <= 0:
                return min(2 ** (bucket / _PER_OCTAVE), self._max)
        return 0.0

    def latency(self) -> Latency:
        """The usual percentiles in milliseconds."""
        p50, p90, p99 = (round(self.quantile(share) * 1e3, 3) for share in (0.5, 0.9, 0.99))
        return Latency(p50=p50, p90=p90, p99=p99, max=round(self._max * 1e3, 3))


@dataclass(frozen=True)
class Latency:
    """Percentiles in milliseconds; all 0 where nothing was counted."""

    p50: float
    p90: float
    p99: float
    max: float


@dataclass(frozen=True)
class ArmSummary:
    """What one predictor answered.

    Attributes:
        requests: How many requests.
        errors: How many of them had no answer of status 200 with a body.
        statuses: How many of each HTTP status, or of each reason why there was none ("TimeoutError").
        latency_ms: From the sending of a request to the last byte of its answer, failed ones included.
    """

    requests: int
    errors: int
    statuses: dict[str, int]
    latency_ms: Latency


@dataclass(frozen=True)
class FeedbackSummary:
    """What became of the truths.

    Attributes:
        sent: Accepted by the predictor's Service.
        errors: Refused, or not delivered.
        dropped: Never sent, since they came faster than they were taken.
        reason: The first error.
    """

    sent: int = 0
    errors: int = 0
    dropped: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Failure:
    """One failed request: when (seconds after the start), who answered, with what."""

    at: float
    arm: str
    status: str
    reason: str


@dataclass(frozen=True)
class ReplaySummary:
    """What a replay saw, so far or in all.

    Attributes:
        url: Where the requests went.
        seconds: How long it has run.
        requests: Requests that were answered or failed.
        errors: Those that failed.
        skipped: Requests that were never sent, since the client or the answers were more than a second late.
        lag_ms: How late requests were sent, against the schedule of the rate.
        arms: Per predictor that answered (`UNKNOWN` where none did).
        phases: The same per phase: before the first answer of the canary, during, and after its last one.
        feedback: What became of the truths.
        failures: The first failed requests.
        finished: False in a summary of a replay that still runs.
    """

    url: str
    seconds: float
    requests: int
    errors: int
    skipped: int
    lag_ms: Latency
    arms: dict[str, ArmSummary]
    phases: dict[Phase, dict[str, ArmSummary]]
    feedback: FeedbackSummary
    failures: tuple[Failure, ...]
    finished: bool

    @property
    def rate(self) -> float:
        """Requests a second, as achieved."""
        return self.requests / self.seconds if self.seconds else 0.0

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form; `from_dict` reads it back."""
        return asdict(self) | {"rate": round(self.rate, 1)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ReplaySummary:
        """Read what `to_dict` wrote."""
        values = {name: value for name, value in data.items() if name != "rate"}
        return cls(
            **values
            | {
                "lag_ms": Latency(**data["lag_ms"]),
                "arms": _arms(data["arms"]),
                "phases": {phase: _arms(arms) for phase, arms in data["phases"].items()},
                "feedback": FeedbackSummary(**data["feedback"]),
                "failures": tuple(Failure(**failure) for failure in data["failures"]),
            }
        )


def _arms(data: Mapping[str, Any]) -> dict[str, ArmSummary]:
    return {
        name: ArmSummary(**{**arm, "latency_ms": Latency(**arm["latency_ms"])}) for name, arm in data.items()
    }


class _Tally:
    def __init__(self) -> None:
        self.requests = 0
        self.errors = 0
        self.statuses: Counter[str] = Counter()
        self.latency = Histogram()

    def add(self, status: str, failed: bool, seconds: float) -> None:
        self.requests += 1
        self.errors += failed
        self.statuses[status] += 1
        self.latency.add(seconds)

    def merge(self, other: _Tally) -> None:
        self.requests += other.requests
        self.errors += other.errors
        self.statuses.update(other.statuses)
        self.latency.merge(other.latency)

    def summary(self) -> ArmSummary:
        return ArmSummary(self.requests, self.errors, dict(self.statuses), self.latency.latency())


@dataclass
class Traffic:
    """Counts answers as they come. Memory does not grow with their number."""

    failures: list[Failure] = field(default_factory=list)
    _phases: dict[Phase, dict[str, _Tally]] = field(default_factory=lambda: {"before": {}})

    def add(self, arm: str, status: str, failed: bool, seconds: float) -> None:
        """Count one answer.

        That the canary is gone is only known when it answers no more: what others answer after it counts as
        "after" until the canary speaks again.
        """
        phase: Phase = "before" if "during" not in self._phases else "after"
        if arm == CANARY:
            phase = "during"
            during = self._phases.setdefault("during", {})
            for name, tally in self._phases.pop("after", {}).items():
                during.setdefault(name, _Tally()).merge(tally)
        self._phases.setdefault(phase, {}).setdefault(arm, _Tally()).add(status, failed, seconds)

    def fail(self, at: float, arm: str, status: str, reason: str) -> None:
        """Keep one of the first failures as an example."""
        if len(self.failures) < _MAX_EXAMPLES:
            self.failures.append(Failure(round(at, 3), arm, status, reason))

    def arms(self) -> dict[str, ArmSummary]:
        """What each predictor answered in all."""
        total: dict[str, _Tally] = {}
        for tallies in self._phases.values():
            for name, tally in tallies.items():
                total.setdefault(name, _Tally()).merge(tally)
        return {name: tally.summary() for name, tally in sorted(total.items())}

    def phases(self) -> dict[Phase, dict[str, ArmSummary]]:
        """The same per phase."""
        return {
            phase: {name: tally.summary() for name, tally in sorted(tallies.items())}
            for phase, tallies in self._phases.items()
        }
