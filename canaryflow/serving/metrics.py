"""What the server counts, and its text for Prometheus.

Requests and their times carry the names, labels and buckets of Seldon's executor, so that dashboards made for
it work with and without it.
"""

from __future__ import annotations

import os
import resource
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

from canaryflow.bundle.format import Manifest

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_REQUESTS = "seldon_api_executor_server_requests_seconds"
_HELP = {
    _REQUESTS: "Time to answer a request, in seconds, as Seldon's executor names it.",
    "canaryflow_rows": "Rows that were scored.",
    "canaryflow_predictions": "Rows by the class that was answered.",
    "canaryflow_prediction_value_sum": "Sum of the numbers that were answered (regression).",
    "canaryflow_errors": "Requests that were refused or failed, by reason.",
    "canaryflow_unknown_categories": "Values that training had not seen, by feature.",
    "canaryflow_out_of_range": "Numbers outside of the range that training knew, by feature.",
    "canaryflow_feedback": "Feedback rows by truth and answer.",
    "canaryflow_feedback_absolute_error_sum": "Sum of the distances between answer and truth (regression).",
    "canaryflow_feedback_squared_error_sum": "Sum of their squares (regression).",
    "canaryflow_feedback_rows": "Feedback rows that were counted.",
    "canaryflow_feedback_foreign": "Feedback on the answers of another version; not counted otherwise.",
    "seldon_api_model_feedback": "Feedback messages, as Seldon names it.",
    "seldon_api_model_feedback_reward": "Sum of their rewards, as Seldon names it.",
}


