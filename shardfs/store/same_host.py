"""Between two processes of one machine there is no network to be careful with.

Where the system's congestion control is BBR, which paces what it sends by an estimate of the path and by timers, that
costs a connection to a node on the same machine a third of its speed (docs/PERFORMANCE.md). On such connections both
sides choose Reno instead, which every Linux has, also for those who may not choose others, and which does nothing as
long as nothing is lost. Connections to other machines keep what their administrator chose.
"""

import socket
from contextlib import suppress
from typing import Protocol

_WITHOUT_PACING = b"reno"


class Socket(Protocol):
    """What is used of a connected socket: those of the standard library and of trio have it."""

    def getsockname(self) -> tuple[object, ...]: ...

    def getpeername(self) -> tuple[object, ...]: ...

    def setsockopt(self, level: int, option: int, value: bytes, /) -> None: ...


def spare_pacing(sock: Socket) -> bool:
    """Whether both ends of a connected TCP socket are on this machine; then what it sends is not paced."""
    with suppress(OSError):  # gone already, or a system without the choice: as it was
        if sock.getsockname()[0] == sock.getpeername()[0]:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, _WITHOUT_PACING)
            return True
    return False
