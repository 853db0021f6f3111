"""The life of one mount: made, tuned, ready, served, drained, taken down.

Nothing is left behind on any way out but SIGKILL.
"""

import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyfuse3
import trio

from shardfs.errors import MountError
from shardfs.mount.adapter import Adapter
from shardfs.mount.guard import Guard
from shardfs.mount.kernel import KernelOptions, tune
from shardfs.mount.mountpoint import check_system, detach, is_dead, prepare
from shardfs.mount.relay import Relay
from shardfs.vfs import FileSystem

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class MountOptions:
    """`read_timeout_seconds` bounds every call; `requests_max` the reads under way, and the other calls by themselves.

    `passthrough`: complete files of the disk cache are handed to the kernel.
    """

    allow_other: bool = False
    read_timeout_seconds: float = 10.0
    drain_seconds: float = 5.0
    requests_max: int = 128
    passthrough: bool = False
    kernel: KernelOptions = field(default_factory=KernelOptions)


@dataclass(frozen=True, slots=True)
class Ready:
    """The mount answers. `tuned`: the kernel's read-ahead was raised, which takes root, as does `passthrough`."""

    mountpoint: Path
    tuned: bool
    passthrough: bool


async def serve(
    filesystem: FileSystem,
    mountpoint: Path,
    options: MountOptions,
    *,
    space: Callable[[], tuple[int, int]],
    ready: Callable[[Ready], None],
) -> None:
    """Mount and answer until unmounted, SIGTERM or SIGINT. `space()` gives capacity and free bytes for `df`.

    `ready` is called once the mount has answered a first question. Raises MountError when it cannot be made.
    """
    check_system()
    place = prepare(mountpoint)
    guard = Guard(options.read_timeout_seconds)
    try:
        pyfuse3.init(Adapter(filesystem, guard, space=space), str(place), _fuse_options(options))
    except RuntimeError as error:
        raise MountError(f"{place}: {error}; {_hint(options)}") from None
    relay = None
    try:
        relay = Relay(filesystem, guard, requests_max=options.requests_max, passthrough=options.passthrough)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, options.drain_seconds, relay.stop, nursery.cancel_scope)
            nursery.start_soon(_announce, place, options, relay, ready)
            await relay.run()
            nursery.cancel_scope.cancel()
    finally:
        # libfuse would see on its own descriptor whether the kernel has unmounted already.
        pyfuse3.close(unmount=relay is None or not relay.gone)
        _sweep(place)
        logger.info("%s: unmounted", place)


def _sweep(place: Path) -> None:
    """libfuse leaves the mount behind when its connection was aborted through fusectl."""
    if is_dead(place):
        with suppress(MountError):
            detach(place)


async def _announce(place: Path, options: MountOptions, relay: Relay, ready: Callable[[Ready], None]) -> None:
    try:
        await trio.to_thread.run_sync(os.statvfs, place, abandon_on_cancel=True)
    except OSError as error:
        raise MountError(f"{place}: the mount was made but does not answer: {error.strerror}") from None
    tuned = await trio.to_thread.run_sync(tune, place, options.kernel, abandon_on_cancel=True)
    ready(Ready(place, tuned, relay.passthrough))


async def _stop_on_signal(drain_seconds: float, stop: Callable[[], None], scope: trio.CancelScope) -> None:
    """The first signal lets calls under way finish, for `drain_seconds` at most; a second one does not wait."""
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            logger.info("%s: finishing what is under way", signal.Signals(number).name)
            stop()
            break
        with trio.move_on_after(drain_seconds):
            async for _ in signals:
                break
    scope.cancel()


def _fuse_options(options: MountOptions) -> set[str]:
    chosen = set(pyfuse3.default_options) | {"ro", "nosuid", "nodev", "fsname=shardfs", "subtype=shardfs"}
    chosen.add("default_permissions")
    if options.allow_other:
        chosen.add("allow_other")
    return chosen


def _hint(options: MountOptions) -> str:
    if options.allow_other and os.geteuid() != 0:
        return "--allow-other needs the line user_allow_other in /etc/fuse.conf"
    return "see the message of fusermount3 above" if os.geteuid() != 0 else "mount(2) failed: is CAP_SYS_ADMIN missing?"
