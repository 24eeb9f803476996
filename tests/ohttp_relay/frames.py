"""WebSocket frames taken out of captured bytes, and sockets that say what they like."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

from ohttp_relay.transport.websocket import PROTOCOL


def split_head(stream: bytes) -> tuple[list[bytes], bytes]:
    """The lines of the first HTTP head, and what follows it."""
    head, _, rest = stream.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), rest


def frames(data: bytes) -> list[tuple[int, bytes]]:
    """(opcode, payload) of each whole frame, unmasked (RFC 6455, section 5.2)."""
    found = []
    while len(data) >= 2:
        opcode, masked, size, at = data[0] & 15, data[1] >> 7, data[1] & 127, 2
        if size >= 126:
            length = 2 if size == 126 else 8
            size, at = int.from_bytes(data[at : at + length], "big"), at + length
        mask, at = (data[at : at + 4], at + 4) if masked else (bytes(4), at)
        if len(data) < at + size:
            break
        payload = data[at : at + size]
        found.append((opcode, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))))
        data = data[at + size :]
    return found


@asynccontextmanager
async def bare_socket(url: str, **settings: object) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    """A socket of this subprotocol on which anything can be sent."""
    connector = aiohttp.TCPConnector(ssl=settings.pop("tls", True))  # type: ignore[arg-type]
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.ws_connect(url, protocols=[PROTOCOL], **settings) as socket,  # type: ignore[arg-type]
    ):
        try:
            yield socket
        finally:
            await socket.close()
            socket._response.close()  # a socket that was broken on purpose keeps its connection


async def ending(socket: aiohttp.ClientWebSocketResponse) -> tuple[int | None, str]:
    """The close code and reason that come next."""
    message = await socket.receive(timeout=10)
    assert message.type is aiohttp.WSMsgType.CLOSE, message
    return message.data, message.extra or ""
