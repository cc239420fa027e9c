"""Ports of the loopback that are really free."""

from __future__ import annotations

import random
import socket

# Below the range that Linux takes the ports of outgoing connections from: under load, a port of that range
# that was free a moment ago is soon some connection's own.
_POD_PORTS = range(20_000, 32_000)


def port_is_free(port: int) -> bool:
    """Whether nothing listens on 127.0.0.1:``port``, with or without SO_REUSEPORT.

    granian and Envoy bind with SO_REUSEPORT: a second one would start without a word and share the traffic.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # only over what waits to be forgotten
        try:
            probe.bind(("127.0.0.1", port))
            probe.listen(1)
        except OSError:
            return False
    return True


class Ports:
    """Hands out free ports of the loopback, each to one holder at a time."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self, preferred: int = 0) -> int:
        """A free port: ``preferred`` where that is free, else any.

        Raises:
            OSError: None of 1,000 tried is free.
        """
        tries = [preferred] if preferred else []
        tries += random.choices(_POD_PORTS, k=1000)  # noqa: S311 - no secret
        for port in tries:
            if port not in self._taken and port_is_free(port):
                self._taken.add(port)
                return port
        raise OSError(f"no free port between {_POD_PORTS.start} and {_POD_PORTS.stop}")

    def give_back(self, *ports: int) -> None:
        """Let others take these ports."""
        self._taken.difference_update(ports)
