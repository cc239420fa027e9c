"""Truths on their way back to the predictor that answered, off the path of the requests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import aiohttp

from canaryflow.errors import CanaryflowError, PlatformError
from canaryflow.local.replay.rows import Request
from canaryflow.local.replay.summary import UNKNOWN, FeedbackSummary

FeedbackUrl = Callable[[str], str]
"""From a predictor's name to the address of its own Service (`Cluster.service_url`)."""

_PATH = "/api/v1.0/feedback"
_QUEUE = 1000
_DRAIN_SECONDS = 5.0
_FORGET_SECONDS = 1.0


class Feedback:
    """Sends the truth of one answer in `every`, one at a time. What finds no room is dropped and counted.

    Args:
        locate: Asked once per predictor, and again when nothing answers there.
        every: One in so many answers.
    """

    def __init__(self, locate: FeedbackUrl, every: int) -> None:
        self._locate = locate
        self._every = every
        self._offered = 0
        self._sent = 0
        self._errors = 0
        self._dropped = 0
        self._queue: asyncio.Queue[tuple[str, Request, bytes]] = asyncio.Queue(_QUEUE)
        self._reason = ""
        self._addresses: dict[str, str] = {}
        self._missing_until: dict[str, float] = {}
        self._sender: asyncio.Task[None] | None = None

    def start(self, session: aiohttp.ClientSession) -> None:
        """Begin to send."""
        self._sender = asyncio.create_task(self._send_all(session))

    def offer(self, arm: str, request: Request, answer: bytes) -> None:
        """Take an answer of a predictor, to send its truth if it is its turn."""
        self._offered += 1
        if arm == UNKNOWN or self._offered % self._every:
            return
        try:
            self._queue.put_nowait((arm, request, answer))
        except asyncio.QueueFull:
            self._dropped += 1

    async def finish(self) -> None:
        """Send what waits, for a few seconds at most, and stop."""
        if self._sender is None:
            return
        try:
            await asyncio.wait_for(self._queue.join(), _DRAIN_SECONDS)
        except TimeoutError:
            self._dropped += self._queue.qsize()
        finally:
            self._sender.cancel()

    def summary(self) -> FeedbackSummary:
        """What became of the truths so far."""
        return FeedbackSummary(self._sent, self._errors, self._dropped, self._reason)

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while True:
            arm, request, answer = await self._queue.get()
            try:
                await self._send(session, await self._address(arm), request, answer)
                self._sent += 1
            except CanaryflowError as error:
                self._fail(str(error))
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                # The predictor may be gone, or be somewhere else by now.
                self._addresses.pop(arm, None)
                self._fail(f"{arm}: {type(error).__name__} {error}")
            self._queue.task_done()

    async def _send(self, session: aiohttp.ClientSession, url: str, request: Request, answer: bytes) -> None:
        body = b'{"request":%b,"response":%b,"truth":{"data":{"ndarray":[[%b]]}}}' % (
            request.body,
            answer,
            request.truth,
        )
        async with session.post(url, data=body) as response:
            said = await response.read()
        if response.status != 200:
            raise PlatformError(
                f"{url}: found {response.status} {said[:200].decode(errors='replace')}, expected 200"
            )

    async def _address(self, arm: str) -> str:
        """Find a predictor's Service; one that is not there is not looked for again at once."""
        if arm not in self._addresses:
            if time.monotonic() < self._missing_until.get(arm, 0.0):
                raise PlatformError(f"{arm}: its Service was not found, expected one that takes feedback")
            self._missing_until[arm] = time.monotonic() + _FORGET_SECONDS
            self._addresses[arm] = await asyncio.to_thread(self._locate, arm) + _PATH
        return self._addresses[arm]

    def _fail(self, reason: str) -> None:
        self._errors += 1
        self._reason = self._reason or " ".join(reason.split())
