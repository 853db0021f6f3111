"""The command line: choose groups, run them in one world, write the report.

Root is best: read-ahead can only be raised by root, for shardfs as for the limits it is compared with.
"""

import argparse
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench import duration
from bench.context import Bench, Options
from bench.figures import Figures
from bench.groups import GROUPS
from bench.machine import machine
from bench.measure import GIB, MIB, file_system
from bench.report import write_report
from bench.world import World
from shardfs.core.units import format_size, parse_size
from shardfs.errors import UsageError

QUICK_SIZE = 48 * MIB
SPACE_FACTOR, SPACE_FACTOR_PEERS = 14, 18
SPACE_EXTRA = 2 * GIB


def main(arguments: Sequence[str] | None = None) -> int:
    options, names, work = parse(arguments)
    if lacking := lacks(work, options):
        print(f"bench: {lacking}")
        return 1
    for ending in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: servers and mounts are not to outlive this
        signal.signal(ending, signal.default_int_handler)
    figures = Figures()
    folder = Path(tempfile.mkdtemp(prefix="shardfs-bench-", dir=work))
    folder.chmod(0o755)
    world = World(folder, options.size, say)
    bench = Bench(options, world, figures, say)
    seconds: dict[str, float] = {}
    say(f"groups: {len(names)}, {duration.said(duration.left(options, names, seconds))} on two quiet cores")
    try:
        for number, name in enumerate(names, 1):
            seconds[name] = run_group(bench, name)
            rest = duration.said(duration.left(options, names, seconds)) if number < len(names) else "nothing"
            say(f"{name}: {seconds[name]:.0f} s; {number} of {len(names)} groups done, {rest} left")
            write_report(options, machine(), figures, seconds)
    except KeyboardInterrupt:
        bench.note("stopped by Ctrl-C or a signal: the groups that follow are missing")
    finally:
        world.close()
        shutil.rmtree(folder, ignore_errors=True)
    write_report(options, machine(), figures, seconds)
    say(f"written: {options.out}/results.md, results.json")
    return 0 if figures.by_name else 1


def run_group(bench: Bench, name: str) -> float:
    """Run one group; a failure is noted and the others go on. Its seconds."""
    started = time.monotonic()
    bench.say(f"{name}: {GROUPS[name].what}")
    try:
        bench.world.heal()
        GROUPS[name].run(bench)
    except Exception as error:  # noqa: BLE001  # one group must not take the others' figures with it
        bench.note(f"group {name}: failed ({type(error).__name__}: {error})")
        bench.say(f"  group failed: {type(error).__name__}: {error}")
    return time.monotonic() - started


def parse(arguments: Sequence[str] | None) -> tuple[Options, list[str], Path]:
    parser = argparse.ArgumentParser(
        prog="tools/bench/run",
        description="Measure shardfs beside its limits; writes results.json, results.md and plots.",
        epilog=f"{needs()}; groups: "
        + "; ".join(f"{g.name} ({g.what}{f'; needs {g.needs}' if g.needs else ''})" for g in GROUPS.values()),
    )
    parser.add_argument("--size", type=size, help="bytes of the model, e.g. 1GiB (the default), 256MiB")
    parser.add_argument("--runs", type=int, help="rounds of each group (default 5)")
    parser.add_argument("--only", metavar="GROUP,...", help="these groups only")
    parser.add_argument("--quick", action="store_true", help="48 MiB, one round: does it all work?")
    parser.add_argument("--peers", action="store_true", help="also measure other filesystems that are on the PATH")
    parser.add_argument("--out", type=Path, help="folder of the report (default: bench-results/DATE)")
    parser.add_argument("--work", type=Path, help="folder on the disk to measure (default: the temporary folder)")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else [n for n in GROUPS if n != "peers" or given.peers]
    for name in names:
        if name not in GROUPS:
            parser.error(f"there is no group {name!r}; there are: {', '.join(GROUPS)}")
    runs = given.runs or (1 if given.quick else 5)
    if runs < 1:
        parser.error("--runs: at least 1")
    out = given.out or Path("bench-results") / datetime.now(UTC).strftime("%Y-%m-%d-%H%M")
    options = Options(
        size=given.size or (QUICK_SIZE if given.quick else GIB),
        runs=runs,
        quick=given.quick,
        peers=given.peers or "peers" in names,
        out=out,
    )
    return options, names, (given.work or Path(tempfile.gettempdir())).resolve()


def needs() -> str:
    """What all groups need, for the help."""
    space = f"{SPACE_FACTOR} times --size and {SPACE_EXTRA // GIB} GiB on the disk under --work"
    return f"needs /dev/fuse, and {space} (with peers {SPACE_FACTOR_PEERS} times)"


def size(text: str) -> int:
    try:
        number = parse_size(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not 16 * MIB <= number <= 1024 * GIB:
        raise argparse.ArgumentTypeError("16MiB to 1TiB")
    return number


def lacks(work: Path, options: Options) -> str | None:
    """Why nothing can be measured here, if so."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened, so nothing can be mounted"
    if file_system(work) in ("tmpfs", "ramfs"):
        return f"{work} is in memory, so there is no disk to measure; give --work a folder on a disk"
    needed = (SPACE_FACTOR_PEERS if options.peers else SPACE_FACTOR) * options.size + SPACE_EXTRA
    free = shutil.disk_usage(work).free
    if free < needed:
        return f"{work} has {format_size(free)} free, {format_size(needed)} are needed; give --work or a smaller --size"
    return None


def say(text: str) -> None:
    print(text, flush=True)
