"""The fast path: it answers whole requests, however their bytes arrive, and hands over all else unchanged."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.client.dates import dated
from ohttp_relay.gateway import DEFAULT_PATH, Gateway
from ohttp_relay.keys import KeyRing, choose_config, decode_key_list
from ohttp_relay.relay import Relay
from ohttp_relay.server import Metrics
from ohttp_relay.server.fast_http import MAX_CONTENT, FastConnection, FastServer, RequestHead, WholeRequest
from ohttp_relay.server.reply import Reply, StreamedReply
from ohttp_relay.server.service import FAST_PATH
from ohttp_relay.transport.streams import OwnedStream

HEAD = b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Type: message/ohttp-req\r\nContent-Length: %d\r\n\r\n"


def wire(body: bytes) -> bytes:
    return HEAD % len(body) + body


class Transport(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = self.aborted = self.paused = False
        self.protocol: Any = None

    def write(self, data: Any) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Library(asyncio.Protocol):
    """What a connection is passed on to: keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


class Echo:
    """Answers with what came; later, if `gate` is there."""

    def __init__(self) -> None:
        self.gate: asyncio.Event | None = None
        self.cancelled = False
        self.length: int | None = None
        self.peers: list[str] = []
        self.together: list[int] = []

    def expects(self, head: RequestHead) -> bool:
        return head.path == "/x"

    def receive(self, requests: Sequence[WholeRequest]) -> Sequence[Reply | Awaitable[Reply | StreamedReply]]:
        self.together.append(len(requests))
        return [self.one(request.body, request.sender) for request in requests]

    def one(self, body: bytes, sender: Any) -> Reply | Awaitable[Reply | StreamedReply]:
        if body == b"defect":
            raise KeyError
        if body == b"defect, later":
            return self.fail()
        self.peers.append(sender.peer)
        reply = Reply(200, (("Content-Type", "message/ohttp-res"),), body)
        if body.startswith(b"stream"):
            return self.stream(body)
        return reply if self.gate is None else self.later(reply, self.gate)

    async def later(self, reply: Reply, gate: asyncio.Event) -> Reply:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return reply

    async def fail(self) -> Reply:
        raise KeyError

    async def stream(self, body: bytes) -> StreamedReply:
        async def pieces() -> AsyncGenerator[bytes, None]:
            yield b"one"
            yield b"two"
            if body.endswith(b"breaks"):
                raise OSError
            yield b"three"

        return StreamedReply(200, (), self.length, OwnedStream(pieces(), AsyncExitStack()))


@pytest.fixture
async def server() -> FastServer:
    return FastServer(Echo(), Library, Metrics("gateway"), idle=10.0)


def opened(server: FastServer) -> tuple[FastConnection, Transport]:
    connection, transport = server(), Transport()
    connection.connection_made(transport)
    return connection, transport


def bodies(written: bytes) -> list[bytes]:
    """The contents of answers with a Content-Length."""
    found = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
        assert b"\r\nDate: " in head
        size = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
        found.append(rest[:size])
        written = rest[size:]
    return found


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Heads

UNUSUAL = [
    b"GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.0\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"POST /x?y HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"POST http://a/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"POST  /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\nHost: a\nContent-Length: 1\n\n",
    b"POST /x HTTP/1.1\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (MAX_CONTENT + 1),
    b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nX: \xe4\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nX: a\rb\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nX: a\x0bb\r\nContent-Length: 1\r\n\r\n",
    b"POST /x HTTP/1.1\r\nHost: a\r\nX: a\0b\r\nContent-Length: 1\r\n\r\n",
    *(
        b"POST /x HTTP/1.1\r\nHost: a\r\n%b\r\nContent-Length: 1\r\n\r\n" % line
        for line in (
            b"Transfer-Encoding: chunked",
            b"Connection: close",
            b"Connection: keep-alive",
            b"Expect: 100-continue",
            b"Upgrade: websocket",
            b"Content-Encoding: gzip",
            b"TE: trailers",
        )
    ),
]


@pytest.mark.parametrize("data", UNUSUAL)
async def test_an_unusual_head_is_passed_on_byte_for_byte(server: FastServer, data: bytes) -> None:
    assert RequestHead.parse(data) is None
    connection, transport = opened(server)
    connection.data_received(wire(b"first"))
    connection.data_received(data + b"z")
    await settle()
    assert bodies(transport.written) == [b"first"]
    assert transport.protocol.data == data + b"z"
    assert not server.connections


