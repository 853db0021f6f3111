"""A node does not pace what it sends to its own machine: there is no network to be careful with.

Where the system's congestion control is BBR, which paces what it sends by an estimate of the path and by timers, that
costs a reader on the same machine a third of its speed (docs/adr/0018-same-machine-and-touched-memory.md). The kernel
goes on pacing a connection that ever had BBR, so the choice has to be made before there is one: the listening socket
has Reno, which every Linux has and lets everybody choose, and a connection from another machine gets the system's
choice back as soon as it is accepted.
"""

import socket
from contextlib import suppress
from typing import Protocol

_WITHOUT_PACING = b"reno"
_NAME_BYTES_MAX = 16


class Socket(Protocol):
    """What is used of a TCP socket: those of the standard library and of trio have it."""

    def getsockname(self) -> tuple[object, ...]: ...

    def getpeername(self) -> tuple[object, ...]: ...

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes: ...

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...


class Pacing:
    """For the connections of one listening socket."""

    def __init__(self, listener: Socket) -> None:
        self._systems: bytes | None = None  # its choice, where we made another
        with suppress(OSError):  # a system without the choice: as it was
            systems = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _NAME_BYTES_MAX)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _WITHOUT_PACING)
            self._systems = systems.rstrip(b"\0")

    def accepted(self, connection: Socket) -> None:
        """Give a new connection the system's choice, unless both its ends are on this machine."""
        with suppress(OSError):  # gone already
            if self._systems is not None and connection.getsockname()[0] != connection.getpeername()[0]:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, self._systems)
