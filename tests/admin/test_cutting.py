"""Cutting real files: every byte in the right chunk, holes found, changes noticed."""

import errno
import os
import tempfile
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardfs.admin import cutting
from shardfs.admin.cutting import Cutter, Piece, Zeros, data_chunks
from shardfs.admin.source import Source, scan
from shardfs.core.chunk import make_header
from shardfs.core.digest import ZERO_DIGEST
from shardfs.errors import SourceError

BLOCK = 4096
CHUNK = 2 * BLOCK


def cutter_of(source: Source) -> Cutter:
    return Cutter(source, chunk_size=CHUNK, block_size=BLOCK)


def drain(cutter: Cutter) -> dict[bytes, bytes]:
    """Every piece, by digest."""
    buffer = memoryview(bytearray(CHUNK))
    pieces: dict[bytes, bytes] = {}
    while (piece := cutter.next_into(buffer)) is not None:
        if isinstance(piece, Piece):
            pieces[piece.digest] = bytes(piece.plain)
    return pieces


def expected(data: bytes) -> list[bytes]:
    """The digests of a file by the plainest code there is."""
    chunks = [data[at : at + CHUNK] for at in range(0, len(data), CHUNK)]
    return [make_header(chunk, BLOCK)[0] if any(chunk) else ZERO_DIGEST for chunk in chunks]


def open_files(folder: Path) -> int:
    """How many descriptors lead into the folder; those of others come and go."""
    return sum(Path(os.path.realpath(fd)).is_relative_to(folder) for fd in Path("/proc/self/fd").iterdir())


SPANS = st.lists(
    st.tuples(st.sampled_from(["data", "zeros", "hole"]), st.integers(1, 5 * BLOCK)), min_size=0, max_size=8
)


@given(st.lists(SPANS, min_size=1, max_size=4))
def test_digests_and_bytes_are_those_of_the_files(files: list[list[tuple[str, int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        contents = []
        for number, spans in enumerate(files):
            with (Path(folder) / f"{number}").open("wb") as file:
                for kind, length in spans:
                    if kind == "hole":
                        file.seek(length, os.SEEK_CUR)
                    else:
                        file.write(b"\1" * length if kind == "data" else bytes(length))
                file.truncate(file.tell())
            contents.append((Path(folder) / f"{number}").read_bytes())
        cutter = cutter_of(scan(folder))
        pieces = drain(cutter)
        assert open_files(Path(folder)) == 0
        digests = [digest for data in contents for digest in expected(data)]
        assert bytes(cutter.digests) == b"".join(digests)
        assert {digest: make_header(plain, BLOCK)[0] for digest, plain in pieces.items()} == {
            digest: digest for digest in digests if digest != ZERO_DIGEST
        }
        zero = sum(
            len(data[at : at + CHUNK])
            for data in contents
            for at in range(0, len(data), CHUNK)
            if not any(data[at : at + CHUNK])
        )
        assert cutter.bytes_zero == zero


def test_holes_are_never_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        for at in (0, 1 << 20, 1 << 29):
            file.seek(at)
            file.write(b"x")
        file.truncate(1 << 30)
    cutter = cutter_of(scan(str(tmp_path / "sparse")))
    buffer = memoryview(bytearray(CHUNK))
    reads = 0
    while cutter.next_into(buffer) is not None:
        reads += 1
    assert reads == 3
    assert cutter.bytes_zero == (1 << 30) - 3 * CHUNK


def test_a_filesystem_without_holes_gives_all_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(fd: int, offset: int, whence: int) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    (tmp_path / "file").write_bytes(b"x" * (3 * CHUNK + 1))
    monkeypatch.setattr(cutting.os, "lseek", refuse)
    with (tmp_path / "file").open("rb") as file:
        assert list(data_chunks(file.fileno(), 3 * CHUNK + 1, CHUNK)) == [range(4)]


def test_many_threads_share_one_cutter(tmp_path: Path) -> None:
    for number in range(40):
        (tmp_path / f"{number:02}").write_bytes(os.urandom(number * 1000))
    cutter = cutter_of(scan(str(tmp_path)))
    seen: list[dict[bytes, bytes]] = []
    threads = [threading.Thread(target=lambda: seen.append(drain(cutter)), daemon=True) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    data = [(tmp_path / f"{number:02}").read_bytes() for number in range(40)]
    assert bytes(cutter.digests) == b"".join(digest for content in data for digest in expected(content))
    assert sum(len(pieces) for pieces in seen) == sum(len(expected(content)) for content in data)
    assert open_files(tmp_path) == 0


def test_close_lets_go_of_files_that_are_not_finished(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * (3 * CHUNK))
    cutter = cutter_of(scan(str(tmp_path)))
    assert isinstance(cutter.next_into(memoryview(bytearray(CHUNK))), Piece)
    assert open_files(tmp_path) == 1
    cutter.close()
    assert open_files(tmp_path) == 0


def test_dense_zeros_are_told_from_data(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(CHUNK) + bytes(CHUNK // 2) + b"\1" + bytes(CHUNK // 2 - 1))
    cutter = cutter_of(scan(str(tmp_path)))
    buffer = memoryview(bytearray(CHUNK))
    assert isinstance(cutter.next_into(buffer), Zeros)
    assert isinstance(cutter.next_into(buffer), Piece)
    assert cutter.next_into(buffer) is None


@pytest.mark.parametrize("chunks_read", [0, 1, 2])
@pytest.mark.parametrize("change", ["grow", "shrink", "write", "replace", "remove"])
def test_a_change_while_reading_is_an_error(tmp_path: Path, chunks_read: int, change: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * (3 * CHUNK))
    os.utime(path, (1000, 1000))
    cutter = cutter_of(scan(str(tmp_path)))
    buffer = memoryview(bytearray(CHUNK))
    for _ in range(chunks_read):
        assert isinstance(cutter.next_into(buffer), Piece)
    if change == "grow":
        with path.open("ab") as file:
            file.write(b"y")
    elif change == "shrink":
        os.truncate(path, CHUNK)
    elif change == "write":
        with path.open("r+b") as file:
            file.write(b"y")
    elif change == "replace":
        (tmp_path / "other").write_bytes(b"x" * (3 * CHUNK))
        (tmp_path / "other").replace(path)
    else:
        path.unlink()
    with pytest.raises(SourceError, match=f"{path}.*(changed|No such file)"):
        drain(cutter)
    cutter.close()


def test_a_pipe_in_the_place_of_a_file_does_not_block(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cutter = cutter_of(scan(str(tmp_path)))
    (tmp_path / "file").unlink()
    os.mkfifo(tmp_path / "file")
    with pytest.raises(SourceError, match="changed"):
        drain(cutter)
    cutter.close()
