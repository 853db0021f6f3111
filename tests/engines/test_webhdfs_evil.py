"""Whatever NameNodes and DataNodes say over HTTP, the client ends with the truth or with one clear error."""

import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
import trio

import shardfs.config.hadoop
from shardfs.config.hadoop import hadoop_user
from shardfs.core.location import HdfsPlace
from shardfs.errors import Denied, InvalidFormat, InvalidName, NoSpace, NotFound, StoreError, Unavailable, UsageError
from shardfs.store import webhdfs_folder
from shardfs.store.base import ExternalStat
from shardfs.store.webhdfs import WebHdfsStore
from shardfs.testing.samples import sample_chunk
from tests.engines.test_evil_servers import server, whole
from tests.store.evil import evil_server, head, request_head

SAMPLE = sample_chunk(1)
PLACE = f"/p/{SAMPLE.key}"
DATA = bytes(range(100))

Said = bytes | Callable[[str], bytes]
"""An answer, or one that depends on the target that was asked for."""


def document(body: object, status: str = "200 OK", *headers: str) -> bytes:
    return whole(status, json.dumps(body).encode(), *headers)


def refusal(name: str, message: str = "m", status: str = "403 F") -> bytes:
    exception = {"exception": name, "javaClassName": f"org.apache.hadoop.{name}", "message": message}
    return document({"RemoteException": exception}, status)


ABSENT = refusal("FileNotFoundException", "File does not exist", "404 N")
EXISTS = refusal("FileAlreadyExistsException", "rename destination already exists")
TRUE, FALSE = document({"boolean": True}), document({"boolean": False})


def row(name: str = "", kind: str = "FILE", length: int = 0, changed: int = 7) -> dict[str, object]:
    return {"pathSuffix": name, "type": kind, "length": length, "modificationTime": changed, "owner": "x"}


def status(length: int = len(DATA), kind: str = "FILE") -> bytes:
    return document({"FileStatus": row("", kind, length)})


def listing(*rows: dict[str, object]) -> bytes:
    return document({"FileStatuses": {"FileStatus": list(rows)}})


def to(location: str, code: str = "307 Temporary Redirect") -> bytes:
    return head(code, f"Location: {location}", "Content-Length: 0", "Connection: close")


@dataclass
class Asked:
    """A question that a server got: its line, operation and path."""

    line: str

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.line.split(" ")[1]).path).removeprefix("/webhdfs/v1")

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.line.split(" ")[1]).query)

    @property
    def op(self) -> str:
        return self.query["op"][0]


@dataclass
class Hadoop:
    """A NameNode that gives these answers by operation, and a DataNode that gives one to everything."""

    namenode: dict[str, Said] = field(default_factory=dict)
    datanode: bytes = b""
    asked: list[Asked] = field(default_factory=list)
    opened: list[Asked] = field(default_factory=list)

    def ops(self) -> list[str]:
        return [asked.op for asked in self.asked]

    @asynccontextmanager
    async def store(self) -> AsyncIterator[WebHdfsStore]:
        def at_datanode(request: bytes) -> bytes:
            self.opened.append(Asked(request.decode("latin-1").splitlines()[0]))
            return self.datanode

        async with server(at_datanode) as (datanode, _):

            def at_namenode(request: bytes) -> bytes:
                asked = Asked(request.decode("latin-1").splitlines()[0])
                if asked.path == "/p" and asked.op == "GETFILESTATUS":
                    return status(0, "DIRECTORY")
                self.asked.append(asked)
                there = to(f"http://{datanode}{asked.line.split(' ')[1]}")
                said = self.namenode.get(asked.op, there if asked.op in ("OPEN", "CREATE") else ABSENT)
                return said if isinstance(said, bytes) else said(f"{datanode} {asked.line.split(' ')[1]}")

            async with server(at_namenode) as (namenode, _):
                store = WebHdfsStore("far", HdfsPlace(namenode, "/p"), user="ada")
                yield store
                await store.aclose()


async def get(store: WebHdfsStore, offset: int = 0, length: int = 10) -> tuple[bytes, list[int]]:
    into, arrived = memoryview(bytearray(length)), list[int]()
    count = await store.get(SAMPLE.key, into, offset=offset, arrived=arrived.append)
    return bytes(into[:count]), arrived


