"""A tap: a plain TCP proxy that keeps every byte that passes, and the addresses it came from."""

from __future__ import annotations

import asyncio
import contextlib


class Tap:
    def __init__(self, host: str, port: int) -> None:
        self._to = host, port
        self.up = b""
        self.down = b""
        self.peers: list[str] = []
        self.hellos: list[bytes] = []
        self._passing: set[asyncio.Future[list[None]]] = set()
        self._tasks: set[asyncio.Task[None] | None] = set()

    @classmethod
    async def before(cls, origin: str) -> Tap:
        """Start a tap in front of an origin on loopback."""
        tap = cls("127.0.0.1", int(origin.rpartition(":")[2]))
        tap.server = await asyncio.start_server(tap._pass, "127.0.0.1", 0)
        tap.port = tap.server.sockets[0].getsockname()[1]
        return tap

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.peers.append(writer.get_extra_info("peername")[0])
        there, back = await asyncio.open_connection(*self._to)
        reply = asyncio.gather(self._copy(reader, back, up=True), self._copy(there, writer, up=False))
        self._passing.add(reply)
        self._tasks.add(asyncio.current_task())
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await reply
        self._passing.discard(reply)
        for end in (writer, back):
            end.close()
            with contextlib.suppress(OSError):
                await end.wait_closed()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool) -> None:
        first = True
        while data := await reader.read(65536):
            if up:
                self.up += data
                if first:
                    self.hellos.append(data)
            else:
                self.down += data
            first = False
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def close(self) -> None:
        self.server.close()
        for reply in self._passing:
            reply.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)


def cipher_suites(hello: bytes) -> bytes:
    """The cipher suites of a TLS ClientHello: what fingerprints start from."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    size = int.from_bytes(hello[at : at + 2], "big")
    return hello[at + 2 : at + 2 + size]


def extensions(hello: bytes) -> list[int]:
    """The extension types of a ClientHello, in order, without the two that vary with reuse and padding."""
    at = 5 + 4 + 2 + 32
    at += 1 + hello[at]
    at += 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 1 + hello[at]
    end = at + 2 + int.from_bytes(hello[at : at + 2], "big")
    at += 2
    found = []
    while at < end:
        found.append(int.from_bytes(hello[at : at + 2], "big"))
        at += 4 + int.from_bytes(hello[at + 2 : at + 4], "big")
    return [kind for kind in found if kind not in (21, 41)]
