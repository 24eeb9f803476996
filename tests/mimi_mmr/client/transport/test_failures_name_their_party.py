"""An error of a path names the party that did not do its part."""

from __future__ import annotations

import pytest

from mimi_mmr.client.transport.private_path import Route
from mimi_mmr.errors import PrivatePathFailed, ShutOut
from ohttp_relay.errors import ExchangeFailed, OhttpError, OpenFailed, RelayRefused, SocketEnded
from tests.mimi_mmr.conftest import LiveWorld

ROUTE = Route("b.example", "a.example", "https://b.example/relay")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ExchangeFailed("x"), "the relay of b.example, on the way to a.example, can't be asked"),
        (RelayRefused(502), "a.example does not answer the relay of b.example (status 502)"),
        (RelayRefused(504), "a.example does not answer the relay of b.example (status 504)"),
        (RelayRefused(404), "the relay of b.example passes nothing on to a.example (status 404)"),
        (SocketEnded(1011), "the socket to a.example, through the relay of b.example, ended (code 1011)"),
        (OpenFailed("x"), "no private path to a.example, through the relay of b.example: OpenFailed"),
    ],
)
def test_each_failure_of_a_route(error: OhttpError, words: str) -> None:
    assert str(ROUTE.failure(error)).startswith(words)


async def test_a_relay_that_is_down_is_named_and_not_the_hub(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    alice.path._own_relay = "b.example"
    room = await alice.rooms.create()
    await live.stop("b.example")
    live.world.providers["b.example"].socket.close()
    with pytest.raises(
        PrivatePathFailed,
        match=r"^the relay of b\.example, on the way to a\.example, can't be asked: the connection is refused$",
    ):
        await alice.rooms.send(room, "hello")


async def test_a_device_that_was_shut_out_is_told_so(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    await alice.account.delete()
    with pytest.raises(ShutOut, match=r"a\.example does not know this device of the account, or no longer"):
        await alice.people.connection_requests()
