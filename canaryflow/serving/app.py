"""Routes, limits and errors: a request's bytes in, an answer's bytes out, whatever server is around."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
import orjson

from canaryflow.bundle.answers import Answers
from canaryflow.bundle.rows import RowError
from canaryflow.errors import BundleError
from canaryflow.serving import protocol
from canaryflow.serving.config import Limits
from canaryflow.serving.feedback import read_feedback
from canaryflow.serving.lifecycle import Lifecycle
from canaryflow.serving.log import log
from canaryflow.serving.metrics import CONTENT_TYPE, Metrics
from canaryflow.serving.protocol import Refusal

if TYPE_CHECKING:
    from canaryflow.bundle.scorer import Scorer

JSON = "application/json"


@dataclass(frozen=True)
class Response:
    """An answer: status, body, content type and further headers."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = field(default=())


@dataclass(frozen=True)
class _Route:
    method: str
    handle: Callable[[bytes], bytes]
    service: str = ""
    content_type: str = JSON


class Application:
    """Answers requests, one at a time.

    Args:
        lifecycle: Says whether there is a model and whether requests are wanted.
        metrics: Where everything is counted.
        limits: What one request may ask for.
    """

    def __init__(self, lifecycle: Lifecycle, metrics: Metrics, limits: Limits):
        self.lifecycle = lifecycle
        self.metrics = metrics
        self.limits = limits
        predict = _Route("POST", self._predict, "predictions")
        feedback = _Route("POST", self._feedback, "feedback")
        metadata = _Route("GET", self._metadata, "metadata")
        self._routes = {
            "/api/v1.0/predictions": predict,
            "/predict": predict,
            "/api/v1.0/feedback": feedback,
            "/send-feedback": feedback,
            "/api/v1.0/metadata": metadata,
            "/metadata": metadata,
            "/health/ping": _Route("GET", lambda _: b'"pong"'),
            "/health/status": _Route("GET", self._status, "status"),
            "/metrics": _Route("GET", lambda _: metrics.render(lifecycle.ready), content_type=CONTENT_TYPE),
        }

    def answer(self, method: str, path: str, body: bytes | Refusal) -> Response:
        """Answer one request; never raises.

        Args:
            method: As it came ("GET").
            path: Without query and prefix.
            body: All of it, or why it was not read.
        """
        started = perf_counter()
        route = self._routes.get(path)
        if route is None:
            return self.refuse(
                Refusal(404, "not_found", f"no route {path[:80]!r}, known: {', '.join(self._routes)}")
            )
        if method != route.method:
            return self.refuse(
                Refusal(405, "method", f"{path} takes {route.method}, not {method[:20]}"), route.method
            )
        try:
            if isinstance(body, Refusal):
                raise body
            response = Response(200, route.handle(body), route.content_type)
        except Refusal as refusal:
            response = self.refuse(refusal)
        except RowError as error:
            response = self.refuse(Refusal(400, "bad_row", str(error), protocol.row_details(error)))
        except Exception as error:
            response = self._broken(error)
        if route.service:
            self.metrics.request(route.service, method.lower(), response.status, perf_counter() - started)
        return response

    def refuse(self, refusal: Refusal, allow: str = "") -> Response:
        """Count a refusal and say it in Seldon's words."""
        self.metrics.error(refusal.reason)
        message = protocol.write_refusal(refusal.status, refusal.reason, str(refusal), refusal.details)
        headers = (("allow", allow),) if allow else ()
        if refusal.status == 503:
            headers = (("retry-after", "1"),)
        return Response(refusal.status, orjson.dumps(message), headers=headers)

    def _broken(self, error: Exception) -> Response:
        reason = "model" if isinstance(error, BundleError) else "internal"
        log(
            "error",
            reason=reason,
            error=f"{type(error).__name__}: {error}",
            trace=traceback.format_exc(limit=-5),
        )
        return self.refuse(Refusal(500, reason, f"the server failed: {type(error).__name__}"))

    def _predict(self, body: bytes) -> bytes:
        scorer = self._scorer()
        query = protocol.read_query(_json(body), scorer.rows, self.limits.rows)
        answers = scorer.score(query.columns)
        indices = self._count(answers, scorer)
        if query.warnings:
            self.metrics.warnings(query.warnings)
        return orjson.dumps(protocol.write_answers(query, answers, indices, scorer))

    def _count(self, answers: Answers, scorer: Scorer) -> list[int] | None:
        if not np.isfinite(answers.values).all():
            raise BundleError("the model answered a number that is not finite")
        if not scorer.signature.classes:
            self.metrics.predicted_values(answers.values.tolist())
            return None
        indices = answers.indices()
        self.metrics.predictions(scorer.signature.classes, indices)
        return indices

    def _feedback(self, body: bytes) -> bytes:
        scorer = self._scorer()
        given = read_feedback(_json(body), scorer, self.limits.rows)
        self.metrics.feedback(given.pairs, given.errors, given.reward, given.foreign)
        tags = {"counted": given.size, "model_version": scorer.bundle.version}
        return orjson.dumps({"meta": {"tags": tags}})

    def _metadata(self, _: bytes) -> bytes:
        return orjson.dumps(protocol.metadata(self._scorer()))

    def _status(self, _: bytes) -> bytes:
        status = self.lifecycle.status()
        if not self.lifecycle.ready:
            raise Refusal(503, "not_ready", f"{status['status']}: {status.get('reason', '')}", status)
        return orjson.dumps(status)

    def _scorer(self) -> Scorer:
        scorer = self.lifecycle.scorer
        if scorer is None:
            status = self.lifecycle.status()
            raise Refusal(503, "not_ready", f"{status['status']}: {status.get('reason', '')}", status)
        return scorer


def _json(body: bytes) -> object:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        found = "an empty body" if not body else str(error)
        raise Refusal(400, "bad_json", f"the body is not JSON: {found}") from error
