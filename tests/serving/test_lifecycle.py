"""Starting, draining and stopping of real server processes."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest

from canaryflow.bundle.format import MODEL, SAMPLES, Bundle, seal
from tests.serving.conftest import Server, free_ports

GOOD = {"distance": 500, "temp": 1.5, "carrier": "AA", "origin": "JFK", "holiday": True}
SLOW = """
import sys, time
from canaryflow.serving.__main__ import main

def wrap(app):
    def slowed(environ, start_response):
        if environ["PATH_INFO"] == "/predict":
            time.sleep(0.7)
        return app(environ, start_response)
    return slowed

sys.exit(main(wrap=wrap))
"""


@pytest.fixture
def bundle(bundles):
    return bundles["binary"].path


def run(*arguments):
    command = [sys.executable, "-m", "canaryflow.serving", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)


def worker(server):
    (child,) = psutil.Process(server.process.pid).children()
    return child


def background(function, *arguments):
    result = []
    thread = threading.Thread(target=lambda: result.append((function(*arguments), time.perf_counter())))
    thread.start()
    return thread, result


def ask(connection):
    """Status of one request on a kept connection, and whether the server ends the connection with it."""
    connection.request("POST", "/predict", json.dumps(GOOD))
    answer = connection.getresponse()
    answer.read()
    return answer.status, answer.will_close


def test_it_is_ready_soon_after_its_samples_are_proved(serve, bundle):
    server = serve(bundle)
    # The goal is 0.8 s on an idle machine; the bound leaves room for a busy one.
    assert server.wait() < 4
    ready = next(event for event in server.events() if event["event"] == "ready")
    assert (ready["model"], ready["samples"]) == ("tiny-binary", 40)


@pytest.mark.parametrize("fault", ["altered", "truncated", "missing", "wrong answers", "schema"])
def test_a_bundle_that_cannot_prove_itself_never_gets_ready_and_says_why(serve, bundle, tmp_path, fault):
    path = shutil.copytree(bundle, tmp_path / "spoiled")
    model = (path / MODEL).read_bytes()
    if fault == "altered":
        (path / MODEL).write_bytes(model[:-1] + b"x")
    elif fault == "truncated":
        (path / MODEL).write_bytes(model[:100])
    elif fault == "missing":
        (path / SAMPLES).unlink()
    elif fault == "schema":
        manifest = path / "bundle.json"
        manifest.write_text(manifest.read_text().replace('"schema_version": 1', '"schema_version": 9'))
    else:
        samples = path / SAMPLES
        samples.write_text(samples.read_text().replace('"answers": [[0.', '"answers": [[1.', 1))
        sealed = Bundle.open(path, verify=False)
        seal(path, "tiny", sealed.signature, 1e-5, {})
    words = {
        "altered": "model.onnx: altered",
        "truncated": "model.onnx: truncated",
        "missing": "samples.json",
        "wrong answers": "sample 0",
        "schema": "schema version 9",
    }[fault]
    server = serve(path)
    server.wait(503)
    for port in (server.port, server.management):
        status, said, _ = server.request("/health/status", port=port)
        assert status == 503 and words in str(said) and "failed" in str(said)
    status, said, headers = server.request("/predict", GOOD)
    assert status == 503 and words in said["status"]["info"] and headers["retry-after"] == "1"
    assert server.request("/health/ping")[0] == 200
    assert server.metric("canaryflow_ready") == 0
    assert words in next(event["reason"] for event in server.events() if event["event"] == "failed")
    started = time.perf_counter()
    assert server.stop() == 0
    assert time.perf_counter() - started < 3, "nothing was served, so there is nothing to drain"


def test_why_it_is_not_ready_is_one_line_and_logged_once(serve, bundle, tmp_path):
    path = shutil.copytree(bundle, tmp_path / "two\nlines")
    (path / MODEL).write_bytes(b"no model")
    server = serve(path)
    server.wait(503)
    lines = server.log.read_text().count("\n")
    for _ in range(20):
        for port in (server.port, server.management):
            _, said, _ = server.request("/health/status", port=port)
            line = said["meta"]["tags"]["reason"] if port == server.port else said["reason"]
            assert "model.onnx: truncated" in line and "\n" not in line
            assert port == server.management or said["status"]["info"] == f"failed: {line}"
    assert server.log.read_text().count("\n") == lines
    assert [each["event"] for each in server.events()].count("failed") == 1


def test_a_port_in_use_is_refused_in_one_line(servers, bundle):
    busy = servers["binary"]
    free, other = free_ports(2)
    for arguments, port in (
        (("--port", busy.port), busy.port),
        (("--port", busy.management), busy.management),
        (("--port", free, "--management-port", busy.management), busy.management),
        (("--port", other, "--management-port", busy.port), busy.port),
    ):
        done = run(bundle, *arguments)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert f"127.0.0.1:{port}: Address already in use; expected a free port" in done.stderr
    assert busy.request("/predict", GOOD)[0] == 200


def test_of_servers_started_at_the_same_instant_one_goes_on(bundle):
    port = free_ports(1)[0]
    command = [
        sys.executable,
        "-m",
        "canaryflow.serving",
        str(bundle),
        "--port",
        str(port),
        "--drain-seconds",
        "0",
    ]
    started = [subprocess.Popen(command, stderr=subprocess.DEVNULL) for _ in range(3)]
    try:
        end = time.monotonic() + 10
        while sum(each.poll() is None for each in started) > 1 and time.monotonic() < end:
            time.sleep(0.02)
        time.sleep(0.3)
        assert sorted(str(each.poll()) for each in started) == ["2", "2", "None"]
    finally:
        for each in started:
            each.terminate()
            each.wait(15)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("no/such/folder",), "no/such/folder: no such folder, expected a bundle"),
        ((".", "--port", "70000"), "70000, expected 1 to 65535"),
        ((".", "--drain-seconds", "-1"), "-1, expected 0 to 3600"),
        ((".", "--max-body-seconds", "0"), "0, expected 0.1 to 3600"),
        ((".", "--host", "203.0.113.9", "--port", "18080"), "cannot listen on 203.0.113.9:18080"),
    ],
)
def test_bad_arguments_end_with_2(arguments, words):
    done = run(*arguments)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_the_drain_turns_readiness_off_and_holds_while_requests_are_answered(serve, bundle):
    server = serve(bundle, "--drain-seconds", "1.2")
    server.wait()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    assert ask(connection) == (200, False)
    started = time.perf_counter()
    thread, result = background(lambda: server.request("/drain", port=server.management))
    server.wait(503)
    status, said, _ = server.request("/health/status")
    assert status == 503 and "draining" in said["status"]["info"]
    assert ask(connection) == (200, True), (
        "a kept connection is closed by the answer, not under the next request"
    )
    thread.join(10)
    (status, said, _), ended = result[0]
    assert status == 200 and said["status"] == "draining" and 1.1 < ended - started < 4
    stopping = time.perf_counter()
    assert server.stop() == 0
    assert time.perf_counter() - stopping < 1, "the drain was over when SIGTERM came"


def test_sigterm_without_a_drain_before_it_drains_first(serve, bundle):
    server = serve(bundle, "--drain-seconds", "1")
    server.wait()
    started = time.perf_counter()
    server.process.terminate()
    server.wait(503)
    assert server.request("/predict", GOOD)[0] == 200
    assert server.process.wait(10) == 0
    assert 0.9 < time.perf_counter() - started < 5


def test_a_second_sigterm_stops_at_once_and_ctrl_c_is_130(serve, bundle):
    server = serve(bundle, "--drain-seconds", "60")
    server.wait()
    server.process.terminate()
    server.wait(503)
    assert server.stop() == 0
    other = serve(bundle, "--drain-seconds", "60")
    other.wait()
    assert other.stop(signal.SIGINT) == 130


@pytest.mark.parametrize("after", [0.05, 0.15, 0.25, 0.35, 0.5])
def test_it_can_be_stopped_while_it_starts(serve, bundle, after):
    server = serve(bundle, "--drain-seconds", "0")
    time.sleep(after)
    started = time.perf_counter()
    # Before Python runs the first line of the server, the signal's own action ends the process.
    assert server.stop() in (0, -signal.SIGTERM)
    assert time.perf_counter() - started < 3
    assert not [
        each for each in psutil.process_iter(["cmdline"]) if str(server.port) in (each.info["cmdline"] or [])
    ]


def test_what_is_in_flight_is_finished(serve, bundle, tmp_path):
    script = tmp_path / "slow.py"
    script.write_text(SLOW)
    server = serve(bundle, "--drain-seconds", "0", program=(str(script),))
    server.wait()
    thread, result = background(lambda: server.request("/predict", GOOD))
    time.sleep(0.3)
    assert server.stop() == 0
    thread.join(5)
    assert result and result[0][0][0] == 200


def test_the_worker_ends_with_its_parent_and_the_parent_with_its_worker(serve, bundle):
    server = serve(bundle)
    server.wait()
    child = worker(server)
    server.process.kill()
    assert child.wait(5) is None or not child.is_running()
    other = serve(bundle)
    other.wait()
    os.kill(worker(other).pid, signal.SIGKILL)
    assert other.process.wait(10) == 2
    assert "the worker died" in other.log.read_text()


def hang(server, count, before=b""):
    """Connections that announced a body and send no more of it."""
    head = before + b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    held = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(count)]
    for each in held:
        each.sendall(head)
    time.sleep(0.5)
    return held


def test_slow_bodies_do_not_keep_others_from_their_answers(serve, bundle):
    server = serve(bundle, "--drain-seconds", "0")
    server.wait()
    held = hang(server, 8)
    assert server.request("/predict", GOOD)[0] == 200
    held += hang(server, 40)
    status, said, headers = server.request("/predict", GOOD)
    assert status == 503 and "still arriving" in said["status"]["info"] and headers["retry-after"] == "1"
    assert server.request("/health/status")[0] == 200
    for each in held:
        each.close()
    time.sleep(0.3)
    assert server.request("/predict", GOOD)[0] == 200


def whole(rows):
    """A request with all of its body; its answer takes some milliseconds."""
    body = json.dumps({"data": {"ndarray": [list(GOOD.values())] * rows}}).encode()
    return b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("before", [b"", whole(1000)], ids=["first", "pipelined"])
def test_clients_that_never_send_their_bodies_do_not_stop_it_for_ever(serve, bundle, before):
    server = serve(bundle, "--drain-seconds", "0", "--max-body-seconds", "1")
    server.wait()
    busy = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    assert ask(busy) == (200, False)
    held = hang(server, 12, before)
    trickling = held[:4] if not before else []
    assert server.request("/predict", GOOD)[0] == 503
    end = time.monotonic() + 5
    while server.request("/predict", GOOD)[0] == 503 and time.monotonic() < end:
        for each in trickling:
            with contextlib.suppress(OSError):  # answered and closed meanwhile
                each.sendall(b" ")
        busy.request("GET", "/health/ping")
        assert busy.getresponse().read() == b'"pong"'
        time.sleep(0.1)
    assert server.request("/predict", GOOD)[0] == 200
    assert ask(busy) == (200, False)
    for each in held:
        each.settimeout(5)
        answer = b"".join(iter(lambda each=each: each.recv(4096), b""))
        assert b"HTTP/1.1 408 " in answer and b"connection: close" in answer
        each.close()


def test_refusals_while_a_body_is_read_are_counted_as_answers(serve, bundle):
    server = serve(bundle, "--drain-seconds", "0", "--max-body-seconds", "1", "--max-body-bytes", "1000")
    server.wait()
    multipart = {"content-type": "multipart/form-data; boundary=x"}
    assert server.request("/predict", b"{}", headers=multipart)[0] == 415
    assert server.request("/send-feedback", b" " * 1001)[0] == 413
    held = hang(server, 12)
    assert server.request("/predict", GOOD)[0] == 503
    for each in held:
        each.settimeout(5)
        assert each.recv(4096).startswith(b"HTTP/1.1 408 ")
        each.close()
    name = "seldon_api_executor_server_requests_seconds"
    for code, service, count in (
        (415, "predictions", 1),
        (413, "feedback", 1),
        (503, "predictions", 1),
        (408, "predictions", 12),
    ):
        for series in (f"{name}_count", f"{name}_bucket"):
            labels = {"le": "+Inf"} if series.endswith("bucket") else {}
            assert server.metric(series, service=service, method="post", code=str(code), **labels) == count
    reasons = {"content_type": 1, "too_large": 1, "busy": 1, "late_body": 12}
    for reason, count in reasons.items():
        assert server.metric("canaryflow_errors_total", reason=reason) == count


def test_a_slow_body_within_its_time_is_answered(serve, bundle):
    server = serve(bundle, "--drain-seconds", "0", "--max-body-seconds", "3")
    server.wait()
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    body = json.dumps(GOOD).encode()
    connection.putrequest("POST", "/predict")
    connection.putheader("content-length", str(len(body)))
    connection.endheaders()
    for byte in range(0, len(body), 8):
        connection.send(body[byte : byte + 8])
        time.sleep(0.15)
    assert connection.getresponse().status == 200


def test_nothing_is_lost_or_miscounted_when_many_ask_at_once(serve, bundle):
    server = serve(bundle, "--drain-seconds", "0")
    server.wait()
    statuses: list[int] = []

    def ask(index):
        for turn in range(60):
            body = GOOD if (index + turn) % 3 else {"distance": "far"}
            statuses.append(server.request("/predict", body)[0])

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(statuses) == 480 and set(statuses) == {200, 400}
    name = "seldon_api_executor_server_requests_seconds_count"
    for status in (200, 400):
        assert server.metric(name, service="predictions", code=str(status)) == statuses.count(status)
    assert server.metric("canaryflow_predictions_total") == statuses.count(200)
    assert server.metric("canaryflow_errors_total", reason="bad_row") == statuses.count(400)


def test_the_labels_are_what_seldons_operator_tells(serve, bundle, bundles):
    env = os.environ | {"SELDON_DEPLOYMENT_ID": "flights", "PREDICTOR_ID": "canary"}
    server: Server = serve(bundle, "--drain-seconds", "0", env=env)
    server.wait()
    server.request("/predict", GOOD)
    labels = {
        "deployment_name": "flights",
        "predictor_name": "canary",
        "predictor_version": bundles["binary"].version,
    }
    assert server.metric("canaryflow_rows_total", **labels) == 1
