"""The manifest: canonical, limited, and never an excuse to allocate what it merely claims."""

import resource
import tracemalloc

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardfs.core import manifest as module
from shardfs.core.chunk import BLOCK_SIZE, CHUNK_SIZE, CHUNK_SIZE_MAX
from shardfs.core.digest import ZERO_DIGEST, Digest, digest_of
from shardfs.core.keys import manifest_key
from shardfs.core.manifest import FILE_BYTES_MAX, MANIFEST_BYTES_MAX, Manifest, decode_manifest, make_manifest
from shardfs.core.objects import verify_object
from shardfs.core.ranges import chunk_count
from shardfs.errors import InvalidFormat, InvalidName

MAGIC = b"SHFM\x01"
D = digest_of(b"chunk")


def build(*files: tuple[str, int], digests: bytes | None = None, **options) -> Manifest:
    chunks = sum(chunk_count(size, options.get("chunk_size", CHUNK_SIZE)) for _, size in files if 0 <= size < 2**40)
    return make_manifest(
        [(path, size, False) for path, size in files],
        D * chunks if digests is None else digests,
        **{"created": 7, **options},
    )


def decode(body: object, *, magic: bytes = MAGIC) -> Manifest:
    data = magic + (body if isinstance(body, bytes) else msgspec.msgpack.encode(body))
    return decode_manifest(data, digest_of(data))


parts = st.text(st.sampled_from("abé .-~@"), min_size=1, max_size=6).filter(lambda part: part not in (".", ".."))
paths = st.lists(parts, min_size=1, max_size=3).map("/".join)


@st.composite
def manifests(draw) -> Manifest:
    chosen = sorted(draw(st.sets(paths, max_size=6)), key=str.encode)
    files = [path for path in chosen if not any(other.startswith(path + "/") for other in chosen)]
    listed = [(path, draw(st.integers(0, 3 * CHUNK_SIZE)), draw(st.booleans())) for path in files]
    chunks = sum(chunk_count(size, CHUNK_SIZE) for _, size, _ in listed)
    digests = b"".join(draw(st.sampled_from([D, ZERO_DIGEST, digest_of(b"y")])) for _ in range(chunks))
    return make_manifest(listed, digests, created=draw(st.integers(0, 2**40 - 1)))


@given(manifests())
def test_roundtrip(manifest):
    data = manifest.encode()
    name = digest_of(data)
    assert decode_manifest(data, name) == manifest
    assert decode_manifest(memoryview(data), name) == manifest
    verify_object(manifest_key(name), data)
    assert manifest.same_content(decode_manifest(data, name))


def test_what_it_says_of_its_chunks():
    digests = D + ZERO_DIGEST + digest_of(b"2") + D
    manifest = build(("a", CHUNK_SIZE + 1), ("b", 0), ("c", 2 * CHUNK_SIZE), digests=digests)
    assert [f.first_chunk for f in manifest.files] == [0, 2, 2]
    assert manifest.size == 3 * CHUNK_SIZE + 1
    assert manifest.chunks == 4
    assert manifest.digest(manifest.files[0], 0) == D
    assert manifest.digest(manifest.files[0], 1) is None
    assert manifest.chunk_lengths() == {D: CHUNK_SIZE, digest_of(b"2"): CHUNK_SIZE}


def test_only_the_time_may_differ():
    one, later = build(("a", 1)), build(("a", 1), created=8)
    assert one != later
    assert one.same_content(later)
    assert not one.same_content(build(("a", 2)))


