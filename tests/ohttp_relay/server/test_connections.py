"""Silent, slow and too many clients: each has its seconds, and nobody is locked out."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import resource
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from ohttp_relay.server import Bind, ConnectionLimits, open_sockets, serve
from ohttp_relay.server.service import FAST_PATH, FastPath
from tests.ohttp_relay.server.test_fast_http import Echo

PATIENCE = 10.0
SHORT = 0.05
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


class Client:
    """One connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, request: bytes = REQUEST) -> bytes:
        """Send a request; return the status line."""
        self.writer.write(request)
        async with asyncio.timeout(PATIENCE):
            head = await self.reader.readuntil(b"\r\n\r\n")
            await self.reader.readexactly(2)
        return head.partition(b"\r\n")[0]

    async def closed(self) -> bool:
        """Wait until the server has closed the connection, and has answered nothing."""
        try:
            async with asyncio.timeout(PATIENCE):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True


class Server:
    def __init__(self, port: int, tls: ssl.SSLContext | None) -> None:
        self.port, self.tls = port, tls
        self.clients: list[Client] = []

    async def connect(self, *, raw: bool = False, window: int | None = None) -> Client:
        """Connect; with `window`, the client's system keeps so many bytes at most that were not read."""
        tls = None if raw else self.tls
        name = "localhost" if tls else None
        plain = socket.socket()
        plain.setblocking(False)
        if window is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
        await asyncio.get_running_loop().sock_connect(plain, ("127.0.0.1", self.port))
        made = Client(*await asyncio.open_connection(sock=plain, ssl=tls, server_hostname=name))
        self.clients.append(made)
        return made


@asynccontextmanager
async def serving(
    app: web.Application | Handler,
    server: ssl.SSLContext | None,
    client: ssl.SSLContext | None,
    **limits: float,
) -> AsyncIterator[Server]:
    if not isinstance(app, web.Application):
        handler, app = app, web.Application()
        app.router.add_route("*", "/", handler)
    bind = Bind("127.0.0.1", 0, tls=server, grace=0.2, limits=ConnectionLimits(**limits))  # type: ignore[arg-type]
    (listener,) = open_sockets(bind)
    stop = asyncio.Event()
    made = Server(listener.getsockname()[1], client)
    task = asyncio.create_task(serve(app, bind, listener, stop=stop))
    try:
        yield made
    finally:
        for one in made.clients:
            one.writer.transport.abort()
        stop.set()
        await task


