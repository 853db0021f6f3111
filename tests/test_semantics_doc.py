"""docs/SEMANTICS.md against the program: the errors against the table in the code, the answers against a real mount."""

import errno
import mmap
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import shardfs.vfs.errors
from shardfs.api.local import LocalCluster
from shardfs.errors import ShardfsError
from shardfs.vfs.filesystem import FileSystemOptions
from tests.documents import ROOT, table

PAGE = ROOT / "docs" / "SEMANTICS.md"
CONTENT = bytes(range(251)) * 41


def strip(cell: str) -> str:
    return cell.replace("`", "")


# ------------------------------------------------------------------------------------------------------- errors


def kinds(base: type[ShardfsError] = ShardfsError) -> Iterator[type[ShardfsError]]:
    """Every class of failure, those of the filesystem included."""
    assert shardfs.vfs.errors.StaleInode in ShardfsError.__subclasses__()
    for kind in base.__subclasses__():
        if kind.__module__.startswith("shardfs."):
            yield kind
            yield from kinds(kind)


def errors_told() -> dict[str, str]:
    return {strip(row[0]): strip(row[1]) for row in table(PAGE, under="Errors")}


@pytest.mark.parametrize("kind", list(kinds()), ids=lambda kind: kind.__name__)
def test_every_failure_has_the_errno_that_the_page_says(kind: type[ShardfsError]):
    pytest.importorskip("pyfuse3")  # the package of the mount needs it
    from shardfs.mount.errno_table import errno_of

    told = errors_told()
    listed = next((told[base.__name__] for base in kind.__mro__ if base.__name__ in told), "EIO")
    assert errno.errorcode[errno_of(kind.__new__(kind))] == listed


def test_the_page_lists_failures_that_exist():
    assert set(errors_told()) <= {kind.__name__ for kind in kinds()}


def test_the_limit_of_open_files_is_the_one_in_the_code():
    (when,) = (row[2] for row in table(PAGE, under="Errors") if strip(row[0]) == "TooManyHandles")
    assert int(re.findall(r"\d+", when)[0]) == FileSystemOptions().handles_max


# ------------------------------------------------------------------------------------------------------ answers


@dataclass(frozen=True)
class Place:
    """A mount with the model `model`, a folder with the file `file` of CONTENT."""

    root: Path

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def file(self) -> Path:
        return self.model / "file"

    def opened(self, flags: int = os.O_RDONLY) -> int:
        return os.open(self.file, flags)


def kept(place: Place, use: Callable[[int], object], path: Path | None = None) -> object:
    """What `use` says of a descriptor that is closed afterwards."""
    file = os.open(path or place.file, os.O_RDONLY)
    try:
        return use(file)
    finally:
        os.close(file)


def mapped(place: Place, flags: int, protection: int) -> None:
    def use(file: int) -> None:
        with mmap.mmap(file, 0, flags=flags, prot=protection) as memory:
            assert memory[:] == CONTENT

    kept(place, use)


