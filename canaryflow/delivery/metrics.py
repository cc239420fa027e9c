"""What users were answered, per arm: cumulative counters, and the small interface through which they come."""

from __future__ import annotations

import json
import re
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from canaryflow.delivery import dialects
from canaryflow.delivery.dialects import ARMS, Dialect, Tally
from canaryflow.delivery.exposition import Sample, parse
from canaryflow.delivery.fetch import fetch_text
from canaryflow.errors import InputError, PlatformError

ISTIO_PROMETHEUS = "http://prometheus.istio-system:9090"
"""Where Istio's Prometheus add-on is found in a cluster, unless ``metrics_url`` says otherwise."""
TIMEOUT_SECONDS = 5.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


class MetricsUnavailable(PlatformError):  # noqa: N818 - a state of affairs, like NotFound
    """The metrics cannot be read now (gone, slow, wrong answer): no evidence for either side, so hold."""


@dataclass(frozen=True)
class ArmCounters:
    """Cumulative counters of one arm (predictor) since its series were born.

    Attributes:
        requests: Requests answered, whatever the answer.
        errors: Those answered 5xx (by the model, or by the gateway in its place).
        buckets: A latency histogram: (upper edge in seconds, requests at or under it), edges rising, counts
            cumulative, the last edge infinite. Empty where the source has no histogram.
    """

    requests: int = 0
    errors: int = 0
    buckets: tuple[tuple[float, int], ...] = ()


def difference(before: Mapping[str, ArmCounters], after: Mapping[str, ArmCounters], arm: str) -> ArmCounters:
    """What an arm got between two readings; after a reset, what it got since.

    Args:
        before: The earlier reading, by predictor; an arm that it does not know counts from 0.
        after: The later one; an arm that it does not know got nothing.
        arm: Which.
    """
    old, new = before.get(arm, ArmCounters()), after.get(arm, ArmCounters())
    if new.requests < old.requests or new.errors < old.errors:
        return new
    known = dict(old.buckets)
    buckets = tuple((edge, max(0, count - known.get(edge, 0))) for edge, count in new.buckets)
    return ArmCounters(new.requests - old.requests, new.errors - old.errors, buckets)


class MetricSource(Protocol):
    """Where a rollout reads its counters."""

    def read(self) -> dict[str, ArmCounters]:
        """The counters now, by predictor name; a predictor without series is absent.

        Raises:
            MetricsUnavailable: Nothing trustworthy can be read now.
        """
        ...


class ScrapedMetrics:
    """Counters read from pages in Prometheus' text format.

    Args:
        urls: One page for each process (never a Service over several pods: each scrape would meet another).
        dialect: How the pages name things.
        timeout: Seconds for each page in all, its last byte included.
    """

    def __init__(self, urls: Sequence[str], dialect: Dialect, timeout: float = TIMEOUT_SECONDS) -> None:
        self._urls, self._dialect, self._timeout = tuple(urls), dialect, timeout
        self._tally = Tally(dialect)

    def read(self) -> dict[str, ArmCounters]:
        """Scrape all pages; see `MetricSource.read`."""
        for url in self._urls:
            with _doubt(url):
                self._tally.add(parse(fetch_text(url, self._timeout), self._dialect.names), url)
        return _arms(self._tally, self._urls[0])


class PrometheusMetrics:
    """Counters read from a Prometheus server, all series in one query (one instant).

    Args:
        url: The server's base, without ``/api/v1``.
        dialect: How its series are named.
        timeout: Seconds for a query in all.
    """

    def __init__(self, url: str, dialect: Dialect, timeout: float = TIMEOUT_SECONDS) -> None:
        query = urllib.parse.urlencode({"query": dialect.selector, "timeout": f"{timeout:g}s"})
        self._url, self._timeout = f"{url.rstrip('/')}/api/v1/query?{query}", timeout
        self._base, self._tally = url, Tally(dialect)

    def read(self) -> dict[str, ArmCounters]:
        """Query all series; see `MetricSource.read`."""
        with _doubt(self._base):
            self._tally.add(_vector(fetch_text(self._url, self._timeout)))
        return _arms(self._tally, self._base)


def connect_metrics(metrics_url: str, platform: str, namespace: str, name: str) -> MetricSource:
    """The source for a SeldonDeployment.

    Args:
        metrics_url: ``[dialect+]http(s)://...``, or empty for the platform's own. Dialects: ``istio`` and
            ``seldon`` (base address of a Prometheus server), ``envoy`` and ``server`` (pages to scrape,
            several with commas between). Without one it is ``istio`` on Kubernetes, else ``envoy``.
        platform: "kubernetes", or the address of the one-machine platform.
        namespace: The SeldonDeployment's namespace.
        name: Its name.

    Raises:
        InputError: The address, the dialect or a name cannot be used.
    """
    for value, what in ((namespace, "namespace"), (name, "name")):
        if not _NAME.fullmatch(value):
            raise InputError(f"metrics: {what} {value!r}, expected lower-case letters, digits and '-'")
    own = platform == "kubernetes"
    url = metrics_url or (ISTIO_PROMETHEUS if own else f"{platform.rstrip('/')}/gateway/metrics")
    scheme, separator, _ = url.partition("://")
    dialect, plus, _ = scheme.rpartition("+")
    if not plus:
        dialect = "istio" if own else "envoy"
    known: dict[str, Callable[[str, str], Dialect]] = {
        "istio": dialects.istio,
        "seldon": dialects.seldon,
        "envoy": dialects.envoy,
        "server": dialects.server,
    }
    if not separator or dialect not in known:
        raise InputError(f"metrics_url: found {url!r}, expected [{'|'.join(known)}+]http(s)://...")
    address = url.removeprefix(f"{dialect}+")
    spoken = known[dialect](namespace, name)
    if dialect in ("istio", "seldon"):
        return PrometheusMetrics(_checked(address), spoken)
    return ScrapedMetrics([_checked(page.strip()) for page in address.split(",")], spoken)


def _checked(url: str) -> str:
    try:
        parts = urllib.parse.urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError(f"metrics_url: found {url!r}, expected http(s)://host[:port][/path]")
    return url


def _arms(tally: Tally, origin: str) -> dict[str, ArmCounters]:
    with _doubt(origin):
        counts = {arm: tally.counts(arm) for arm in ARMS}
        return {arm: ArmCounters(*found) for arm, found in counts.items() if found is not None}


@contextmanager
def _doubt(origin: str) -> Iterator[None]:
    """Whatever cannot be fetched, read or believed is no evidence."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise MetricsUnavailable(f"metrics at {origin}: {error}") from error


def _vector(text: str) -> list[Sample]:
    """The samples of an instant query's answer (Prometheus' HTTP API, result type "vector")."""
    answer = json.loads(text)
    if answer["status"] != "success" or answer["data"]["resultType"] != "vector":
        raise ValueError(f"found {text[:200]!r}, expected a successful instant vector")
    samples = []
    for series in answer["data"]["result"]:
        labels = {str(key): str(value) for key, value in series["metric"].items()}
        samples.append(Sample(labels.pop("__name__"), labels, float(series["value"][1])))
    return samples
