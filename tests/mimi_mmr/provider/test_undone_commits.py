"""A commit that members can't process is undone for an admin whom it leaves an admin, and for nobody else.

The hub is the service over a real store, once or as several workers on one database.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.errors import NotAllowed
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.endpoints import Way
from mimi_mmr.protocol.problems import PROBLEM_URN
from mimi_mmr.protocol.queues import leaf_binding
from mimi_mmr.protocol.room.deliveries import NotifyRequest
from mimi_mmr.protocol.room.events import EventKind, FanoutMessage, ReportEvent
from mimi_mmr.protocol.room.join_links import make_join_request
from mimi_mmr.protocol.room.policy import Role
from mimi_mmr.protocol.room.requests import (
    CommitReport,
    CommitReportTBS,
    RepairKind,
    UpdateCode,
    UpdateRequest,
    UpdateRoomResponse,
    digest,
    sign_report,
)
from mimi_mmr.provider.http import Router
from mimi_mmr.provider.hub import HubService
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.replies import Reply
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.hub import HubStore, to_snapshot
from tests.mimi_mmr.bench import DAY, DOMAINS, HUB, RoomBench, welcome_event


class Quiet:
    """In place of outbox and peers."""

    urls = dict.fromkeys(DOMAINS, "")

    def wake(self) -> None:
        pass


def code(reply: Reply) -> str:
    """The code of the hub's refusal; "" if it did it."""
    if reply.status == 200:
        return ""
    return str(json.loads(reply.body)["type"]).removeprefix(PROBLEM_URN)


class Hub:
    """A bench whose hub has two workers on one database; `worker` is the one that gets the next request."""

    def __init__(self, stores: list[HubStore]) -> None:
        self.bench = RoomBench()
        self.store = stores[0]
        self.worker = 0
        self.routers = []
        quiet: Any = Quiet()
        for store in stores:
            self.routers.append(Router(Recorder(None), Way.OBLIVIOUS))
            service = HubService(HUB, store, quiet, quiet, print, clock=lambda: self.bench.now)
            service.mount_oblivious(self.routers[-1])

    async def post(self, path: str, body: bytes) -> Reply:
        return await self.routers[self.worker].dispatch("POST", path, body)

    async def update(self, request: UpdateRequest) -> UpdateRoomResponse:
        reply = await self.post("/v1/update/room", request.to_bytes())
        assert reply.status == 200
        return UpdateRoomResponse.from_bytes(reply.body)

    async def commit(self, sender: str, **changes: Any) -> UpdateRequest:
        """A commit that the hub takes and everybody follows."""
        pending = self.bench.stage(sender, **changes)
        answer = await self.update(pending.request)
        assert answer.code is UpdateCode.SUCCESS, answer
        self.bench.settle(sender, pending)
        return pending.request

    async def accepted_alone(self, sender: str, **changes: Any) -> UpdateRequest:
        """A commit that the hub takes, and that no member on the bench knows of."""
        pending = self.bench.stage(sender, **changes)
        answer = await self.update(pending.request)
        assert answer.code is UpdateCode.SUCCESS, answer
        pending.reject()
        return pending.request

    def statement(self, name: str, commit: UpdateRequest, kind: RepairKind) -> CommitReport:
        """What somebody of the epoch before says about a commit."""
        auth = commit.auth.content
        leaf = self.leaves[name]
        content = CommitReportTBS(self.bench.uri, auth.epoch, leaf, digest(commit.commit), kind)
        return sign_report(content, self.bench.leaves[name].key)

    async def says(self, name: str, commit: UpdateRequest, kind: RepairKind) -> str:
        """The code of the hub's refusal; "" if it did it."""
        return code(await self.post("/v1/report/room", self.statement(name, commit, kind).to_bytes()))

    async def reports(self, name: str, commit: UpdateRequest) -> None:
        assert await self.says(name, commit, RepairKind.CANNOT_PROCESS) == ""

    async def reopens(self, name: str, commit: UpdateRequest) -> str:
        return await self.says(name, commit, RepairKind.REOPEN)

    async def epoch(self) -> int:
        return (await self.store.epoch(self.bench.uri)).number

    async def events(self, kind: EventKind) -> dict[bytes, bytes]:
        """Events of a kind that wait in the outbox, by the binding of the leaf that they are for."""
        found = {}
        for domain in await self.store.destinations():
            for item in await self.store.pending(domain, limit=1000):
                notice = NotifyRequest.from_bytes(item.body)
                event = FanoutMessage.from_bytes(notice.message)
                if event.kind is kind:
                    found |= {one.leaf_binding: event.event for one in notice.deliveries}
        return found

    async def start(self) -> None:
        """Alice, Bob, Cathy and Mallory, of whom Alice and Mallory are admins."""
        bench = self.bench
        assert (await self.post("/v1/rooms", bench.created.to_bytes())).status == 201
        await self.commit("alice", add=["bob", "cathy", "mallory"])
        await self.role("mallory", Role.ADMIN)
        self.leaves = {name: bench.leaf_of(name) for name in bench.rooms}

    async def role(self, name: str, role: Role) -> UpdateRequest:
        return await self.commit("alice", policy=self.with_role(name, role))

    def with_role(self, name: str, role: Role) -> Any:
        return self.bench.state.policy.policy.with_role(self.bench.pseudonym(name), role)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    url = f"sqlite:///{tmp_path / 'hub.db'}"
    databases = [await Database.open(url, tables.hub) for _ in range(2)]
    made = Hub([HubStore(database, HUB) for database in databases])
    await made.start()
    yield made
    for database in databases:
        await database.close()


