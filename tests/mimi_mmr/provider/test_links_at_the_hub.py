"""Join links at the hub's endpoints: bytes in, bytes out, over a real store."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.errors import WrongEpoch
from mimi_mmr.protocol.endpoints import Way
from mimi_mmr.protocol.problems import PROBLEM_URN
from mimi_mmr.protocol.room.deliveries import NotifyRequest
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage
from mimi_mmr.protocol.room.join_links import JoinLink
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkKind, LinkOrder
from mimi_mmr.provider.http import Router
from mimi_mmr.provider.hub import JOIN_ATTEMPTS, HubService
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.replies import Reply
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.hub import HubStore
from tests.mimi_mmr.bench import DAY, DOMAINS, HUB, RoomBench


@dataclass
class Silent:
    """In place of outbox and peers."""

    urls: dict[str, str] = field(default_factory=lambda: dict.fromkeys(DOMAINS, ""))
    woken: int = 0

    def wake(self) -> None:
        self.woken += 1


class Desk:
    """A bench whose hub is the service."""

    def __init__(self, store: HubStore) -> None:
        self.store = store
        self.bench = RoomBench()
        self.silent: Any = Silent()
        self.time = self.bench.now
        self.service = HubService(HUB, store, self.silent, self.silent, print, clock=lambda: self.time)
        self.router = Router(Recorder(None), Way.OBLIVIOUS)
        self.service.mount_oblivious(self.router)

    async def post(self, path: str, body: bytes) -> Reply:
        return await self.router.dispatch("POST", path, body)

    async def commit(self, sender: str, **changes: Any) -> None:
        pending = self.bench.stage(sender, **changes)
        reply = await self.post("/v1/update/room", pending.request.to_bytes())
        assert reply.status == 200
        assert reply.body[0] == 0, reply.body
        self.bench.settle(sender, pending)

    async def order(self, order: LinkOrder) -> Reply:
        return await self.post("/v1/links/room", order.to_bytes())

    async def link(self, uses: int = 2) -> JoinLink:
        room = self.bench.rooms["alice"]
        live = room.join_links.make(int(self.bench.now) + DAY, uses)
        await self.commit("alice", state=replace(room.members_only.state, links=(live,)))
        assert (await self.order(room.join_links.order(live))).status == 200
        return room.join_links.link(live)

    async def ask(self, request: JoinRequest) -> Reply:
        return await self.post("/v1/joinRequests/room", request.to_bytes())

    async def knocks(self, domain: str = "b.example") -> list[JoinRequest]:
        found = []
        for item in await self.store.pending(domain, limit=1000):
            event = FanoutMessage.from_bytes(NotifyRequest.from_bytes(item.body).message)
            if event.kind is EventKind.JOIN_REQUEST:
                found.append(JoinRequest.from_bytes(event.event))
        return found


def code(reply: Reply) -> str:
    return str(json.loads(reply.body)["type"]).removeprefix(PROBLEM_URN)


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    database = await Database.open(f"sqlite:///{tmp_path / 'hub.db'}", tables.hub)
    made = Desk(HubStore(database, HUB))
    assert (await made.post("/v1/rooms", made.bench.created.to_bytes())).status == 201
    await made.commit("alice", add=["bob", "cathy"])
    yield made
    await database.close()


async def test_somebody_with_a_link_knocks_and_every_member_hears_it(desk: Desk) -> None:
    request = desk.bench.ask(await desk.link(), "erin")
    reply = await desk.ask(request)
    assert (reply.status, reply.body) == (200, b"")
    for domain in DOMAINS:
        assert await desk.knocks(domain) == [request]
    desk.bench.let_in("bob", request, "erin")
    desk.bench.check_agreement()


async def test_the_very_same_request_again_is_confirmed_and_does_nothing(desk: Desk) -> None:
    request = desk.bench.ask(await desk.link(uses=1), "erin")
    replies = [await desk.ask(request) for _ in range(3)]
    assert [(reply.status, reply.body) for reply in replies] == [(200, b"")] * 3
    assert len(await desk.knocks()) == 1


async def test_whatever_is_wrong_with_a_link_the_answer_is_one(desk: Desk) -> None:
    link = await desk.link(uses=1)
    erin, frank = desk.bench.ask(link, "erin"), desk.bench.ask(link, "frank")
    unknown = desk.bench.ask(replace(link, room=replace(link.room, name="other")), "erin")
    answers = [
        await desk.ask(unknown),
        await desk.ask(replace(erin, signature=bytes(64))),
    ]
    desk.time += 2 * DAY
    answers.append(await desk.ask(erin))
    desk.time -= 2 * DAY
    assert (await desk.ask(erin)).status == 200
    answers.append(await desk.ask(frank))
    (live,) = desk.bench.rooms["alice"].members_only.state.links
    assert (await desk.order(desk.bench.rooms["bob"].join_links.order(live, LinkKind.REVOKE))).status == 200
    answers.append(await desk.ask(frank))
    await desk.commit("alice", remove=["bob"])
    answers += [await desk.ask(frank), await desk.ask(erin)]
    assert len({(reply.status, reply.body) for reply in answers}) == 1
    assert (answers[0].status, code(answers[0])) == (400, "join-refused")
    assert len(await desk.knocks()) == 1


async def test_orders_that_may_not_be_are_refused(desk: Desk) -> None:
    room = desk.bench.rooms["alice"]
    order = room.join_links.order(room.join_links.make(int(desk.bench.now) + DAY, 1))
    changed = replace(order, content=replace(order.content, uses=5))
    assert code(await desk.order(changed)) == "wrong-signer"
    assert (await desk.order(order)).status == 200
    assert code(await desk.order(order)) == "not-allowed"
    await desk.commit("alice")
    assert code(await desk.order(order)) == "wrong-epoch"
    assert code(await desk.post("/v1/links/room", b"\0")) == "malformed"
    assert code(await desk.post("/v1/links/nowhere", order.to_bytes())) == "unknown-room"


async def test_a_request_above_its_bound_is_not_looked_at(desk: Desk) -> None:
    reply = await desk.post("/v1/joinRequests/room", bytes(JoinRequest.LIMIT + 1))
    assert (reply.status, code(reply)) == (413, "too-large")
    reply = await desk.post("/v1/joinRequests/room", bytes(JoinRequest.LIMIT))
    assert (reply.status, code(reply)) == (400, "malformed")


async def test_whoever_asks_is_not_told_the_epoch(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another worker took a commit meanwhile: the request is made for the epoch after it."""
    request = desk.bench.ask(await desk.link(), "erin")
    join, tried = desk.store.join, 0

    async def late(*args: Any) -> None:
        nonlocal tried
        tried += 1
        if tried == 1:
            raise WrongEpoch(7)
        await join(*args)

    monkeypatch.setattr(desk.store, "join", late)
    assert (await desk.ask(request)).status == 200
    assert len(await desk.knocks()) == 1

    async def never(*args: Any) -> None:
        raise WrongEpoch(7)

    monkeypatch.setattr(desk.store, "join", never)
    reply = await desk.ask(desk.bench.ask(await desk.link(), "frank"))
    assert (reply.status, code(reply)) == (400, "refused")
    assert b"7" not in reply.body
    assert JOIN_ATTEMPTS > 1