# ------------------------------------------------------------------------------------------------------- redirects


async def test_one_redirect_is_followed() -> None:
    hadoop = Hadoop(datanode=whole("200 OK", DATA[:10]))
    async with hadoop.store() as store:
        assert await get(store) == (DATA[:10], [10])
    assert hadoop.ops() == ["OPEN"]
    (asked,) = hadoop.opened
    assert (asked.op, asked.path) == ("OPEN", PLACE)
    assert asked.query == {"op": ["OPEN"], "user.name": ["ada"], "offset": ["0"], "length": ["10"]}


# `{here}`: the DataNode's authority, `{path}`: the path that was asked for, `{op}`: the operation
REDIRECTS = {
    "another path": ("http://{here}/admin?op={op}", "another question than {op} /p/chunks/"),
    "another file": ("http://{here}/webhdfs/v1/p/other?op={op}", "another question"),
    "out of its path": ("http://{here}{path}/../../x?op={op}", "another question"),
    "another operation": ("http://{here}{path}?op=DELETE", "another question"),
    "two operations": ("http://{here}{path}?op={op}&op=DELETE", "another question"),
    "no operation": ("http://{here}{path}", "another question"),
    "a fragment": ("http://{here}{path}?op={op}#x", "another question"),
    "a space": ("http://{here}{path}?op={op}&a=b c", "another question"),
    "TLS": ("https://{here}{path}?op={op}", "no plain http host"),
    "another scheme": ("ftp://{here}{path}?op={op}", "no plain http host"),
    "a password": ("http://u:p@{here}{path}?op={op}", "no plain http host"),
    "relative": ("{path}?op={op}", "no plain http host"),
    "without a scheme": ("//{here}{path}?op={op}", "no plain http host"),
    "a name without an end": ("http://a..b:1{path}?op={op}", "no plain http host"),
    "a name that is too long": ("http://" + "a" * 64 + ":1{path}?op={op}", "no plain http host"),
    "a port that is none": ("http://127.0.0.1:99999{path}?op={op}", "Port out of range"),
    "half an address": ("http://[::1{path}?op={op}", "Invalid IPv6 URL"),
    "endless": ("http://{here}{path}?op={op}&x=" + "x" * 20_000, "HTTP 307 instead of the name of a DataNode"),
    "nowhere": ("", "HTTP 307 instead of the name of a DataNode"),
}


@pytest.mark.parametrize("op", ["OPEN", "CREATE"])
@pytest.mark.parametrize("case", REDIRECTS)
async def test_redirects_that_are_not_followed(case: str, op: str) -> None:
    location, message = REDIRECTS[case]

    def sent(asked: str) -> bytes:
        here, target = asked.split(" ")
        return to(location.format(here=here, path=target.partition("?")[0], op=op))

    hadoop = Hadoop({op: sent}, datanode=whole("200 OK", DATA))
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match="node far: (get|put) .*" + message.format(op=op).split(" /p/")[0]):
            await (get(store) if op == "OPEN" else store.put(SAMPLE.key, [SAMPLE.data]))
    assert hadoop.opened == []


@pytest.mark.parametrize("code", ["301 M", "302 F", "303 S", "308 P", "200 OK", "204 N"])
async def test_only_the_status_of_webhdfs_sends_to_a_datanode(code: str) -> None:
    def sent(asked: str) -> bytes:
        here, target = asked.split(" ")
        return to(f"http://{here}{target}", code)

    hadoop = Hadoop({"OPEN": sent})
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match=f"node far: get .*HTTP {code[:3]} instead of the name of a DataNode"):
            await get(store)
    assert hadoop.opened == []


@pytest.mark.parametrize("op", ["GETFILESTATUS", "LISTSTATUS", "DELETE", "RENAME"])
async def test_what_the_namenode_answers_itself_is_not_redirected(op: str) -> None:
    def sent(asked: str) -> bytes:
        here, target = asked.split(" ")
        return to(f"http://{here}{target}")

    hadoop = Hadoop({op: sent}, datanode=whole("201 Created", b""))
    calls = {
        "GETFILESTATUS": lambda store: store.size(SAMPLE.key),
        "LISTSTATUS": lambda store: store.list("manifests/"),
        "DELETE": lambda store: store.delete(SAMPLE.key),
        "RENAME": lambda store: store._folder._rename("put x", "/p/tmp/x", PLACE),
    }
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match=r"node far: .*HTTP 307, redirects are not followed"):
            await calls[op](store)
    assert hadoop.opened == []


