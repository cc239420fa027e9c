"""The replay on the one-machine platform: real servers, real Envoy, a canary that comes and goes."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from canaryflow.bundle.format import Bundle
from canaryflow.delivery.cluster import Cluster, connect
from canaryflow.delivery.deploy import deploy
from canaryflow.delivery.seldon import ServerSpec
from canaryflow.local import platform
from canaryflow.local.replay import Replay, ReplaySummary
from tests.bundle.models import make, rows

NAME, RATE = "flights", 300.0


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[platform.Platform]:
    workspace = tmp_path / "workspace"
    yield platform.up(workspace, tied=True)
    platform.down(workspace)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Rows as a run's test set has them: the features, the truth, and columns the model does not know."""
    path = tmp_path / "rows.parquet"
    records = [row | {"late": "yes", "flight": number} for number, row in enumerate(rows(500, seed=9))]
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def spec(bundle: Bundle) -> ServerSpec:
    return ServerSpec("server", str(bundle.path), bundle.version, min_replicas=1, max_replicas=2)


def shift(cluster: Cluster, main: int, canary: int) -> None:
    traffic = {"/spec/predictors/0/traffic": main, "/spec/predictors/1/traffic": canary}
    cluster.patch(NAME, [{"op": "replace", "path": path, "value": share} for path, share in traffic.items()])
    until(lambda: cluster.weights(NAME).get("canary", 0) == canary)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def in_background(replay: Replay, stop: threading.Event) -> tuple[threading.Thread, list[ReplaySummary]]:
    done: list[ReplaySummary] = []
    thread = threading.Thread(target=lambda: done.append(replay.run(stop)))
    thread.start()
    return thread, done


def test_no_request_fails_while_a_canary_comes_and_goes(gateway, table, tmp_path):
    cluster = connect(gateway.api, "default")
    first, second = (make("binary", tmp_path / f"v{seed}", seed=seed) for seed in (1, 2))
    deploy(cluster, NAME, spec(first), first, timeout=60)
    replay = Replay(
        table,
        f"{gateway.gateway}/seldon/default/{NAME}",
        "late",
        rate=RATE,
        feedback_url=partial(cluster.service_url, NAME),
    )
    stop = threading.Event()
    thread, done = in_background(replay, stop)
    try:
        deploy(cluster, NAME, spec(second), second, timeout=60)
        shift(cluster, 70, 30)
        time.sleep(2)
        shift(cluster, 100, 0)
        time.sleep(0.5)
        until(lambda: told(cluster, "main") > 0 and told(cluster, "canary") > 0)
        cluster.patch(NAME, [{"op": "remove", "path": "/spec/predictors/1"}])
        time.sleep(1.5)
    finally:
        stop.set()
        thread.join(20)
    (summary,) = done
    assert summary.errors == 0, summary.failures
    assert summary.skipped == 0
    assert set(summary.phases) == {"before", "during", "after"}
    assert set(summary.arms) == {"main", "canary"}
    during = summary.phases["during"]
    assert 0.15 < during["canary"].requests / sum(arm.requests for arm in during.values()) < 0.45
    assert summary.feedback.sent > 0.08 * summary.requests
    assert (summary.feedback.errors, summary.feedback.dropped) == (0, 0), summary.feedback.reason


def told(cluster: Cluster, predictor: str) -> float:
    """Truths that a predictor's server has counted."""
    url = cluster.service_url(NAME, predictor) + "/metrics"
    with urllib.request.urlopen(url, timeout=5) as response:
        lines = response.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("canaryflow_feedback_rows"))
