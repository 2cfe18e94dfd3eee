"""Ports of the loopback interface."""

from __future__ import annotations

import random
import socket
from pathlib import Path

from dapo.errors import DapoError

HOST = "127.0.0.1"  # everything listens here only
_LOWEST = 15_000  # below it live well-known development servers
_HIGHEST = 65_535


class PortTaken(DapoError):
    """A port is in use by another program."""


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now, outside of the range that the system gives to outgoing connections.

    A server that was killed has to come back under its address. In the ephemeral range a client's outgoing
    connection could have got the port meanwhile, or, retrying, even have connected to itself.

    Raises:
        PortTaken: there are not as many free ones.
    """
    low, high = _ephemeral()
    candidates = [*range(_LOWEST, low), *range(high + 1, _HIGHEST + 1)] or list(range(_LOWEST, _HIGHEST + 1))
    random.SystemRandom().shuffle(candidates)
    found: list[int] = []
    for port in candidates:
        if len(found) == count:
            break
        if is_free(port):
            found.append(port)
    if len(found) < count:
        raise PortTaken(
            f"{HOST}: fewer than {count} ports are free. Stop some servers: 'ss -ltnp' lists them."
        )
    return found


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: TIME_WAIT is no obstacle
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


def answers(port: int) -> bool:
    """Whether something accepts connections on the port."""
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((HOST, port)) == 0


def _ephemeral() -> tuple[int, int]:
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    return int(low), int(high)