@pytest.mark.parametrize("op", ["OPEN", "CREATE"])
async def test_a_datanode_may_not_redirect(op: str) -> None:
    async with server(lambda _: whole("200 OK", DATA[:10])) as (elsewhere, asked):
        hadoop = Hadoop(datanode=to(f"http://{elsewhere}/webhdfs/v1{quote(PLACE)}?op={op}"))
        async with hadoop.store() as store:
            with pytest.raises(
                Unavailable, match=r"node far: \w+ \S+: DataNode 127\.0\.0\.1:\d+: HTTP 307, redirects are not followed"
            ):
                await (get(store) if op == "OPEN" else store.put(SAMPLE.key, [SAMPLE.data]))
    assert asked == []


@pytest.mark.parametrize(
    ("host", "message"),
    [
        (
            "no-such-host.invalid:9864",
            "Name or service not known (the NameNode calls it so, and this machine must know",
        ),
        ("127.0.0.1:1", "cannot connect: Connection refused"),
    ],
)
async def test_datanodes_that_cannot_be_reached_are_named(host: str, message: str) -> None:
    hadoop = Hadoop({"OPEN": lambda asked: to(f"http://{host}{asked.split(' ')[1]}")})
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match=re.escape(f"node far: get {SAMPLE.key}: DataNode {host}: {message}")):
            await get(store)


# ----------------------------------------------------------------------------------------------------------- bodies


def chunked(*parts: bytes, end: bool = True) -> bytes:
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    return head("200 OK", "Transfer-Encoding: chunked", "Connection: close") + body + b"0\r\n\r\n" * end


def unmeasured(data: bytes) -> bytes:
    return head("200 OK", "Connection: close") + data


# what the DataNode says to a question for bytes 90 to 110 of a file of 100: bytes, or the message of Unavailable
BODIES: dict[str, tuple[bytes, bytes | str]] = {
    "measured": (whole("200 OK", DATA[90:]), DATA[90:]),
    "chunked": (chunked(DATA[90:95], DATA[95:]), DATA[90:]),
    "until it closes": (unmeasured(DATA[90:]), DATA[90:]),
    "measured, cut short": (
        head("200 OK", "Content-Length: 10") + DATA[90:97],
        "DataNode .*closed after 7 of 10 bytes",
    ),
    "measured, nothing comes": (head("200 OK", "Content-Length: 10"), "DataNode .*closed after 0 of 10 bytes"),
    "measured wrongly": (whole("200 OK", DATA[90:97]), "cut short, 7 bytes at 90 of 100"),
    "measured as nothing": (whole("200 OK", b""), "cut short, 0 bytes at 90 of 100"),
    "chunked, cut short": (chunked(DATA[90:97], end=False), "DataNode .*not a valid answer"),
    "chunked, too little": (chunked(DATA[90:97]), "cut short, 7 bytes at 90 of 100"),
    "until it closes, too early": (unmeasured(DATA[90:97]), "cut short, 7 bytes at 90 of 100"),
    "more than the file has": (whole("200 OK", DATA[:15]), "cut short, 15 bytes at 90 of 100"),
    "more than was asked for": (whole("200 OK", DATA[:21]), "DataNode .*21 bytes, more than the 20"),
    "chunked, more": (chunked(DATA[:21]), "DataNode .*answer of more than 20 bytes"),
    "endless": (unmeasured(bytes(100_000)), "DataNode .*answer of more than 20 bytes"),
    "no answer": (b"", "DataNode .*connection closed before the answer"),
    "no HTTP": (b"hello\r\n\r\n", "DataNode .*not a valid answer"),
    "a page": (whole("500 I", b"<html>"), "DataNode .*HTTP 500, <html>"),
}


@pytest.mark.parametrize("case", BODIES)
async def test_bodies(case: str) -> None:
    said, meant = BODIES[case]
    hadoop = Hadoop({"GETFILESTATUS": status(100)}, datanode=said)
    async with hadoop.store() as store:
        if isinstance(meant, bytes):
            got, arrived = await get(store, 90, 20)
            assert got == meant
            assert arrived[-1] == len(meant)
        else:
            with pytest.raises(Unavailable, match=f"node far: get {SAMPLE.key}: {meant}"):
                await get(store, 90, 20)


