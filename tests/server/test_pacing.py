"""Which connections of a node are paced: real sockets, whatever congestion control this system has."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from shardfs.server.pacing import Pacing


@contextmanager
def accepted(source: str) -> Iterator[tuple[Pacing, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pacing = Pacing(listener)
        address = listener.getsockname()[:2]
        with socket.create_connection(address, source_address=(source, 0)), listener.accept()[0] as connection:
            yield pacing, connection


def control(sock: socket.socket) -> bytes:
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0")


def systems() -> bytes:
    with socket.socket() as sock:
        return control(sock)


def test_within_a_machine_it_never_had_another():
    with accepted("127.0.0.1") as (pacing, connection):
        assert control(connection) == b"reno"
        pacing.accepted(connection)
        assert control(connection) == b"reno"


def test_between_two_addresses_it_is_what_the_system_wants():
    with accepted("127.0.0.2") as (pacing, connection):
        pacing.accepted(connection)
        assert control(connection) == systems()


def test_a_connection_that_is_gone_is_left_alone():
    with accepted("127.0.0.2") as (pacing, connection):
        connection.close()
        pacing.accepted(connection)
