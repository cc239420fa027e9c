"""Time as delivery sees it, and patience with an API that is away."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from canaryflow.delivery.cluster import Unavailable

T = TypeVar("T")


@dataclass(frozen=True)
class Clock:
    """Time, so that a test can make it pass.

    Attributes:
        now: Seconds since the epoch; leases are compared between machines.
        steady: Seconds that never jump.
        sleep: Wait for so many seconds.
    """

    now: Callable[[], float] = time.time
    steady: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def patiently(clock: Clock, action: Callable[[], T], seconds: float = 60.0) -> T:
    """Do something that is safe to repeat, and again while the API cannot answer.

    Args:
        clock: Time.
        action: What to do.
        seconds: How long the API may be away.

    Raises:
        Unavailable: It was away for longer.
    """
    deadline = clock.steady() + seconds
    delay = 0.1
    while True:
        try:
            return action()
        except Unavailable:
            if clock.steady() >= deadline:
                raise
        clock.sleep(delay)
        delay = min(5.0, delay * 2)