async def test_a_question_behind_the_end() -> None:
    """The NameNode refuses it; whether it is the end is asked, not guessed from its words."""
    out_of_range = refusal("IOException", "Offset=100 out of the range [0, 100); OPEN, path=/x")
    hadoop = Hadoop({"OPEN": out_of_range, "GETFILESTATUS": status(100)})
    async with hadoop.store() as store:
        assert await get(store, 100) == (b"", [])
        with pytest.raises(Unavailable, match=r"node far: get .*: IOException: Offset=100 out of the range"):
            await get(store, 99)


async def test_what_arrived_raises_comes_out() -> None:
    """Also what verifying the bytes raises: wrong bytes are no outage."""

    class Stop(Exception):
        pass

    for raised in (Stop(), InvalidFormat("block 0 does not match")):

        def arrived(_: int, raised: Exception = raised) -> None:
            raise raised

        for said in (whole("200 OK", DATA[:10]), unmeasured(DATA[:10])):
            async with Hadoop(datanode=said).store() as store:
                with pytest.raises(type(raised)) as caught:
                    await store.get(SAMPLE.key, memoryview(bytearray(10)), arrived=arrived)
                assert caught.value is raised


# ----------------------------------------------------------------------------------------------------------- errors

ERRORS: dict[str, tuple[bytes, type[StoreError] | type[NotFound], str]] = {
    "absent": (ABSENT, NotFound, "node far has no chunks/"),
    "denied": (refusal("AccessControlException", "Permission denied: user=ada"), Denied, "Permission denied: user=ada"),
    "not authorized": (refusal("AuthorizationException"), Denied, "AuthorizationException: m"),
    "no such user": (refusal("SecurityException", "Failed to obtain", "401 U"), Denied, "Failed to obtain"),
    "a bad token": (refusal("InvalidToken", "token expired"), Denied, "InvalidToken: token expired"),
    "standby": (
        refusal("StandbyException", "Operation category READ is not supported in state standby"),
        Unavailable,
        r"in state standby \(this NameNode is on standby; name the active one\)",
    ),
    "safe mode": (
        refusal("SafeModeException", "Cannot create /x. Name node is in safe mode."),
        Unavailable,
        r"\(the NameNode is starting, or in safe mode\)",
    ),
    "full": (
        refusal("DSQuotaExceededException", "The DiskSpace quota of /p is exceeded"),
        NoSpace,
        "The DiskSpace quota",
    ),
    "no DataNode": (
        refusal("IOException", "File /x could only be replicated to 0 nodes\n\tat org.apache.A\n\tat B"),
        Unavailable,
        "could only be replicated to 0 nodes$",
    ),
    "no message": (refusal("NullPointerException", "", "500 I"), Unavailable, "NullPointerException"),
    "control characters": (refusal("IOException", "a\x07b\u202ec"), Unavailable, r"IOException: a\?b\?c$"),
    "a long one": (refusal("IOException", "x" * 50_000), Unavailable, "x{100}"),
    "Kerberos": (
        whole("401 Authentication required", b"<html>", "WWW-Authenticate: Negotiate"),
        Denied,
        "HTTP 401, a login 'Negotiate' is wanted, and webhdfs:// knows none but a user's name",
    ),
    "a login": (whole("401 U", b""), Denied, "HTTP 401, a login is wanted"),
    "a proxy that refuses": (whole("403 F", b"Blocked by policy"), Denied, "HTTP 403, Blocked by policy"),
    "no WebHDFS": (whole("404 N", b"<html>"), Unavailable, r"HTTP 404, <html> \(is WebHDFS there\? .*9870"),
    "another JSON": (document({"error": 1}, "404 N"), Unavailable, r"HTTP 404.*is WebHDFS there"),
    "throttled": (whole("429 T", b""), Unavailable, "throttled or overloaded: .*HTTP 429"),
    "overloaded": (whole("503 S", b"busy"), Unavailable, "throttled or overloaded: .*HTTP 503, busy"),
    "inside": (whole("500 I", b"\x00\xff<<<"), Unavailable, "HTTP 500"),
    "an endless page": (
        head("500 I", "Connection: close") + b"x" * 200_000,
        Unavailable,
        "HTTP 500, x",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
async def test_errors(case: str) -> None:
    answer, kind, message = ERRORS[case]
    at_namenode = Hadoop(dict.fromkeys(("OPEN", "GETFILESTATUS", "LISTSTATUS", "DELETE"), answer))
    async with at_namenode.store() as store:
        calls = [lambda: get(store), lambda: store.read(SAMPLE.key, limit=10)]
        if kind is not NotFound:
            calls += [lambda: store.size(SAMPLE.key), lambda: store.list("chunks/"), lambda: store.delete(SAMPLE.key)]
        for call in calls:
            await failed(call, kind, message)
    at_datanode = Hadoop({"GETFILESTATUS": status(100)}, datanode=answer)
    async with at_datanode.store() as store:
        await failed(lambda: get(store), kind, message)
        if kind is not NotFound:
            del at_datanode.namenode["GETFILESTATUS"]
            await failed(lambda: store.put(SAMPLE.key, [SAMPLE.data]), kind, message)


async def failed(call: Callable, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        await call()
    text = str(caught.value)
    assert text.startswith("node far")
    assert text.isprintable()
    assert len(text) < 500


GARBAGE = {
    "no JSON": whole("200 OK", b"<html>"),
    "another document": document({"x": 1}),
    "a list": document([]),
    "a size below nothing": status(-1),
    "a size that is none": document({"FileStatus": row() | {"length": "7"}}),
    "nothing": whole("200 OK", b""),
}


@pytest.mark.parametrize("case", GARBAGE)
async def test_garbage_with_success(case: str) -> None:
    hadoop = Hadoop(dict.fromkeys(("GETFILESTATUS", "LISTSTATUS", "DELETE", "MKDIRS"), GARBAGE[case]))
    async with hadoop.store() as store:
        for call in (
            lambda: store.size(SAMPLE.key),
            lambda: store.list("chunks/"),
            lambda: store.delete(SAMPLE.key),
            lambda: store.external_stat("x"),
            lambda: store.list_external("x"),
        ):
            with pytest.raises(Unavailable, match=r"node far: .*: not an answer of WebHDFS"):
                await call()


async def test_answers_are_bounded(monkeypatch) -> None:
    monkeypatch.setattr(webhdfs_folder, "LISTING_BYTES_MAX", 1000)
    big = listing(*(row(f"f{i}") for i in range(100)))
    hadoop = Hadoop({"LISTSTATUS": big, "GETFILESTATUS": head("200 OK", "Content-Length: 70000") + b"x"})
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match=r"node far: list manifests: answer of \d+ bytes, more than 1000"):
            await store.list("manifests/")
        with pytest.raises(Unavailable, match=r"node far: size .*answer of 70000 bytes, more than 65536"):
            await store.size(SAMPLE.key)


async def test_retry_after_of_the_namenode_is_obeyed() -> None:
    hadoop = Hadoop({"GETFILESTATUS": whole("503 S", b"", "Retry-After: 3")})
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match="throttled or overloaded"):
            await store.size(SAMPLE.key)
        asked = len(hadoop.asked)
        with pytest.raises(Unavailable, match=r"throttled, it asked to be left alone for [0-3]\.\d s more"):
            await store.size(SAMPLE.key)
        assert len(hadoop.asked) == asked


# ---------------------------------------------------------------------------------------------------------- writing

CREATED = whole("201 Created", b"")


def putting(**answers: Said) -> Hadoop:
    """A server where a put succeeds but for these answers."""

    def state(asked: str) -> bytes:
        return status(len(SAMPLE.data)) if "/tmp/" in asked else ABSENT

    rest = {"GETFILESTATUS": state, "MKDIRS": TRUE, "DELETE": TRUE, "RENAME": whole("200 OK", b"")}
    return Hadoop(rest | answers, datanode=CREATED)


async def test_a_put_writes_looks_and_renames() -> None:
    hadoop = putting()
    async with hadoop.store() as store:
        assert await store.put(SAMPLE.key, [SAMPLE.data]) is True
    assert hadoop.ops() == ["GETFILESTATUS", "LISTSTATUS", "CREATE", "GETFILESTATUS", "RENAME"]
    created, looked, renamed = hadoop.asked[2:]
    assert created.query["overwrite"] == ["false"]
    assert re.fullmatch("/p/tmp/[0-9a-f]{32}", created.path)
    assert looked.path == renamed.path == created.path
    assert (renamed.query["destination"], renamed.query["renameoptions"]) == ([PLACE], ["NONE"])


def once(first: bytes, then: bytes) -> Said:
    answers = iter([first])
    return lambda _: next(answers, then)


RENAMES: dict[str, tuple[Said, list[str], bool | str]] = {
    # what RENAME brings: the operations from then on, and what comes of the put
    "newer: renamed": (whole("200 OK", b""), ["RENAME"], True),
    "newer: it exists": (EXISTS, ["RENAME", "DELETE"], False),
    "newer: no folder": (once(ABSENT, whole("200 OK", b"")), ["RENAME", "MKDIRS", "RENAME"], True),
    "newer: never": (ABSENT, ["RENAME", "MKDIRS", "RENAME"], "FileNotFoundException"),
    "older: renamed": (TRUE, ["RENAME"], True),
    "older: no folder": (once(FALSE, TRUE), ["RENAME", "GETFILESTATUS", "MKDIRS", "RENAME"], True),
    "older: never": (
        FALSE,
        ["RENAME", "GETFILESTATUS", "MKDIRS", "RENAME", "GETFILESTATUS"],
        "the NameNode does not rename it, and does not say why",
    ),
    "garbage": (whole("200 OK", b"yes"), ["RENAME"], "not an answer of WebHDFS"),
}


@pytest.mark.parametrize("case", RENAMES)
async def test_renames(case: str) -> None:
    said, ops, meant = RENAMES[case]
    hadoop = putting(RENAME=said)
    async with hadoop.store() as store:
        if isinstance(meant, bool):
            assert await store.put(SAMPLE.key, [SAMPLE.data]) is meant
        else:
            with pytest.raises(Unavailable, match=f"node far: put .*{meant}"):
                await store.put(SAMPLE.key, [SAMPLE.data])
    assert hadoop.ops()[4:] == ops
    assert all(asked.path.startswith("/p/tmp/") for asked in hadoop.asked if asked.op == "DELETE")


async def test_an_older_rename_that_finds_it_there() -> None:
    there = False

    def state(asked: str) -> bytes:
        return status(len(SAMPLE.data)) if "/tmp/" in asked or there else ABSENT

    def rename(_: str) -> bytes:
        nonlocal there
        there = True
        return FALSE

    hadoop = putting(GETFILESTATUS=state, RENAME=rename)
    async with hadoop.store() as store:
        assert await store.put(SAMPLE.key, [SAMPLE.data]) is False
    assert hadoop.ops()[4:] == ["RENAME", "GETFILESTATUS", "DELETE"]


async def test_a_put_that_arrives_short_is_never_given_its_name() -> None:
    hadoop = putting(GETFILESTATUS=lambda asked: status(5) if "/tmp/" in asked else ABSENT)
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match=f"node far: put .*of {len(SAMPLE.data)} bytes 5 are there"):
            await store.put(SAMPLE.key, [SAMPLE.data])
        assert "RENAME" not in hadoop.ops()
        temp = hadoop.asked[-1].path
        hadoop.namenode = putting().namenode
        assert await store.put(SAMPLE.key, [SAMPLE.data])
    assert [asked.path for asked in hadoop.asked if asked.op == "DELETE"] == [temp], "the next put tidies up"


