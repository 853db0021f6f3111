"""Servers that are not ours: a stock nginx as a node, and any server behind TLS."""

import getpass
import shutil
import ssl
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from shardfs.errors import Unavailable
from shardfs.store.base import Store
from shardfs.store.http import HttpStore
from shardfs.testing import exam_interruptions, exam_objects
from shardfs.testing.check import Check, fetch
from shardfs.testing.samples import sample_chunk
from shardfs.testing.span_exam import SPAN_EXAM
from tests.store.evil import head, request_head

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = """
daemon off; worker_processes 1; error_log stderr error; pid {folder}/pid; user {user};
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
    uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen unix:{folder}/socket;
        listen 127.0.0.2:{port};
        root {folder}/data; client_max_body_size 100m;
        dav_methods PUT DELETE; create_full_put_path on;
    }}
}}
"""


@asynccontextmanager
async def nginx_store(folder: Path) -> AsyncIterator[Store]:
    with trio.socket.socket() as probe:
        await probe.bind(("127.0.0.2", 0))  # connections begin at 127.0.0.1, so none can take the port meanwhile
        port = probe.getsockname()[1]
    (folder / "data").mkdir()
    config = folder / "nginx.conf"
    config.write_text(CONFIG.format(folder=folder, port=port, user=getpass.getuser()))
    async with trio.open_nursery() as nursery:
        process = await nursery.start(partial(trio.run_process, [NGINX, "-c", str(config), "-p", str(folder)]))
        while not (folder / "pid").exists() or not (folder / "pid").read_text():
            assert process.poll() is None
            await trio.lowlevel.checkpoint()
        store = HttpStore("a", f"http://127.0.0.2:{port}/")
        try:
            yield store
        finally:
            await store.aclose()
            process.terminate()


@pytest.mark.skipif(NGINX is None, reason="needs nginx")
@pytest.mark.parametrize(
    "check",
    [
        exam_objects.check_put_and_get,
        exam_objects.check_parts,
        exam_objects.check_ranges,
        exam_objects.check_empty_buffer,
        exam_objects.check_missing,
        exam_objects.check_read_limit,
        exam_interruptions.check_arrived_raises,
        exam_interruptions.check_cancel_get,
        exam_objects.check_stat,
        *SPAN_EXAM,
    ],
    ids=lambda check: check.__name__,
)
async def test_nginx(check: Check, tmp_path: Path) -> None:
    """It cannot list, nor create conditionally; all else is as it must be."""

    def make() -> AbstractAsyncContextManager[Store]:
        return nginx_store(tmp_path)

    await check(make)


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")
async def test_tls(tmp_path: Path) -> None:
    """Bodies, keep-alive and ends of connections through TLS; a certificate that nobody vouches for is refused."""
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    await trio.run_process(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", str(key), "-out", str(certificate), "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_stderr=True,
    )  # fmt: skip
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(certificate, key)
    sample, connections = sample_chunk(1, 1_000_000), 0
    size = len(sample.data)

    async def serve(stream: trio.SSLStream[trio.SocketStream]) -> None:
        nonlocal connections
        connections += 1
        try:
            for answer in range(3):
                if not await request_head(stream):
                    return
                body = sample.data if answer < 2 else sample.data[: size // 2]
                span = f"Content-Range: bytes 0-{size - 1}/{size}"
                await stream.send_all(head("206 OK", f"Content-Length: {size}", span) + body)
        except trio.BrokenResourceError:
            pass
        finally:
            await trio.aclose_forcefully(stream)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(
            partial(trio.serve_ssl_over_tcp, serve, 0, server, host="127.0.0.1", https_compatible=True)
        )
        url = f"https://127.0.0.1:{listener.transport_listener.socket.getsockname()[1]}"
        store = HttpStore("a", url, tls=ssl.create_default_context(cafile=certificate))
        assert await fetch(store, sample) == sample.data
        assert await fetch(store, sample) == sample.data
        assert connections == 1
        with pytest.raises(Unavailable):
            await fetch(store, sample)
        await store.aclose()
        stranger = HttpStore("a", url)
        with pytest.raises(Unavailable, match="certificate"):
            await stranger.stat()
        nursery.cancel_scope.cancel()
