"""A workspace as a user has one: commands at a terminal, and requests to what they made live."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

#: A ramp that a few hundred requests decide, for tests whose subject is not the statistics.
QUICK = (
    "canary_steps=[20, 50]",
    "step_requests=150",
    "interval_seconds=0.3",
    "error_margin=0.1",
    "latency_margin=0.6",
    "max_error_rate=0.3",
    "max_minutes=2",
    "search_trials=1",
)


@dataclass(frozen=True)
class Machine:
    """The command line on one workspace."""

    workspace: Path

    def command(self, *words: str, timeout: float = 180) -> subprocess.CompletedProcess[str]:
        self.workspace.parent.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            self.words(*words),
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=self.workspace.parent,
        )

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "canaryflow", *words]

    def run(self, *pairs: str, extra: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        options = [word for pair in (*QUICK, *pairs) for word in ("-p", pair)]
        # As people write it: relative to where they stand.
        return self.command("run", "--workspace", self.workspace.name, *options, *extra)

    def status(self) -> dict[str, Any]:
        done = self.command("local", "status", "--workspace", str(self.workspace))
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def live(self, name: str) -> dict[str, str]:
        """The version that each predictor of a deployment serves."""
        for sdep in self.status()["live"]:
            if sdep["name"] == name:
                return {predictor["name"]: predictor["version"] for predictor in sdep["predictors"]}
        return {}

    def last_run(self) -> Path:
        return max((self.workspace / "runs").iterdir())

    def events(self, kind: str) -> list[dict[str, Any]]:
        lines = (self.last_run() / "events.jsonl").read_text().splitlines()
        return [event for event in map(json.loads, lines) if event["event"] == kind]

    def ask(self, path: str, body: object) -> dict[str, Any]:
        gateway = self.status()["gateway"]
        request = urllib.request.Request(
            gateway + path, json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def processes(self) -> list[str]:
        """What runs on this workspace, by command line or working directory."""
        found = []
        for process in psutil.process_iter(["pid", "cmdline"]):
            words = process.info["cmdline"] or []
            if process.pid != os.getpid() and any(str(self.workspace) in word for word in words):
                found.append(" ".join(words))
        return found