token = st.text("abcXYZ-_09", min_size=1, max_size=8)
lines = st.lists(
    st.tuples(
        st.one_of(token, st.sampled_from(["Host", "Content-Length", "Transfer-Encoding", "Connection"])),
        st.sampled_from([": ", ":", " : ", ":\t", ": \t "]),
        st.one_of(st.text("ab 0,;=\"\t'", max_size=8), st.sampled_from(["1", "01", "5", "chunked", "+1"])),
        st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r\n "]),
    ),
    max_size=5,
)


@given(
    st.sampled_from(
        ["POST /x HTTP/1.1\r\n", "POST /%41b HTTP/1.1\r\n", "POST /x HTTP/1.2\r\n", "post /x HTTP/1.1\r\n"]
    ),
    lines,
)
def test_what_is_read_here_the_library_reads_alike(
    start: str, drawn: list[tuple[str, str, str, str]]
) -> None:
    text = (
        start + "Host: a\r\nContent-Length: 5\r\n" * (len(drawn) % 2) + "".join(map("".join, drawn)) + "\r\n"
    )
    head = RequestHead.parse(text.encode())
    if head is None:
        return
    loop = asyncio.new_event_loop()
    try:
        parser = HttpRequestParser(BaseProtocol(loop), loop, 2**16)
        messages, upgraded, rest = parser.feed_data(text.encode())
    finally:
        loop.close()
    ((message, _),) = messages
    assert (message.method, message.path, upgraded, rest) == ("POST", head.path, False, b"")
    assert not (message.chunked or message.should_close or message.compression or message.upgrade)
    assert [(name.lower(), value) for name, value in message.headers.items()] == list(head.fields.items())
    assert int(message.headers["Content-Length"]) == head.length


# Requests


async def test_a_request_is_answered_however_it_is_split(server: FastServer) -> None:
    data = wire(b"body")
    start = len(data) - 4
    for cut in range(start, len(data)):
        connection, transport = opened(server)
        connection.data_received(data[:cut])
        assert not transport.written
        connection.data_received(data[cut:])
        await settle()
        assert bodies(transport.written) == [b"body"]
    connection, transport = opened(server)
    for at in range(start, len(data) + 1):
        connection.data_received(data[:start] if at == start else data[at - 1 : at])
    await settle()
    assert bodies(transport.written) == [b"body"]
    for cut in range(1, start):  # a head that is not all there is the library's
        connection, transport = opened(server)
        connection.data_received(data[:cut])
        assert transport.protocol.data == data[:cut]


async def test_requests_that_come_at_once_are_answered_in_turn(server: FastServer) -> None:
    connection, transport = opened(server)
    connection.data_received(wire(b"1") + wire(b"2") + wire(b"3") + UNUSUAL[0])
    await settle()
    assert bodies(transport.written) == [b"1", b"2", b"3"]
    assert transport.protocol.data == UNUSUAL[0]


async def test_requests_of_one_turn_are_answered_together(server: FastServer) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    connections = [opened(server) for _ in range(40)]
    for at, (connection, _) in enumerate(connections):
        connection.data_received(wire(b"%d" % at))
    assert not echo.together
    await settle()
    assert echo.together == [16, 16, 8]
    assert [bodies(transport.written) for _, transport in connections] == [[b"%d" % at] for at in range(40)]


async def test_who_sends_nothing_more_is_answered_and_who_is_gone_is_not_written_to(
    server: FastServer,
) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    others = [opened(server) for _ in range(20)]
    for other, _ in others:
        other.data_received(wire(b"0"))
    connection, transport = opened(server)
    connection.data_received(wire(b"1") + wire(b"2") + wire(b"3")[:-1])
    connection.eof_received()  # after which the transport closes: with TLS, whatever this returns
    assert bodies(transport.written) == [b"1", b"2"]
    await settle()
    assert [bodies(transport.written) for _, transport in others] == [[b"0"]] * 20
    assert echo.together == [16, 5, 1]
    gone, transport = opened(server)
    gone.data_received(wire(b"1"))
    transport.closed = True
    gone.connection_lost(None)
    await settle()
    assert not transport.written
    echo.gate = asyncio.Event()
    for leave in (FastConnection.eof_received, lambda connection: None):
        echo.cancelled = False
        connection, transport = opened(server)
        connection.data_received(wire(b"1"))
        leave(connection)
        transport.closed = True
        connection.connection_lost(None)
        await settle()
        assert echo.cancelled
        assert not transport.written


