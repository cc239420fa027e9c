"""The replay against a real HTTP server that plays the gateway."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from canaryflow.errors import InputError, NotFound, PlatformError
from canaryflow.local.replay import Replay, ReplaySummary, replay
from canaryflow.local.replay.summary import Histogram, Traffic

Handler = Callable[[web.Request, int], Awaitable[web.StreamResponse]]
ANSWER = b'{"data":{"names":["false","true"],"ndarray":[[0.75,0.25]]}}'
ROWS = [
    {"carrier": "UA", "distance": 1400.0, "delay": None, "holiday": False, "late": True},
    {"carrier": None, "distance": 733.5, "delay": 3, "holiday": True, "late": False},
    {"carrier": "B6", "distance": None, "delay": 0, "holiday": None, "late": False},
]
FEATURES = ["carrier", "distance", "delay", "holiday"]


def answer(arm: str = "main", status: int = 200, body: bytes = ANSWER) -> web.Response:
    return web.Response(status=status, body=body, headers={"x-canaryflow-predictor": arm})


async def from_main(request: web.Request, number: int) -> web.Response:
    return answer()


class Gateway:
    """Answers predictions by a handler that is told the number of the request, from 0."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.bodies: list[dict] = []
        self.feedback: list[tuple[str, dict]] = []
        self.feedback_status = 200
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/seldon/default/flights"

    def service(self, predictor: str) -> str:
        return f"http://127.0.0.1:{self.port}/service/{predictor}"

    async def predict(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.json())
        return await self.handler(request, len(self.bodies) - 1)

    async def take(self, request: web.Request) -> web.Response:
        self.feedback.append((request.match_info["predictor"], await request.json()))
        return web.Response(status=self.feedback_status, text="{}")

    async def metadata(self, request: web.Request) -> web.Response:
        return web.json_response({"name": "flights", "inputs": [{"name": name} for name in FEATURES]})

    async def serve(self, ready: threading.Event) -> None:
        self.loop, self.stop = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_post("/seldon/default/flights/api/v1.0/predictions", self.predict)
        app.router.add_get("/seldon/default/flights/metadata", self.metadata)
        app.router.add_post("/service/{predictor}/api/v1.0/feedback", self.take)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self.stop.wait()
        await runner.cleanup()


@contextmanager
def gateway(handler: Handler = from_main) -> Iterator[Gateway]:
    made = Gateway(handler)
    ready = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(made.serve(ready)))
    thread.start()
    assert ready.wait(10)
    try:
        yield made
    finally:
        made.loop.call_soon_threadsafe(made.stop.set)
        thread.join(10)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist([*ROWS]), path)
    return path


def run(table: Path, url: str, **options: object) -> ReplaySummary:
    return Replay(table, url, "late", **{"rate": 500.0, **options}).run(threading.Event())


def test_rows_go_out_in_order_and_again_without_their_truth(table):
    with gateway() as server:
        summary = run(table, server.url, count=7, max_in_flight=1)
    sent = [dict(zip(b["data"]["names"], b["data"]["ndarray"][0], strict=True)) for b in server.bodies]
    wanted = [{name: row[name] for name in FEATURES} for row in ROWS]
    assert sent == [wanted[number % 3] for number in range(7)]
    assert (summary.requests, summary.errors, summary.finished) == (7, 0, True)
    assert summary.arms["main"].statuses == {"200": 7}


def test_only_the_features_that_are_named_go_out(table):
    with gateway() as server:
        run(table, server.url, count=2, features=["distance"])
    assert server.bodies[0]["data"] == {"names": ["distance"], "ndarray": [[1400.0]]}


def test_the_clock_decides_when_a_request_leaves_not_the_answer_before_it(table):
    async def slow(request: web.Request, number: int) -> web.Response:
        await asyncio.sleep(0.2)
        return answer()

    with gateway(slow) as server:
        summary = run(table, server.url, rate=100.0, duration=1.5, max_in_flight=64)
    # One at a time would be 5 a second.
    assert 140 <= summary.requests <= 152
    assert summary.skipped == 0
    assert 195 <= summary.arms["main"].latency_ms.p50 <= 400


