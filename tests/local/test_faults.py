"""Sabotage of the real server, by the platform, around its application."""

import json
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from canaryflow.local import platform
from tests.bundle.models import make, rows
from tests.local.bench import Bench, predictor, sdep


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make("binary", tmp_path_factory.mktemp("bundle")).path)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Bench]:
    workspace = tmp_path / "workspace"
    yield Bench(workspace, platform.up(workspace, tied=True))
    platform.down(workspace)


def ask(url: str) -> tuple[int, float]:
    body = json.dumps({"rows": rows(1)}).encode()
    request = urllib.request.Request(url + "/predict", body, {"content-type": "application/json"})
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            answer.read()
            status = answer.status
    except urllib.error.HTTPError as error:
        error.read()
        status = error.code
    return status, time.perf_counter() - began


def sabotage(real: Bench, kind: str | None) -> dict:
    fault = {"namespace": "default", "name": "iris", "predictor": "canary", "kind": kind}
    answer = real.call("POST", "/faults", fault)
    assert answer.status == 200, answer
    return answer.body


def test_errors_and_slow_spoil_the_canary_alone_and_go_away_again(real: Bench, bundle: str) -> None:
    real.create(sdep(predictor("main", bundle, 100)))
    real.wait_settled(main=100)
    sabotage(real, "errors")
    real.append_canary(predictor("canary", bundle, 0))
    real.wait_settled(main=100, canary=0)
    main, canary = real.service_url("main"), real.service_url("canary")
    statuses = [ask(canary)[0] for _ in range(100)]
    assert [turn for turn, status in enumerate(statuses, 1) if status == 500] == [20, 40, 60, 80, 100]
    assert statuses.count(200) == 95
    assert Counter(ask(main)[0] for _ in range(100)) == {200: 100}

    sabotage(real, "slow")
    real.wait(lambda: real.call("GET", "/faults").body["items"][0]["delay_ms"], "delay measured")
    delay = real.call("GET", "/faults").body["items"][0]["delay_ms"] / 1000
    real.wait_settled(main=100, canary=0)
    quick = sorted(ask(main)[1] for _ in range(60))[30]
    slow = sorted(ask(canary)[1] for _ in range(60))[30]
    assert 0.0005 < delay < 0.2
    assert slow > quick + 0.8 * delay

    assert sabotage(real, None)["items"] == []
    real.wait_settled(main=100, canary=0)
    assert Counter(ask(canary)[0] for _ in range(60)) == {200: 60}


def test_the_gateway_counts_what_users_saw_and_not_what_a_service_was_asked(real: Bench, bundle: str) -> None:
    real.create(sdep(predictor("main", bundle, 100)))
    real.wait_settled(main=100)
    for _ in range(7):
        assert ask(f"{real.live.gateway}/seldon/default/iris")[0] == 200
    for _ in range(3):
        assert ask(real.service_url("main"))[0] == 200
    with urllib.request.urlopen(real.live.api + "/gateway/metrics", timeout=5) as answer:
        text = answer.read().decode()
    name = 'envoy_cluster_name="default/iris/main"'
    assert f'envoy_cluster_upstream_rq{{envoy_response_code="200",{name}}} 7' in text


def test_an_unknown_fault_is_refused(real: Bench) -> None:
    fault = {"namespace": "default", "name": "iris", "predictor": "canary", "kind": "fire"}
    answer = real.call("POST", "/faults", fault)
    assert (answer.status, answer.body["message"]) == (
        400,
        "kind: expected errors, slow or null, found 'fire'",
    )
