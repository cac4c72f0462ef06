"""A proxy on loopback that sends each request on a moment later, and counts requests and bytes.

`python benchmarks/delay_proxy.py PORT SECONDS` prints its own port. Each line that it reads is answered with what was
counted since the line before. Answers are passed on as they come, and are not parsed: what it costs is a copy.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import suppress

PART = 1 << 18
METHODS = (b"GET ", b"HEAD ", b"PUT ", b"POST ", b"DELETE ")


class Proxy:
    """Passes connections on to a port of this machine; ``delay`` (seconds) is the way of a request to the server."""

    def __init__(self, target: int, delay: float) -> None:
        self._target, self._delay = target, delay
        self.requests = self.nbytes = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with suppress(OSError):
            there, back = await asyncio.open_connection("127.0.0.1", self._target, limit=PART)
            later: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
            parts = (self._take(reader, later), self._send(later, back), self._answer(there, writer))
            tasks = [asyncio.ensure_future(part) for part in parts]
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            back.close()
        writer.close()

    async def _take(self, reader: asyncio.StreamReader, later: asyncio.Queue[tuple[float, bytes]]) -> None:
        clock = asyncio.get_running_loop().time
        while data := await reader.read(PART):
            self.requests += data.startswith(METHODS)
            later.put_nowait((clock() + self._delay, data))

    async def _send(self, later: asyncio.Queue[tuple[float, bytes]], back: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            when, data = await later.get()
            await asyncio.sleep(when - clock())
            back.write(data)
            await back.drain()

    async def _answer(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(PART):
            self.nbytes += len(data)
            writer.write(data)
            await writer.drain()


async def main() -> None:
    proxy = Proxy(int(sys.argv[1]), float(sys.argv[2]))
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, limit=PART, backlog=256)
    async with server:
        print(server.sockets[0].getsockname()[1], flush=True)
        while await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps({"requests": proxy.requests, "nbytes": proxy.nbytes}), flush=True)
            proxy.requests = proxy.nbytes = 0


if __name__ == "__main__":
    asyncio.run(main())
