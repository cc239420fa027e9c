"""One look for every report: one HTML file that opens anywhere and carries its verdict as JSON."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined

from canaryflow import __version__
from canaryflow.errors import InputError
from canaryflow.verdict import Verdict
from canaryflow.whole import write_whole

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAIN = "#2b6cb0"
CANARY = "#dd7a1e"
GOOD = "#1a7f4b"
BAD = "#b3261e"
SOFT = "#8a94a6"

_VERDICT = re.compile(r'<script type="application/json" id="verdict">(.*?)</script>', re.DOTALL)


@dataclass
class _Section:
    kind: str
    heading: str
    body: str = ""
    columns: Sequence[str] = ()
    rows: list[list[str]] = field(default_factory=list)
    right: list[bool] = field(default_factory=list)
    svg: str = ""


def _cell(value: object) -> str:
    """Print a value as a person would write it: four significant digits, thousands apart, None empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return str(value)


class Report:
    """Sections in the order they are added, under a title and (for a gate) a verdict.

    Args:
        title: The first thing a reader sees; for a gate, say what was decided.
        verdict: A gate's answer; its checks become the first table.
        subtitle: What it is about: the model, the data, the time.
    """

    def __init__(self, title: str, verdict: Verdict | None = None, subtitle: str = "") -> None:
        self.title = title
        self.verdict = verdict
        self.subtitle = subtitle
        self._sections: list[_Section] = []

    def text(self, heading: str, body: str) -> None:
        """Add a paragraph of plain text; line breaks are kept."""
        self._sections.append(_Section("text", heading, body))

    def facts(self, heading: str, items: Mapping[str, object]) -> None:
        """Add a list of names and values."""
        rows = [[key, _cell(value)] for key, value in items.items()]
        self._sections.append(_Section("facts", heading, rows=rows))

    def table(
        self, heading: str, columns: Sequence[str], rows: Iterable[Sequence[object]], note: str = ""
    ) -> None:
        """Add a table; columns whose values are all numbers are set to the right."""
        cells = [list(row) for row in rows]
        right = [
            bool(cells) and all(isinstance(row[index], int | float) or row[index] is None for row in cells)
            for index in range(len(columns))
        ]
        printed = [[_cell(value) for value in row] for row in cells]
        self._sections.append(_Section("table", heading, note, columns, printed, right))

    def figure(self, heading: str, figure: Figure, caption: str = "") -> None:
        """Add a matplotlib figure, drawn into the page as SVG."""
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
        svg = buffer.getvalue()
        self._sections.append(_Section("figure", heading, caption, svg=svg[svg.index("<svg") :]))

    def write(self, path: Path) -> None:
        """Write the page to `path`; a reader never sees half of it."""
        environment = Environment(
            loader=PackageLoader("canaryflow", "."), autoescape=True, undefined=StrictUndefined
        )
        verdict_json = json.dumps(self.verdict.to_dict() if self.verdict else None).replace("<", "\\u003c")
        page = environment.get_template("report.html.j2").render(
            title=self.title,
            subtitle=self.subtitle,
            verdict=self.verdict,
            sections=self._sections,
            verdict_json=verdict_json,
            version=__version__,
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        )
        write_whole(path, page)


def read_verdict(path: Path) -> Verdict:
    """Read the verdict that a report carries.

    Raises:
        InputError: The file is missing, or is no report with a verdict.
    """
    try:
        found = _VERDICT.search(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); expected a report that a gate wrote") from error
    data = json.loads(found.group(1)) if found else None
    if data is None:
        raise InputError(f"{path}: holds no verdict; expected a report that a gate wrote")
    return Verdict.from_dict(data)


def new_figure(width: float = 7.0, height: float = 3.2) -> tuple[Figure, Axes]:
    """A figure and its axes in the house style.

    Args:
        width: In inches; a report shows 7 inches at full width.
        height: In inches.
    """
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    style(axes)
    return figure, axes


def style(axes: Axes) -> None:
    """Give axes that were made elsewhere the house style."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(SOFT)
    axes.tick_params(colors="#5d6778", labelsize=9)
    axes.grid(True, axis="y", color="#e6e9ef", linewidth=0.8)
    axes.set_axisbelow(True)