@pytest.mark.parametrize(
    ("files", "options", "complaint"),
    [
        ([("b", 1), ("a", 1)], {}, "not sorted"),
        ([("\U00010000", 1), ("\uffff", 1)], {}, "not sorted"),
        ([("a", 1), ("a", 1)], {}, "not sorted and unique"),
        ([("a", 1), ("a/b", 1)], {}, "both a file and a folder"),
        ([("a", 1), ("a-b", 1), ("a/b/c", 1)], {}, "both a file and a folder"),
        ([("a", 1), ("a-", 1), ("a--", 1), ("a-/x", 1)], {}, "'a-' is both a file and a folder"),
        ([("a-b", 1), ("a/b/c", 1)], {"folders": ["a", "a-c"]}, "folder 'a' is not empty"),
        ([("a", 1)], {"folders": ["a"]}, "both a file and a folder"),
        ([("a", 1)], {"folders": ["a/b"]}, "both a file and a folder"),
        ([("a/b", 1)], {"folders": ["a"]}, "not empty"),
        ([], {"folders": ["a", "a/b"]}, "not empty"),
        ([], {"folders": ["b", "a"]}, "not sorted"),
        ([("../a", 1)], {}, r"part '\.\.'"),
        ([("/a", 1)], {}, "empty part"),
        ([("", 1)], {}, "empty part"),
        ([("a\\b", 1)], {}, "contains"),
        ([("x" * 256, 1)], {}, "255"),
        ([("a", -1)], {}, "out of range"),
        ([("a", FILE_BYTES_MAX + 1)], {}, "out of range"),
        ([("a", 2**63)], {}, "out of range"),
        ([("a", 2**64 - 1)], {}, "out of range"),
        ([("a", FILE_BYTES_MAX)], {}, "bytes of digests for"),
        ([("a", 1)], {"digests": b""}, "0 bytes of digests for 1 chunks"),
        ([("a", 1)], {"digests": D[:31]}, "31 bytes"),
        ([("a", 1)], {"digests": D + D}, "64 bytes"),
        ([("a", 0)], {"digests": D}, "32 bytes"),
        ([("a", 1)], {"created": -1}, "time"),
        ([("a", 1)], {"created": 2**40}, "time"),
        ([("a", 1)], {"chunk_size": CHUNK_SIZE_MAX * 2}, "do not fit"),
        ([("a", 1)], {"chunk_size": BLOCK_SIZE + 1}, "do not fit"),
        ([("a", 1)], {"chunk_size": BLOCK_SIZE // 2}, "do not fit"),
        ([("a", 1)], {"block_size": 1}, "out of range|do not fit"),
        ([("a", 1)], {"single": True}, "single-file"),
        ([("", 1), ("", 1)], {"single": True}, "single-file"),
        ([("", 1)], {"single": True, "folders": ["a"]}, "single-file"),
        ([], {"single": True}, "single-file"),
    ],
)
def test_refused(files, options, complaint):
    with pytest.raises((InvalidFormat, InvalidName), match=complaint):
        build(*files, **options)
    body = [
        options.get("created", 7),
        options.get("chunk_size", CHUNK_SIZE),
        options.get("block_size", BLOCK_SIZE),
        options.get("single", False),
        [[path, size, False] for path, size in files],
        options.get("folders", []),
        bytes(options.get("digests", b"")),
    ]
    with pytest.raises(InvalidFormat):
        decode(body)


def test_a_single_file_has_no_name():
    manifest = build(("", 5), single=True)
    assert decode_manifest(manifest.encode(), digest_of(manifest.encode())) == manifest


VALID = build(("a", 1), ("b/c", CHUNK_SIZE + 1)).encode()
BODY = [7, CHUNK_SIZE, BLOCK_SIZE, False, [["a", 1, False]], [], bytes(D)]


def with_body(index: int, value: object) -> list[object]:
    return [*BODY[:index], value, *BODY[index + 1 :]]


@pytest.mark.parametrize(
    "body",
    [
        [],
        BODY[:-1],
        [*BODY, 1],
        {"created": 7},
        None,
        7,
        with_body(0, 7.0),
        with_body(0, True),
        with_body(0, "7"),
        with_body(0, 1e400),
        with_body(1, -1),
        with_body(3, 0),
        with_body(4, [["a", 1.0, False]]),
        with_body(4, [["a", True, False]]),
        with_body(4, [["a", 1, 0]]),
        with_body(4, [["a", 1]]),
        with_body(4, [["a", 1, False, 1]]),
        with_body(4, [[b"a", 1, False]]),
        with_body(4, {"a": 1}),
        with_body(4, [["a", msgspec.msgpack.Ext(1, b""), False]]),
        with_body(5, [1]),
        with_body(6, D.hex()),
        with_body(6, list(D)),
    ],
)
def test_wrong_types(body):
    assert decode(BODY).files[0].path == "a"
    with pytest.raises(InvalidFormat):
        decode(body)


HEAD = b"\x97\x07" + msgspec.msgpack.encode(CHUNK_SIZE) + msgspec.msgpack.encode(BLOCK_SIZE) + b"\xc2"


@pytest.mark.parametrize(
    "body",
    {
        "nothing": b"",
        "not UTF-8": HEAD + b"\x91\x93\xa1\xff\x01\xc2\x90\xc4\x20" + D,
        "surrogate": HEAD + b"\x91\x93\xa3\xed\xa0\x80\x01\xc2\x90\xc4\x20" + D,
        "2^32 files": HEAD + b"\xdd\xff\xff\xff\xff",
        "2^28 files": HEAD + b"\xdd\x0f\xff\xff\xff" + b"\x93" * 100,
        "name of 4 GiB": HEAD + b"\x91\x93\xdb\xff\xff\xff\xff",
        "2^32 folders": HEAD + b"\x90\xdd\xff\xff\xff\xff",
        "digests of 4 GiB": HEAD + b"\x90\x90\xc6\xff\xff\xff\xff",
        "deep": b"\x91" * 1_000_000,
        "deep inside": HEAD + b"\x91" * 1_000_000,
        "deep maps": HEAD + b"\x81" * 1_000_000,
        "array of 2^32": b"\xdd\xff\xff\xff\xff",
        "map of 2^32": b"\xdf\xff\xff\xff\xff",
        "trailing": HEAD + b"\x90\x90\xc4\x00\x00",
        "longer integer": b"\x97\xcc\x07" + HEAD[2:] + b"\x90\x90\xc4\x00",
        "longer string": HEAD + b"\x91\x93\xd9\x01a\x00\xc2\x90\xc4\x00",
        "longer array": HEAD + b"\xdc\x00\x00\x90\xc4\x00",
        "longer bytes": HEAD + b"\x90\x90\xc5\x00\x00",
        "unsigned as signed": b"\x97\xd0\x07" + HEAD[2:] + b"\x90\x90\xc4\x00",
        "extension": HEAD + b"\x90\x90\xc7\x00\x01",
        "never used byte": HEAD + b"\xc1",
    }.values(),
    ids=lambda body: f"{len(body)} bytes",
)
def test_hostile_encoding_is_refused_in_little_memory(body):
    data = MAGIC + body
    name = digest_of(data)
    tracemalloc.start()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InvalidFormat):
        decode_manifest(data, name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000 + 2 * len(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("count", [1_000_001, 3_000_000])
def test_too_many_names_are_refused_before_they_are_made(count):
    files = HEAD + b"\xdd" + count.to_bytes(4, "big") + b"\x93\xa1a\x00\xc2" * count
    folders = HEAD + b"\x90\xdd" + count.to_bytes(4, "big") + b"\xa1a" * count
    for body in (files, folders):
        data = MAGIC + body
        tracemalloc.start()
        with pytest.raises(InvalidFormat):
            decode_manifest(data, digest_of(data))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2 * len(data)


def test_parents_are_compared_and_not_kept():
    """315000 of them, which would take 40 MB."""
    listed = [f"{number:04}" + "/x" * 63 for number in range(5000)]
    tracemalloc.start()
    build(*((path, 0) for path in listed))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


names = st.lists(st.sampled_from(["a", "a-", "b", "aa", "é"]), min_size=1, max_size=3).map("/".join)


@given(st.sets(names, max_size=8), st.sets(names, max_size=4))
@settings(max_examples=500)
def test_nothing_is_a_file_and_a_folder_and_folders_are_counted(files, folders):
    """Against the definition, with all parents in a set."""
    listed = [sorted(some, key=str.encode) for some in (files, folders)]
    parents = {path[:at] for path in files | folders for at, letter in enumerate(path) if letter == "/"}
    fits = not files & (folders | parents) and not folders & parents
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FOLDERS_MAX", len(folders | parents) if fits else 100)
        if not fits:
            with pytest.raises(InvalidFormat, match=r"both a file and a folder|must not be listed"):
                build(*((path, 0) for path in listed[0]), folders=listed[1])
            return
        build(*((path, 0) for path in listed[0]), folders=listed[1])
        patch.setattr(module, "FOLDERS_MAX", len(folders | parents) - 1)
        if folders | parents:
            with pytest.raises(InvalidFormat, match="more than"):
                build(*((path, 0) for path in listed[0]), folders=listed[1])


def test_long_paths_of_folders_are_limited(monkeypatch):
    monkeypatch.setattr(module, "FOLDER_LETTERS_MAX", 13)
    build(("aaaa/b/c", 0), ("b", 0), folders=["x", "yy"])  # 6 + 4 + 1 + 2
    with pytest.raises(InvalidFormat, match="13 characters"):
        build(("aaaa/b/c", 0), ("b", 0), folders=["x", "yyy"])


def test_limits_digest_and_magic():
    name = digest_of(VALID)
    with pytest.raises(InvalidFormat, match="larger than"):
        decode_manifest(memoryview(bytearray(MANIFEST_BYTES_MAX + 1)), name)
    with pytest.raises(InvalidFormat, match="do not match"):
        decode_manifest(VALID + b"x", name)
    with pytest.raises(InvalidFormat, match="unknown format"):
        decode(BODY, magic=b"SHFM\x02")
    with pytest.raises(InvalidFormat, match="unknown format"):
        decode(b"", magic=b"<!DOCTYPE html>")


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda tail: HEAD + tail))
@settings(max_examples=300)
def test_arbitrary_bytes_raise_nothing_else(body):
    try:
        manifest = decode(body)
    except InvalidFormat:
        return
    assert manifest.encode() == MAGIC + body


@given(st.lists(st.tuples(st.integers(5, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=300)
def test_mutations_raise_nothing_else_and_stay_canonical(changes):
    bad = bytearray(VALID)
    for at, value in changes:
        bad[at] = value
    try:
        manifest = decode_manifest(bad, digest_of(bad))
    except InvalidFormat:
        return
    assert manifest.encode() == bytes(bad)


def test_the_name_must_be_a_digest():
    assert isinstance(decode(BODY).digest(decode(BODY).files[0], 0), Digest)
