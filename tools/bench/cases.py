"""The cases that several groups share: the limits, and whole reads of the model."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.child import program, reader, run_reader
from bench.measure import MIB, Case, evict, files_below, refill
from bench.world import MODEL, World, wait_cached, warm_nodes
from shardfs.api.local import LocalCluster

Timed = Callable[[], float | Mapping[str, float]]
Scene = Callable[[], AbstractContextManager[Timed]]
MEMORY_BYTES = 512 * MIB  # of a mount, by default

NO_CACHE = ("--no-cache",)


def wire(world: World) -> Case:
    """The chunks of the model by raw sockets."""
    stored = world.stored

    @contextmanager
    def scene() -> Iterator[Timed]:
        warm_nodes(world.cluster)
        plan = world.plan_file(stored.wire_plan)
        with program("wire", plan, stored.in_flight) as child:
            child.ready()
            yield lambda: run_reader(child)
        plan.unlink()

    return Case("wire", scene, memory_bytes=128 * MIB)


def fuse(world: World) -> Case:
    """A file of the same size out of memory, by pyfuse3."""

    @contextmanager
    def scene() -> Iterator[Timed]:
        place = world.place("fuse")
        place.mkdir()
        with program("fusefile", place, world.size) as server:
            server.ready()
            with reader("read", place / "file") as child:
                yield lambda: run_reader(child, world.size)
        place.rmdir()

    return Case("fuse", scene, memory_bytes=world.size + 128 * MIB)


def fuse_hot(world: World, how: str) -> Case:
    """The same file read again: the kernel has all of it, so this is what FUSE's page cache can do."""

    @contextmanager
    def scene() -> Iterator[Timed]:
        place = world.place("fuse")
        place.mkdir()
        with program("fusefile", place, world.size) as server:
            server.ready()
            with reader("read", place / "file") as first:
                run_reader(first, world.size)
            with reader(how, place / "file") as child:
                yield lambda: run_reader(child, world.size)
        place.rmdir()

    return Case(f"fuse hot {how}", scene, memory_bytes=world.size + 128 * MIB)


def disk(world: World, how: str = "read") -> Case:
    """The file on the local disk, nothing of it in memory."""
    return _local(world, f"disk {how}", how, evict, world.size)


def memory(world: World, how: str = "read") -> Case:
    """The file on the local disk, all of it in memory, where a read has brought it.

    Pages that came in by mmap lie in smaller pieces, and are read at half the speed or less.
    """
    return _local(world, f"memory {how}", how, refill, 0)


def _local(world: World, name: str, how: str, prepare: Callable[[list[Path]], None], size: int) -> Case:
    @contextmanager
    def scene() -> Iterator[Timed]:
        prepare([world.source])
        with reader(how, world.source) as child:
            yield lambda: run_reader(child)

    return Case(name, scene, memory_bytes=size + copied(world, how) + 16 * MIB)


def cold(
    world: World,
    name: str,
    *options: str,
    how: str = "read",
    cluster: LocalCluster | None = None,
    size: int | None = None,
    model: str | None = None,
) -> Case:
    """The model through a new mount that has nothing of it. A new disk cache unless `options` say --no-cache."""
    if cluster is None:
        world.stored  # noqa: B018  # published before anything is timed
    size = size or world.size
    copies = 1 if "--no-cache" in options else 2

    @contextmanager
    def scene() -> Iterator[Timed]:
        with world.mount(*options, cluster=cluster) as mount:
            path = mount.path / model if model else mount.model
            with reader(how, path) as child:
                yield lambda: run_reader(child)

    return Case(name, scene, memory_bytes=copies * size + MEMORY_BYTES + (size if how != "read" else 0))


def hot(world: World, name: str, how: str, *, model: str = MODEL) -> Case:
    """The second read on one mount: the kernel has all of it."""
    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[Timed]:
        with world.mount(*NO_CACHE) as mount:
            path = mount.path / model
            with reader("read", path) as first:
                run_reader(first, path.stat().st_size)
            with reader(how, path) as child:
                yield lambda: run_reader(child)

    return Case(name, scene, memory_bytes=copied(world, how) + 16 * MIB)


def copied(world: World, how: str) -> int:
    """Bytes of fresh memory that a reader fills besides the page cache: numpy's loader copies each tensor."""
    return world.size if how == "numpy" else 0


def filled_cache(world: World, model: str = MODEL) -> Path:
    """A disk cache that holds the whole model. The caller removes it."""
    with world.mount(keep=True) as mount:
        path = mount.path / model
        size = path.stat().st_size
        with reader("read", path) as child:
            run_reader(child, size)
        wait_cached(path, size)
    assert mount.cache is not None
    return mount.cache


def warm(
    world: World, name: str, cache: Path, *, how: str = "read", stop_nodes: bool = False, model: str = MODEL
) -> Case:
    """A new mount over a full disk cache of which nothing is in memory."""

    world.stored  # noqa: B018

    @contextmanager
    def scene() -> Iterator[Timed]:
        evict(files_below(cache))
        with world.mount(cache=cache) as mount:
            path = mount.path / model
            path.stat()
            try:
                if stop_nodes:
                    for node in world.cluster.node_ids:
                        world.cluster.stop(node)
                with reader(how, path) as child:
                    yield lambda: run_reader(child)
            finally:
                world.heal()

    return Case(name, scene, memory_bytes=(2 if how == "read" else 3) * world.size + MEMORY_BYTES)
