"""A failed request says why in words, whichever class of error the HTTP library has for it."""

from __future__ import annotations

import asyncio
import socket
import ssl

import aiohttp
import pytest
import trustme

from ohttp_relay.transport import cause_of


async def cause(url: str, trusted: trustme.CA) -> str:
    context = ssl.create_default_context()
    trusted.configure_trust(context)
    timeout = aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with pytest.raises((aiohttp.ClientError, TimeoutError, OSError)) as caught:
            await session.get(url, ssl=context)
    return cause_of(caught.value)


async def test_each_cause_is_named_in_words() -> None:
    ours, theirs = trustme.CA(), trustme.CA()
    with socket.create_server(("127.0.0.1", 0)) as closing:
        port = closing.getsockname()[1]
    assert await cause(f"https://127.0.0.1:{port}", ours) == "the connection is refused"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.issue_cert("127.0.0.1").configure_cert(context)
    for secure, words in (
        (context, "its TLS certificate is not trusted"),
        (None, "the connection broke"),
    ):
        server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=secure)
        async with server:
            port = server.sockets[0].getsockname()[1]
            scheme = "https" if secure else "http"
            assert await cause(f"{scheme}://127.0.0.1:{port}", ours) == words
    assert cause_of(TimeoutError()) == "it does not answer in time"
    assert cause_of(ValueError("secret")) == "ValueError"
