"""Reports: self-contained, safe to open, and the verdict can be read back from the page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from canaryflow.errors import InputError
from canaryflow.report import Report, new_figure, read_verdict
from canaryflow.verdict import Check, Verdict

VERDICT = Verdict(
    "validate",
    (
        Check("distance: at most 6000", False, "7125 in row 18 </script><b>", "no row above"),
        Check("rows", True, "1,000", "at least 100"),
        Check("drift", False, "0.4", "0.3", "warning"),
    ),
    "The data breaks its contract.",
)


def test_a_verdict_survives_the_page(tmp_path: Path) -> None:
    Report("Data refused", VERDICT).write(tmp_path / "report.html")
    assert read_verdict(tmp_path / "report.html") == VERDICT


def test_a_page_holds_all_it_shows(tmp_path: Path) -> None:
    report = Report("A <title>", VERDICT, "sub")
    figure, axes = new_figure()
    axes.plot([1, 2], [3, 4])
    report.figure("Plot", figure, "a line")
    report.table("Numbers", ["name", "value"], [["a", 12_345], ["b", 0.123456]], note="noted")
    report.facts("Facts", {"when": "now", "none": None})
    report.text("Words", "one\ntwo <script>alert(1)</script>")
    report.write(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "A &lt;title&gt;" in page
    assert "<script>alert" not in page
    assert "<svg" in page and "12,345" in page and "0.1235" in page and "noted" in page
    links = re.findall(r'(?:src|href)="([^"#]+)"', page)
    assert links == [], "a report must open without a network"
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


def test_a_full_disk_leaves_no_part_of_a_page(tmp_path: Path) -> None:
    body = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))"
    body += "; import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)"
    body += "; from pathlib import Path; from canaryflow.report import Report; import sys"
    body += "; Report('A page').write(Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", body, str(tmp_path / "page.html")], capture_output=True, text=True, timeout=60
    )
    assert "File too large" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_only_errors_fail_a_verdict() -> None:
    assert not VERDICT.passed
    assert VERDICT.reasons == [
        "distance: at most 6000: found 7125 in row 18 </script><b>, expected no row above"
    ]
    assert Verdict("x", VERDICT.checks[1:]).passed


def test_a_page_without_a_verdict_is_named(tmp_path: Path) -> None:
    Report("No gate").write(tmp_path / "plain.html")
    for name in ("plain.html", "missing.html"):
        with pytest.raises(InputError, match=name):
            read_verdict(tmp_path / name)
