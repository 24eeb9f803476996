"""A room survives its process: at whatever point that ends, the member goes on like the others."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mimi_mmr.errors import Desynchronised, EngineError, RemovedFromRoom, RoomError, WrongEpoch
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.room import Room
from mimi_mmr.member.saved import SavedRoom
from mimi_mmr.mls.wire import parse_application
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.events import CommitEvent, EventKind
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.bench import RoomBench, World, next_policy

WORLD = World()


@pytest.fixture
def bench() -> RoomBench:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob", "cathy"])
    return bench


def talk(bench: RoomBench) -> None:
    """Everybody reads everybody."""
    for sender in bench.rooms:
        sent = bench.rooms[sender].encrypt(Content.text(f"from {sender}")).app_message
        for reader in bench.rooms.keys() - {sender}:
            leaf, content = bench.read(reader, sent)
            assert (leaf, content.body.decode()) == (bench.leaf_of(sender), f"from {sender}")


def test_a_creator_and_a_joiner_go_on_after_a_restart(bench: RoomBench) -> None:
    for name in ("alice", "bob"):
        bench.restart(name)
    bench.check_agreement()
    talk(bench)
    bench.commit("bob", add=["dave"])
    bench.commit("alice", remove=["cathy"])
    bench.check_agreement()
    talk(bench)


def test_a_room_of_one_is_kept_from_its_creation_on() -> None:
    bench = RoomBench(world=WORLD)
    bench.restart("alice")
    bench.commit("alice", add=["bob"])
    bench.check_agreement()


def test_what_was_read_is_read_once_if_it_was_saved(bench: RoomBench) -> None:
    before = bench.at_rest("bob")
    sent = bench.rooms["alice"].encrypt(Content.text("once")).app_message
    bench.read("bob", sent)
    bench.restart("bob", before)
    assert bench.read("bob", sent)[1].body == b"once"
    bench.restart("bob")
    with pytest.raises(EngineError):
        bench.read("bob", sent)


CHANGES = {
    "heal": {},
    "add": {"add": ["dave"]},
    "remove": {"remove": ["cathy"]},
    "policy": {"policy": True},
}


@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("point", ["staged", "accepted by the hub", "accepted"])
def test_a_process_that_ends_at_any_point_of_a_commit(bench: RoomBench, kind: str, point: str) -> None:
    changes = dict(CHANGES[kind])
    if "policy" in changes:
        changes["policy"] = next_policy(bench.state.policy, may_remove=Role.MEMBER)
    pending = bench.stage("alice", **changes)
    kept = bench.at_rest("alice", pending)
    request = pending.request
    if point == "staged":
        pending = bench.restart("alice", kept)
    accepted = bench.accept(request)
    if point == "accepted by the hub":
        pending = bench.restart("alice", kept)
    assert pending is not None
    assert pending.request == request
    pending.accept()
    if point == "accepted":
        bench.restart("alice")
    bench.deliver(accepted.events)
    for name in [name for name, room in bench.rooms.items() if room.removed]:
        del bench.rooms[name]
    bench.check_agreement()
    talk(bench)
    bench.commit("alice")
    bench.restart("alice")
    bench.check_agreement()


def test_a_process_that_ends_twice_before_the_hub_answers(bench: RoomBench) -> None:
    pending = bench.stage("alice", add=["dave"])
    bench.restart("alice", bench.at_rest("alice", pending))
    kept = bench.at_rest("alice", pending)
    again = bench.restart("alice", kept)
    assert again is not None
    bench.settle("alice", again, ["dave"])
    bench.check_agreement()
    talk(bench)


@pytest.mark.parametrize("told", ["by the hub", "by the winner's commit"])
def test_a_commit_that_lost_its_race_while_its_maker_was_away(bench: RoomBench, told: str) -> None:
    mine = bench.stage("alice", add=["dave"])
    kept = bench.at_rest("alice", mine)
    winner = bench.stage("bob", add=["erin"])
    accepted = bench.accept(winner.request)
    winner.accept()
    again = bench.restart("alice", kept)
    assert again is not None
    if told == "by the hub":
        with bench.refused_by_hub(WrongEpoch):
            bench.hub_takes(again.request)
        again.reject()
    bench.deliver(accepted.events)
    again.reject()
    bench.check_agreement()
    bench.commit("alice", add=["dave"])
    bench.check_agreement()
    talk(bench)


def test_messages_go_both_ways_while_a_commit_waits_for_its_answer(bench: RoomBench) -> None:
    pending = bench.stage("alice")
    again = bench.restart("alice", bench.at_rest("alice", pending))
    talk(bench)
    kept = bench.at_rest("alice", again)
    again = bench.restart("alice", kept)
    assert again is not None
    bench.settle("alice", again)
    talk(bench)


def test_a_message_that_a_commit_overtook_is_read_after_a_restart(bench: RoomBench) -> None:
    late = bench.rooms["bob"].encrypt(Content.text("late")).app_message
    bench.commit("alice")
    bench.restart("alice")
    assert bench.read("alice", late)[0] == bench.leaf_of("bob")


def test_only_the_commit_that_waits_is_taken_up_again(bench: RoomBench) -> None:
    first = bench.stage("alice")
    first.reject()
    second = bench.stage("alice")
    bench.restart("alice", bench.at_rest("alice", second))
    bench.rooms["alice"]._local.group._waiting = None
    with pytest.raises(EngineError):
        bench.rooms["alice"].pending(first.request)
    theirs = bench.stage("bob")
    with pytest.raises(EngineError):
        bench.rooms["alice"].pending(theirs.request)
    forged = replace(second.request, member_update=b"")
    with pytest.raises(RoomError):
        bench.rooms["alice"].pending(forged)


def test_what_is_known_of_members_and_hub_is_kept() -> None:
    bench = RoomBench(identities=Identities.ADMINS_ONLY, world=WORLD)
    bench.commit("alice", add=["bob"])
    room = bench.rooms["bob"]
    room._local.reported[0] = "ü" * 2000
    room._local.hub_tree_hash = bytes(32)
    bench.restart("bob")
    again = bench.rooms["bob"]
    assert again is not room
    assert again.diverged
    assert again.problems[0].startswith("ü" * 500)
    assert again.policy == room.policy
    assert bench.names("bob") == {0: "alice", 1: None}


def test_a_room_and_its_storage_are_of_one_moment(bench: RoomBench) -> None:
    before = bench.at_rest("bob")
    bench.commit("alice")
    after = bench.at_rest("bob")
    with pytest.raises(Desynchronised, match="in epoch 1, its MLS group as leaf 1 in epoch 2"):
        bench.restart("bob", replace(after, room=before.room))
    with pytest.raises(Desynchronised, match="in epoch 2"):
        bench.restart("bob", replace(after, rows=before.rows))
    with pytest.raises(EngineError):
        bench.restart("bob", replace(after, rows={}))
    for wrong in ({"version": 2}, {"wrap_tree": b""}):
        saved = replace(SavedRoom.from_bytes(after.room), **wrong)
        with pytest.raises(Desynchronised):
            bench.restart("bob", replace(after, room=saved.to_bytes()))


def test_a_saved_tree_of_another_room_is_refused(bench: RoomBench) -> None:
    other = RoomBench(world=WORLD)
    other.uri = replace(other.uri, name="other")
    room, _ = Room.create(other.uri, other.leaves["alice"])
    saved = replace(bench.rooms["bob"].saved(), wrap_tree=room.saved().wrap_tree)
    with pytest.raises(Desynchronised, match="another room's"):
        bench.restart("bob", replace(bench.at_rest("bob"), room=saved.to_bytes()))


def test_a_removed_member_knows_that_it_was_removed(bench: RoomBench) -> None:
    sent = bench.rooms["alice"].encrypt(Content.text("x")).app_message
    committed = bench.stage("alice", remove=["bob"])
    bob = bench.rooms["bob"]
    accepted = bench.accept(committed.request)
    committed.accept()
    event = next(item.event for item in accepted.events if item.kind is EventKind.COMMIT)
    assert bob.follow(CommitEvent.from_bytes(event), bench.now).removed_self
    bench.restart("bob")
    bob = bench.rooms["bob"]
    assert (bob.removed, bob.epoch, bob.own_leaf) == (True, 1, 1)
    assert bob.who(bench.world.trust, bench.now) == []
    for refused in (
        lambda: bob.stage(CommitIntent(), time.time()),
        lambda: bob.encrypt(Content.text("x")),
        lambda: bob.decrypt(parse_application(sent)),
    ):
        with pytest.raises(RemovedFromRoom):
            refused()


def test_a_saved_room_shows_none_of_its_secrets(bench: RoomBench) -> None:
    saved = bench.rooms["bob"].saved()
    secret = bench.leaves["bob"].ilk.reveal()
    assert secret in saved.to_bytes()
    for shown in (repr(saved), str(saved)):
        assert repr(secret)[2:-1] not in shown
        assert len(shown) < 200
