"""An S3 over real HTTP, as much of it as the client needs; it checks that requests are signed."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.log: list[tuple[str, str]] = []
        self.refuse: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Last-Modified", "Tue, 01 Jan 2030 00:00:00 GMT")
        self.send_header("Content-Length", headers.get("length") or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _object(self) -> str | None:
        """The object's path, or None when the request was answered already."""
        path = self.path.partition("?")[0]
        self.server.log.append((self.command, path))
        code = self.server.refuse
        if code is None and "AWS4-HMAC-SHA256 Credential=key/" not in self.headers.get("Authorization", ""):
            code = "AccessDenied"
        if code:
            self._drain()
            self._answer(403, ERROR.format(code=code).encode(), Content_Type="application/xml")
            return None
        return path

    def _drain(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self) -> None:
        if path := self._object():
            content = self._drain()
            self.server.objects[path] = content
            self._answer(200, ETag=f'"{hashlib.md5(content).hexdigest()}"')

    def do_GET(self) -> None:
        path = self._object()
        if path is None:
            return
        content = self.server.objects.get(path)
        if content is None:
            self._answer(404, ERROR.format(code="NoSuchKey").encode(), Content_Type="application/xml")
            return
        self._answer(200, content, ETag=f'"{hashlib.md5(content).hexdigest()}"')

    do_HEAD = do_GET


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
