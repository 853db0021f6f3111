"""Which connections are paced: real sockets, whatever congestion control this system has."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardfs.store.same_host import spare_pacing


@contextmanager
def connected(host: str, source: str) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        address = listener.getsockname()[:2]
        with socket.create_connection(address, source_address=(source, 0)) as sock, listener.accept()[0]:
            yield sock


def control(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def test_within_a_machine() -> None:
    with connected("127.0.0.1", "127.0.0.1") as sock:
        assert spare_pacing(sock)
        assert control(sock) == b"reno"


def test_between_two_addresses_the_choice_of_the_system_stays() -> None:
    with connected("127.0.0.1", "127.0.0.2") as sock:
        before = control(sock)
        assert not spare_pacing(sock)
        assert control(sock) == before


def test_a_connection_that_is_gone_is_left_alone() -> None:
    with connected("127.0.0.1", "127.0.0.1") as sock:
        pass
    assert not spare_pacing(sock)


def test_ipv6() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        with connected("::1", "::1") as sock:
            assert spare_pacing(sock)
            assert control(sock) == b"reno"
    except OSError:
        pytest.skip("no IPv6 loopback")