# --- who may have a commit undone -----------------------------------------------------------------------


async def test_a_removed_admin_does_not_undo_the_own_removal(hub: Hub) -> None:
    removal = await hub.commit("alice", remove=["mallory"])
    await hub.reports("mallory", removal)
    assert await hub.reopens("mallory", removal) == "not-allowed"
    await hub.reports("bob", removal)  # not with an accomplice either
    assert await hub.reopens("mallory", removal) == "not-allowed"
    assert sorted((await hub.store.load(hub.bench.uri)).members) == [0, 1, 2]


async def test_a_demoted_admin_does_not_undo_the_own_demotion(hub: Hub) -> None:
    demotion = await hub.role("mallory", Role.MEMBER)
    await hub.reports("mallory", demotion)
    await hub.reports("bob", demotion)
    assert await hub.reopens("mallory", demotion) == "not-allowed"
    assert (await hub.store.load(hub.bench.uri)).policy.policy.role(
        hub.bench.pseudonym("mallory")
    ) is Role.MEMBER


async def test_an_admin_of_whom_the_commit_made_one_does_not_undo_it(hub: Hub) -> None:
    promotion = await hub.role("cathy", Role.ADMIN)
    await hub.reports("bob", promotion)
    assert await hub.reopens("cathy", promotion) == "not-allowed"


async def test_an_admin_who_alone_reported_a_commit_does_not_undo_it(hub: Hub) -> None:
    commit = await hub.commit("bob")
    await hub.reports("mallory", commit)
    assert await hub.reopens("mallory", commit) == "not-allowed"
    assert await hub.epoch() == 3
    await hub.reports("cathy", commit)
    assert await hub.reopens("mallory", commit) == ""
    assert await hub.epoch() == 2


async def test_reports_of_the_committer_and_of_those_it_changes_do_not_count(hub: Hub) -> None:
    commit = await hub.role("cathy", Role.ADMIN)
    for name in ("alice", "cathy", "mallory"):
        await hub.reports(name, commit)
    assert await hub.reopens("mallory", commit) == "not-allowed"
    await hub.reports("bob", commit)
    assert await hub.reopens("mallory", commit) == ""


async def test_a_report_of_somebody_removed_does_not_count(hub: Hub) -> None:
    commit = await hub.commit("alice", remove=["bob"])
    await hub.reports("bob", commit)
    assert await hub.reopens("mallory", commit) == "not-allowed"
    await hub.reports("cathy", commit)
    assert await hub.reopens("mallory", commit) == ""
    assert sorted((await hub.store.load(hub.bench.uri)).members) == [0, 1, 2, 3]


