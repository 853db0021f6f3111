"""A slow node: forwards to a local port, answers at RATE bytes/s over all connections, each LATENCY seconds late.

`slowproxy.py PORT RATE LATENCY [far]` says the port that it listens at in its first line. SIGTERM ends it. RATE may be
`inf`. `far`: a new connection costs the latency once more, as the handshake with a host that is far away does.
"""

import sys
from contextlib import suppress

import trio

PIECE = 64 * 1024


class Rate:
    """One budget for everybody: `spend` returns when these bytes may go."""

    def __init__(self, bytes_per_second: float) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    async def spend(self, size: int) -> None:
        self._free_at = max(self._free_at, trio.current_time()) + size / self._rate
        await trio.sleep_until(self._free_at)


async def serve(port: int, rate: Rate, latency: float, handshake: float) -> None:
    async def handle(client: trio.SocketStream) -> None:
        await trio.sleep(handshake)
        with suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with client, await trio.open_tcp_stream("127.0.0.1", port) as node, trio.open_nursery() as nursery:
                nursery.start_soon(forward_requests, client, node)
                await forward_answers(node, client)
                nursery.cancel_scope.cancel()

    async def forward_requests(client: trio.SocketStream, node: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            async for data in client:
                await trio.sleep(latency)
                await node.send_all(data)
            await node.send_eof()

    async def forward_answers(node: trio.SocketStream, client: trio.SocketStream) -> None:
        while data := await node.receive_some(PIECE):
            await rate.spend(len(data))
            await client.send_all(data)

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(handle, listeners)


if __name__ == "__main__":
    late = float(sys.argv[3])
    trio.run(serve, int(sys.argv[1]), Rate(float(sys.argv[2])), late, late if "far" in sys.argv[4:] else 0.0)