async def test_the_reply_that_is_awaited_reaches_a_client_that_has_ended_its_data(
    server: FastServer,
) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    echo.gate = asyncio.Event()
    connection, transport = opened(server)
    connection.data_received(wire(b"1") + wire(b"2") + wire(b"3")[:-1])
    await settle()
    assert connection.eof_received()  # the transport stays open
    await settle()
    assert (transport.written, transport.closed) == (b"", False)
    echo.gate.set()
    await settle()
    await settle()
    assert bodies(transport.written) == [b"1", b"2"]
    assert transport.closed
    tls, transport = opened(server)
    transport._extra["ssl_object"] = object()
    echo.gate.clear()
    tls.data_received(wire(b"1"))
    await settle()
    assert not tls.eof_received()


def ask_and_say_goodbye(address: tuple[str, int], tls: ssl.SSLContext, data: bytes) -> bytes:
    """Send a request over TLS, and in the same segment that nothing more comes; return what comes back."""
    received, to_send, answer = ssl.MemoryBIO(), ssl.MemoryBIO(), b""
    session = tls.wrap_bio(received, to_send, server_hostname="127.0.0.1")
    with socket.create_connection(address, timeout=10) as connection:
        while session.version() is None or not session.cipher():
            with contextlib.suppress(ssl.SSLWantReadError):
                session.do_handshake()
                break
            connection.sendall(to_send.read())
            received.write(connection.recv(1 << 16))
        session.write(data)
        with contextlib.suppress(ssl.SSLWantReadError):
            session.unwrap()
        connection.sendall(to_send.read())
        while piece := connection.recv(1 << 16):
            received.write(piece)
    with contextlib.suppress(ssl.SSLError):
        while piece := session.read():
            answer += piece
    return answer


async def test_who_says_goodbye_with_its_request_is_answered_over_tls_too(
    server: FastServer,
    server_tls: ssl.SSLContext,
    client_tls: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
) -> None:
    listening = await server.loop.create_server(server, "127.0.0.1", 0, ssl=server_tls)
    address = listening.sockets[0].getsockname()
    got = await asyncio.to_thread(ask_and_say_goodbye, address, client_tls, wire(b"1"))
    assert bodies(got) == [b"1"]
    assert not caplog.records
    listening.close()
    await server.close(1.0)


async def test_a_defect_of_the_service_leaves_nobody_waiting(
    server: FastServer, caplog: pytest.LogCaptureFixture
) -> None:
    connections = [opened(server) for _ in range(3)]
    (first, _), (second, _), (third, transport) = connections
    first.data_received(wire(b"1"))
    second.data_received(wire(b"defect"))
    first.eof_received()
    assert [record.getMessage() for record in caplog.records] == [
        "the service failed on the fast path: KeyError"
    ]
    assert [transport.closed for _, transport in connections] == [True, True, False]
    third.data_received(wire(b"3"))
    await settle()
    assert bodies(transport.written) == [b"3"]
    late, transport = opened(server)
    late.data_received(wire(b"defect, later") + wire(b"4"))
    await settle()
    assert [record.getMessage() for record in caplog.records][1:] == [
        "a request failed on the fast path: KeyError"
    ]
    assert transport.closed  # so that the next answer can't be taken for this one's
    assert not transport.written


async def test_the_end_answers_what_was_asked_just_before(server: FastServer) -> None:
    connection, transport = opened(server)
    connection.data_received(wire(b"1"))
    await server.close(5.0)
    assert bodies(transport.written) == [b"1"]
    assert b"Connection: close\r\n" in transport.written
    assert transport.closed


async def test_what_comes_after_the_last_answer_is_not_passed_on_to_a_library_that_could_not_answer(
    server: FastServer,
) -> None:
    connection, transport = opened(server)
    connection.data_received(wire(b"1") + wire(b"2"))
    await server.close(5.0)
    assert bodies(transport.written) == [b"1"]
    assert transport.closed
    assert transport.protocol is None
    connection.check_idle(server.now + 2)
    assert transport.protocol is None


async def test_an_answer_that_is_waited_for_holds_up_the_next_and_is_given_up_for_a_client_that_left(
    server: FastServer,
) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    echo.gate = asyncio.Event()
    connection, transport = opened(server)
    connection.data_received(wire(b"1"))
    connection.data_received(wire(b"2"))
    await settle()
    assert not transport.written
    connection.data_received(b"x" * (2 * MAX_CONTENT))
    assert transport.paused
    echo.gate.set()
    await settle()
    assert bodies(transport.written) == [b"1", b"2"]
    assert transport.protocol.data == b"x" * (2 * MAX_CONTENT)
    assert not transport.paused
    echo.gate = asyncio.Event()
    connection, transport = opened(server)
    connection.data_received(wire(b"1"))
    await settle()
    connection.connection_lost(None)
    await settle()
    assert echo.cancelled
    assert not server.connections


