"""Logs hold no URI, address, room or key, whatever went wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import json
import logging
from collections.abc import Iterator

import pytest

from mimi_mmr.client import Client
from mimi_mmr.errors import MmrError
from mimi_mmr.lab.demo.facts import facts_of
from mimi_mmr.lab.demo.people import Person
from mimi_mmr.lab.ledger import Fact, FactKind, PartyRole, View, search
from mimi_mmr.protocol.content import Content
from mimi_mmr.provider import logs, outbox
from tests.mimi_mmr.conftest import LiveWorld, connect, invited
from tests.mimi_mmr.provider.doors import obliviously, straight

MARK = "5ec7e7ab1e"
CONFIGURED = ("mimi_mmr", "ohttp_relay", "aiohttp", "asyncio", "sqlalchemy")


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """What is logged as `mimi-mmr serve` logs at its most talkative; logging is as it was, afterwards."""
    loggers = [logging.getLogger(name) for name in CONFIGURED]
    before = [(logger.level, logger.handlers, logger.propagate) for logger in loggers]
    logs.configure("debug")
    stream = io.StringIO()
    for handler in logging.getLogger("mimi_mmr").handlers:
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(stream)
    yield stream
    for logger, (level, handlers, propagate) in zip(loggers, before, strict=True):
        logger.setLevel(level)
        logger.handlers, logger.propagate = handlers, propagate


def everything_about(clients: list[Client]) -> list[Fact]:
    facts = [
        Fact(FactKind.NAME, "the run", "", MARK.encode()),
        Fact(FactKind.ADDRESS, "anybody", "", b"127."),
    ]
    for client in clients:
        facts += facts_of(Person(client.user.name, client, ""))
    return facts


def said(text: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in text.splitlines()]


async def test_no_log_line_names_anybody_or_anything(
    logged: io.StringIO, live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "FIRST_DELAY", 0.01)
    alice = await live.person(f"alice-{MARK}", "a.example")
    bob = await live.person(f"bob-{MARK}", "b.example")
    to_bob, bobs = await connect(alice, bob)
    await bob.key_packages.publish(bobs, 1)
    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob])
    at_bob = await invited(bob)
    await bob.rooms.send(at_bob, f"hello {MARK}")

    hub, provider = live.providers["a.example"], live.providers["b.example"]
    failed, send = asyncio.Event(), hub.outbox._send

    async def watched(domain: str, body: bytes) -> None:
        try:
            await send(domain, body)
        except MmrError:
            failed.set()
            raise

    hub.outbox._send = watched
    url, hub.peers.urls["b.example"] = hub.peers.urls["b.example"], "https://127.0.0.1:1"
    hub.peers._known.pop("b.example", None)
    await alice.rooms.send(room, "to somebody who is away")  # fan-out fails
    await straight(live, "a.example", "/v1/providers", method="GET")  # so does the peer's document
    failing = (
        alice.key_packages.claim(to_bob, "a.example"),
        alice.rooms.remove(room, [99]),
        bob.rooms.remove(at_bob, [0]),
        live.client(alice.user.name, "a.example").register(),
        bob.path.download("a.example", f"https://{MARK}.example/{room.uri.name}"),
        bob.path.call("a.example", "POST", f"/v1/{MARK}"),
        bob.path.call("a.example", "POST", "/v1/queues", bytes(1 << 17)),
        bob.path.call("b.example", "POST", f"/v1/snapshot/{room.uri.name}", b"rubbish"),
    )
    for attempt in failing:
        with pytest.raises(MmrError):
            await attempt
    for target, path in (
        (hub.hub, f"/v1/submitMessage/{room.uri.name}"),
        (hub.queues, "/v1/queues"),
        (hub.accounts, f"/v1/connectionPackage/{alice.user.name}"),
        (hub.assets, "/v1/assets"),
    ):
        for name in [name for name in vars(target) if name in ("_store", "_session")]:
            with monkeypatch.context() as patch:
                patch.setattr(target, name, Broken(f"{alice.user} {room.uri} 127.10.0.1"))
                body = room.room.encrypt(Content.text("x")).to_bytes() if "submit" in path else bytes(33)
                assert (await obliviously(bob, "a.example", path, body)).status == 500
    answer = await straight(live, "a.example", f"/v1/account/{alice.user.name}/requests", method="GET")
    assert answer.status == 401
    await failed.wait()
    hub.peers.urls["b.example"] = url
    while not at_bob.messages:
        await bob.rooms.sync(at_bob, wait=5)
    assert provider.hub is not hub.hub

    text = logged.getvalue()
    events = {line["event"].partition(":")[0] for line in said(text)}
    assert {"fan-out to b.example failed", "no keys of peer b.example", "endpoint failed"} <= events
    view = View("any", PartyRole.HUB, text.encode())
    found = search([view], everything_about(live.clients[:2]), allowed=lambda *_: False)
    assert found == [], [str(sighting) for sighting in found]


@dataclasses.dataclass
class Broken:
    """Whatever is asked of it fails, in words that tell too much."""

    words: str

    def __getattr__(self, name: str) -> object:
        def fail(*_: object, **__: object) -> object:
            raise RuntimeError(self.words)

        return fail


async def test_an_error_that_crosses_the_wire_says_nothing_of_the_inside(live: LiveWorld) -> None:
    bob = await live.person("bob", "b.example")
    live.providers["a.example"].queues._store = Broken("/var/lib/secret")  # type: ignore[assignment]
    answer = await obliviously(bob, "a.example", "/v1/queues", bytes(33))
    assert (answer.status, answer.code) == (500, "internal")
    assert b"secret" not in answer.body


async def test_an_update_that_meets_a_bug_says_nothing_of_it_either(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    room = await alice.rooms.create()
    live.providers["a.example"].hub._store = Broken("/var/lib/secret")  # type: ignore[assignment]
    with pytest.raises(MmrError) as refusal:
        await alice.rooms.heal(room)
    assert "secret" not in str(refusal.value)