async def test_a_folder_that_cannot_be_made() -> None:
    hadoop = putting(RENAME=ABSENT, MKDIRS=FALSE)
    async with hadoop.store() as store:
        with pytest.raises(Unavailable, match=f"node far: put .*: folder {PLACE.rpartition('/')[0]} cannot be made"):
            await store.put(SAMPLE.key, [SAMPLE.data])


async def test_a_cancelled_put_leaves_a_file_for_the_next_one_only() -> None:
    began = trio.Event()

    async def stalls(stream: trio.SocketStream, _: int) -> None:
        await request_head(stream)
        began.set()
        await trio.sleep_forever()

    async with evil_server(stalls) as other:
        authority = other._client.authority
        hadoop = putting(CREATE=lambda asked: to(f"http://{authority}{asked.split(' ')[1]}"))
        async with hadoop.store() as store:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.put, SAMPLE.key, [SAMPLE.data])
                await began.wait()
                nursery.cancel_scope.cancel()
            (temp,) = [asked.path for asked in hadoop.asked if asked.op == "CREATE"]
            del hadoop.namenode["CREATE"]
            assert await store.put(SAMPLE.key, [SAMPLE.data])
            assert await store.put(SAMPLE.key, [SAMPLE.data])
    assert [asked.path for asked in hadoop.asked if asked.op == "DELETE"] == [temp]


