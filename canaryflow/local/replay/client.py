"""Sends the rows of a table through the gateway at a steady rate, as users would, and counts what comes back.

The client is open-loop: requests leave by the clock, not when the one before is answered, so a slow server
cannot slow its own measurement down. It never sends a request twice: a request that fails is an error that a
user would have seen.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from threading import Event

import aiohttp
import orjson
import yarl

from canaryflow.errors import InputError, PlatformError
from canaryflow.local.replay.feedback import Feedback, FeedbackUrl
from canaryflow.local.replay.rows import Request, requests
from canaryflow.local.replay.summary import UNKNOWN, FeedbackSummary, Histogram, ReplaySummary, Traffic

PREDICTOR_HEADER = "x-canaryflow-predictor"

_PREDICTIONS = "/api/v1.0/predictions"
_ANSWERING = {"200", "500", "502", "503", "504"}
_LATE_SECONDS = 1.0
_NAP_SECONDS = 0.05


def replay(
    table: Path,
    url: str,
    target: str,
    rate: float = 500.0,
    feedback_url: FeedbackUrl | None = None,
    stop: Event | None = None,
    *,
    features: Sequence[str] | None = None,
    duration: float | None = None,
    count: int | None = None,
    summary: Path | None = None,
) -> ReplaySummary:
    """Send a table's rows until stopped, or for a duration or a count; see `Replay`.

    Raises:
        InputError: The table cannot be used, or the model refuses its rows.
        PlatformError: No model answers at `url`.
    """
    traffic = Replay(
        table,
        url,
        target,
        rate=rate,
        features=features,
        feedback_url=feedback_url,
        duration=duration,
        count=count,
        summary=summary,
    )
    return traffic.run(stop or Event())


class Replay:
    """One run of requests through the gateway.

    Args:
        table: A Parquet file; its rows are sent in order, and again from the start when they are used up.
        url: The model's address at the gateway, without the API's path: ``http://.../seldon/<namespace>/<name>``.
        target: The column with the truth. It is never sent with a request.
        rate: Requests a second.
        features: The columns to send; what the model's metadata lists when left out.
        feedback_url: Where a predictor takes feedback: its own Service, since the gateway would route by
            weight again and credit the wrong one. None sends no feedback.
        feedback_every: The truth of one answer in so many is sent.
        duration: Seconds to run; None runs until stopped.
        count: Requests to send; None sends until stopped.
        timeout: Seconds until a request counts as failed.
        max_in_flight: Requests that may wait for an answer at one time.
        summary: A JSON file that shows the counts, renewed every second.

    Raises:
        InputError: The address is none, or a number is out of range.
    """

    def __init__(
        self,
        table: Path,
        url: str,
        target: str,
        *,
        rate: float = 500.0,
        features: Sequence[str] | None = None,
        feedback_url: FeedbackUrl | None = None,
        feedback_every: int = 10,
        duration: float | None = None,
        count: int | None = None,
        timeout: float = 10.0,
        max_in_flight: int = 64,
        summary: Path | None = None,
    ) -> None:
        for name, value in {"rate": rate, "feedback_every": feedback_every, "timeout": timeout}.items():
            if not value > 0:
                raise InputError(f"replay: {name} is {value}, expected more than 0")
        self._url = url.rstrip("/")
        self._predictions = yarl.URL(self._url + _PREDICTIONS)
        if self._predictions.scheme not in ("http", "https") or not self._predictions.host:
            raise InputError(f"replay: the url is {url!r}, expected http://HOST:PORT/seldon/NAMESPACE/NAME")
        self._table = table
        self._target = target
        self._features = features
        self._rate = rate
        self._duration = float("inf") if duration is None else duration
        self._count = float("inf") if count is None else count
        self._max_in_flight = max_in_flight
        self._timeout = aiohttp.ClientTimeout(total=timeout)
        self._summary = summary
        self._traffic = Traffic()
        self._lag = Histogram()
        self._skipped = 0
        self._started = 0.0
        self._ended: float | None = None
        self._feedback = Feedback(feedback_url, feedback_every) if feedback_url else None

    def run(self, stop: Event) -> ReplaySummary:
        """Send until `stop` is set, or the duration or count is reached.

        Raises:
            InputError: The file is missing, is no Parquet, has no rows, or lacks a column; the model refuses
                its first row; the summary cannot be written.
            PlatformError: No model answers at the address.
        """
        asyncio.run(self._run(stop))
        return self.snapshot()

    def snapshot(self) -> ReplaySummary:
        """What was counted so far."""
        arms = self._traffic.arms()
        seconds = (self._ended or time.perf_counter()) - self._started if self._started else 0.0
        return ReplaySummary(
            url=self._url,
            seconds=round(seconds, 3),
            requests=sum(arm.requests for arm in arms.values()),
            errors=sum(arm.errors for arm in arms.values()),
            skipped=self._skipped,
            lag_ms=self._lag.latency(),
            arms=arms,
            phases=self._traffic.phases(),
            feedback=self._feedback.summary() if self._feedback else FeedbackSummary(),
            failures=tuple(self._traffic.failures),
            finished=self._ended is not None,
        )

    async def _run(self, stop: Event) -> None:
        async with self._session() as session:
            features = self._features or await self._ask_features(session)
            rows = requests(self._table, self._target, features)
            if self._feedback:
                self._feedback.start(session)
            self._write(self.snapshot())
            reporter = asyncio.create_task(self._report())
            try:
                self._started = time.perf_counter()
                await self._first(session, rows)
                await self._drive(session, rows, stop)
                self._ended = time.perf_counter()
            finally:
                reporter.cancel()
                if self._feedback:
                    await self._feedback.finish()
                self._write(self.snapshot())

    def _session(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"content-type": "application/json"},
            timeout=self._timeout,
        )

    async def _ask_features(self, session: aiohttp.ClientSession) -> list[str]:
        status, _, answer = await self._exchange(session.get(self._url + "/metadata"))
        try:
            return [feature["name"] for feature in orjson.loads(answer)["inputs"]]
        except (orjson.JSONDecodeError, LookupError, TypeError):
            raise self._no_model(status, answer) from None

    async def _first(self, session: aiohttp.ClientSession, rows: Iterator[Request]) -> None:
        """Send one request whose failure is the caller's mistake rather than a measurement."""
        status, answer = await self._send(session, next(rows))
        if status == "400":
            raise InputError(
                f"{self._url}: the model refuses the first row of {self._table}: {_shown(answer)}"
            )
        if status not in _ANSWERING:
            raise self._no_model(status, answer)

    def _no_model(self, status: str, answer: bytes) -> PlatformError:
        return PlatformError(f"{self._url}: found {status} {_shown(answer)}, expected a model that answers")

    async def _drive(self, session: aiohttp.ClientSession, rows: Iterator[Request], stop: Event) -> None:
        slots = asyncio.Semaphore(self._max_in_flight)
        in_flight: set[asyncio.Task[tuple[str, bytes]]] = set()
        start = schedule = time.perf_counter()
        sent = 1
        scheduled = 0
        while sent < self._count and not stop.is_set():
            now = time.perf_counter()
            if now - start >= self._duration:
                break
            due = schedule + scheduled / self._rate
            if due > now:
                await asyncio.sleep(min(due - now, _NAP_SECONDS))
                continue
            if now - due > _LATE_SECONDS:
                # A burst of all that is overdue would measure the burst, not the server.
                self._skipped += int((now - due) * self._rate)
                schedule, scheduled, due = now, 0, now
            await slots.acquire()
            self._lag.add(time.perf_counter() - due)
            task = asyncio.create_task(self._send(session, next(rows)))
            in_flight.add(task)
            task.add_done_callback(in_flight.discard)
            task.add_done_callback(lambda _: slots.release())
            sent += 1
            scheduled += 1
        if in_flight:
            await asyncio.wait(in_flight)

    async def _send(self, session: aiohttp.ClientSession, request: Request) -> tuple[str, bytes]:
        sent = time.perf_counter()
        status, arm, answer = await self._exchange(session.post(self._predictions, data=request.body))
        done = time.perf_counter()
        # Some servers answer a failed prediction with 200 and "null": only an object is an answer.
        failed = status != "200" or not answer.startswith(b"{")
        self._traffic.add(arm, status, failed, done - sent)
        if failed:
            self._traffic.fail(done - self._started, arm, status, _shown(answer))
        elif self._feedback:
            self._feedback.offer(arm, request, answer)
        return status, answer

    @staticmethod
    async def _exchange(
        request: AbstractAsyncContextManager[aiohttp.ClientResponse],
    ) -> tuple[str, str, bytes]:
        """The status (or why there is none), who answered, and the body."""
        arm = UNKNOWN
        try:
            async with request as response:
                arm = response.headers.get(PREDICTOR_HEADER, UNKNOWN)
                return str(response.status), arm, await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return type(error).__name__, arm, str(error).encode()

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            self._write(self.snapshot())

    def _write(self, summary: ReplaySummary) -> None:
        if self._summary is None:
            return
        draft = self._summary.with_name(f".{self._summary.name}.{os.getpid()}")
        try:
            draft.write_bytes(orjson.dumps(summary.to_dict(), option=orjson.OPT_INDENT_2))
            draft.replace(self._summary)
        except OSError as error:
            raise InputError(f"{self._summary}: cannot be written: {error.strerror}") from None


def _shown(body: bytes) -> str:
    return " ".join(body[:300].decode(errors="replace").split())
