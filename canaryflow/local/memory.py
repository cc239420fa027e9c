"""How much memory a command and everything it started took at one time."""

from __future__ import annotations

import contextlib
import threading
from types import TracebackType

import psutil


class MemoryWatch:
    """Watches this process and all below it; shared pages count in proportion (PSS) where the kernel tells.

    Attributes:
        peak_mib: The largest sum seen, MiB.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.peak_mib = 0.0
        self._interval = interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        own = psutil.Process()
        while not self._ended.wait(self._interval):
            processes = [own, *own.children(recursive=True)]
            self.peak_mib = max(self.peak_mib, sum(map(_share, processes)) / 2**20)


def _share(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.Error):
        memory = process.memory_full_info()
        return int(getattr(memory, "pss", 0) or memory.rss)
    return 0
