"""The options of the commands: each is seen to work in a real process, and refuses values out of its range."""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import aiohttp
import pytest
import trustme
import typer
from aiohttp import web
from typer.testing import CliRunner

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.bhttp.stream import content_piece, end_message, start_request
from ohttp_relay.capsule import encapsulate_request
from ohttp_relay.capsule.chunked import CHUNKED_REQUEST_TYPE, start_chunked_request
from ohttp_relay.cli import commands as cli
from ohttp_relay.client.dates import dated
from ohttp_relay.gateway import DEFAULT_PATH
from ohttp_relay.keys import KeyConfig, KeyRing
from ohttp_relay.transport import Close
from tests.ohttp_relay.server.test_command import command
from tests.ohttp_relay.world import Target


async def post(
    url: str, body: bytes | AsyncIterator[bytes], kind: str = "message/ohttp-req"
) -> tuple[int, bytes]:
    async with (
        aiohttp.ClientSession() as session,
        session.post(url, data=body, headers={"Content-Type": kind}) as answer,
    ):
        return answer.status, await answer.read()


async def get(url: str, **headers: str) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session, session.get(url, headers=headers) as answer:
        return answer.status, await answer.read()


def dated_now(request: Request) -> Request:
    return dated(request, time.time())


async def stalled(url: str, length: int) -> bytes:
    """Send a request without all of its content; return the first line of the answer."""
    host, port = aiohttp.client.URL(url).host, aiohttp.client.URL(url).port
    reader, writer = await asyncio.open_connection(host, port)
    path = aiohttp.client.URL(url).raw_path
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: message/ohttp-req\r\nContent-Length: {length}\r\n\r\n"
    writer.write(head.encode() + b"x")
    try:
        return await asyncio.wait_for(reader.readline(), 20)
    finally:
        writer.close()


async def closed_while_idle(url: str) -> bool:
    """Tell whether a connection without a request is closed by the other end."""
    reader, writer = await asyncio.open_connection(aiohttp.client.URL(url).host, aiohttp.client.URL(url).port)
    try:
        return await asyncio.wait_for(reader.read(), 20) == b""
    finally:
        writer.close()


@pytest.fixture
def ca(tmp_path: Path, authority: trustme.CA) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return str(tmp_path / "ca.pem")


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
async def test_the_options_of_a_relay_work(serve, ca: str) -> None:
    ring, go_on = KeyRing.generate(), asyncio.Event()

    async def gateway(request: web.Request) -> web.Response:
        body = await request.read()
        if body == b"wait":
            await go_on.wait()
        return web.Response(body=bytes(1024 + body.count(b"+")), content_type="message/ohttp-res")

    async def keys(_: web.Request) -> web.Response:
        return web.Response(body=ring.public_list(), content_type="application/ohttp-keys")

    app = web.Application()
    app.add_routes([web.post("/", gateway), web.get("/", keys)])
    options = ["--max-request", "2000", "--max-response", "1024", "--max-stream", "3000", "--bare-keys"]
    options += ["--client-seconds", "0.2", "--gateway-seconds", "0.2", "--key-list-seconds", "7"]
    options += ["--idle-seconds", "1", "--per-minute", "100"]
    async with command("relay", "--gateway", f"g={await serve(app)}/", "--ca", ca, *options) as relay:
        url = relay.url + "/g"
        assert [(await post(url, bytes(size)))[0] for size in (2000, 2001)] == [200, 413]
        assert [(await post(url, bytes(size), CHUNKED_REQUEST_TYPE))[0] for size in (3000, 3001)] == [
            200,
            413,
        ]
        assert (await post(url, b"wait"))[0] == 504
        go_on.set()
        assert b" 408 " in await stalled(url, 100)
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.headers["Cache-Control"] in ("max-age=7", "max-age=6")
        assert KeyConfig.from_bytes((await get(f"{url}/bare"))[1]) == ring.public_configs()[0]
        assert await closed_while_idle(url)
        await relay.end()


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
async def test_the_options_of_a_gateway_work(serve, tmp_path: Path, ca: str) -> None:
    target, go_on = Target(), asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        if request.path == "/wait":
            await go_on.wait()
        return web.Response(body=await request.read())

    target.answer = answer
    origin = await serve(target.app())
    ring = KeyRing.generate()
    ring.save(tmp_path / "keys")
    [config] = ring.public_configs()
    options = ["--max-request", "2000", "--max-response", "1500", "--max-stream", "3000", "--max-fields", "8"]
    options += ["--client-seconds", "0.2", "--target-seconds", "0.5", "--idle-seconds", "1"]
    options += ["--socket-idle-seconds", "1", "--sockets", "1"]
    options += ["--padding", "none", "--require-date", "--bare-keys", "/config", "--window", "100"]
    started = ["gateway", "--keys", str(tmp_path / "keys"), "--target", origin, "--network", "127.0.0.0/8"]

    def request(path: str = "/", content: bytes = b"", *fields: tuple[str, str]) -> Request:
        return Request("POST", "https", origin.removeprefix("https://"), path, fields, content)

    async with command(*started, "--ca", ca, *options) as gateway:
        url = gateway.url + DEFAULT_PATH

        async def ask(asked: Request, *, with_date: bool = True) -> tuple[Response, int]:
            if with_date:
                asked = dated_now(asked)
            capsule, opener = encapsulate_request(config, asked.to_bytes())
            status, body = await post(url, capsule)
            assert status == 200
            plain = opener.open(body)
            return Response.from_bytes(plain), len(plain)

        response, length = await ask(request(content=b"x" * 700))
        assert response.status == 200
        assert length == len(response.to_bytes())  # no padding
        assert (await ask(request(), with_date=False))[0].status == 400
        assert (await ask(request(content=bytes(1501))))[0].status == 502
        assert (await ask(request("/", b"", *((f"x-{at}", "v") for at in range(8)))))[0].status == 413
        assert (await ask(request("/wait")))[0].status == 504
        go_on.set()
        assert (await post(url, bytes(2001)))[0] == 413
        assert b" 408 " in await stalled(url, 100)
        for size, expected in ((3000, 200), (3001, 413)):
            head, writer, reader = start_chunked_request(config)
            plain = start_request(dated_now(request())) + content_piece(b"x" * size) + end_message()
            _, body = await post(url, head + writer.finish(plain), CHUNKED_REQUEST_TYPE)
            opened = b"".join([*reader.feed(body), reader.finish()])
            assert Response.from_bytes(opened).status == expected
            assert expected == 413 or opened.endswith(b"x\0\0")  # no padding of a stream
        assert KeyConfig.from_bytes((await get(f"{gateway.url}/config"))[1]) == config
        async with aiohttp.ClientSession() as session, session.ws_connect(url, protocols=["ohttp"]) as line:
            assert (await line.receive(20)).data == Close.TIME_OVER
        assert await closed_while_idle(url)
        await gateway.end()