class _Histogram:
    """Counts by bucket (not cumulative), the last beyond all edges, and the sum of seconds."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0


class Metrics:
    """All counters of one server.

    Args:
        labels: Constant labels in Seldon's words: deployment_name, predictor_name.
    """

    def __init__(self, labels: Mapping[str, str] | None = None):
        self._base = dict(seldon_labels() if labels is None else labels)
        self._model: Manifest | None = None
        self._requests: defaultdict[tuple[str, str, int], _Histogram] = defaultdict(_Histogram)
        self._lock = threading.Lock()
        self._counts: defaultdict[tuple[str, tuple[tuple[str, str], ...]], float] = defaultdict(float)

    def loaded(self, manifest: Manifest) -> None:
        """Name the model whose version the metrics carry from now on."""
        self._model = manifest

    def request(self, service: str, method: str, code: int, seconds: float) -> None:
        """Count an answered request."""
        with self._lock:
            histogram = self._requests[service, method, code]
            histogram.counts[bisect_left(BUCKETS, seconds)] += 1
            histogram.total += seconds

    def predictions(self, classes: tuple[str, ...], indices: list[int]) -> None:
        """Count answered classes."""
        with self._lock:
            self._counts["canaryflow_rows", ()] += len(indices)
            for index, label in enumerate(classes):
                count = indices.count(index)
                if count:
                    self._counts["canaryflow_predictions", (("class", label),)] += count

    def predicted_values(self, values: list[float]) -> None:
        """Count answered numbers."""
        with self._lock:
            self._counts["canaryflow_rows", ()] += len(values)
            self._counts["canaryflow_prediction_value_sum", ()] += sum(values)

    def error(self, reason: str) -> None:
        """Count a refused or failed request."""
        with self._lock:
            self._counts["canaryflow_errors", (("reason", reason),)] += 1

    def warnings(self, warnings: Mapping[str, Mapping[str, int]]) -> None:
        """Count what was unusual in a request, by kind and feature."""
        with self._lock:
            for kind, counts in warnings.items():
                for feature, count in counts.items():
                    self._counts[f"canaryflow_{kind}", (("feature", feature),)] += count

    def feedback(
        self, pairs: Iterable[tuple[str, str]], errors: Iterable[float], reward: float | None, foreign: bool
    ) -> None:
        """Count a feedback message."""
        with self._lock:
            counts = self._counts
            counts["seldon_api_model_feedback", ()] += 1
            counts["seldon_api_model_feedback_reward", ()] += reward or 0.0
            counts["canaryflow_feedback_foreign", ()] += foreign
            for truth, answer in pairs:
                counts["canaryflow_feedback", (("truth", truth), ("answer", answer))] += 1
                counts["canaryflow_feedback_rows", ()] += 1
            for error in errors:
                counts["canaryflow_feedback_absolute_error_sum", ()] += abs(error)
                counts["canaryflow_feedback_squared_error_sum", ()] += error * error
                counts["canaryflow_feedback_rows", ()] += 1

    def render(self, ready: bool) -> bytes:
        """The text that Prometheus scrapes."""
        base = self._base | {"predictor_version": self._model.version if self._model else ""}
        with self._lock:
            requests = [(key, [*hist.counts], hist.total) for key, hist in self._requests.items()]
            counts = list(self._counts.items())
        lines = _render_requests(requests, base)
        families: defaultdict[str, list[str]] = defaultdict(list)
        for (name, labels), value in counts:
            suffix = "" if name.endswith("_sum") else "_total"
            families[name].append(f"{name}{suffix}{_labels(base | dict(labels))} {_number(value)}")
        for name, samples in sorted(families.items()):
            # The classic text format names a counter with its suffix.
            full = name if name.endswith("_sum") else f"{name}_total"
            kind = "gauge" if name == "canaryflow_prediction_value_sum" else "counter"
            lines += [f"# HELP {full} {_HELP[name]}", f"# TYPE {full} {kind}", *samples]
        return "\n".join([*lines, *self._state(ready, base), ""]).encode()

    def _state(self, ready: bool, base: dict[str, str]) -> list[str]:
        lines = ["# HELP canaryflow_ready Whether requests are wanted.", "# TYPE canaryflow_ready gauge"]
        lines.append(f"canaryflow_ready{_labels(base)} {int(ready)}")
        if self._model:
            info = base | {
                "name": self._model.name,
                "version": self._model.version,
                "problem": self._model.signature.problem,
                "created": self._model.created,
            }
            lines += ["# HELP canaryflow_model_info The model.", "# TYPE canaryflow_model_info gauge"]
            lines.append(f"canaryflow_model_info{_labels(info)} 1")
        usage = resource.getrusage(resource.RUSAGE_SELF)
        lines += ["# TYPE process_cpu_seconds_total counter"]
        lines.append(f"process_cpu_seconds_total {usage.ru_utime + usage.ru_stime:.3f}")
        lines += [
            "# TYPE process_resident_memory_bytes gauge",
            f"process_resident_memory_bytes {_resident()}",
        ]
        return lines


def seldon_labels() -> dict[str, str]:
    """The deployment's and the predictor's names, as Seldon's operator tells a container."""
    return {
        "deployment_name": os.environ.get("SELDON_DEPLOYMENT_ID", ""),
        "predictor_name": os.environ.get("PREDICTOR_ID", ""),
    }


def _render_requests(
    requests: list[tuple[tuple[str, str, int], list[int], float]], base: dict[str, str]
) -> list[str]:
    lines = [f"# HELP {_REQUESTS} {_HELP[_REQUESTS]}", f"# TYPE {_REQUESTS} histogram"]
    for (service, method, code), counts, total in requests:
        labels = base | {"service": service, "method": method, "code": str(code)}
        text = _labels(labels)[:-1]
        running = 0
        for edge, count in zip((*BUCKETS, "+Inf"), counts, strict=True):
            running += count
            lines.append(f'{_REQUESTS}_bucket{text},le="{edge}"}} {running}')
        lines.append(f"{_REQUESTS}_sum{text}}} {total:.6f}")
        lines.append(f"{_REQUESTS}_count{text}}} {running}")
    return lines


def _labels(labels: Mapping[str, str]) -> str:
    escaped = (
        (name, value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"'))
        for name, value in labels.items()
    )
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _resident() -> int:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0
    return pages * resource.getpagesize()
