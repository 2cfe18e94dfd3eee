"""Ports on loopback."""

from __future__ import annotations

import socket
from pathlib import Path

from deploy.native.ports import HOST, answers, free_ports, is_free


def test_they_are_different_and_free():
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(is_free(port) and not answers(port) for port in ports)


def test_no_outgoing_connection_can_get_them_while_a_server_is_down():
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    assert not any(low <= port <= high for port in free_ports(200))


def test_one_that_somebody_listens_on_is_not_free():
    with socket.socket() as server:
        server.bind((HOST, free_ports(1)[0]))
        server.listen()
        port = server.getsockname()[1]
        assert not is_free(port)
        assert answers(port)
    assert is_free(port)
