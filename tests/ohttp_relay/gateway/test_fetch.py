"""What a gateway sends to a target that it fetches, and how it tells a client's mistake from the target's."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import pytest
from aiohttp import web

from ohttp_relay.bhttp import Limits, Request, Response
from ohttp_relay.bhttp.stream import content_piece, end_message, start_request
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.capsule.chunked import CHUNKED_REQUEST_TYPE, start_chunked_request
from ohttp_relay.gateway.fetch import Fetcher
from ohttp_relay.transport import TargetPolicy
from tests.ohttp_relay.world import LOOPBACK, World

# A fetch is the same on the fast path and behind the HTTP library.
pytestmark = pytest.mark.parametrize("serve", ["fast"], indirect=True)

READ = Limits(fields=1000, section=256 * 1024)


def host(world: World) -> str:
    return world.origin.removeprefix("https://")


def get(world: World, path: str = "/", *fields: tuple[str, str], authority: str | None = None) -> Request:
    return Request("GET", "https", host(world) if authority is None else authority, path, fields)


async def ask(world: World, request: Request, limits: Limits = READ) -> Response:
    """Ask the gateway, without a relay."""
    capsule, opener = encapsulate_request(world.keyring.public_configs()[0], request.to_bytes())
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            world.gateway_url, data=capsule, ssl=world.tls, headers={"Content-Type": "message/ohttp-req"}
        ) as answer,
    ):
        assert answer.status == 200
        return Response.from_bytes(opener.open(await answer.read()), limits)


# The target's fields


def answers(*fields: tuple[str, str], status: int = 200):
    async def answer(_: web.Request) -> web.Response:
        made = web.Response(status=status)
        for name, value in fields:
            made.headers.add(name, value)
        return made

    return answer


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "fields",
    [(("x-long", "v" * 60_000),), tuple((f"x-{at}", "v" * 100) for at in range(900))],
    ids=["a long field line", "many field lines"],
)
async def test_a_target_may_answer_with_long_and_many_field_lines(
    world: World, chunked: bool, fields: tuple[tuple[str, str], ...]
) -> None:
    client = await world.start(client={"chunked": chunked})
    world.target.answer = answers(*fields)
    async with client.get(world.origin) as response:
        assert response.status == 200
        assert set(fields) <= {(name.lower(), value) for name, value in response.headers.items()}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        (("x-long", "v" * (65_536 + 1)),),
        tuple((f"x-{at}", "v") for at in range(1000 + 1)),
        tuple((f"x-{at}", "v" * 65_536) for at in range(4)),
    ],
    ids=["line", "lines", "section"],
)
async def test_a_target_whose_fields_exceed_a_limit_is_a_502_that_says_so(
    world: World, chunked: bool, fields: tuple[tuple[str, str], ...]
) -> None:
    client = await world.start(client={"chunked": chunked})
    world.target.answer = answers(*fields)
    async with client.get(world.origin) as response:
        assert response.status == 502
        assert b"more than" in await response.read()


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_target_with_a_status_outside_http_is_a_502(world: World, chunked: bool) -> None:
    client = await world.start(client={"chunked": chunked})
    world.target.answer = answers(status=999)
    async with client.get(world.origin) as response:
        assert response.status == 502


# The client's mistakes


async def test_a_chunk_that_does_not_open_after_the_first_is_a_400(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start()
    message = start_request(get(world)._replace(method="POST"))
    for parts in ([message, content_piece(b"body") + end_message()], [message[:9], message[9:]]):
        head, writer, reader = start_chunked_request(world.keyring.public_configs()[0])
        first, second = (writer.write(part) for part in parts)
        broken = head + first + second[:-1] + bytes([second[-1] ^ 1]) + writer.finish()
        async with (
            aiohttp.ClientSession() as session,
            session.post(
                world.gateway_url,
                data=broken,
                ssl=world.tls,
                headers={"Content-Type": CHUNKED_REQUEST_TYPE},
            ) as answer,
        ):
            assert answer.status == 200
            plain = [*reader.feed(await answer.read()), reader.finish()]
        assert Response.from_bytes(b"".join(plain)).status == 400
    assert caplog.records == []


async def test_a_field_with_a_control_octet_is_a_400_that_names_the_field(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.start()
    for octet in "\x01\x1f\x7f":
        response = await ask(world, get(world, "/", ("x-odd", f"a{octet}b")))
        assert response.status == 400
        assert b"x-odd" in response.content
    assert world.target.requests == []
    assert caplog.records == []
    assert (await ask(world, get(world, "/", ("x-odd", "a\tb")))).status == 200


async def test_options_for_the_server_as_a_whole_reaches_the_target(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 204 No Content\r\nAllow: GET\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        authority = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await world.start(gateway={"targets": TargetPolicy.of([f"http://{authority}"], LOOPBACK)})
        response = await ask(world, Request("OPTIONS", "http", authority, "*"))
    assert (response.status, response.header("allow")) == (204, "GET")
    assert heads[0].startswith(f"OPTIONS * HTTP/1.1\r\nHost: {authority}\r\n".encode())
    assert caplog.records == []


# One parse


async def test_a_host_field_with_more_than_host_and_port_is_no_target(world: World) -> None:
    await world.start()
    for addition in ("/", "/x", "?", "?x", "#", "#x", "@", "@evil.example", ",", "%41", "\\", ":443"):
        fields = ("host", host(world) + addition)
        assert (await ask(world, get(world, "/secret", fields, authority=""))).status == 403
    assert world.target.requests == []


async def test_the_target_gets_path_and_query_in_the_clients_octets(world: World) -> None:
    await world.start()
    paths = ["/a/../b/./c", "//x//", "/?", "/a?b?c", "/%2e%2e/%zz;p=1", "/a?x=%26&y=+", "/'\"<>|"]
    for path in paths:
        assert (await ask(world, get(world, path))).status == 200
    assert [seen.target for seen in world.target.requests] == paths


async def test_the_target_gets_the_authority_in_the_clients_octets(world: World) -> None:
    await world.start()
    text = host(world).replace("localhost", "LocalHost")
    assert (await ask(world, get(world, authority=text))).status == 200
    assert [value for name, value in world.target.requests[0].fields if name == "host"] == [text]


# The cost of a whole answer


async def stream_code_run_by(ask_target) -> set[str]:
    """Return the functions of the project's code for streams that run while a target is asked."""
    run: set[str] = set()

    def note(frame, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.endswith(("transport/streams.py", "contextlib.py")):
            run.add(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        await ask_target()
    finally:
        sys.setprofile(None)
    return run


async def test_a_whole_answer_is_not_wrapped_in_a_stream(world: World) -> None:
    await world.start()
    fetcher = Fetcher(world.gateway.policy, world.gateway.session, timeout=10.0)

    async def whole() -> None:
        assert (await fetcher.whole(get(world), 100)).content == b"echo:"

    async def streamed() -> None:
        assert (await (await fetcher.streamed(get(world))).collect(100)).content == b"echo:"

    await whole()  # opens the connection
    assert "collect" in await stream_code_run_by(streamed)  # the control
    assert await stream_code_run_by(whole) == set()


async def test_whole_answers_come_over_one_connection_of_the_pool(world: World) -> None:
    await world.start()
    transports: set[int] = set()

    async def answer(request: web.Request) -> web.Response:
        transports.add(id(request.transport))
        return web.Response(body=bytes(200_000))

    world.target.answer = answer
    for _ in range(5):
        assert len((await ask(world, get(world))).content) == 200_000
    assert len(transports) == 1
