"""One pipeline run on this machine: the platform, KFP's local runner, and the traffic that a canary needs."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from canaryflow.errors import PlatformError
from canaryflow.local.process import spawn, stop
from canaryflow.local.traffic import Replay, Traffic
from canaryflow.stage import DEFECT, EVENTS

Event = Mapping[str, Any]

_NO_ROOM = 2**20  # bytes: too few for anything that a step writes


@dataclass(frozen=True)
class Stage:
    """What one step took.

    Attributes:
        name: The step.
        seconds: From the start of its process to the end of its work.
        peak_mib: Its peak resident memory, MiB.
    """

    name: str
    seconds: float
    peak_mib: float


@dataclass
class RunResult:
    """What a run did.

    Attributes:
        directory: Its folder: events.jsonl, kfp.log, reports/, artifacts/.
        exit_code: 0 live or promoted, 1 a gate said no or the canary was rolled back, 2 bad input.
        message: One line that says so.
        stages: What each step took, in order.
        reports: The HTML reports by step.
        verdicts: The gates' verdicts by step, as `Verdict.to_dict` gives them.
        arm: "main" or "canary" where something was deployed.
        version: The bundle's version where one was made.
        replay: The replay's summary where there was one.
    """

    directory: Path
    exit_code: int = 0
    message: str = ""
    stages: list[Stage] = field(default_factory=list)
    reports: dict[str, Path] = field(default_factory=dict)
    verdicts: dict[str, Any] = field(default_factory=dict)
    arm: str = ""
    version: str = ""
    replay: dict[str, Any] | None = None


class PipelineRun:
    """Run a compiled pipeline against a platform that is up.

    Args:
        workspace: The folder that keeps everything; the run gets a new folder in runs/.
        api: Address of the one-machine platform.
        pipeline: The compiled pipeline.
        arguments: Its parameters, checked.
        replay: The traffic for a canary, or None where it comes from elsewhere.
        listen: Called with each event as it comes.
    """

    def __init__(
        self,
        workspace: Path,
        api: str,
        pipeline: Path,
        arguments: Mapping[str, Any],
        replay: Replay | None,
        listen: Callable[[Event], None] = lambda event: None,
    ) -> None:
        self.api = api
        self.pipeline = pipeline
        self.arguments = dict(arguments)
        self.replay = replay
        self.listen = listen
        self.result = RunResult(_new_directory(workspace.resolve() / "runs"))
        self._test_set: tuple[Path, str] | None = None
        self._traffic: Traffic | None = None
        self._death = ""

    def run(self) -> RunResult:
        """Run to the end.

        Whatever happens, the processes of the run are gone when this returns or raises.

        Raises:
            PlatformError: The runner ended without saying how, or the replay died.
        """
        directory = self.result.directory
        events = directory / "events.jsonl"
        events.touch()
        runner = self._start_runner(events)
        try:
            for event in _follow(events, runner):
                if event is None:
                    self._watch_traffic()
                    continue
                self._note(event)
                self.listen(event)
            status = runner.wait()
            self._end_traffic()
        finally:
            stop(runner)
            if self._traffic is not None:
                self._traffic.stop()
        self._collect_reports()
        self._conclude(status)
        return self.result

    def _start_runner(self, events: Path) -> subprocess.Popen[bytes]:
        directory = self.result.directory
        root = str(directory / "artifacts")
        job = {"pipeline": str(self.pipeline), "arguments": self.arguments, "root": root}
        (directory / "job.json").write_text(json.dumps(job), encoding="utf-8")
        environment = {
            EVENTS: str(events),
            "CANARYFLOW_PLATFORM": self.api,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "canaryflow.local.runner", str(directory / "job.json")]
        return spawn(command, directory / "kfp.log", environment, cwd=directory)

    def _note(self, event: Event) -> None:
        kind = event["event"]
        result = self.result
        if kind in ("stage ended", "stage failed"):
            result.stages.append(Stage(event["stage"], event["seconds"], event["peak_mib"]))
        if kind == "stage failed" and result.exit_code == 0:
            result.exit_code, result.message = event["exit_code"], event["message"]
        elif kind == "verdict":
            result.verdicts[event["stage"]] = dict(event)
            result.reports[event["stage"]] = Path(event["report"])
        elif kind == "split":
            self._test_set = (Path(event["test"]), event["target"])
        elif kind == "trained":
            result.version = event["version"]
            result.reports["train"] = Path(event["report"])
        elif kind == "deployed":
            result.arm = event["arm"]
            if event["arm"] == "canary":
                self._start_traffic()
        if kind == "stage ended" and event["stage"] == "rollout":
            self._end_traffic()

    def _start_traffic(self) -> None:
        if self.replay is None or self._test_set is None:
            return
        own_table, target = self._test_set
        self._traffic = Traffic(
            self.replay.table or own_table,
            target,
            self.api,
            str(self.arguments["namespace"]),
            str(self.arguments["name"]),
            self.replay.rate,
            self.result.directory,
        )

    def _watch_traffic(self) -> None:
        """A canary that nobody sends requests to would wait until its time limit: take it back at once."""
        if self._traffic is None or self._death or not self._traffic.death:
            return
        self._death = self._traffic.death
        from canaryflow.delivery.cluster import connect
        from canaryflow.delivery.status import command

        with contextlib.suppress(PlatformError):  # where the rollout is over already
            cluster = connect(self.api, str(self.arguments["namespace"]))
            command(cluster, str(self.arguments["name"]), "abort", by="canaryflow run")

    def _end_traffic(self) -> None:
        if self._traffic is None:
            return
        if self._death:
            raise PlatformError(self._death)
        self.result.replay = self._traffic.finish()
        self._traffic = None

    def _collect_reports(self) -> None:
        """Give the reports names that a person can find, away from KFP's artifact folders."""
        folder = self.result.directory / "reports"
        folder.mkdir(exist_ok=True)
        for step, path in self.result.reports.items():
            if path.is_file():
                page = folder / f"{step}.html"
                page.write_bytes(path.read_bytes())
                self.result.reports[step] = page

    def _conclude(self, status: int) -> None:
        result = self.result
        log = result.directory / "kfp.log"
        if status != 0 and not result.message:
            if shutil.disk_usage(result.directory).free < _NO_ROOM:
                raise PlatformError(f"{result.directory}: No space left on device")
            raise PlatformError(f"the pipeline ended with {status} before a step could say why; see {log}")
        if result.exit_code == DEFECT:
            result.exit_code, result.message = 2, f"{result.message}; its traceback is in {log}"
        if status == 0 and "rollout" not in result.verdicts:
            raise PlatformError(f"the pipeline ended before its rollout; see {log}")
        if not result.message:
            result.message = result.verdicts["rollout"]["summary"]


def _new_directory(runs: Path) -> Path:
    runs.mkdir(parents=True, exist_ok=True)
    number = 1 + max((int(path.name) for path in runs.iterdir() if path.name.isdigit()), default=0)
    directory = runs / f"{number:03d}"
    directory.mkdir()
    return directory


def _follow(events: Path, runner: subprocess.Popen[bytes]) -> Iterator[Event | None]:
    """Yield events as steps write them, and None in between, until the runner has ended and all are read."""
    with events.open(encoding="utf-8") as file:
        pending = ""
        while True:
            ended = runner.poll() is not None
            pending += file.read()
            *lines, pending = pending.split("\n")
            for line in lines:
                yield json.loads(line)
            if ended:
                return
            yield None
            time.sleep(0.05)
