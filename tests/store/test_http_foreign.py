"""Servers that are not ours, behind TLS. A stock nginx as a node is in tests/engines, where there is one."""

import shutil
import ssl
from functools import partial
from pathlib import Path

import pytest
import trio

from shardfs.errors import Unavailable
from shardfs.store.http import HttpStore
from shardfs.testing.check import fetch
from shardfs.testing.samples import sample_chunk
from tests.store.evil import head, request_head


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
