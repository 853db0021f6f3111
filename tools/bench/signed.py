"""A bucket as the benchmark itself reads and writes it: signed requests over plain blocking sockets, nothing else.

It speaks to a local endpoint only, and signs for the host that `bench.programs.wire` names.
"""

import hashlib
import http.client
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.programs.wire import HOST, connect, fetch
from shardfs.config.aws import AwsProfile
from shardfs.core.location import parse_s3
from shardfs.store.s3_sign import EMPTY_SHA256, Credentials, S3Request, sign


@dataclass(frozen=True, slots=True)
class Bucket:
    """The folder of an `s3://` url. `path` begins with a slash and ends with one."""

    port: int
    path: str
    region: str
    credentials: Credentials

    @classmethod
    def of(cls, url: str) -> "Bucket":
        """RuntimeError when the environment has no credentials."""
        place = parse_s3(url)
        credentials = AwsProfile().credentials()
        if credentials is None:
            raise RuntimeError("no credentials in the environment")
        port = urlsplit(place.endpoint).port or 80
        return cls(port, f"/{place.bucket}/{place.prefix}", place.region, credentials)

    def connect(self) -> socket.socket:
        return connect(self.port)

    def fetch(self, sock: socket.socket, key: str, start: int, end: int, buffer: memoryview) -> None:
        """Bytes [start, end) of an object into `buffer`; RuntimeError for any other answer."""
        request = S3Request("GET", self.path + key)
        fetch(sock, request.target, start, end, buffer, "".join(f"{k}: {v}\r\n" for k, v in self._sign(request)))

    def connection(self) -> http.client.HTTPConnection:
        """For `keys`."""
        return http.client.HTTPConnection(HOST, self.port)

    def keys(self, connection: http.client.HTTPConnection, prefix: str) -> bytes:
        """The first keys that begin with `prefix`, as the endpoint lists them; RuntimeError for any other answer."""
        _, bucket, folder = self.path.split("/", 2)
        query = {"list-type": "2", "encoding-type": "url", "prefix": folder + prefix}
        request = S3Request("GET", f"/{bucket}", query=query)
        connection.request("GET", request.target, headers={**dict(self._sign(request)), "Host": HOST})
        answer = connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"list {prefix}: HTTP {answer.status}: {said[:300]!r}")
        return said

    def put(self, key: str, source: Path | None = None) -> None:
        """Store a file, or with None nothing, as one plain object. RuntimeError when it is refused."""
        digest, size = EMPTY_SHA256, 0
        if source is not None:
            with source.open("rb") as file:
                digest, size = hashlib.file_digest(file, "sha256").hexdigest(), source.stat().st_size
        request = S3Request("PUT", self.path + key, body_sha256=digest)
        headers = {**dict(self._sign(request)), "Host": HOST, "Content-Length": str(size)}
        connection = http.client.HTTPConnection(HOST, self.port)
        try:
            if source is None:
                connection.request("PUT", request.target, headers=headers)
            else:
                with source.open("rb") as file:
                    connection.request("PUT", request.target, file, headers)
            answer = connection.getresponse()
            said = answer.read(300)
        finally:
            connection.close()
        if answer.status != 200:
            raise RuntimeError(f"PUT {key}: HTTP {answer.status}: {said!r}")

    def _sign(self, request: S3Request) -> list[tuple[str, str]]:
        return sign(request, host=HOST, region=self.region, credentials=self.credentials, now=time.time())
