"""How each source names the same things: requests, their status, their times, and the arm they went to."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise

from canaryflow.delivery.exposition import Sample

ARMS = ("main", "canary")


@dataclass(frozen=True)
class Dialect:
    """One source's names.

    Attributes:
        requests: The counter of requests, full name.
        buckets: The histogram's buckets, full name.
        code: The label with the HTTP status.
        arm: The label that tells the arm.
        values: That label's value for each arm.
        where: What other labels must say.
        per_second: The unit of the histogram's edges: 1 for seconds, 1000 for milliseconds.
    """

    requests: str
    buckets: str
    code: str
    arm: str
    values: Mapping[str, str]
    where: Mapping[str, str] = field(default_factory=dict)
    per_second: float = 1.0

    @property
    def names(self) -> tuple[str, str]:
        """Both metrics' names."""
        return self.requests, self.buckets

    @property
    def selector(self) -> str:
        """Both metrics in one PromQL selector, so that one query sees them at one instant."""
        arms = "|".join(self.values.values())
        others = "".join(f',{label}="{value}"' for label, value in self.where.items())
        return f'{{__name__=~"{self.requests}|{self.buckets}",{self.arm}=~"{arms}"{others}}}'


def envoy(namespace: str, name: str) -> Dialect:
    """Envoy's own statistics, scraped; its clusters are named ``<namespace>/<name>/<predictor>``."""
    return Dialect(
        "envoy_cluster_upstream_rq",
        "envoy_cluster_upstream_rq_time_bucket",
        "envoy_response_code",
        "envoy_cluster_name",
        {arm: f"{namespace}/{name}/{arm}" for arm in ARMS},
        per_second=1000.0,
    )


def istio(namespace: str, name: str) -> Dialect:
    """Istio's standard metrics as the gateway reports them (``reporter="source"``).

    The arm is told by the Service, not the workload: a request that no pod could take has no known workload.
    """
    return Dialect(
        "istio_requests_total",
        "istio_request_duration_milliseconds_bucket",
        "response_code",
        "destination_service_name",
        {arm: f"{name}-{arm}" for arm in ARMS},
        {"destination_service_namespace": namespace, "reporter": "source"},
        per_second=1000.0,
    )


def seldon(namespace: str, name: str) -> Dialect:
    """Seldon's executor in Prometheus (the PodMonitor adds the namespace); our server speaks the same."""
    return _seldon({"deployment_name": name, "namespace": namespace, "service": "predictions"})


def server(namespace: str, name: str) -> Dialect:
    """The same, scraped from the pod itself, which does not name its namespace."""
    return _seldon({"deployment_name": name, "service": "predictions"})


def _seldon(where: Mapping[str, str]) -> Dialect:
    metric = "seldon_api_executor_server_requests_seconds"
    values = {arm: arm for arm in ARMS}
    return Dialect(f"{metric}_count", f"{metric}_bucket", "code", "predictor_name", values, where)


class Tally:
    """Counters of single series, added up per arm so that the sums never fall.

    A sum of series cannot tell a restarted pod from a loss; single series can: one that falls was reset and
    counts from 0, one that vanishes keeps what it had, one that is born counts from 0.

    Args:
        dialect: How to read the samples.
    """

    MOST_SERIES = 100_000

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._series: dict[tuple[object, ...], tuple[float, float]] = {}

    def add(self, samples: Iterable[Sample], origin: str = "") -> None:
        """Take in one reading.

        Args:
            samples: The present values.
            origin: Tells apart sources whose series have equal labels.

        Raises:
            ValueError: A value is no count (NaN, negative, a fraction), an edge no number; too many series.
        """
        fresh: dict[tuple[object, ...], float] = {}
        for sample in samples:
            key = self._key(sample, origin)
            if key is None:
                continue
            if not (sample.value >= 0 and float(sample.value).is_integer()):
                raise ValueError(
                    f"{sample.name}{dict(sample.labels)}: found {sample.value}, expected a count"
                )
            fresh[key] = sample.value
        if len(self._series.keys() | fresh.keys()) > self.MOST_SERIES:
            raise ValueError(f"found more than {self.MOST_SERIES:,} series, expected fewer")
        for key, value in fresh.items():
            last, total = self._series.get(key, (0.0, 0.0))
            self._series[key] = value, total + (value - last if value >= last else value)

    def counts(self, arm: str) -> tuple[int, int, tuple[tuple[float, int], ...]] | None:
        """Requests, errors (5xx) and latency buckets of an arm since its birth; None without series.

        Raises:
            ValueError: The buckets do not rise.
        """
        requests = errors = 0.0
        edges: dict[float, list[float]] = {}
        known = False
        for (series_arm, kind, what, *_), (_, total) in self._series.items():
            if series_arm != arm:
                continue
            known = True
            if kind == "le":
                edges.setdefault(float(str(what)), []).append(total)
            else:
                requests += total
                errors += total if str(what).startswith("5") else 0
        return (int(requests), int(errors), _histogram(edges)) if known else None

    def _key(self, sample: Sample, origin: str) -> tuple[object, ...] | None:
        """What identifies a wanted series: arm, kind, edge or status, and the rest; None for any other."""
        dialect, labels = self._dialect, sample.labels
        told = labels.get(dialect.arm)
        arm = next((arm for arm, value in dialect.values.items() if value == told), None)
        if arm is None or any(labels.get(label) != value for label, value in dialect.where.items()):
            return None
        rest = (origin, *sorted(labels.items()))
        if sample.name == dialect.requests:
            return arm, "code", labels.get(dialect.code, ""), rest
        if sample.name == dialect.buckets:
            edge = float(labels.get("le", "nan")) / dialect.per_second
            if math.isnan(edge):
                raise ValueError(f"{sample.name}{dict(labels)}: found no edge, expected the label le")
            return arm, "le", edge, rest
        return None


def _histogram(edges: Mapping[float, list[float]]) -> tuple[tuple[float, int], ...]:
    """Sum the series at the edges that all of them have."""
    if not edges:
        return ()
    most = max(len(counts) for counts in edges.values())
    summed = [(edge, int(sum(counts))) for edge, counts in sorted(edges.items()) if len(counts) == most]
    for (_, lower), (edge, upper) in pairwise(summed):
        if upper < lower:
            raise ValueError(f"histogram: found {upper} at the edge {edge:g} s, expected at least {lower}")
    return tuple(summed) if summed and math.isinf(summed[-1][0]) else ()