def test_what_cannot_be_sent_in_time_is_skipped_and_told(table):
    async def stuck(request: web.Request, number: int) -> web.Response:
        await asyncio.sleep(0.3)
        return answer()

    with gateway(stuck) as server:
        summary = run(table, server.url, rate=50.0, duration=2.5, max_in_flight=1)
    assert summary.requests < 15
    assert summary.skipped > 30
    assert summary.lag_ms.max > 500
    assert summary.arms["main"].latency_ms.max < 600


def test_every_kind_of_failure_counts_once_and_nothing_is_sent_twice(table):
    async def broken(request: web.Request, number: int) -> web.StreamResponse:
        kind = number % 10
        if kind == 3:
            return answer("canary", 503, b"upstream connect error")
        if kind == 5:
            return answer("canary", 200, b"null")
        if kind == 7:
            assert request.transport is not None
            request.transport.close()
        if kind == 9:
            await asyncio.sleep(5)
        return answer()

    with gateway(broken) as server:
        summary = run(table, server.url, rate=200.0, count=50, timeout=0.5)
    assert summary.requests == len(server.bodies) == 50
    assert summary.errors == 20
    assert summary.arms["canary"].errors == summary.arms["canary"].requests == 10
    assert summary.arms["canary"].statuses == {"503": 5, "200": 5}
    assert summary.arms["main"].errors == 0
    assert sum(summary.arms["unknown"].statuses.values()) == 10
    assert summary.arms["unknown"].statuses["ServerDisconnectedError"] == 5
    assert {failure.status for failure in summary.failures} >= {"503", "200", "ServerDisconnectedError"}
    assert "upstream connect error" in {failure.reason for failure in summary.failures}


def test_phases_follow_the_canary(table):
    async def rollout(request: web.Request, number: int) -> web.Response:
        canary = 20 <= number < 60 and number % 2 == 0
        return answer("canary" if canary else "main", 500 if number == 40 else 200)

    with gateway(rollout) as server:
        summary = run(table, server.url, count=100, max_in_flight=1)
    counts = {
        phase: {arm: (seen.requests, seen.errors) for arm, seen in arms.items()}
        for phase, arms in summary.phases.items()
    }
    assert counts == {
        "before": {"main": (20, 0)},
        "during": {"main": (19, 0), "canary": (20, 1)},
        "after": {"main": (41, 0)},
    }


def test_truths_go_to_the_predictor_that_answered(table):
    async def both(request: web.Request, number: int) -> web.Response:
        return answer("canary" if number % 3 == 0 else "main")

    with gateway(both) as server:
        summary = run(
            table, server.url, count=60, max_in_flight=1, feedback_url=server.service, feedback_every=2
        )
    assert (summary.feedback.sent, summary.feedback.errors, summary.feedback.dropped) == (30, 0, 0)
    assert len(server.feedback) == 30
    for arm, message in server.feedback:
        carrier = message["request"]["data"]["ndarray"][0][0]
        # The rows come round in threes, as the arms do: each carrier belongs to one arm.
        assert (carrier == "UA") == (arm == "canary")
        assert message["truth"] == {"data": {"ndarray": [[carrier == "UA"]]}}
        assert message["response"] == json.loads(ANSWER)


def test_feedback_that_finds_nobody_is_counted_and_hurts_no_request(table):
    def locate(predictor: str) -> str:
        raise NotFound(f"no Service of predictor {predictor!r}")

    with gateway() as server:
        summary = run(table, server.url, count=40, feedback_url=locate, feedback_every=1)
    assert (summary.requests, summary.errors) == (40, 0)
    assert (summary.feedback.sent, summary.feedback.errors) == (0, 40)
    assert summary.feedback.reason == "no Service of predictor 'main'"


def test_refused_feedback_is_no_failed_request(table):
    with gateway() as server:
        server.feedback_status = 400
        summary = run(table, server.url, count=20, feedback_url=server.service, feedback_every=4)
    assert summary.errors == 0
    assert (summary.feedback.sent, summary.feedback.errors) == (0, 5)
    assert "found 400" in summary.feedback.reason


