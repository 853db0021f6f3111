"""Between the kernel and libfuse: what concerns the bytes of files is answered here, everything else passed on.

pyfuse3 answers some ten thousand requests a second, and cannot hand files over to the kernel. So the mount keeps
/dev/fuse for itself and gives libfuse one end of a socket in its place:

    kernel <-> /dev/fuse <-> relay <-> socket <-> libfuse, pyfuse3, adapter
                               |
                           data path

libfuse made the mount and takes it down; names, attributes and listings are its own. The relay changes two of its
messages: INIT, in which kernel and filesystem agree on what they can, and the size of a listing, so that an answer
always fits in the socket.

See docs/adr/0020.
"""

import errno
import logging
import os
import socket
from collections import deque
from contextlib import suppress
from functools import partial
from pathlib import Path

import pyfuse3
import trio

from shardfs.core.digest import Bytes
from shardfs.errors import MountError
from shardfs.mount import wire
from shardfs.mount.backing import Backings
from shardfs.mount.data_path import DataPath
from shardfs.mount.guard import Guard
from shardfs.mount.wire import Operation
from shardfs.vfs import FileSystem

logger = logging.getLogger(__name__)

_LISTING_BYTES_MAX = 32 * 1024
_MESSAGE_BYTES_MAX = 128 * 1024  # an extended attribute of 64 KiB is the longest answer
_SOCKET_BYTES = 4 * 1024 * 1024
_TURN_BYTES = 1024 * 1024
"""How much is answered before other tasks get their turn: they receive and write what is read next."""
_REQUEST_BYTES = 64 * 1024  # what a request without bytes counts
_GONE = (errno.ENODEV, errno.ECONNABORTED, errno.EBADF)


def take_device() -> tuple[int, socket.socket]:
    """Put a socket in the place of the descriptor that libfuse has just mounted with: the device, and our end."""
    numbers = [int(entry.name) for entry in Path("/proc/self/fd").iterdir() if _leads_to_fuse(entry)]
    if len(numbers) != 1:
        raise MountError(f"expected one open /dev/fuse, found {len(numbers)}")
    device = os.dup(numbers[0])
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (ours, theirs):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BYTES)
    os.dup2(theirs.fileno(), numbers[0], inheritable=False)
    theirs.close()
    os.set_blocking(device, False)
    return device, ours


def _leads_to_fuse(entry: Path) -> bool:
    try:
        return os.readlink(entry) == "/dev/fuse"
    except OSError:
        return False


