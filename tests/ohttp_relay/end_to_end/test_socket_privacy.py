"""What each party sees of a socket: in the bytes on its own sockets, its logs and its metrics."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator

import pytest

from ohttp_relay.bhttp import Request, Response
from ohttp_relay.client import OhttpSocket
from ohttp_relay.transport.websocket import PROTOCOL
from tests.ohttp_relay.end_to_end.test_privacy import (
    CLIENT_ADDRESS,
    OF_THE_CLIENT,
    OF_THE_REQUEST,
    OUTER,
    Wire,
)
from tests.ohttp_relay.frames import bare_socket, ending, frames, split_head
from tests.ohttp_relay.tap import Tap

HANDSHAKE = {
    b"host",
    b"upgrade",
    b"connection",
    b"sec-websocket-version",
    b"sec-websocket-key",
    b"sec-websocket-protocol",
}


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    made = Wire()
    await made.start()
    yield made
    await made.close()


def fields(lines: list[bytes]) -> dict[bytes, bytes]:
    pairs = (line.partition(b":") for line in lines[1:])
    return {name.strip().lower(): value.strip() for name, _, value in pairs}


def planted(wire: Wire, body: bytes = b"planted-body") -> Request:
    authority = wire.origin.removeprefix("http://")
    return Request(
        "POST", "http", authority, "/planted-path?planted-query", (("x-f", "planted-field"),), body
    )


async def talk(wire: Wire, *bodies: bytes) -> list[Response]:
    async with wire.client(chunked=False).socket() as socket:
        return [await socket.exchange(planted(wire, body)) for body in bodies]


async def test_neither_party_sees_what_is_the_others(wire: Wire) -> None:
    (answer,) = await talk(wire, b"planted-body")
    assert answer.content == b"echo:planted-body"
    seen = {tap: split_head(tap.up) for tap in (wire.at_relay, wire.at_gateway)}
    for tap, (head, data) in seen.items():
        below = b"".join(payload for _, payload in frames(data) + frames(split_head(tap.down)[1]))
        assert len(below) > 1000
        for secret in OF_THE_REQUEST:
            assert secret not in tap.up + tap.down + below
        assert wire.origin.removeprefix("http://").encode() not in b"".join(head) + below
    assert CLIENT_ADDRESS in wire.at_relay.peers
    assert CLIENT_ADDRESS not in wire.at_gateway.peers + wire.at_target.peers
    for secret in OF_THE_CLIENT:
        assert secret in wire.at_relay.up  # which is the one to know, and to keep it
        assert secret not in wire.at_gateway.up + wire.at_target.up


async def test_the_relays_handshake_is_the_same_whoever_asks(wire: Wire) -> None:
    await talk(wire, b"x")
    first, _ = split_head(wire.at_gateway.up)
    keys = {fields(split_head(tap.up)[0])[b"sec-websocket-key"] for tap in (wire.at_relay, wire.at_gateway)}
    headers = {
        "User-Agent": "another",
        "Origin": "https://planted.example",
        "Cookie": "a=b",
        "X-Id": "planted",
    }
    async with bare_socket(wire.relay_url + "?planted-query", headers=headers, compress=15) as socket:
        await socket.send_bytes(b"x")
        await ending(socket)
    second, _ = split_head(wire.at_gateway.up[wire.at_gateway.up.rindex(b"GET /") :])
    assert first[0] == second[0] == b"GET /.well-known/ohttp-gateway HTTP/1.1"
    assert [line.partition(b":")[0] for line in first] == [line.partition(b":")[0] for line in second]
    assert set(fields(first)) == HANDSHAKE
    assert fields(first)[b"sec-websocket-protocol"] == PROTOCOL.encode()
    keys.add(fields(second)[b"sec-websocket-key"])
    assert len(keys) == 3  # the relay makes its own
    same = set(HANDSHAKE) - {b"sec-websocket-key"}
    assert all(fields(first)[name] == fields(second)[name] for name in same)


async def test_answers_of_the_handshake_say_nothing_of_the_gateway(wire: Wire) -> None:
    await talk(wire, b"x")
    head = fields(split_head(wire.at_relay.down)[0])
    assert set(head) <= {
        b"upgrade",
        b"connection",
        b"sec-websocket-accept",
        b"sec-websocket-protocol",
        b"date",
    }


async def test_frames_show_a_bucket_each_way_and_the_relay_changes_nothing(wire: Wire) -> None:
    await talk(wire, b"", b"x" * 50, b"y" * 200)
    up = [[len(part) for code, part in frames(split_head(tap.up)[1]) if code == 2] for tap in taps(wire)]
    down = [[len(part) for code, part in frames(split_head(tap.down)[1]) if code == 2] for tap in taps(wire)]
    assert up[0] == up[1]
    assert down[0] == down[1]
    assert len(set(up[0])) == len(set(down[0])) == 1
    payloads = [[part for code, part in frames(split_head(tap.up)[1]) if code == 2] for tap in taps(wire)]
    assert payloads[0] == payloads[1]


def taps(wire: Wire) -> tuple[Tap, Tap]:
    return wire.at_relay, wire.at_gateway


async def test_how_a_client_ends_its_socket_goes_no_further(wire: Wire) -> None:
    async with bare_socket(wire.relay_url) as socket:
        await socket.ping(b"planted-ping")
        await socket.close(code=4999, message=b"planted-reason")
    async with wire.client(chunked=False).socket() as other:  # by now the first one's end has come through
        await other.exchange(planted(wire))
    sent = frames(split_head(wire.at_gateway.up)[1])
    assert sent[0] == (8, (1000).to_bytes(2, "big"))
    assert b"planted-" not in b"".join(payload for _, payload in sent)


async def test_an_answer_does_not_open_elsewhere_or_again(wire: Wire) -> None:
    """Each exchange has its own keys: no two frames have anything but a header in common."""
    await talk(wire, b"x", b"x", b"x")
    sent = [part for code, part in frames(split_head(wire.at_gateway.up)[1]) if code == 2]
    assert len({part[:7] for part in sent}) == 1
    assert len({part[7:39] for part in sent}) == len({part[39:71] for part in sent}) == 3


async def test_logs_and_metrics_count_sockets_and_name_nobody(wire: Wire) -> None:
    (answer,) = await talk(wire, b"planted-body")
    assert answer.status == 200
    async with bare_socket(wire.relay_url, headers=OUTER) as socket:
        await socket.send_bytes(b"plan")
        assert (await ending(socket))[0] == 1007
    async with wire.session.get(wire.relay_url, headers={**OUTER, **upgrade()}) as refused:
        assert refused.status == 400
    shown = b"".join(metrics.render() for metrics in wire.metrics) + wire.logs.getvalue().encode()
    for secret in [*OF_THE_CLIENT, *OF_THE_REQUEST, b"127.0.0.1", wire.origin.encode()]:
        assert secret not in shown
    for role, metrics in zip(("relay", "gateway"), wire.metrics, strict=True):
        text = metrics.render().decode()
        assert f'ohttp_socket_answers_total{{role="{role}"}} 1.0' in text
        assert f'ohttp_socket_ends_total{{reason="NOT_A_CAPSULE",role="{role}"}} 1.0' in text
        assert f'ohttp_requests_total{{role="{role}",status="101"}}' in text
    assert "ohttp_request_seconds_count" not in wire.metrics[1].render().decode()  # no life of a socket's


def upgrade() -> dict[str, str]:
    return {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(bytes(16)).decode(),
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "planted-agent",
    }


def test_a_socket_says_what_shares_it() -> None:
    assert "one client" in (OhttpSocket.__doc__ or "")