@pytest.fixture(params=["plain", "tls"])
def both(
    request: pytest.FixtureRequest, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> tuple[ssl.SSLContext | None, ssl.SSLContext | None]:
    return (server_tls, client_tls) if request.param == "tls" else (None, None)


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\nX: "], ids=["nothing", "half a head"])
async def test_a_connection_without_a_whole_head_is_closed_in_time(both, sent: bytes) -> None:
    async with serving(ok, *both, head_seconds=SHORT) as server:
        used = await server.connect()
        assert await used.ask() == b"HTTP/1.1 200 OK"
        silent = await server.connect()
        silent.writer.write(sent)
        assert await silent.closed()
        assert await used.ask() == b"HTTP/1.1 200 OK"  # the control: older, and still open


async def test_a_handshake_that_is_not_completed_ends_in_time(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serving(ok, server_tls, client_tls, handshake_seconds=SHORT) as server:
        silent = await server.connect(raw=True)
        assert await silent.closed()
        assert await (await server.connect()).ask() == b"HTTP/1.1 200 OK"


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_clients_that_reset_at_the_start_of_a_handshake_leave_no_errors(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, loop: str
) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        client_tls.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello, errors = outgoing.read(), list[object]()

    def reset(port: int) -> None:
        for sent in (b"", REQUEST, hello, hello[:50]) * 40:
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with serving(ok, server_tls, client_tls) as server:
            await asyncio.to_thread(reset, server.port)
            assert await (await server.connect()).ask() == b"HTTP/1.1 200 OK"
            gc.collect()

    if loop == "uvloop":
        pytest.importorskip("uvloop").run(main())
    else:
        asyncio.run(main())
    assert errors == []


async def test_a_body_that_does_not_come_ends_its_connection_and_an_answer_may_take_longer(both) -> None:
    go = asyncio.Event()

    async def read(request: web.Request) -> web.Response:
        body = await request.read()
        if request.method == "POST" and body[:1] == b"l":
            await go.wait()
        return web.Response(text="ok")

    async with serving(read, *both, body_seconds=SHORT, body_rate=1 << 20) as server:
        long, slow = await server.connect(), await server.connect()
        waiting = asyncio.create_task(long.ask(POST + b"l" * 100))
        slow.writer.write(POST + b"s" * 10)
        assert await slow.closed()
        go.set()
        assert await waiting == b"HTTP/1.1 200 OK"  # the control: its body had come


@pytest.mark.parametrize(
    "limits", [{"reading_seconds": SHORT}, {"unread": 1 << 15, "body_seconds": 4 * SHORT}]
)
async def test_who_does_not_read_the_answer_is_closed(both, limits: dict[str, float]) -> None:
    """After a time, and before it if too much waits to be read in all."""
    ended = asyncio.Event()

    async def large(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 20))
        finally:
            ended.set()

    async with serving(large, *both, **limits) as server:
        deaf = await server.connect()
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        deaf.writer.write(REQUEST)
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_answers_that_are_read_in_drops_are_bounded_together_and_a_prompt_reader_gets_its_own(
    both, loop: str
) -> None:
    """TLS too: what it has encrypted and not sent is counted, and a little progress keeps nobody."""
    size = 8 << 20

    async def large(_: web.Request) -> web.Response:
        return web.Response(body=bytes(size))

    async def read(client: Client, pause: float) -> int:
        client.writer.write(REQUEST)
        await client.reader.readuntil(b"\r\n\r\n")
        found = 0
        with contextlib.suppress(OSError):
            while found < size and (data := await client.reader.read(1 << 14 if pause else size)):
                found += len(data)
                await asyncio.sleep(pause)
        return found

    async def main() -> None:
        async with serving(large, *both, unread=12 << 20, head_seconds=4 * SHORT) as server:
            slow = [asyncio.create_task(read(await server.connect(window=4096), 0.01)) for _ in range(3)]
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait(slow, return_when=asyncio.FIRST_COMPLETED)
                assert await read(await server.connect(), 0) == size
            for one in slow:
                one.cancel()
            found = await asyncio.gather(*slow, return_exceptions=True)
            assert any(isinstance(one, int) and one < size for one in found)

    if loop == "uvloop":
        pytest.importorskip("uvloop").run(main())
    else:
        asyncio.run(main())


async def test_when_there_are_too_many_the_one_unused_longest_makes_room_and_no_request_is_cut(both) -> None:
    came, go = asyncio.Event(), asyncio.Event()

    async def handler(request: web.Request) -> web.Response:
        if request.method == "POST":
            await request.read()
            came.set()
            await go.wait()
        return web.Response(text="ok")

    async with serving(handler, *both, connections=3) as server:
        busy, first, second = [await server.connect() for _ in range(3)]
        waiting = asyncio.create_task(busy.ask(POST + bytes(100)))
        await came.wait()
        for client in (second, first):
            await client.ask()
        third = await server.connect()
        assert await third.ask() == b"HTTP/1.1 200 OK"
        assert await second.closed()
        assert await first.ask() == b"HTTP/1.1 200 OK"
        go.set()
        assert await waiting == b"HTTP/1.1 200 OK"


async def test_a_crowd_that_stays_in_its_bodies_cuts_no_request_that_came_whole(both) -> None:
    """A long poll that waits for long is older than each of them."""
    begun, go = asyncio.Semaphore(0), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        begun.release()
        await (request.read() if request.method == "POST" else go.wait())
        return web.Response(text="ok")

    async with serving(answer, *both, connections=10) as server:
        poll = asyncio.create_task((await server.connect()).ask())
        await begun.acquire()
        for _ in range(30):
            (await server.connect()).writer.write(POST)
            async with asyncio.timeout(PATIENCE):
                await begun.acquire()
        go.set()
        assert await poll == b"HTTP/1.1 200 OK"


async def test_a_crowd_that_stays_in_its_handshake_locks_nobody_out(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    async with serving(ok, server_tls, client_tls, connections=10) as server:
        crowd = [await server.connect(raw=True) for _ in range(30)]
        assert await (await server.connect()).ask() == b"HTTP/1.1 200 OK"
        assert all([await one.closed() for one in crowd[:20]])


async def test_a_silent_connection_is_closed_on_the_fast_path_too(both) -> None:
    app = web.Application()
    app[FAST_PATH] = FastPath(Echo(), None, ())
    async with serving(app, *both, head_seconds=SHORT) as server:
        used = await server.connect()
        asked = b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi"
        assert await used.ask(asked) == b"HTTP/1.1 200 OK"
        assert await (await server.connect()).closed()
        assert await used.ask(asked) == b"HTTP/1.1 200 OK"


async def test_the_log_tells_once_and_names_nobody(both, caplog: pytest.LogCaptureFixture) -> None:
    async with serving(ok, *both, connections=2) as server:
        for _ in range(6):
            await (await server.connect()).ask()
    assert [one for one in caplog.messages if "connections" in one] == [
        "as many connections as there may be: those unused longest are closed"
    ]


def test_connections_leave_half_of_the_descriptors_to_everything_else() -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert ConnectionLimits(connections=1 << 30).bound() == soft // 2
    assert ConnectionLimits(connections=1 << 30).bound(2) == soft // 4
    assert ConnectionLimits(connections=7).bound() == 7


def test_the_soft_limit_of_descriptors_is_raised() -> None:
    program = (
        "import resource as r; from ohttp_relay.server import raise_descriptor_limit as up;"
        "r.setrlimit(r.RLIMIT_NOFILE, (100, 200)); up(); print(r.getrlimit(r.RLIMIT_NOFILE))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "(200, 200)\n"
