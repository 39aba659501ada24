"""A load balancer as small as can be: connections go to the API servers in turn, past one that is not there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from contextlib import suppress

_CHUNK_BYTES = 65_536


class Balancer:
    """Passes the connections to one port of this machine on to several others, from a thread of its own."""

    def __init__(self, port: int, servers: Sequence[int]) -> None:
        self.port = port
        self._servers = list(servers)
        self._turn = 0
        self._hangs = False
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        # What waits for it is held by it: a task that nothing holds is thrown away, and its connection closed.
        self._never = asyncio.Event()
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="balancer", daemon=True)

    @property
    def started(self) -> bool:
        """Return whether it listens."""
        return self._is_up.is_set()

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()
        self._is_up.wait()

    def stop(self) -> None:
        """Close everything."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def refuse(self) -> None:
        """Pass nothing on any more: close what is there, and what comes."""
        self._refuses = True

    def hang(self) -> None:
        """Pass nothing on any more and close nothing, as a network does that is cut."""
        self._hangs = True

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._pass_on, "127.0.0.1", self.port))
        self._is_up.set()
        self._loop.run_forever()
        server.close()
        # That connections are cut off here is no error of theirs.
        self._loop.set_exception_handler(_say_nothing)
        for task in (tasks := asyncio.all_tasks(self._loop)):
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._turn += 1
        if self._hangs:
            await self._never.wait()
        if self._refuses:
            writer.transport.abort()
            return
        for number in range(len(self._servers)):
            port = self._servers[(self._turn + number) % len(self._servers)]
            with suppress(OSError):
                their_reader, their_writer = await asyncio.open_connection("127.0.0.1", port)
                break
        else:
            writer.close()
            return
        # When one side ends, the other is to hear of it at once: a client waits for nobody.
        pumps = [
            asyncio.create_task(self._pump(reader, their_writer)),
            asyncio.create_task(self._pump(their_reader, writer)),
        ]
        await asyncio.wait(pumps)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await reader.read(_CHUNK_BYTES):
                if self._hangs:
                    await self._never.wait()
                if self._refuses:
                    break
                writer.write(chunk)
                await writer.drain()
        writer.close()


def _say_nothing(loop: asyncio.AbstractEventLoop, context: object) -> None:
    pass
