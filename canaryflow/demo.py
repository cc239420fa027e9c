"""The whole mission on one machine: two models of real flights, the second a canary that requests judge."""

from __future__ import annotations

import json
import shlex
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canaryflow import pipeline_path
from canaryflow.bundle.format import SAMPLES
from canaryflow.data.samples import FlightsSample, write_flights
from canaryflow.errors import GateFailed
from canaryflow.local import platform
from canaryflow.local.display import Display, mlflow_command, report_links
from canaryflow.local.memory import MemoryWatch
from canaryflow.local.run import PipelineRun, RunResult
from canaryflow.local.traffic import Replay
from canaryflow.local.workspace import NAMESPACE, Workspace
from canaryflow.parameters import resolve

SABOTAGES = ("errors", "slow")


@dataclass(frozen=True)
class Demo:
    """What the demonstration is to do.

    Attributes:
        workspace: A folder that does not exist yet, or is empty.
        port: Of the gateway; 0 takes a free one.
        sabotage: "errors" or "slow" spoils the canary after its gates; empty leaves it as it is.
        rate: Requests a second of the replay.
    """

    workspace: Workspace
    port: int = 0
    sabotage: str = ""
    rate: float = 400.0

    def run(self, display: Display) -> None:
        """Run it, and leave the platform up.

        Raises:
            GateFailed: It did not end as it should: promoted, or with sabotage rolled back.
        """
        started = time.monotonic()
        with MemoryWatch() as memory:
            sample = self._sample(display)
            with display.busy("starting gateway and platform"):
                live = platform.up(self.workspace.root, self.port, tied=True)
            display.line(f"gateway at {live.gateway}")
            first = self._pipeline(live.api, sample, "2013-07-01", "1: flights up to June", display)
            if first.exit_code:
                raise GateFailed(first.message)
            if self.sabotage:
                _spoil(live.api, self.sabotage)
            second = self._pipeline(live.api, sample, "2013-10-01", "2: flights up to September", display)
        display.heading("Decision")
        display.line(second.message, "failed" if second.exit_code else "passed")
        display.heading("Stages")
        display.stages({"to June": first, "to September": second})
        seconds = time.monotonic() - started
        display.line(f"{seconds:.0f} s in all, at most {memory.peak_mib:,.0f} MiB of memory at one time")
        self._show_places(live, first, second, display)
        self._judge(second, display)

    def _sample(self, display: Display) -> FlightsSample:
        display.heading("Sample: the flights of 2013 from New York, with their weather")
        with display.busy("writing the sample"):
            began = time.monotonic()
            sample = write_flights(self.workspace.root / "flights")
        display.line(f"{sample.database}, {time.monotonic() - began:.1f} s")
        return sample

    def _pipeline(
        self, api: str, sample: FlightsSample, until: str, title: str, display: Display
    ) -> RunResult:
        display.heading(f"Pipeline {title}")
        path = pipeline_path("train_and_deploy")
        until_argument = "query_args=" + json.dumps({"until": until})
        arguments = resolve(path, sample.params, [until_argument], **self.workspace.arguments())
        replay = Replay(sample.replay, self.rate)
        run = PipelineRun(self.workspace.root, api, path, arguments, replay, display.listen)
        with display.busy("pipeline"):
            return run.run()

    def _show_places(
        self, live: platform.Platform, first: RunResult, second: RunResult, display: Display
    ) -> None:
        display.heading("Reports")
        display.links({f"1 {name}": place for name, place in report_links(first).items()})
        display.links({f"2 {name}": place for name, place in report_links(second).items()})
        display.heading("Look around")
        version = first.version if second.exit_code else second.version
        row = sample_row(Path(self.workspace.store) / "flights" / version)
        display.links(
            {
                "MLflow": mlflow_command(self.workspace.root),
                "Ask the model": curl(f"{live.gateway}/seldon/{NAMESPACE}/flights/predict", row),
            }
        )

    def _judge(self, second: RunResult, display: Display) -> None:
        """Hold the run to what was promised, by the replay's own count."""
        traffic = second.replay or {}
        # What nobody answered is not the canary's fault: it counts against main.
        arms = traffic.get("arms", {"main": {"errors": 1}})
        errors = sum(seen["errors"] for arm, seen in arms.items() if arm != "canary")
        display.heading("Replay")
        display.line(
            f"{traffic.get('requests', 0):,} requests without retries, {traffic.get('errors', 0):,} failed",
            "failed" if traffic.get("errors", 1) and not self.sabotage else "passed",
        )
        if not self.sabotage:
            if second.exit_code or traffic.get("errors", 1):
                raise GateFailed(f"expected a promotion without a lost request; {second.message}")
            return
        before, during = _main_p99(traffic)
        display.line(
            f"main: {errors} errors, p99 {before:.1f} ms before the canary, {during:.1f} ms beside it"
        )
        promises = {
            "a roll-back by the sequential test": _rolled_back_by_test(second),
            "no error from main": errors == 0,
            "main's p99 under twice what it was": 0 < during < 2 * before,
        }
        broken = [promise for promise, kept in promises.items() if not kept]
        if broken:
            raise GateFailed(f"expected {', '.join(broken)}; {second.message}")
        display.line("the sabotaged canary was rolled back by the sequential test, and main never suffered")


def _spoil(api: str, kind: str) -> None:
    """Tell the platform to spoil what it starts as a canary; the server's own code knows nothing of it."""
    fault = {"namespace": NAMESPACE, "name": "flights", "predictor": "canary", "kind": kind}
    request = urllib.request.Request(  # noqa: S310 - the platform's own loopback address
        f"{api}/faults", json.dumps(fault).encode(), {"content-type": "application/json"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10):  # noqa: S310
        pass


def _main_p99(traffic: dict[str, Any]) -> tuple[float, float]:
    phases = traffic.get("phases", {})
    before, during = (
        phases.get(phase, {}).get("main", {}).get("latency_ms", {}) for phase in ("before", "during")
    )
    return before.get("p99", 0.0), during.get("p99", 0.0)


def _rolled_back_by_test(result: RunResult) -> bool:
    verdict = result.verdicts.get("rollout", {})
    failed = [check for check in verdict.get("checks", ()) if not check["passed"]]
    return not verdict.get("passed", True) and any("sequential" in check["name"] for check in failed)


def sample_row(bundle: Path) -> dict[str, Any]:
    """A row that the bundle carries, to ask it about."""
    inputs = json.loads((bundle / SAMPLES).read_text(encoding="utf-8"))["inputs"]
    row: dict[str, Any] = next((row for row in inputs if None not in row.values()), inputs[0])
    # The samples' numbers are single precision, written out in full; a person writes a few digits.
    return {name: float(f"{value:.5g}") if isinstance(value, float) else value for name, value in row.items()}


def curl(url: str, row: dict[str, Any]) -> str:
    """A command that asks a live model about a row; it can be pasted into a shell."""
    return f"curl -s {url} -H 'content-type: application/json' -d {shlex.quote(json.dumps(row))}"