async def test_sweeping_deletes_only_names_of_its_own() -> None:
    names = ["0" * 32, "../../x", "a/b", "F" * 32, "0" * 33, "notes"]
    hadoop = putting(LISTSTATUS=listing(*(row(name) for name in names)))
    async with hadoop.store() as store:
        await store.put(SAMPLE.key, [SAMPLE.data])
    assert [asked.path for asked in hadoop.asked if asked.op == "DELETE"] == ["/p/tmp/" + "0" * 32]


# -------------------------------------------------------------------------------------------------------- listings

LISTINGS = {
    "nothing": (listing(), NotFound, "node far has no m"),
    "of a file": (listing(row()), NotFound, "node far has no m"),
    "out of the folder": (listing(row("..", "DIRECTORY")), InvalidName, r"node far: file name .* part '\.\.'"),
    "far out": (listing(row("../../x")), InvalidName, r"part '\.\.'"),
    "a control character": (listing(row("a\nb")), InvalidName, "not allowed"),
    "a link": (listing(row("l", "SYMLINK")), UsageError, "node far: m/l is a link, which is not followed"),
    "another percent": (listing(row("a%41")), UsageError, "disagree about the name m/a%41"),
    "no end": (listing(row("a", "DIRECTORY")), InvalidName, "nested deeper than 64 folders"),
    "too many": (listing(*(row(f"f{i}") for i in range(201))), UsageError, "m holds more than 200 files"),
    "denied": (refusal("AccessControlException"), Denied, "node far"),
}


