"""What is secret stands in no message and no log, whatever the other side makes of it."""

import base64
import os
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trio

from shardfs.errors import StoreError, Unavailable
from shardfs.store.base import Store
from shardfs.store.dav import DavStore
from shardfs.store.http import HttpStore
from shardfs.store.s3 import S3Store
from shardfs.store.s3_client import S3Site
from shardfs.store.s3_sign import Credentials
from shardfs.testing.samples import sample_chunk
from tests.engines.test_evil_servers import error, server, whole
from tests.store.evil import head

SAMPLE = sample_chunk(1)
TOKEN = "ZZS3CR3T" * 5
LOGIN = base64.b64encode(f"ada:{TOKEN}".encode()).decode()


class Held:
    """Credentials with this token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def current(self) -> Credentials:
        await trio.lowlevel.checkpoint()
        return Credentials("id", "key", self._token)

    def forget(self) -> None:
        pass


def s3(authority: str, token: str = TOKEN) -> Store:
    return S3Store("far", S3Site(f"http://{authority}/bkt", "p/", "r"), Held(token))


STORES: dict[str, Callable[[str], Store]] = {
    "http": lambda authority: HttpStore("far", f"http://{authority}", token=TOKEN),
    "dav, bearer": lambda authority: DavStore("far", f"dav://{authority}/d", token=TOKEN),
    "dav, password": lambda authority: DavStore("far", f"dav://{authority}/d", token=f"ada:{TOKEN}"),
    "s3": s3,
}


def line(request: bytes) -> str:
    """What came, in one line."""
    return " ".join(request.decode("latin-1").split("\r\n")[1:])


def sent(request: bytes) -> str:
    """The secret alone."""
    headers = dict(row.partition(": ")[::2] for row in request.decode("latin-1").split("\r\n"))
    return headers.get("x-amz-security-token") or headers["Authorization"].partition(" ")[2]


ECHOES: dict[str, Callable[[bytes], bytes]] = {
    "all of it": lambda request: whole("400 Bad", f"you sent: {line(request)}".encode()),
    "refused": lambda request: whole("403 F", f"{sent(request)} is not known".encode()),
    "where the message is cut": lambda request: whole("400 Bad", f"{'x' * 185}{sent(request)}".encode()),
    "cut by the server": lambda request: whole("500 I", f"{'x' * 20}{sent(request)[:-3]}".encode()),
    "XML": lambda request: error("400 B", "InvalidToken", f"the token {sent(request)} is malformed"),
    "XML, where it is cut": lambda request: error("400 B", "InvalidToken", f"{'x' * 150}{sent(request)}"),
    "no answer": lambda request: f"{sent(request)}\r\n\r\n".encode(),
    "no header": lambda request: head("400 Bad", f"{sent(request)} is that a header"),
}


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("echo", ECHOES)
async def test_a_server_that_repeats_what_it_was_sent(store: str, echo: str) -> None:
    async with server(ECHOES[echo]) as (authority, asked):
        opened = STORES[store](authority)
        calls = [
            opened.stat,
            lambda: opened.list("chunks/"),
            lambda: opened.read(SAMPLE.key, limit=10),
            lambda: opened.put(SAMPLE.key, [SAMPLE.data]),
        ]
        for call in calls:
            with pytest.raises(StoreError) as caught:
                await call()
            shown = "".join(traceback.format_exception(caught.value))
            assert TOKEN[:8] not in shown
            assert LOGIN[:8] not in shown
            assert len(str(caught.value)) < 500
        assert asked
        assert all(sent(request) for request in asked)
        await opened.aclose()


@pytest.mark.parametrize("token", [f"AAAA\n{TOKEN}", f"\x00{TOKEN}", f"\u00e4{TOKEN}", f"{TOKEN}\r\nX-Other: y"])
async def test_a_header_that_http_does_not_allow(token: str) -> None:
    """It is a failure of that node, which names no value, and nothing is sent."""
    async with server(lambda _: whole("200 OK", b"")) as (authority, asked):
        store = s3(authority, token)
        for call in (store.stat, lambda: store.get(SAMPLE.key, memoryview(bytearray(5)))):
            with pytest.raises(
                Unavailable, match=r"node far: .*characters that HTTP does not allow: not sent"
            ) as caught:
                await call()
            assert TOKEN[:8] not in "".join(traceback.format_exception(caught.value))
        await store.aclose()
    assert asked == []


STS = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>role</AccessKeyId><SecretAccessKey>{token}</SecretAccessKey><SessionToken>{token}</SessionToken>
<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""


STS_REFUSES = """<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type>
<Code>AccessDenied</Code><Message>{token} may not</Message></Error></ErrorResponse>"""


@pytest.mark.parametrize(
    ("status", "answer", "outcome"),
    [(200, STS, "cannot connect"), (403, STS_REFUSES, "no AWS credentials: ClientError: AccessDenied")],
)
def test_the_secrets_of_a_role_are_in_no_log(tmp_path: Path, status: int, answer: str, outcome: str) -> None:
    """With --debug, too: botocore would log all that it gets."""
    pytest.importorskip("botocore")
    asked: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            body = answer.format(token=TOKEN).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as sts:
        threading.Thread(target=sts.serve_forever, daemon=True).start()
        config = tmp_path / "config"
        config.write_text(
            "[default]\nrole_arn = arn:aws:iam::123456789012:role/x\nsource_profile = keys\nregion = us-east-1\n"
            "[profile keys]\naws_access_key_id = id\naws_secret_access_key = key\n"
        )
        # Where nobody answers: that the role is asked for comes before.
        (tmp_path / "cluster.toml").write_text(
            'replicas = 1\n[[nodes]]\nid = "far"\nurl = "s3://bkt/p?region=r&endpoint=http://127.0.0.1:1"\n', "utf-8"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
            "AWS_ENDPOINT_URL_STS": f"http://127.0.0.1:{sts.server_port}",
        }
        command = [sys.executable, "-m", "shardfs", "--debug", "status", "--cluster", str(tmp_path / "cluster.toml")]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
        sts.shutdown()
    assert asked, ("the role was not asked for", done.stderr)
    said = done.stdout + done.stderr
    assert outcome in said
    assert "Traceback" not in said
    assert TOKEN not in said
