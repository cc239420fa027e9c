"""A server with the real flags whose faults a test chooses: it crashes, starts slowly, cuts requests.

The bundle is a folder with ``behaviour.json``: version, ready_after, crash, delay, abrupt, hang_readiness.
"""

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

parser = argparse.ArgumentParser()
parser.add_argument("bundle", type=Path)
parser.add_argument("--host")
parser.add_argument("--port", type=int)
parser.add_argument("--management-port", type=int)
parser.add_argument("--drain-seconds", type=float)
arguments = parser.parse_args()
behaviour = json.loads((arguments.bundle / "behaviour.json").read_text())
started, draining = time.monotonic(), threading.Event()
in_flight, idle = 0, threading.Condition()

if behaviour.get("crash"):
    sys.exit(f"cannot serve {behaviour['version']}: sabotaged by a test")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
        self.wfile.flush()

    def do_GET(self):
        if self.path == "/drain":
            draining.set()
            time.sleep(arguments.drain_seconds)
            self.answer(200, {})
        elif self.path == "/health/status":
            ready = time.monotonic() - started >= behaviour.get("ready_after", 0) and not draining.is_set()
            self.answer(200 if ready else 503, {"reason": "" if ready else "not yet"})
        else:
            self.answer(200, {})

    def do_POST(self):
        global in_flight
        with idle:
            in_flight += 1
        self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(float(self.headers.get("x-take", behaviour.get("delay", 0))))
        self.answer(200, {"version": behaviour["version"], "pid": os.getpid()})
        with idle:
            in_flight -= 1
            idle.notify_all()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True


def finish(*_):
    if behaviour.get("abrupt"):
        os._exit(0)

    def wait():
        with idle:
            idle.wait_for(lambda: in_flight == 0, 10)
        os._exit(0)

    threading.Thread(target=wait).start()


signal.signal(signal.SIGTERM, finish)
threading.Thread(
    target=Server((arguments.host, arguments.management_port), Handler).serve_forever, daemon=True
).start()
Server((arguments.host, arguments.port), Handler).serve_forever()
