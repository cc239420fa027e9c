from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from canaryflow.delivery.deploy import deploy
from components.rollout import rollout
from tests.delivery.bench import Bench


def test_the_step_of_a_version_that_was_superseded_fails_its_gate(
    paper: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for label in ("one", "two", "one"):
        deploy(paper.cluster, "iris", paper.spec(label), paper.bundle(label), clock=paper.time.clock)
    monkeypatch.setenv("CANARYFLOW_PLATFORM", paper.url)
    promoted = rollout.python_func(
        arm="canary",
        bundle_uri=f"store/iris/{paper.bundle('two').manifest.version}/",
        name="iris",
        namespace="default",
        canary_steps=[10, 50],
        step_requests=400,
        interval_seconds=2.0,
        alpha=0.01,
        error_margin=0.01,
        latency_objective_ms=0.0,
        latency_margin=0.1,
        max_error_rate=0.05,
        max_minutes=1.0,
        on_inconclusive="rollback",
        metrics_url="http://127.0.0.1:9/metrics",
        tracking_uri=f"sqlite:///{tmp_path}/registry-that-nobody-needs.db",
        report=SimpleNamespace(path=str(tmp_path / "rollout.html")),
    )
    assert promoted is False
    assert not (tmp_path / "registry-that-nobody-needs.db").exists()
