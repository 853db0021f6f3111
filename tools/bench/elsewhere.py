"""Rivals that Debian has not, or that need an S3 endpoint: s3fs, mountpoint-s3, goofys, JuiceFS, SeaweedFS.

They run when their program is on the PATH. Those on S3 read the model as one object of the endpoint that the group
`engines` uses (JuiceFS: as its own objects, with SQLite for names); SeaweedFS has a server of its own. Only s3fs was
ever run by us. The other four recipes are what their documentation says, see `RECIPES`.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.context import Bench
from bench.engine import Engine, Missing, engine
from bench.measure import GIB, files_below, fill
from bench.rivals import Command, Rival, Served, end, find, mounted
from bench.servers import paired_port, start
from bench.signed import Bucket
from bench.world import MODEL, World
from shardfs.core.location import parse_s3
from shardfs.errors import ShardfsError

FOLDER = "plain"
S3_BYTES_MAX = 4 * GIB  # of one object by one request: Swift takes 5 GiB
FORMAT_SECONDS = 120.0
VOLUME = "bench"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running S3 engine, its keys in the environment. In `folder` of its bucket lies the model as one object."""

    engine: Engine
    url: str
    bucket: str
    folder: str
    region: str

    @classmethod
    def holding(cls, there: Engine, source: Path) -> "Endpoint":
        """Store the file there first. RuntimeError when it is refused."""
        place = parse_s3(there.url)
        bucket = Bucket.of(there.url.replace(place.prefix.rstrip("/"), FOLDER))
        bucket.put("")  # s3fs wants its folder to be there
        bucket.put(MODEL, source)
        return cls(there, place.endpoint, place.bucket, FOLDER, place.region)

    @property
    def address(self) -> str:
        return f"{self.bucket} {self.folder} {self.url} {self.region}"


# ------------------------------------------------------------------------------------------------ clients: commands


def s3fs(address: str, place: Path, cache: Path) -> list[str]:
    """As many and as small requests at once as it can make: 16 parts of 5 MB."""
    bucket, folder, endpoint, region = address.split(" ")
    options = ["ro", f"url={endpoint}", "use_path_request_style", f"endpoint={region}", f"tmpdir={cache}"]
    options += ["parallel_count=16", "multipart_size=5", "kernel_cache"]
    return ["s3fs", f"{bucket}:/{folder}", str(place), "-f", "-o", ",".join(options)]


def mount_s3(address: str, place: Path, _cache: Path) -> list[str]:
    """mountpoint-s3, doc/CONFIGURATION.md. Its cache is emptied at each mount, so there is no warm read of it."""
    bucket, folder, endpoint, region = address.split(" ")
    words = ["mount-s3", bucket, str(place), "--prefix", f"{folder}/", "--endpoint-url", endpoint]
    return [*words, "--force-path-style", "--region", region, "--read-only", "--foreground"]


def goofys(address: str, place: Path, _cache: Path) -> list[str]:
    """README.md and internal/flags.go. Paths instead of host names is its default."""
    bucket, folder, endpoint, region = address.split(" ")
    return ["goofys", "-f", "--endpoint", endpoint, "--region", region, f"{bucket}:{folder}", str(place)]


def juicefs(address: str, place: Path, cache: Path) -> list[str]:
    """Command reference of the community edition. `address` is the url of its names."""
    return ["juicefs", "mount", "--no-usage-report", "--no-bgjob", "--cache-dir", str(cache), address, str(place)]


def weed(address: str, place: Path, cache: Path) -> list[str]:
    """Wiki, FUSE-Mount. `address` is that of its filer."""
    return ["weed", "mount", f"-filer={address}", f"-dir={place}", "-filer.path=/", f"-cacheDir={cache}"]


# --------------------------------------------------------------------------------- what is there before they are run

Begin = Callable[[World, Endpoint | None, ExitStack], tuple[str, Callable[[World], None]]]
"""Start what a recipe reads from, for as long as the stack is open; its address, and what has it in memory."""


def on_endpoint(_world: World, endpoint: Endpoint | None, _stack: ExitStack) -> tuple[str, Callable[[World], None]]:
    assert endpoint is not None
    return endpoint.address, lambda _world: endpoint.engine.warm()


def juicefs_volume(world: World, endpoint: Endpoint | None, _stack: ExitStack) -> tuple[str, Callable[[World], None]]:
    """A volume with the model in it: blocks in the bucket, names in SQLite."""
    assert endpoint is not None
    names = f"sqlite3://{world.place('juicefs')}.db"
    words = ["juicefs", "format", "--storage", "s3", "--bucket", f"{endpoint.url}/{endpoint.bucket}"]
    words += ["--access-key", os.environ["AWS_ACCESS_KEY_ID"], "--secret-key", os.environ["AWS_SECRET_ACCESS_KEY"]]
    subprocess.run([*words, names, VOLUME], check=True, capture_output=True, timeout=FORMAT_SECONDS)
    copy_in(world, "juicefs", juicefs, names)
    return names, lambda _world: endpoint.engine.warm()


