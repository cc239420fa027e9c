"""Where a server is between start and stop: loading, ready, failed, draining."""

from __future__ import annotations

import ctypes
import mmap
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from canaryflow.bundle.format import Bundle
from canaryflow.errors import BundleError
from canaryflow.serving.log import log

if TYPE_CHECKING:
    from canaryflow.bundle.scorer import Scorer

Phase = Literal["loading", "ready", "failed", "draining"]


class Drain:
    """When a server stops, known to all of its processes.

    Made before the worker is forked: the instant stands in shared memory.

    Args:
        seconds: How long requests are still answered after readiness was turned off.
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        # [the instant the drain ends on the monotonic clock, 0 before it began; 1 once a model answers]
        # Anonymous, so that nothing is written anywhere: the root of the image is read-only.
        self._shared = (ctypes.c_double * 2).from_buffer(mmap.mmap(-1, 16))
        self._lock = threading.Lock()

    @property
    def began(self) -> bool:
        """Whether readiness was turned off."""
        return bool(self._shared[0])

    def served(self) -> None:
        """Note that there is something to drain: a model answers requests."""
        self._shared[1] = 1.0

    def begin(self) -> float:
        """Turn readiness off, for good.

        Returns:
            How many seconds are left in which requests are answered; 0 when nothing was ever served.
        """
        with self._lock:
            if not self.began:
                self._shared[0] = time.monotonic() + (self.seconds if self._shared[1] else 0.0)
                log("draining", seconds=self.seconds if self._shared[1] else 0.0)
        return max(0.0, float(self._shared[0]) - time.monotonic())


class Lifecycle:
    """The state that the serving port and the management port of a worker share.

    Args:
        drain: When the server stops.
    """

    def __init__(self, drain: Drain):
        self.drain = drain
        self.scorer: Scorer | None = None
        self._failure = ""

    @property
    def draining(self) -> bool:
        """Whether the server is about to stop; requests are still answered."""
        return self.drain.began

    @property
    def ready(self) -> bool:
        """Whether new requests are wanted."""
        return self.scorer is not None and not self.draining

    @property
    def phase(self) -> Phase:
        """Where the server is."""
        if self._failure:
            return "failed"
        if self.draining:
            return "draining"
        return "loading" if self.scorer is None else "ready"

    @property
    def reason(self) -> str:
        """Why the server is not ready; empty when it is."""
        reasons = {
            "loading": "the bundle is being verified",
            "failed": self._failure,
            "draining": "the server is about to stop",
        }
        return reasons.get(self.phase, "")

    def load(self, path: Path) -> Bundle | None:
        """Verify and load a bundle and prove its samples; then the server is ready, or failed for good."""
        started = time.perf_counter()
        try:
            bundle = Bundle.open(path)
            # onnxruntime is imported here, beside the start of the server: it is half of the start-up time.
            from canaryflow.bundle.scorer import Scorer

            scorer = Scorer(bundle)
            samples = scorer.prove()
        except Exception as error:
            known = isinstance(error, BundleError)
            reason = str(error) if known else f"{path}: {type(error).__name__}: {error}"
            # A library may say it in several lines; a probe shows one.
            self._failure = " ".join(reason.split())
            log("failed", reason=self._failure)
            return None
        self.drain.served()
        self.scorer = scorer
        seconds = round(time.perf_counter() - started, 3)
        log("ready", model=bundle.manifest.name, version=bundle.version, samples=samples, seconds=seconds)
        return bundle

    def status(self) -> dict[str, str]:
        """What ``/health/status`` says."""
        status: dict[str, str] = {"status": self.phase}
        if self.reason:
            status["reason"] = self.reason
        if self.scorer is not None:
            status |= {"model": self.scorer.bundle.manifest.name, "version": self.scorer.bundle.version}
        return status
