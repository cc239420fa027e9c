"""The requests that judge a canary while a run is under way: a replay in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryflow.errors import PlatformError
from canaryflow.local.process import spawn, stop


@dataclass(frozen=True)
class Replay:
    """The traffic that a canary is to get.

    Attributes:
        table: A Parquet file of rows with their truths; None replays the run's own test set.
        rate: Requests a second.
    """

    table: Path | None = None
    rate: float = 400.0


class Traffic:
    """A replay under way.

    Args:
        table: The rows.
        target: The column with the truth.
        api: The one-machine platform.
        namespace: Of the SeldonDeployment.
        name: The SeldonDeployment.
        rate: Requests a second.
        directory: Where its log and its summary go.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self, table: Path, target: str, api: str, namespace: str, name: str, rate: float, directory: Path
    ) -> None:
        self._summary = directory / "replay.json"
        self._log = directory / "replay.log"
        where = ("--platform", api, "--name", name, "--namespace", namespace)
        what = ("--target", target, "--rate", str(rate), "--summary", str(self._summary))
        command = [sys.executable, "-m", "canaryflow", "replay", str(table), *where, *what]
        self._process: subprocess.Popen[bytes] = spawn(command, self._log)

    @property
    def death(self) -> str:
        """Why it ended although nobody has stopped it; empty while it runs."""
        status = self._process.poll()
        return "" if status is None else f"the replay ended with {status}: {self._last_line()}"

    def stop(self) -> None:
        """End the process, whatever it does."""
        stop(self._process)

    def finish(self) -> dict[str, Any]:
        """Stop it, and give what it counted (`ReplaySummary.to_dict`).

        Raises:
            PlatformError: It had died, or did not finish its count.
        """
        death = self.death
        status = stop(self._process)
        if not death and self._summary.is_file():
            counted: dict[str, Any] = json.loads(self._summary.read_text(encoding="utf-8"))
            if counted["finished"]:
                return counted
        raise PlatformError(death or f"the replay ended with {status} before it had counted; see {self._log}")

    def _last_line(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "its log is empty")
        return last.removeprefix("canaryflow: ")