def weed_server(world: World, _endpoint: Endpoint | None, stack: ExitStack) -> tuple[str, Callable[[World], None]]:
    """Master, volumes and filer in one process, with the model in it."""
    data = world.place("weed")
    data.mkdir()
    master, volume, filer = (paired_port() for _ in range(3))
    words = ["weed", "server", f"-dir={data}", "-ip=127.0.0.1", "-filer", f"-filer.port={filer}"]
    words += [f"-master.port={master}", f"-volume.port={volume}", "-volume.preStopSeconds=0"]
    stack.callback(end, start(words, filer, world.work / "rivals.log"))
    copy_in(world, "weed", weed, f"127.0.0.1:{filer}")
    return f"127.0.0.1:{filer}", lambda _world: fill(files_below(data))


def copy_in(world: World, name: str, command: Command, address: str) -> None:
    """Write the model through a mount that can be written to."""
    cache = world.place("rival-cache")
    cache.mkdir()
    try:
        with mounted(world, name, command, address, cache) as (_, place):
            shutil.copyfile(world.source, place / MODEL)
    finally:
        shutil.rmtree(cache, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True, slots=True)
class Recipe:
    """`caches`: it has a disk cache that outlives its mount. `tried`: we ran it; the others are from documentation."""

    name: str
    program: str
    command: Command
    begin: Begin
    on_s3: bool = True
    caches: bool = False
    tried: bool = False


RECIPES = (
    Recipe("s3fs", "s3fs", s3fs, on_endpoint, tried=True),
    Recipe("mountpoint-s3", "mount-s3", mount_s3, on_endpoint),
    Recipe("goofys", "goofys", goofys, on_endpoint),
    Recipe("JuiceFS", "juicefs", juicefs, juicefs_volume, caches=True),
    Recipe("SeaweedFS", "weed", weed, weed_server, on_s3=False),
)


def s3fs_on(endpoint: Endpoint) -> Rival:
    """s3fs, for the group `engines`."""
    return Rival("s3fs", ("s3fs",), lambda _world: Served(endpoint.address, None), s3fs)


@contextmanager
def rivals(bench: Bench) -> Iterator[list[Rival]]:
    """Those that can be started here, with what they read from running and the model in it; a note for each other."""
    wanted = chosen(bench)
    with ExitStack() as stack:
        endpoint = None
        if any(recipe.on_s3 for recipe in wanted):
            try:
                endpoint = s3_endpoint(bench, stack)
            except (Missing, OSError, RuntimeError, ShardfsError) as error:
                names = ", ".join(recipe.name for recipe in wanted if recipe.on_s3)
                bench.note(f"{names}: left out, no S3 endpoint ({error})")
                wanted = [recipe for recipe in wanted if not recipe.on_s3]
        yield [rival for recipe in wanted for rival in begun(bench, recipe, endpoint, stack)]


def chosen(bench: Bench) -> list[Recipe]:
    """The recipes whose program is on the PATH and that can take the model; a note for each other."""
    wanted = []
    for recipe in RECIPES:
        if find(recipe.program) is None:
            bench.note(f"{recipe.name}: left out, not installed: {recipe.program}")
        elif recipe.on_s3 and bench.options.size > S3_BYTES_MAX:
            bench.note(f"{recipe.name}: left out, the model is larger than one S3 object can be here")
        else:
            wanted.append(recipe)
    return wanted


def s3_endpoint(bench: Bench, stack: ExitStack) -> Endpoint:
    bench.say("  starting the S3 endpoint")
    there = stack.enter_context(engine(bench.world, "s3"))
    return Endpoint.holding(there, bench.world.source)


def begun(bench: Bench, recipe: Recipe, endpoint: Endpoint | None, stack: ExitStack) -> list[Rival]:
    """The rival, or none and a note when its server or volume cannot be made."""
    try:
        address, prepare = recipe.begin(bench.world, endpoint, stack)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        untried = "" if recipe.tried else "; its recipe was never tried"
        bench.note(f"{recipe.name}: failed ({type(error).__name__}: {error}{untried})")
        return []
    name = f"{recipe.name}, from S3" if recipe.on_s3 else recipe.name  # a slower server than that of the others
    serve = partial(_served, address)
    return [Rival(name, (recipe.program,), serve, recipe.command, caches=recipe.caches, prepare=prepare)]


def _served(address: str, _world: World) -> Served:
    return Served(address, None)
