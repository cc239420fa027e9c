"""Bodies that take too long: their connections are found and closed, whatever their clients do.

granian's read of a body can neither be given a time-out nor be interrupted, and a request does not say by
which socket it came. But the sockets are this process's own, and the kernel knows of each whether data came
after the last answer. So, while bodies are arriving, the sockets are looked at: one on which nothing was
answered for too long is shut down for reading. That ends the read, and the answer (408) still gets through.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

_TICK = 1.0
_TCP_ESTABLISHED = 1
# Of Linux's struct tcp_info: the state, milliseconds since data was sent and received, data segments sent.
_TCP_INFO = struct.Struct("=B43xI4xI100xI")

_Key = tuple[object, int, bool]


class Arrivals:
    """The bodies that are being read, at most so many and each for a bounded time.

    Args:
        count: Bodies read at once.
        seconds: How long one may take; it is ended at most half as much later. Held on Linux alone.
    """

    def __init__(self, count: int, seconds: float):
        self.seconds = seconds
        self._slots = threading.BoundedSemaphore(count)
        self._started: dict[int, float] = {}
        if sys.platform == "linux":
            threading.Thread(target=self._watch, name="arrivals", daemon=True).start()

    def begin(self) -> bool:
        """Note that this thread starts to read a body; False when too many do already."""
        if not self._slots.acquire(blocking=False):
            return False
        self._started[threading.get_ident()] = time.monotonic()
        return True

    def end(self) -> bool:
        """Note that it has ended; whether that was too late."""
        started = self._started.pop(threading.get_ident())
        self._slots.release()
        return time.monotonic() - started >= self.seconds

    def _watch(self) -> None:
        tick = min(_TICK, self.seconds / 5)
        waiting: dict[_Key, float] = {}
        while True:
            time.sleep(tick)
            now = time.monotonic()
            slow = any(now - started >= tick for started in list(self._started.values()))
            waiting = _look(waiting, now, self.seconds) if slow else {}


def _look(before: dict[_Key, float], now: float, seconds: float) -> dict[_Key, float]:
    """Shut down what has waited for so many seconds; since when each of the others waits."""
    waiting: dict[_Key, float] = {}
    try:
        names = [entry.name for entry in Path("/proc/self/fd").iterdir()]
    except OSError:  # no number is left to read it with
        return before
    for name in names:
        try:
            # A copy: granian may close the number, and the kernel give it to another connection, at any time.
            copy = os.dup(int(name))
        except OSError:
            continue
        try:
            connection = socket.socket(fileno=copy)
        except OSError:
            os.close(copy)
            continue
        with connection:
            key = _wait_of(connection)
            if key is None:
                continue
            waiting[key] = before.get(key, now)
            if now - waiting[key] >= seconds:
                with suppress(OSError):  # its client was faster
                    connection.shutdown(socket.SHUT_RD)
    return waiting


def _wait_of(connection: socket.socket) -> _Key | None:
    """Names a wait for data or for an answer; None where nothing is connected.

    A connection whose last data came before its last answer is idle, or the start of its next request came
    with the one before: both may end, as granian itself ends idle ones. A request that comes by an idle
    connection has another name, and all of its time.
    """
    try:
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
        peer = connection.getpeername()
    except OSError:
        return None
    if len(info) < _TCP_INFO.size:
        return None
    state, sent, received, segments = _TCP_INFO.unpack(info)
    if state != _TCP_ESTABLISHED:
        return None
    return peer, segments, received < sent