@pytest.mark.parametrize("case", LISTINGS)
async def test_listings_of_what_others_wrote(case: str) -> None:
    answer, kind, message = LISTINGS[case]
    hadoop = Hadoop({"LISTSTATUS": answer})
    async with hadoop.store() as store:
        with pytest.raises(kind, match=message):
            await store.list_external("m", limit=200)
    assert hadoop.asked[0].path == "/m", "of the root, not of the node's folder"
    assert len(hadoop.asked) <= 70


async def test_a_listing_passes_over_the_files_of_others() -> None:
    folder, name = SAMPLE.key.rsplit("/", 1)
    rows = [row("README"), row(name), row("x", "DIRECTORY"), row("../x"), row(name[:-1])]
    async with Hadoop({"LISTSTATUS": listing(*rows)}).store() as store:
        assert await store.list(f"{folder}/") == [SAMPLE.key]


async def test_the_tag_is_the_time_of_change() -> None:
    async with Hadoop({"GETFILESTATUS": status(7)}).store() as store:
        assert await store.external_stat("m/é &.bin") == ExternalStat(7, "mtime 7")


# ------------------------------------------------------------------------------------------------------------ names


@pytest.mark.parametrize("name", ["a b", "a&op=DELETE", "../x", "é", "1a", "a\n", "x" * 300])
def test_names_that_are_not_sent(monkeypatch, name: str) -> None:
    monkeypatch.setenv("HADOOP_USER_NAME", name)
    with pytest.raises(UsageError, match=r"node far: .* is no name of a user for Hadoop") as caught:
        hadoop_user("far")
    assert str(caught.value).isprintable()


def test_a_user_without_a_name(monkeypatch) -> None:
    monkeypatch.delenv("HADOOP_USER_NAME", raising=False)
    monkeypatch.setattr(shardfs.config.hadoop.os, "getuid", lambda: 3_999_999_999)
    with pytest.raises(UsageError, match="node far: user 3999999999 has no name; set HADOOP_USER_NAME"):
        hadoop_user("far")