@pytest.mark.parametrize("serve", ["fast"], indirect=True)
async def test_the_options_of_a_download_proxy_work(serve, tmp_path: Path, ca: str) -> None:
    target, go_on = Target(), asyncio.Event()

    async def asset(request: web.Request) -> web.StreamResponse:
        if request.path == "/slow":
            await go_on.wait()
        if request.path == "/drip":
            answer = web.StreamResponse()
            await answer.prepare(request)
            while not go_on.is_set():
                await answer.write(b"x")
                await asyncio.sleep(0.05)
            return answer
        return web.Response(body=bytes(int(request.path[1:])))

    target.answer = asset
    origin = await serve(target.app())
    host = origin.removeprefix("https://")
    options = [
        "--asset-host",
        host,
        "--network",
        "127.0.0.0/8",
        "--ca",
        ca,
        "--cache",
        str(tmp_path / "cache"),
    ]
    options += ["--max-object", "2000", "--cache-bytes", "1500", "--fresh-seconds", "0"]
    options += ["--read-seconds", "0.3", "--total-seconds", "0.6", "--idle-seconds", "1"]
    async with command("proxy", *options) as proxy:

        async def download(path: str) -> tuple[int, bytes]:
            return await get(f"{proxy.url}/proxyDownload/" + quote(f"{origin}/{path}", safe=""))

        for _ in range(2):  # nothing is fresh, so each is a fetch
            assert await download("1000") == (200, bytes(1000))
        assert [seen.target for seen in target.requests] == ["/1000", "/1000"]
        assert [(await download(path))[0] for path in ("2000", "2001", "slow")] == [200, 502, 504]
        with pytest.raises(aiohttp.ClientError):
            await download("drip")
        go_on.set()
        assert await closed_while_idle(proxy.url)
        await proxy.end()


# Ranges

REQUIRED = {
    "relay": ["--gateway", "g=https://g.example/"],
    "gateway": ["--target", "https://a.example", "--keys", "{tmp}"],
    "proxy": ["--asset-host", "a.example"],
}
NUMBERS = [
    (name, option.opts[0], "nan" if option.min is None else "1" + "0" * 30)
    for name, command in typer.main.get_command(cli.app).commands.items()  # type: ignore[attr-defined]
    if name in REQUIRED
    for option in command.params
    if option.default.__class__ in (int, float) or option.min is not None
]


def test_every_number_has_a_range_and_one_outside_is_refused_by_the_name_of_its_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert len(NUMBERS) > 35
    for command_name, option, beyond in NUMBERS:
        for value in ("-1", beyond):
            required = [text.format(tmp=tmp_path) for text in REQUIRED[command_name]]
            monkeypatch.setattr(sys, "argv", ["ohttp-relay", command_name, *required, option, value])
            with pytest.raises(SystemExit) as ended:
                cli.main()
            assert ended.value.code == 2, (command_name, option, value)
            assert option in capsys.readouterr().err, (command_name, option, value)


def test_the_paths_of_a_gateway_differ(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    KeyRing.generate().save(tmp_path / "keys")
    started = ["ohttp-relay", "gateway", "--target", "https://a.example", "--keys", str(tmp_path / "keys")]
    for path, message in (
        (DEFAULT_PATH, "two different paths"),
        ("config", "starts with '/'"),
        ("/{x}", "no '{'"),
    ):
        monkeypatch.setattr(sys, "argv", [*started, "--bare-keys", path])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", ["", "relay", "gateway", "proxy", "keys", "keys generate", "keys rotate", "keys show"]
)
def test_help_has_no_odd_types(words: str) -> None:
    done = CliRunner().invoke(cli.app, [*words.split(), "--help"], env={"COLUMNS": "200"})
    assert done.exit_code == 0
    assert not re.search(r"<\w+( range)?(\[\w+\])?>", done.output), done.output


def test_there_is_a_version() -> None:
    done = CliRunner().invoke(cli.app, ["--version"])
    assert re.fullmatch(r"ohttp-relay \d+\.\d+\.\d+\n", done.output)