async def test_a_commit_that_some_members_followed_is_undone_all_the_same(hub: Hub) -> None:
    """All on the bench follow it; one report of somebody else is enough."""
    commit = await hub.commit("bob")
    await hub.reports("cathy", commit)
    assert await hub.reopens("alice", commit) == ""


async def test_the_only_admin_has_a_commit_of_its_own_undone(hub: Hub) -> None:
    await hub.role("mallory", Role.MEMBER)
    commit = await hub.commit("alice")
    assert await hub.reopens("alice", commit) == "not-allowed"
    await hub.reports("bob", commit)
    assert await hub.reopens("alice", commit) == ""


async def test_where_no_report_could_count_an_admin_needs_none(hub: Hub) -> None:
    await hub.commit("alice", remove=["cathy", "mallory"])
    commit = await hub.commit("bob")
    assert await hub.reopens("alice", commit) == ""


async def test_nobody_but_a_member_of_the_epoch_before_says_anything(hub: Hub) -> None:
    await hub.commit("alice", remove=["mallory"])
    commit = await hub.commit("alice")
    assert await hub.says("mallory", commit, RepairKind.CANNOT_PROCESS) == "unknown-sender"
    assert await hub.reopens("bob", commit) == "not-allowed"


async def test_a_report_is_about_the_commit_that_began_the_epoch(hub: Hub) -> None:
    other = await hub.commit("bob")
    last = await hub.commit("bob")
    assert await hub.says("cathy", other, RepairKind.CANNOT_PROCESS) == "wrong-epoch"
    forged = sign_report(
        CommitReportTBS(
            hub.bench.uri, 3, hub.leaves["cathy"], digest(other.commit), RepairKind.CANNOT_PROCESS
        ),
        hub.bench.leaves["cathy"].key,
    )
    assert (await hub.post("/v1/report/room", forged.to_bytes())).status != 200
    assert await hub.reopens("alice", last) == "not-allowed"


# --- what members are told, and check -------------------------------------------------------------------


async def test_members_check_the_order_to_undo_a_commit_that_they_can_not_process(hub: Hub) -> None:
    commit = await hub.accepted_alone("bob", add=["dave"])
    await hub.reports("cathy", commit)
    assert await hub.reopens("alice", commit) == ""
    told = await hub.events(EventKind.COMMIT_REPORT)
    receivers = {
        leaf_binding(hub.bench.leaves[name].key.public) for name in ("bob", "cathy", "mallory", "dave")
    }
    assert told.keys() == receivers
    (event,) = {ReportEvent.from_bytes(one) for one in told.values()}
    hub.bench.rooms["cathy"].check_undone(event, commit.commit)
    hub.bench.rooms["mallory"].check_undone(event, commit.commit)


async def test_members_refuse_an_undo_that_a_hub_makes_for_a_removed_admin(hub: Hub) -> None:
    """A hub that breaks the rule: with all that it and Mallory can sign."""
    commit = await hub.accepted_alone("alice", remove=["mallory"])
    grounds = tuple(hub.statement(name, commit, RepairKind.CANNOT_PROCESS) for name in ("mallory", "bob"))
    order = hub.statement("mallory", commit, RepairKind.REOPEN)
    cathy = hub.bench.rooms["cathy"]
    with pytest.raises(NotAllowed, match="admin both before and after"):
        cathy.check_undone(ReportEvent(order, grounds, commit.auth, commit.policy), commit.commit)
    honest = hub.statement("alice", commit, RepairKind.REOPEN)
    with pytest.raises(NotAllowed, match="no other member whose report counts"):
        cathy.check_undone(ReportEvent(honest, grounds[:1], commit.auth, commit.policy), commit.commit)
    cathy.check_undone(ReportEvent(honest, grounds, commit.auth, commit.policy), commit.commit)