def test_it_runs_until_it_is_stopped_and_shows_the_counts_meanwhile(table, tmp_path):
    stop = threading.Event()
    shown = tmp_path / "replay.json"
    with gateway() as server:
        done: list[ReplaySummary] = []
        thread = threading.Thread(
            target=lambda: done.append(
                replay(table, server.url, "late", rate=100.0, stop=stop, summary=shown)
            )
        )
        thread.start()
        time.sleep(1.6)
        meanwhile = ReplaySummary.from_dict(json.loads(shown.read_text()))
        stop.set()
        thread.join(5)
    assert not meanwhile.finished
    assert 0 < meanwhile.requests < done[0].requests
    assert done[0].finished
    assert ReplaySummary.from_dict(json.loads(shown.read_text())) == done[0]
    assert list(tmp_path.glob(".replay*")) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"table": "absent.parquet"}, "absent.parquet: no such file, expected a Parquet table"),
        ({"table": "text.parquet"}, "text.parquet: cannot be read as Parquet"),
        ({"table": "empty.parquet"}, "empty.parquet: found no rows"),
        ({"target": "lat"}, "no column 'lat' (nearest: late), expected one of: carrier, "),
        ({"features": ["carier"]}, "no column 'carier' (nearest: carrier)"),
        ({"rate": 0.0}, "rate is 0.0, expected more than 0"),
        ({"rate": math.nan}, "rate is nan, expected more than 0"),
        ({"url": "localhost:80"}, "the url is 'localhost:80', expected http://HOST:PORT/seldon/"),
        ({"summary": "absent/summary.json"}, "absent/summary.json: cannot be written"),
    ],
)
def test_bad_input_is_told_in_one_line(table, tmp_path, monkeypatch, change, says):
    monkeypatch.chdir(tmp_path)
    Path("text.parquet").write_text("carrier,late\n")
    pq.write_table(pa.Table.from_pylist(ROWS).slice(0, 0), "empty.parquet")
    with gateway() as server:
        arguments = {"table": table, "url": server.url, "target": "late", "count": 3} | change
        for name in ("table", "summary"):
            if name in arguments:
                arguments[name] = Path(arguments[name])
        with pytest.raises(InputError) as caught:
            replay(**arguments)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert server.bodies == []


def test_an_address_where_no_model_answers_is_told_in_one_line(table):
    with gateway() as server:
        with pytest.raises(PlatformError, match=r"flights2: found 404 .*expected a model that answers"):
            replay(table, server.url + "2", "late", count=3)
        url = server.url
    with pytest.raises(PlatformError, match=r"found ClientConnectorError .*expected a model that answers"):
        replay(table, url, "late", count=3, features=FEATURES)


def test_a_first_row_that_the_model_refuses_ends_it(table):
    async def strict(request: web.Request, number: int) -> web.Response:
        return answer(status=400, body=b'{"status":{"info":"row 0, field \'distance\': found null"}}')

    with gateway(strict) as server, pytest.raises(InputError, match=r"refuses the first row of .*found null"):
        replay(table, server.url, "late", count=3)
    assert len(server.bodies) == 1


@given(st.lists(st.floats(1e-5, 30.0), min_size=1, max_size=200), st.floats(0.01, 1.0))
def test_quantiles_are_right_to_their_bucket(durations, share):
    histogram = Histogram()
    for seconds in durations:
        histogram.add(seconds)
    exact = sorted(durations)[math.ceil(share * len(durations)) - 1]
    assert exact * (1 - 1e-9) <= histogram.quantile(share) <= exact * 2 ** (1 / 32)


@given(st.lists(st.tuples(st.sampled_from(["main", "canary", "unknown"]), st.booleans()), max_size=100))
def test_phases_add_up_to_the_arms(answers):
    traffic = Traffic()
    for arm, failed in answers:
        traffic.add(arm, "500" if failed else "200", failed, 0.01)
    arms, phases = traffic.arms(), traffic.phases()
    for name, seen in arms.items():
        assert seen.requests == sum(arm == name for arm, _ in answers)
        assert seen.errors == sum(arm == name and failed for arm, failed in answers)
        parts = [phase[name] for phase in phases.values() if name in phase]
        assert sum(part.requests for part in parts) == seen.requests
    canaries = [place for place, (arm, _) in enumerate(answers) if arm == "canary"]
    if canaries:
        sizes = {phase: sum(arm.requests for arm in seen.values()) for phase, seen in phases.items()}
        assert sizes.get("before", 0) == canaries[0]
        assert sizes.get("after", 0) == len(answers) - 1 - canaries[-1]
