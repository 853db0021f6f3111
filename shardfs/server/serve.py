"""The server's life: claim the folder, listen, converse with each client, stop.

One task per connection; the number of connections is bounded. One too many takes the place of an idle one: who has not
finished a request yet goes first, then who has asked for nothing for the longest time. So connections that do nothing
keep nobody out, and a client that finds its idle connection closed opens another. Only when all have a request running
one too many is told so with a 503.

A bug in a handler is logged and costs that connection only. Stopping is cancellation: no new connections, idle ones
close at once, running requests have `stop_seconds_max`.
"""

import errno
import ipaddress
import logging
import math
import socket
from collections import OrderedDict
from contextlib import suppress

import trio

from shardfs.errors import ShardfsError, UsageError
from shardfs.server.claim import claimed
from shardfs.server.connection import Connection, Gone
from shardfs.server.metrics import Metrics
from shardfs.server.options import ServerOptions
from shardfs.server.pacing import Pacing
from shardfs.server.request import Refused
from shardfs.server.router import Router

logger = logging.getLogger(__name__)

_ACCEPT_PAUSE_SECONDS = 0.1
_NEW_SECONDS = 1.0  # the first request of a new connection may be on its way: idle ones go before it
_OUT_OF_RESOURCES = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 21\r\n\r\ntoo many connections\n"

Address = tuple[str, int]


async def serve(options: ServerOptions, *, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED) -> None:
    """Serve until cancelled; `task_status` gets the address when clients may come.

    UsageError when the options cannot be (an open address without a token, another node's folder); ShardfsError when
    the folder or the address cannot be had.
    """
    await _check_address(options)
    with claimed(options.data, options.node):
        listeners = await _listen(options)
        address = listeners[0].socket.getsockname()[:2]
        await _Server(options).run(listeners, task_status, address)


async def _check_address(options: ServerOptions) -> None:
    if options.token is not None or options.insecure:
        return
    try:
        found = await trio.socket.getaddrinfo(options.host or None, options.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ShardfsError(f"node {options.node}: cannot listen on {options.host}: {error.strerror}") from error
    except UnicodeError as error:
        raise _no_host(options) from error
    if options.host and all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found):
        return
    where = options.host or "every address"
    raise UsageError(
        f"node {options.node}: {where} can be reached by others: give a token (--token-file FILE), or say --insecure"
    )


async def _listen(options: ServerOptions) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(options.port, host=options.host or None)
    except OSError as error:
        where = f"{options.host}:{options.port}"
        raise ShardfsError(f"node {options.node}: cannot listen on {where}: {error.strerror or error}") from error
    except UnicodeError as error:
        raise _no_host(options) from error


def _no_host(options: ServerOptions) -> UsageError:
    """For what can be no host's name: IDNA refuses empty and very long labels before anybody is asked."""
    return UsageError(f"node {options.node}: cannot listen on {options.host[:64]!a}: not a host name")


class _Server:
    """Connections and requests of one server. All state belongs to the trio thread."""

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._metrics = Metrics()
        self._router = Router(options, self._metrics)
        self._connections: set[trio.CancelScope] = set()
        # Each is in one of these three, and in the first two whoever has been there longest comes first.
        self._new: OrderedDict[trio.CancelScope, float] = OrderedDict()  # has not finished a request; since when
        self._idle: OrderedDict[trio.CancelScope, None] = OrderedDict()  # has, and waits for another, or is at its end
        self._busy: set[trio.CancelScope] = set()  # has a request running
        self._stopping = trio.Event()
        self._quiet = trio.Event()  # stopping, and nobody is busy

    async def run(
        self, listeners: list[trio.SocketListener], task_status: trio.TaskStatus[Address], address: Address
    ) -> None:
        """Accept until cancelled, then stop."""
        async with trio.open_nursery() as conversations:
            try:
                await self._router.prepare()
                async with trio.open_nursery() as accepting:
                    for listener in listeners:
                        accepting.start_soon(self._accept, listener, conversations)
                    task_status.started(address)
            finally:
                for listener in listeners:
                    listener.socket.close()
                await self._stop()

    async def _stop(self) -> None:
        self._stopping.set()
        if self._busy:
            with trio.move_on_after(self._options.stop_seconds_max, shield=True):
                await self._quiet.wait()
        for scope in self._connections:
            scope.cancel()

    async def _accept(self, listener: trio.SocketListener, conversations: trio.Nursery) -> None:
        pacing = Pacing(listener.socket)
        while True:
            try:
                stream = await listener.accept()
            except OSError as error:
                if error.errno not in _OUT_OF_RESOURCES:
                    raise
                self._metrics.errors.labels("accept").inc()
                logger.warning("node %s: cannot accept: %s", self._options.node, error.strerror)
                await trio.sleep(_ACCEPT_PAUSE_SECONDS)  # until another connection ends
                continue
            if len(self._connections) >= self._options.connections_max and not self._make_room():
                self._metrics.errors.labels("refused").inc()
                with stream.socket as sock, suppress(OSError):
                    await sock.send(_FULL)
                continue
            connected = socket.socket(fileno=stream.socket.detach())
            pacing.accepted(connected)
            scope = trio.CancelScope()
            self._connections.add(scope)
            self._new[scope] = trio.current_time()
            conversations.start_soon(self._handle, connected, scope)

    def _make_room(self) -> bool:
        """Close the connection that is missed least; False when there is none to close."""
        if not (self._new or self._idle):
            return False
        since = next(iter(self._new.values()), math.inf)
        longest = self._idle if self._idle and trio.current_time() - since < _NEW_SECONDS else self._new
        scope = next(iter(longest))
        del longest[scope]
        self._connections.discard(scope)
        scope.cancel()
        self._metrics.errors.labels("evicted").inc()
        return True

    async def _handle(self, sock: socket.socket, scope: trio.CancelScope) -> None:
        self._metrics.connections.inc()
        try:
            with sock, scope:
                connection = Connection(sock, self._options, self._metrics)
                await self._converse(connection, scope)
                await connection.linger()
        except Gone as gone:
            self._metrics.errors.labels("gone").inc()
            logger.debug("node %s: a client went: %s", self._options.node, gone)
        except Exception:
            self._metrics.errors.labels("bug").inc()
            logger.exception("node %s: a connection failed", self._options.node)
        finally:
            self._connections.discard(scope)
            self._new.pop(scope, None)
            self._idle.pop(scope, None)
            self._metrics.connections.dec()

    async def _converse(self, connection: Connection, scope: trio.CancelScope) -> None:
        while not (connection.closing or self._stopping.is_set()):
            try:
                request = await connection.next_request()
            except Refused as refused:
                self._metrics.errors.labels("malformed").inc()
                await self._router.refuse(connection, refused)
                return
            if request is None or scope.cancel_called:  # it may have come in the moment of the eviction
                return
            self._new.pop(scope, None)
            self._idle.pop(scope, None)
            self._busy.add(scope)
            scope.shield = True  # stopping waits for it
            try:
                await self._router.answer(connection, request)
            finally:
                scope.shield = False
                self._busy.discard(scope)
                self._idle[scope] = None
                if self._stopping.is_set() and not self._busy:
                    self._quiet.set()
