"""What a run looks like at a terminal, and in a log."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from canaryflow.local.run import Event, RunResult

_MARKS = {"passed": "[green]✓[/]", "failed": "[red]✗[/]"}


class Display:
    """Prints what happens as it happens; a spinner names the step under way, at a terminal only."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._status: Status | None = None
        self._detail = ""

    @contextlib.contextmanager
    def busy(self, text: str) -> Iterator[None]:
        """Show what is under way; a log that is no terminal gets the line itself."""
        if not self.console.is_terminal:
            self._print(f"  {text} ...")
            yield
            return
        with self.console.status(f"{text} ...") as status:
            self._status = status
            try:
                yield
            finally:
                self._status = None

    def heading(self, text: str) -> None:
        """Begin a part."""
        self._print(f"\n[bold]{escape(text)}[/]")

    def line(self, text: str, mark: str = "passed") -> None:
        """One thing done."""
        self._print(f"  {_MARKS[mark]} {escape(text)}")

    def listen(self, event: Event) -> None:
        """Show one event of a run."""
        kind = event["event"]
        if kind == "stage started" and self._status is not None:
            self._status.update(f"{event['stage']} ...")
        elif kind == "verdict":
            self._detail = event["summary"]
        elif kind in _DETAILS:
            self._detail = _DETAILS[kind].format(**event)
        elif kind == "rollout":
            self._print(f"      [dim]{escape(event['text'])}[/]")
        elif kind == "stage ended":
            cost = f"{event['seconds']:6.1f} s {event['peak_mib']:6.0f} MiB"
            self._print(f"  {_MARKS['passed']} {event['stage']:<9} {cost}  {escape(self._detail)}")
            self._detail = ""
        elif kind == "stage failed":
            self._print(f"  {_MARKS['failed']} {event['stage']:<9} {escape(event['message'])}")

    def stages(self, runs: dict[str, RunResult]) -> None:
        """Print the steps of one or more runs with their seconds and peak memory."""
        table = Table(box=None, padding=(0, 2, 0, 2), header_style="bold")
        table.add_column("stage")
        for title in runs:
            table.add_column(f"{title}: s", justify="right")
            table.add_column("MiB", justify="right")
        names = dict.fromkeys(stage.name for result in runs.values() for stage in result.stages)
        for name in names:
            cells = []
            for result in runs.values():
                stage = next((stage for stage in result.stages if stage.name == name), None)
                cells += [f"{stage.seconds:.1f}", f"{stage.peak_mib:.0f}"] if stage else ["", ""]
            table.add_row(name, *cells)
        self.console.print(table)

    def links(self, items: dict[str, str]) -> None:
        """Print names and places, one a line, never wrapped: they are for copying."""
        width = max(map(len, items), default=0)
        for name, place in items.items():
            self._print(f"  {name:<{width}}  {escape(place)}")

    def _print(self, text: str) -> None:
        """One line stays one line, however long: it may be a path, or be searched for in a log."""
        self.console.print(text, soft_wrap=True)


_DETAILS = {
    "ingested": "{rows:,} rows",
    "split": "{train_rows:,} rows to learn from, {test_rows:,} to judge by",
    "trained": "bundle {version}",
    "registered": "challenger {version}",
    "deployed": "{version} is {arm}",
}


def report_links(result: RunResult) -> dict[str, str]:
    """The run's reports as addresses that a browser opens."""
    names = {"validate": "data quality", "train": "training", "evaluate": "evaluation", "rollout": "rollout"}
    return {
        names.get(step, step): path.resolve().as_uri()
        for step, path in result.reports.items()
        if path.is_file()
    }


def mlflow_command(workspace: Path) -> str:
    """The command that opens MLflow on a workspace."""
    store = f"sqlite:///{(workspace / 'mlflow.db').resolve()}"
    program = shlex.quote(str(Path(sys.executable).with_name("mlflow")))
    return f"{program} server --host 127.0.0.1 --port 5000 --backend-store-uri {shlex.quote(store)}"
