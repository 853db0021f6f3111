"""Which handler answers a request, and what a failure becomes: a status and one line, never a traceback."""

import errno
import hmac
import logging

from shardfs.core.keys import ObjectKey, parse_key
from shardfs.errors import InvalidFormat
from shardfs.server.connection import Connection, Gone
from shardfs.server.disk import Disk
from shardfs.server.metrics import METHODS, Metrics
from shardfs.server.objects import Objects
from shardfs.server.options import ServerOptions
from shardfs.server.reports import HEALTH, PREFIX, Reports
from shardfs.server.request import Refused, Request
from shardfs.store.folder import Folder
from shardfs.store.folder_upload import sweep

logger = logging.getLogger(__name__)

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_TOO_MANY_FILES = (errno.EMFILE, errno.ENFILE)


class Router:
    """All handlers of one server."""

    def __init__(self, options: ServerOptions, metrics: Metrics) -> None:
        self._options = options
        self._metrics = metrics
        self._token = None if options.token is None else options.token.encode()
        self._folder = Folder(options.data)
        self._disk = Disk(options.disk_threads_max)
        self._objects = Objects(self._folder, self._disk, options)
        self._reports = Reports(self._folder, self._disk, options, metrics)

    async def prepare(self) -> None:
        """Remove what killed processes left behind."""
        await self._disk.run(sweep, self._folder)

    async def answer(self, connection: Connection, request: Request) -> None:
        """Answer, whatever happens. Raises Gone when the client is; any other exception is a bug."""
        try:
            await self._dispatch(connection, request)
        except Refused as refused:
            await self.refuse(connection, refused)
        except OSError as error:
            self._metrics.errors.labels("disk").inc()
            logger.warning("node %s: %s %s: %s", self._options.node, request.method, request.path[:200], error)
            if connection.answered:
                raise Gone(f"disk: {error}") from error
            await self.refuse(connection, _disk_failure(error))
        except Gone:
            raise
        except Exception:
            if not connection.answered:
                connection.closing = True
                await self.refuse(connection, Refused(500, "internal error"))
            raise

    async def refuse(self, connection: Connection, refused: Refused) -> None:
        """Say no in one line."""
        body = refused.text.replace("\n", " ").encode("ascii", "replace") + b"\n"
        headers = [("Content-Length", str(len(body))), ("Content-Type", "text/plain"), *refused.headers]
        await connection.answer(refused.status, headers, body)

    async def _dispatch(self, connection: Connection, request: Request) -> None:
        if request.method not in METHODS:
            raise Refused(405, "GET, HEAD, PUT or DELETE", (("Allow", ", ".join(METHODS)),))
        if request.path != HEALTH and not self._is_allowed(request):
            raise Refused(401, "a valid token is needed", (("WWW-Authenticate", "Bearer"),))
        if request.method != "PUT" and request.has_body:
            raise Refused(400, f"{request.method} with a body")
        if request.path.startswith(PREFIX):
            if request.method not in ("GET", "HEAD"):
                raise Refused(405, "reports can only be read", (("Allow", "GET, HEAD"),))
            await self._reports.get(connection, request)
            return
        key = _key(request)
        if request.method == "GET":
            await self._objects.get(connection, request, key)
        elif request.method == "HEAD":
            await self._objects.head(connection, key)
        elif request.method == "PUT":
            await self._objects.put(connection, request, key)
        else:
            await self._objects.delete(connection, key)

    def _is_allowed(self, request: Request) -> bool:
        if self._token is None:
            return True
        scheme, _, given = request.headers.get(b"authorization", b"").partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), self._token)


def _key(request: Request) -> ObjectKey:
    try:
        key = parse_key(request.path)
    except InvalidFormat:
        # For a reader such an object does not exist; a writer is told what is wrong.
        raise Refused(400 if request.method == "PUT" else 404, "not an object name") from None
    if request.query:
        raise Refused(400, "objects take no query")
    return key


def _disk_failure(error: OSError) -> Refused:
    if error.errno in _DISK_FULL:
        return Refused(507, "disk full")
    if error.errno in _TOO_MANY_FILES:
        return Refused(503, "too many open files")
    return Refused(500, f"disk: {error.strerror or 'failed'}")