CALLS: dict[str, Callable[[Place], object]] = {
    "stat ROOT/absent": lambda p: os.stat(p.root / "absent"),
    "stat ROOT/MODEL@999": lambda p: os.stat(p.root / "model@999"),
    "stat ROOT/MODEL@x": lambda p: os.stat(p.root / "model@x"),
    "stat of a name that is not UTF-8": lambda p: os.stat(os.fsencode(p.root) + b"/\xff"),
    "stat of a name with 255 bytes": lambda p: os.stat(p.root / ("x" * 255)),
    "stat of a name with 256 bytes": lambda p: os.stat(p.root / ("x" * 256)),
    "stat FILE/x": lambda p: os.stat(p.file / "x"),
    "readdir FILE": lambda p: os.listdir(p.file),
    "readlink FILE": lambda p: os.readlink(p.file),
    "open FILE O_RDONLY": lambda p: os.close(p.opened()),
    "open FILE O_RDONLY O_DIRECT": lambda p: os.close(p.opened(os.O_RDONLY | os.O_DIRECT)),
    "open FILE O_WRONLY": lambda p: p.opened(os.O_WRONLY),
    "open FILE O_RDWR": lambda p: p.opened(os.O_RDWR),
    "open FILE O_RDONLY O_TRUNC": lambda p: p.opened(os.O_RDONLY | os.O_TRUNC),
    "open ROOT/new O_CREAT": lambda p: os.open(p.root / "new", os.O_CREAT | os.O_WRONLY),
    "read MODEL": lambda p: kept(p, lambda file: os.read(file, 1), p.model),
    "pread at the end": lambda p: kept(p, lambda file: os.pread(file, 10, len(CONTENT))),
    "pread over the end": lambda p: kept(p, lambda file: os.pread(file, 100, len(CONTENT) - 7)),
    "mmap FILE MAP_SHARED PROT_READ": lambda p: mapped(p, mmap.MAP_SHARED, mmap.PROT_READ),
    "mmap FILE MAP_PRIVATE PROT_WRITE": lambda p: mapped(p, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE),
    "mmap FILE MAP_SHARED PROT_WRITE": lambda p: mapped(p, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
    "truncate FILE": lambda p: os.truncate(p.file, 0),
    "mkdir ROOT/new": lambda p: (p.root / "new").mkdir(),
    "mkdir MODEL": lambda p: p.model.mkdir(),
    "rmdir MODEL": lambda p: p.model.rmdir(),
    "unlink FILE": lambda p: p.file.unlink(),
    "rename FILE": lambda p: p.file.rename(p.model / "other"),
    "link FILE": lambda p: os.link(p.file, p.model / "other"),
    "symlink": lambda p: (p.root / "new").symlink_to("x"),
    "mknod": lambda p: os.mkfifo(p.root / "new"),
    "chmod FILE": lambda p: p.file.chmod(0o600),
    "chown FILE": lambda p: os.chown(p.file, os.getuid(), os.getgid()),
    "utime FILE": lambda p: os.utime(p.file),
    "setxattr FILE": lambda p: os.setxattr(p.file, "user.new", b"1"),
    "removexattr FILE": lambda p: os.removexattr(p.file, "user.shardfs.model"),
    "getxattr FILE user.absent": lambda p: os.getxattr(p.file, "user.absent"),
    "access FILE W_OK": lambda p: os.access(p.file, os.W_OK),
    "fsync FILE": lambda p: kept(p, os.fsync),
}
ANSWERS = {"ok": None, "no": False, "0 bytes": b"", "the bytes before it": CONTENT[-7:]}


def answers_told() -> dict[str, str]:
    return {strip(row[0]): strip(row[1]) for row in table(PAGE, under="Answers")}


def test_every_answer_on_the_page_is_tried():
    assert set(answers_told()) == set(CALLS)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("semantics")
    source = folder / "source"
    source.mkdir()
    (source / "file").write_bytes(CONTENT)
    with LocalCluster(folder / "cluster") as cluster:
        cluster.put(source, "model")
        cluster.mount(folder / "models")
        yield Place(folder / "models")


@pytest.mark.fuse
@pytest.mark.parametrize("call", list(CALLS))
def test_a_call_is_answered_as_the_page_says(place: Place, call: str):
    try:
        answer = CALLS[call](place)
        said = next((text for text, meant in ANSWERS.items() if meant == answer), f"it succeeded with {answer!r}")
    except OSError as error:
        said = errno.errorcode.get(error.errno or 0, str(error))
    assert said == answers_told()[call]


@pytest.mark.fuse
def test_attributes_are_those_of_the_page(place: Place):
    names = set(re.findall(r"^\| `(user\.shardfs\.\w+)`", PAGE.read_text(), re.MULTILINE))
    shown = {name for path in (place.root, place.model, place.file) for name in os.listxattr(path)}
    assert shown == names
    assert (place.root.stat().st_mode, place.file.stat().st_mode) == (0o40555, 0o100444)
