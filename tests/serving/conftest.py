import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.bundle import models


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """A real server process and the few ways in which tests talk to it."""

    def __init__(self, bundle, log: Path, *arguments, program=("-m", "canaryflow.serving"), env=None):
        self.port, self.management = free_ports(2)
        self.log = log
        self.started = time.perf_counter()
        ports = ["--port", str(self.port), "--management-port", str(self.management)]
        with log.open("wb") as stream:
            command = [sys.executable, *program, str(bundle), *ports, *arguments]
            self.process = subprocess.Popen(command, stderr=stream, stdout=stream, env=env)

    def request(self, path, body=None, port=None, headers=None, method=None):
        """Status, parsed body (text where it is no JSON) and headers."""
        data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
        url = f"http://127.0.0.1:{port or self.port}{path}"
        request = urllib.request.Request(url, data, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                status, raw, received = response.status, response.read(), response.headers
        except urllib.error.HTTPError as error:
            status, raw, received = error.code, error.read(), error.headers
        try:
            return status, json.loads(raw), received
        except ValueError:
            return status, raw.decode(), received

    def wait(self, status=200, port=None, seconds=10.0):
        """Wait until ``/health/status`` answers with a status; the seconds since the start."""
        end = time.perf_counter() + seconds
        found = None
        while time.perf_counter() < end:
            assert self.process.poll() is None, self.log.read_text()
            try:
                found, said, _ = self.request("/health/status", port=port)
            except OSError:
                found, said = None, None
            if found == status and not (status == 503 and "loading" in str(said)):
                return time.perf_counter() - self.started
            time.sleep(0.01)
        raise AssertionError(f"status {found} instead of {status}: {self.log.read_text()}")

    def metric(self, name, **labels):
        """The sum of a metric's samples that carry the labels."""
        _, text, _ = self.request("/metrics")
        total = 0.0
        for line in text.splitlines():
            head, _, value = line.rpartition(" ")
            found, _, rest = head.partition("{")
            if found == name and all(f'{key}="{label}"' in rest for key, label in labels.items()):
                total += float(value)
        return total

    def events(self):
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(15)
        finally:
            self.process.kill()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    root = tmp_path_factory.mktemp("served")
    return {problem: models.make(problem, root / problem) for problem in models.CLASSES}


@pytest.fixture(scope="session")
def servers(bundles, tmp_path_factory):
    """A server of each problem type, shared by all tests that leave it as it is."""
    logs = tmp_path_factory.mktemp("logs")
    limits = ("--drain-seconds", "0", "--max-body-bytes", "200000", "--max-rows", "500")
    started = {name: Server(bundle.path, logs / name, *limits) for name, bundle in bundles.items()}
    for server in started.values():
        server.wait()
    yield started
    for server in started.values():
        server.stop()


@pytest.fixture
def serve(tmp_path):
    """Start servers that end with the test."""
    started = []

    def start(bundle, *arguments, **options):
        started.append(Server(bundle, tmp_path / f"log{len(started)}", *arguments, **options))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()
