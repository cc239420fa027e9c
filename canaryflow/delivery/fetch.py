"""One page over HTTP, bounded in size and in time from the first byte asked for to the last byte read."""

from __future__ import annotations

import socket
import threading
import time
import urllib.parse
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection

MOST_BYTES = 32 * 1024 * 1024
_CHUNK = 256 * 1024


def fetch_text(url: str, timeout: float, most_bytes: int = MOST_BYTES) -> str:
    """Get a page, whole or not at all; redirects are not followed, proxies not used (metrics are near by).

    Args:
        url: ``http://`` or ``https://``.
        timeout: Seconds in all, a server that trickles included.
        most_bytes: The greatest page that is accepted.

    Raises:
        OSError: Not reachable, another status than 200, cut off, too large, too slow, not UTF-8.
    """
    parts = urllib.parse.urlsplit(url)
    deadline = time.monotonic() + timeout
    kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    guard: threading.Timer | None = None
    try:
        connection.connect()
        guard = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, [connection.sock])
        guard.daemon = True
        guard.start()
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        connection.request("GET", target, headers={"Accept": "text/plain, application/json"})
        return _read(connection.getresponse(), deadline, most_bytes).decode("utf-8")
    except (HTTPException, UnicodeDecodeError, OSError) as error:
        if time.monotonic() >= deadline:
            raise OSError(f"no whole answer within {timeout:g} s") from error
        raise OSError(str(error) or type(error).__name__) from error
    finally:
        if guard:
            guard.cancel()
        connection.close()


def _read(answer: HTTPResponse, deadline: float, most_bytes: int) -> bytes:
    expected = answer.length
    chunks: list[bytes] = []
    size = 0
    while chunk := answer.read1(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > most_bytes:
            raise OSError(f"found over {most_bytes:,} bytes, expected less")
    if answer.status != 200:
        raise OSError(
            f"status {answer.status} ({b''.join(chunks)[:200].decode(errors='replace')!r}), expected 200"
        )
    # A page without a length ends where the connection does: also where the guard has ended it.
    if time.monotonic() >= deadline or (expected is not None and size != expected):
        raise OSError(f"the answer was cut off after {size:,} bytes")
    return b"".join(chunks)


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