class Relay:
    """One mount's traffic. `gone`: the kernel has ended it."""

    def __init__(self, filesystem: FileSystem, guard: Guard, *, requests_max: int, passthrough: bool) -> None:
        """After `pyfuse3.init`, which mounts."""
        self._device, self._session = take_device()
        self._backings = Backings(filesystem, self._device) if passthrough else None
        self._data = DataPath(filesystem, guard, self._reply, backings=self._backings, reads_max=requests_max)
        self._requests_max = requests_max
        self._waiting: deque[bytes] = deque()  # for the socket
        self._more = trio.Event()
        self._init = -1  # the unique number of the kernel's INIT, until it is answered
        self._init_passthrough = False
        self._stop = trio.CancelScope()
        self.gone = False

    async def run(self) -> None:
        """Serve until unmounted, or `stop`: what is under way then is finished, unless cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pass_on)
                nursery.start_soon(self._pass_back)
                nursery.start_soon(self._data.run)
                async with trio.open_nursery() as serving:
                    serving.start_soon(partial(pyfuse3.main, max_tasks=self._requests_max))
                    async with trio.open_nursery() as calls:
                        with self._stop:
                            await self._serve(calls)
                        if self.gone:
                            serving.cancel_scope.cancel()  # nobody waits for an answer any more
                        else:
                            await self._data.drain()
                    pyfuse3.terminate()
                self._pass_back_now()  # the last answers of what was under way
                nursery.cancel_scope.cancel()
        finally:
            self._data.close()
            if self._backings is not None:
                self._backings.close()
            self._session.close()
            os.close(self._device)

    @property
    def passthrough(self) -> bool:
        """Whether complete files are handed to the kernel."""
        return self._backings is not None and self._backings.allowed

    def stop(self) -> None:
        """No new requests are taken."""
        self._stop.cancel()

    # ------------------------------------------------------------------------------------------------ from the kernel

    async def _serve(self, calls: trio.Nursery) -> None:
        buffer = bytearray(wire.REQUEST_BYTES_MIN)
        while True:
            await trio.lowlevel.wait_readable(self._device)
            answered = 0
            while answered < _TURN_BYTES:
                try:
                    length = os.readv(self._device, [buffer])
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno in _GONE:
                        self.gone = True
                        return
                    if error.errno not in (errno.ENOENT, errno.EINTR):  # a request that was taken back
                        raise
                    continue
                answered += _REQUEST_BYTES + self._take(calls, buffer, length)

    def _take(self, calls: trio.Nursery, message: bytearray, length: int) -> int:
        """Answer a request or pass it on; how many bytes of a file were given."""
        operation, unique, inode = wire.request(message)
        match operation:
            case Operation.READ:
                return self._data.read(calls, unique, *wire.read_wanted(message))
            case Operation.OPEN:
                self._data.open(calls, unique, inode, wire.open_flags(message))
            case Operation.RELEASE:
                self._data.release(unique, inode, wire.released(message))
            case Operation.INTERRUPT:
                # Calls are bounded by their deadline; said once, the kernel asks no more.
                self._reply(unique, errno.ENOSYS, b"")
            case _:
                if operation == Operation.INIT:
                    self._init = unique
                    offer = wire.Offer.parse(message[:length])
                    self._init_passthrough = self._backings is not None and offer.passthrough
                elif operation in (Operation.READDIR, Operation.READDIRPLUS):
                    wire.limit_read(message, _LISTING_BYTES_MAX)
                self._waiting.append(bytes(message[:length]))
                self._more.set()
        return 0

    def _reply(self, unique: int, error: int, body: bytes | memoryview) -> None:
        self._write(unique, [wire.answer_head(unique, len(body), error), body])

    def _write(self, unique: int, parts: list[Bytes]) -> None:
        try:
            os.writev(self._device, parts)
        except OSError as failure:
            # ENOENT: whoever asked has been killed. The others mean that the mount is gone, which reading will tell.
            if failure.errno not in (errno.ENOENT, *_GONE):
                logger.error("answer to request %d: %s", unique, failure.strerror)
                with suppress(OSError):  # whoever waits for FUSE cannot be killed: any answer is better than none
                    os.write(self._device, wire.answer_head(unique, error=errno.EIO))

    # ------------------------------------------------------------------------------------------- to libfuse and back

    async def _pass_on(self) -> None:
        while True:
            while self._waiting:
                try:
                    self._session.send(self._waiting[0])
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._session)
                    continue
                self._waiting.popleft()
            self._more = trio.Event()
            await self._more.wait()

    async def _pass_back(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._session)
            self._pass_back_now()

    def _pass_back_now(self) -> None:
        while True:
            try:
                answer = bytearray(self._session.recv(_MESSAGE_BYTES_MAX))
            except BlockingIOError:
                return
            if not answer:
                raise MountError("libfuse closed its end while the mount is served")
            unique = wire.answered(answer)
            if unique == self._init:
                self._settle(answer)
            self._write(unique, [answer])

    def _settle(self, answer: bytearray) -> None:
        self._init = -1
        room = wire.REQUEST_BYTES_MIN // 2
        wire.settle(answer, write_bytes_max=room, passthrough=self._init_passthrough)
        if self._backings is not None:
            self._backings.allow(self._init_passthrough)