async def test_members_refuse_an_undo_that_a_hub_makes_for_a_demoted_admin(hub: Hub) -> None:
    commit = await hub.accepted_alone("alice", policy=hub.with_role("mallory", Role.MEMBER))
    grounds = (hub.statement("bob", commit, RepairKind.CANNOT_PROCESS),)
    order = hub.statement("mallory", commit, RepairKind.REOPEN)
    cathy = hub.bench.rooms["cathy"]
    with pytest.raises(NotAllowed, match="admin both before and after"):
        cathy.check_undone(ReportEvent(order, grounds, commit.auth, commit.policy), commit.commit)


# --- several workers ------------------------------------------------------------------------------------


async def test_after_an_undo_another_worker_sends_to_the_members_of_the_new_commit(hub: Hub) -> None:
    """The undone commit and the next one begin an epoch of the same number, with other members."""
    hub.worker = 1  # has the room with Dave from now on
    undone = await hub.accepted_alone("bob", add=["dave"])
    hub.worker = 0
    await hub.reports("cathy", undone)
    assert await hub.reopens("alice", undone) == ""
    await hub.commit("alice", add=["erin"])
    for domain in await hub.store.destinations():
        for item in await hub.store.pending(domain, limit=1000):
            await hub.store.delivered(item)
    hub.worker = 1
    sent = hub.bench.rooms["bob"].encrypt(Content.text("hello"))
    assert (await hub.post("/v1/submitMessage/room", sent.to_bytes())).status == 200
    told = await hub.events(EventKind.APPLICATION)
    names = ("alice", "bob", "cathy", "mallory", "erin")  # the sender, too
    assert told.keys() == {leaf_binding(hub.bench.leaves[name].key.public) for name in names}


async def test_after_an_undo_another_worker_takes_the_next_commit(hub: Hub) -> None:
    hub.worker = 1
    undone = await hub.accepted_alone("bob", add=["dave"])
    hub.worker = 0
    await hub.reports("cathy", undone)
    assert await hub.reopens("alice", undone) == ""
    await hub.commit("alice", add=["erin"])
    hub.worker = 1
    await hub.commit("cathy")
    assert await hub.epoch() == 4


async def test_a_commit_that_was_undone_is_not_taken_again(hub: Hub) -> None:
    """Its committer sends it again if the answer was lost."""
    undone = await hub.accepted_alone("bob")
    await hub.reports("cathy", undone)
    assert await hub.reopens("alice", undone) == ""
    answer = await hub.update(undone)
    assert (answer.code, answer.error_code) == (UpdateCode.NOT_ALLOWED, "not-allowed")
    assert "undone before" in answer.error_description
    await hub.commit("bob")


async def test_the_links_of_whoever_a_commit_let_in_end_with_its_undo(hub: Hub) -> None:
    """Dave is added, and orders a link before the commit that let him in is undone."""
    bench = hub.bench
    alice = bench.rooms["alice"]
    earlier = alice.join_links.make(int(bench.now) + DAY, 1)
    await hub.commit("alice", state=alice.members_only.state.with_link(earlier, bench.now))
    assert (await hub.post("/v1/links/room", alice.join_links.order(earlier).to_bytes())).status == 200
    before = alice.join_links.link(earlier)
    assert await hub.store.link(bench.uri, before.id) is not None
    undone = await hub.accepted_alone("bob", add=["dave"])
    state = await hub.store.load(bench.uri)
    dave = bench.join("dave", welcome_event(undone), to_snapshot(state))
    live = dave.join_links.make(int(bench.now) + 6 * DAY, 1024)
    assert (await hub.post("/v1/links/room", dave.join_links.order(live).to_bytes())).status == 200
    link = dave.join_links.link(live)

    async def asks(name: str) -> str:
        request = make_join_request(link, [bench.package(name)])
        return code(await hub.post("/v1/joinRequests/room", request.to_bytes()))

    assert await asks("erin") == ""  # the control: the link worked
    await hub.reports("cathy", undone)
    assert await hub.reopens("alice", undone) == ""
    assert await asks("frank") == "join-refused"
    assert await hub.store.link(bench.uri, before.id) is None