async def test_a_client_that_does_not_read_is_asked_to_before_it_is_answered_more(server: FastServer) -> None:
    connection, transport = opened(server)
    connection.pause_writing()
    connection.data_received(wire(b"1"))
    await settle()
    assert not transport.written
    connection.check_idle(server.now + 5)
    assert not transport.is_closing()
    connection.resume_writing()
    await settle()
    assert bodies(transport.written) == [b"1"]
    connection.pause_writing()
    connection.check_idle(server.now + 11)
    assert transport.aborted


@pytest.mark.parametrize("length", [None, 11])
async def test_an_answer_may_pass_in_pieces_no_faster_than_it_is_read(
    server: FastServer, length: int | None
) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    echo.length = length
    connection, transport = opened(server)
    connection.pause_writing()
    connection._write_paused = False
    connection.data_received(wire(b"stream"))
    connection.pause_writing()
    await settle()
    body = transport.written.partition(b"\r\n\r\n")[2]
    assert body == (b"one" if length else b"3\r\none\r\n")
    connection.resume_writing()
    await settle()
    head, _, body = transport.written.partition(b"\r\n\r\n")
    assert body == (b"onetwothree" if length else b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
    assert (b"Content-Length: 11" if length else b"Transfer-Encoding: chunked") in head
    assert not transport.is_closing()


async def test_an_answer_that_breaks_off_breaks_the_connection(server: FastServer) -> None:
    connection, transport = opened(server)
    connection.data_received(wire(b"stream that breaks"))
    await settle()
    assert transport.aborted
    assert not transport.written.endswith(b"0\r\n\r\n")


# Time


async def test_what_is_slow_goes_to_the_library_and_what_is_unused_is_closed(server: FastServer) -> None:
    slow, slow_transport = opened(server)
    slow.data_received(wire(b"body")[:-1])
    unused, unused_transport = opened(server)
    busy, busy_transport = opened(server)
    echo = server.handler
    assert isinstance(echo, Echo)
    echo.gate = asyncio.Event()
    busy.data_received(wire(b"1"))
    for connection in (slow, unused, busy):
        connection.check_idle(server.now + 0.5)
    assert slow_transport.protocol is None
    for connection in (slow, unused, busy):
        connection.check_idle(server.now + 2)
    assert slow_transport.protocol.data == wire(b"body")[:-1]
    for connection in (unused, busy):
        connection.check_idle(server.now + 11)
    assert unused_transport.closed
    assert not busy_transport.is_closing()
    busy.connection_lost(None)
    await settle()


async def test_the_end_waits_for_what_is_being_answered(server: FastServer) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    echo.gate = asyncio.Event()
    connections = [opened(server) for _ in range(4)]
    (busy, busy_transport), (stuck, stuck_transport), (_, idle_transport), (part, part_transport) = (
        connections
    )
    busy.data_received(wire(b"1"))
    part.data_received(wire(b"1")[:-1])
    closing = asyncio.create_task(server.close(5.0))
    await settle()
    assert idle_transport.closed
    assert part_transport.protocol.data == wire(b"1")[:-1]
    assert not busy_transport.closed
    echo.gate.set()
    await closing
    assert b"Connection: close\r\n" in busy_transport.written
    assert busy_transport.closed
    assert stuck_transport.closed
    del stuck


async def test_the_end_gives_up_what_takes_too_long(server: FastServer) -> None:
    echo = server.handler
    assert isinstance(echo, Echo)
    echo.gate = asyncio.Event()
    connection, transport = opened(server)
    connection.data_received(wire(b"1"))
    await server.close(0.01)
    await settle()
    assert echo.cancelled
    assert transport.closed


# Services


def test_nobody_put_between_is_passed_by() -> None:
    @web.middleware
    async def guard(request: web.Request, handler: Callable[..., Any]) -> web.StreamResponse:
        raise web.HTTPForbidden

    app = Gateway(KeyRing.generate(), ["https://a.example"], metrics=Metrics("gateway")).app()
    assert app[FAST_PATH].may_serve(app)
    app.middlewares.append(guard)
    assert not app[FAST_PATH].may_serve(app)
    asked = Relay({"g": "https://g.example/"}, authenticate=lambda request: True).app()
    assert FAST_PATH not in asked


def test_services_expect_their_own_small_requests() -> None:
    gateway = Gateway(KeyRing.generate(), ["https://a.example"]).app()[FAST_PATH].handler
    relay = Relay({"g": "https://g.example/"}).app("/r")[FAST_PATH].handler

    def head(path: str, kind: str, **more: str) -> RequestHead:
        return RequestHead(path, {"content-type": kind, **more}, 5)

    assert gateway.expects(head(DEFAULT_PATH, "message/ohttp-req; x=y"))
    assert not gateway.expects(head("/", "message/ohttp-req"))
    assert not gateway.expects(head(DEFAULT_PATH, "message/ohttp-chunked-req"))
    assert relay.expects(head("/r/g", "message/ohttp-req"))
    for path, kind, more in (
        ("/g", "message/ohttp-req", {}),
        ("/r/other", "message/ohttp-req", {}),
        ("/r/g", "text/plain", {}),
        ("/r/g", "message/ohttp-req", {"incremental": "?1"}),
    ):
        assert not relay.expects(head(path, kind, **more))


def answer_oddly(request: Request) -> Any:
    """An in-process target of which each path gives something else."""

    async def later() -> Response:
        return Response(200, (), b"later")

    if request.path == "/cancel":
        raise asyncio.CancelledError
    answers: dict[str, Callable[[], Any]] = {
        "/": lambda: Response(200, (), b"now"),
        "/later": later,
        "/text": lambda: Response(200, (), "text"),  # type: ignore[arg-type]
        "/number": lambda: Response(200, (("x", 5),)),  # type: ignore[arg-type]
        "/three": lambda: Response(200, (("a", "b", "c"),)),  # type: ignore[arg-type]
        "/status": lambda: Response("200"),  # type: ignore[arg-type]
    }
    return answers[request.path]()


@pytest.mark.parametrize(
    ("path", "status"),
    [("/text", 502), ("/number", 502), ("/three", 502), ("/status", 502), ("/cancel", 500)],
)
async def test_what_a_target_gives_for_one_request_harms_no_other(path: str, status: int) -> None:
    ring = KeyRing.generate()
    gateway = Gateway(ring, local={"https://a.example": answer_oddly})
    config, suite = choose_config(decode_key_list(ring.public_list()))
    asked = [
        encapsulate_request(
            config, dated(Request("GET", "https", "a.example", one), time.time()).to_bytes(), suite
        )
        for one in ("/", "/later", path, "/")
    ]
    replies = gateway.receive([*(capsule for capsule, _ in asked), b"", asked[0][0]])
    whole = [reply if isinstance(reply, Reply) else await reply for reply in replies]
    assert [reply.status for reply in whole] == [200, 200, 200, 200, 400, 200]
    openers = [*(opener for _, opener in asked), asked[0][1]]
    del whole[4]
    statuses = [
        Response.from_bytes(opener.open(reply.body)).status
        for opener, reply in zip(openers, whole, strict=True)
    ]
    assert statuses == [200, 200, status, 200, 400]  # the last one came before
    await gateway.close()


def test_whatever_a_gateway_says_is_said_again() -> None:
    written = Reply(299, (("Content-Type", "a/b;x=\u20ac\udce9"),), b"1").to_bytes(b"now")
    assert written.startswith(b"HTTP/1.1 299 \r\nContent-Type: a/b;x=\xe2\x82\xac\xe9\r\n")


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_can_have_no_content_is_not_chunked(status: int) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 %d Odd\r\n\r\n" % status)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    relay = Relay({"g": f"http://127.0.0.1:{port}/"}, allow_insecure_loopback=True)
    reply = relay.receive(
        "g", WholeRequest(RequestHead("/g", {}, 1), b"1", FastConnection.__new__(FastConnection))
    )
    assert isinstance(reply, Awaitable)
    assert await reply == Reply(status, (), b"")
    await relay.close()
    server.close()


async def test_answers_are_counted(server: FastServer) -> None:
    connection, _ = opened(server)
    for _ in range(3):
        connection.data_received(wire(b"1"))
    await settle()
    assert server.metrics is not None
    shown = server.metrics.render().decode()
    assert 'ohttp_requests_total{role="gateway",status="200"} 3.0' in shown
    assert 'ohttp_request_seconds_count{role="gateway"} 3.0' in shown
    assert 'ohttp_in_flight{role="gateway"} 0.0' in shown
