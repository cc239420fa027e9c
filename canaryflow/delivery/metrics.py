"""What users were answered, per arm: cumulative counters, and the one small interface through which they come."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from canaryflow.errors import PlatformError


class MetricsUnavailable(PlatformError):  # noqa: N818 - a state of affairs, like NotFound
    """The metrics cannot be read now (gone, slow, wrong answer): no evidence for either side, so hold."""


@dataclass(frozen=True)
class ArmCounters:
    """Cumulative counters of one arm (predictor) since its series were born.

    Attributes:
        requests: Requests answered, whatever the answer.
        errors: Those answered 5xx, or not at all.
        buckets: A latency histogram: (upper edge in seconds, requests at or under it), edges rising, counts
            cumulative, the last edge infinite. Empty where the source has no histogram.
    """

    requests: int = 0
    errors: int = 0
    buckets: tuple[tuple[float, int], ...] = ()


class MetricSource(Protocol):
    """Where a rollout reads its counters."""

    def read(self) -> dict[str, ArmCounters]:
        """The counters now, by predictor name; a predictor without series is absent.

        Raises:
            MetricsUnavailable: Nothing trustworthy can be read now.
        """
        ...


def connect_metrics(metrics_url: str, platform: str, namespace: str, name: str) -> MetricSource:
    """The source for a SeldonDeployment: ``metrics_url``, or the platform's own when that is empty."""
    raise NotImplementedError
