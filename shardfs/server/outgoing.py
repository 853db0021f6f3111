"""One answer on its way out: what is left of it, and how much of that a socket takes now.

An answer is bytes and spans of one open file, in any order. The kernel moves the spans from the page cache to the
socket (sendfile). Nothing here waits for a client longer than the caller allows; for the disk it waits as long as the
disk does.
"""

import os
import select
import socket
import time
from collections import deque
from collections.abc import Iterable
from typing import TypeAlias

from shardfs.core.digest import Bytes
from shardfs.server.at_once import in_memory
from shardfs.server.ranges import Span

PUSH_BYTES_MAX = 5 * 1024 * 1024
"""Sent in one go. A chunk goes at once, with its header; nobody keeps the event loop for longer than that takes."""
_TOGETHER_BYTES = 16 * 1024  # copied behind other bytes, which is cheaper than another call
_KEEPS_UP_SECONDS = 0.01

Piece: TypeAlias = Bytes | Span


class Outgoing:
    """Owns `file` (-1: there is none), which every span among the pieces belongs to. Used by one thread at a time."""

    def __init__(self, head: Bytes, pieces: Iterable[Piece] = (), file: int = -1) -> None:
        self._file = file
        self._pieces: deque[Piece] = deque([head])
        for piece in pieces:
            self._add(piece)
        self.left = sum(map(_size, self._pieces))
        """Bytes that have not gone."""
        self.size = self.left - len(head)
        """Bytes of the body."""

    def _add(self, piece: Piece) -> None:
        last = self._pieces[-1]
        if isinstance(piece, tuple) or isinstance(last, tuple) or len(last) + len(piece) > _TOGETHER_BYTES:
            if _size(piece):
                self._pieces.append(piece)
        else:
            self._pieces[-1] = b"".join((last, piece))

    @property
    def done(self) -> bool:
        return not self._pieces

    @property
    def body_left(self) -> int:
        """Bytes of the body that have not gone."""
        return min(self.left, self.size)

    def is_in_memory(self) -> bool:
        """Whether the next `push` needs no disk, as far as can be said."""
        room = PUSH_BYTES_MAX
        for piece in self._pieces:
            if isinstance(piece, tuple):
                start, end = piece
                if not in_memory(self._file, start, min(end, start + room)):
                    return False
            room -= _size(piece)
            if room <= 0:
                break
        return True

    def push(self, sock: socket.socket, stay_seconds: float = 0.0) -> None:
        """Send until the socket stays full, at most about PUSH_BYTES_MAX.

        A client that keeps up is waited for here, `stay_seconds` in all: for a thread that is cheaper than coming back.
        ConnectionError and TimeoutError when the client is gone; another OSError when the disk fails or the file has
        become shorter.
        """
        writable: select.poll | None = None
        until = time.monotonic() + stay_seconds if stay_seconds else 0.0
        stop = max(0, self.left - PUSH_BYTES_MAX)
        while self.left > stop:
            try:
                self._send(sock)
            except BlockingIOError:
                if not stay_seconds:
                    break
                if writable is None:
                    writable = select.poll()
                    writable.register(sock, select.POLLOUT)
                left = min(until - time.monotonic(), _KEEPS_UP_SECONDS)
                if left <= 0 or not writable.poll(left * 1000):
                    break

    def _send(self, sock: socket.socket) -> None:
        piece = self._pieces[0]
        if isinstance(piece, tuple):
            start, end = piece
            count = os.sendfile(sock.fileno(), self._file, start, min(end - start, PUSH_BYTES_MAX))
            if count == 0:
                raise OSError(f"the object ends at {start} instead of {end}")
            rest: Piece = (start + count, end)
        else:
            count = sock.send(piece, socket.MSG_MORE if len(self._pieces) > 1 else 0)
            rest = memoryview(piece)[count:] if count < len(piece) else b""
        self.left -= count
        if _size(rest):
            self._pieces[0] = rest
        else:
            self._pieces.popleft()

    def close(self) -> None:
        """Let go of the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _size(piece: Piece) -> int:
    return piece[1] - piece[0] if isinstance(piece, tuple) else len(piece)
