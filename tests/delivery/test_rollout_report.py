from __future__ import annotations

from pathlib import Path

import pytest

from canaryflow.report import read_verdict
from tests.delivery.bench import Bench, Traffic
from tests.delivery.test_rollout import PLAN, put, run


@pytest.mark.parametrize("good", [True, False])
def test_the_report_says_first_what_was_decided_and_why(paper: Bench, tmp_path: Path, good: bool):
    put(paper, "one")
    new = put(paper, "two")
    traffic = Traffic(paper, "iris")
    traffic.errors[new] = 0.0 if good else 0.1
    path = tmp_path / "reports" / "rollout.html"
    outcome = run(paper, traffic, report=path)
    page = path.read_text()
    assert page.index("was promoted" if good else "was rolled back") < page.index("<svg")
    assert read_verdict(path) == outcome.verdict
    assert outcome.verdict.passed is good
    assert page.count("<svg") == 5
    for words in ("canary takes 10 %", "Evidence", "Request rate", "sequential two-sample test", new):
        assert words in page
    numbers = outcome.verdict.checks[0].found
    assert "canary" in numbers
    assert "main" in numbers


def test_a_first_version_has_a_report_too(paper: Bench, tmp_path: Path):
    put(paper, "one")
    run(paper, Traffic(paper, "iris"), PLAN, report=tmp_path / "rollout.html")
    assert "there is no canary to roll out" in (tmp_path / "rollout.html").read_text()
    assert read_verdict(tmp_path / "rollout.html").passed
