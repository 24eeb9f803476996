"""Loading a room is the hub's most expensive read: nobody but its members can have it done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.link_orders import LinkKind
from mimi_mmr.protocol.room.requests import RepairKind, Snapshot, SnapshotTBS, sign_snapshot
from mimi_mmr.provider.replies import Reply
from mimi_mmr.provider.store import hub as store_module
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.hub import HubStore
from tests.mimi_mmr.bench import HUB
from tests.mimi_mmr.provider.test_links_at_the_hub import Desk, code


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    database = await Database.open(f"sqlite:///{tmp_path / 'hub.db'}", tables.hub)
    made = Desk(HubStore(database, HUB))
    assert (await made.post("/v1/rooms", made.bench.created.to_bytes())).status == 201
    await made.commit("alice", add=["bob", "cathy"])
    yield made
    await database.close()


@contextmanager
def loads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The epochs that the store loads meanwhile."""
    made: list[int] = []
    load = store_module._state

    async def counted(connection: Any, room: Any, epoch: int) -> Any:
        made.append(epoch)
        return await load(connection, room, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "_state", counted)
        yield made


def forget(desk: Desk) -> None:
    """Nothing is in the hub's memory any more."""
    desk.service._cache.clear()


async def snapshot(desk: Desk, key: SigningKey, epoch: int = 1, issued: float = 0.0) -> Reply:
    tbs = SnapshotTBS(desk.bench.uri, epoch, key.public, int(issued or desk.time))
    return await desk.post("/v1/snapshot/room", sign_snapshot(tbs, key).to_bytes())


async def test_a_stranger_has_no_room_loaded_for_a_snapshot(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    bob, stranger = desk.bench.leaves["bob"].key, SigningKey.generate()
    forget(desk)
    with loads(monkeypatch) as made:
        assert code(await snapshot(desk, stranger)) == "unknown-sender"
        assert code(await snapshot(desk, bob, issued=desk.time - 5000)) == "not-allowed"
        tbs = SnapshotTBS(desk.bench.uri, 1, bob.public, int(desk.time))
        stolen = replace(sign_snapshot(tbs, stranger), content=tbs)
        assert code(await desk.post("/v1/snapshot/room", stolen.to_bytes())) == "wrong-signer"
        assert code(await snapshot(desk, bob, epoch=0)) == "unknown-sender"  # before Bob was in
        assert code(await snapshot(desk, bob, epoch=(1 << 64) - 1)) == "wrong-epoch"
        assert made == []
        reply = await snapshot(desk, bob)
        assert Snapshot.from_bytes(reply.body).epoch == 1
        assert made == [1]  # the control


async def test_a_stranger_has_no_room_loaded_for_a_report(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    await desk.commit("alice")
    before = desk.bench.rooms["bob"]
    await desk.commit("alice")
    report = before.report(bytes(32), RepairKind.CANNOT_PROCESS)
    forget(desk)
    with loads(monkeypatch) as made:
        for wrong in (
            replace(report, signature=bytes(64)),
            replace(report, content=replace(report.content, sender=77)),
            replace(report, content=replace(report.content, sender=(1 << 32) - 1)),
            replace(report, content=replace(report.content, epoch=0)),
            replace(report, content=replace(report.content, epoch=(1 << 64) - 1)),
        ):
            assert (await desk.post("/v1/report/room", wrong.to_bytes())).status in (400, 409)
        assert made == []


async def test_a_member_has_no_old_room_loaded_for_a_report_about_another_commit_than_the_last(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = desk.bench.rooms["bob"].report(bytes(32), RepairKind.CANNOT_PROCESS)
    await desk.commit("alice")
    pending = desk.bench.stage("alice")
    last = desk.bench.rooms["bob"].report(pending.request.commit, RepairKind.CANNOT_PROCESS)
    other = desk.bench.rooms["bob"].report(b"another commit", RepairKind.CANNOT_PROCESS)
    await desk.post("/v1/update/room", pending.request.to_bytes())
    desk.bench.settle("alice", pending)
    forget(desk)
    with loads(monkeypatch) as made:
        assert code(await desk.post("/v1/report/room", report.to_bytes())) == "wrong-epoch"
        await desk.post("/v1/report/room", other.to_bytes())
        assert made == []
        assert (await desk.post("/v1/report/room", last.to_bytes())).status == 200
        assert made  # the control


async def test_a_stranger_has_no_room_loaded_by_any_other_request(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await desk.link(uses=2)
    (live,) = desk.bench.rooms["alice"].members_only.state.links
    order = desk.bench.rooms["bob"].join_links.order(live, LinkKind.REVOKE)
    message = desk.bench.rooms["alice"].encrypt(Content.text("hello"))
    update = desk.bench.stage("alice").request
    asked = desk.bench.ask(link, "erin")
    forget(desk)
    with loads(monkeypatch) as made:
        for path, request in (
            ("links", replace(order, signature=bytes(64))),
            ("submitMessage", replace(message, signature=bytes(64))),
            ("update", replace(update, auth=replace(update.auth, signature=bytes(64)))),
            ("joinRequests", replace(asked, signature=bytes(64))),
        ):
            await desk.post(f"/v1/{path}/room", request.to_bytes())
        assert made == []
        for path, right in (("submitMessage", message), ("joinRequests", asked), ("links", order)):
            forget(desk)
            assert (await desk.post(f"/v1/{path}/room", right.to_bytes())).status == 200
        assert len(made) == 3  # the control
