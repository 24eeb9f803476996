"""What members share and the hub can't read: names and topics, renewed when anybody goes; and names shown later."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.errors import ParseError, RoomError, StateRejected
from mimi_mmr.member.whois import Standing
from mimi_mmr.protocol.room.members_only import (
    MembersOnlyState,
    SealedState,
    StateSecret,
    open_state,
    seal_state,
)
from mimi_mmr.protocol.room.policy import Identities, Role
from mimi_mmr.protocol.room.requests import MAX_SEALED_STATE, UpdateRequest, digest
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import HUB, RoomBench, World

WORLD = World()
ROOM = MimiUri(HUB, Kind.ROOM, "room")


@pytest.fixture
def bench() -> RoomBench:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob", "cathy"])
    return bench


def named(bench: RoomBench, name: str = "Tea", topic: str = "", sender: str = "alice") -> None:
    bench.commit(sender, state=replace(bench.rooms[sender].members_only.state, name=name, topic=topic))


def test_a_room_begins_without_a_name(bench: RoomBench) -> None:
    assert {room.members_only.state for room in bench.rooms.values()} == {MembersOnlyState()}
    assert bench.state.sealed_state is None


def test_anybody_names_the_room_and_everybody_reads_it(bench: RoomBench) -> None:
    named(bench, "Tea", "Thursdays", sender="bob")
    bench.check_agreement()
    for room in bench.rooms.values():
        assert (room.members_only.state.name, room.members_only.state.topic) == ("Tea", "Thursdays")
    assert b"Tea" not in (bench.state.sealed_state or b"")


def test_whoever_joins_reads_it_too(bench: RoomBench) -> None:
    named(bench)
    bench.commit("bob", add=["dave"])
    assert bench.rooms["dave"].members_only.state.name == "Tea"
    bench.commit("alice")
    bench.commit("alice", add=["erin"])
    assert bench.rooms["erin"].members_only.state.name == "Tea"
    bench.check_agreement()


def test_a_name_is_given_along_with_an_add_a_removal_or_a_policy(bench: RoomBench) -> None:
    state = MembersOnlyState(name="Tea")
    bench.commit("alice", add=["dave"], state=state)
    assert bench.rooms["dave"].members_only.state == state
    bench.commit("alice", remove=["dave"], state=replace(state, topic="without Dave"))
    bench.commit("alice", policy=bench.state.policy.policy.with_role(bench.pseudonym("bob"), Role.ADMIN))
    assert bench.rooms["bob"].members_only.state.topic == "without Dave"
    bench.check_agreement()


def test_a_removal_seals_it_anew_and_the_removed_member_reads_no_more(bench: RoomBench) -> None:
    named(bench)
    cathy = bench.rooms["cathy"]
    before = bench.state.sealed_state
    bench.commit("alice", remove=["cathy"])
    assert bench.state.sealed_state not in (None, before)
    assert bench.rooms["bob"].members_only.state.name == "Tea"
    assert before is not None
    assert cathy.members_only.open(before).name == "Tea"
    with pytest.raises(StateRejected):
        cathy.members_only.open(bench.state.sealed_state or b"")
    bench.commit("bob", departures=[bench.rooms["alice"].departure()])
    bench.commit("bob", add=["erin"])
    assert bench.rooms["erin"].members_only.state.name == "Tea"
    bench.check_agreement()


def test_every_sealing_has_a_secret_of_its_own(bench: RoomBench) -> None:
    """Of two members who race for an epoch none uses the other's key; no old state passes for the current."""
    secrets = []
    for _ in range(3):
        named(bench)
        secrets.append(bench.rooms["bob"]._local.tree.room_secret("state").reveal())
    assert len(set(secrets)) == 3


def test_of_two_members_who_race_for_the_name_one_wins(bench: RoomBench) -> None:
    first = bench.stage("alice", state=MembersOnlyState(name="Tea"))
    second = bench.stage("bob", state=MembersOnlyState(name="Coffee"))
    accepted = bench.accept(first.request)
    first.accept()
    bench.deliver(accepted.events)
    second.reject()
    bench.check_agreement()
    assert bench.rooms["bob"].members_only.state.name == "Tea"
    named(bench, "Coffee", sender="bob")
    assert bench.rooms["alice"].members_only.state.name == "Coffee"


def test_it_is_kept_with_the_room_and_with_a_commit_on_its_way(bench: RoomBench) -> None:
    named(bench)
    bench.restart("bob")
    assert bench.rooms["bob"].members_only.state.name == "Tea"
    pending = bench.stage("bob", state=MembersOnlyState(name="Coffee"))
    again = bench.restart("bob", bench.at_rest("bob", pending))
    assert bench.rooms["bob"].members_only.state.name == "Tea"
    assert again is not None
    bench.settle("bob", again)
    assert {room.members_only.state.name for room in bench.rooms.values()} == {"Coffee"}
    bench.check_agreement()


def test_lengths_are_buckets_and_bounds(bench: RoomBench) -> None:
    sizes = set()
    for name in ("", "x", "x" * 200):
        named(bench, name)
        sizes.add(len(bench.state.sealed_state or b""))
    assert len(sizes) == 1
    named(bench, "ü" * 128, "t" * 1024)
    assert bench.rooms["bob"].members_only.state.topic == "t" * 1024
    for wrong in (MembersOnlyState(name="ü" * 129), MembersOnlyState(topic="t" * 1025)):
        with pytest.raises(RoomError, match="MembersOnlyState"):
            bench.stage("alice", state=wrong)
    bench.commit("alice")
    bench.check_agreement()


def test_a_sealed_state_above_its_bound_does_not_parse(bench: RoomBench) -> None:
    pending = bench.stage("alice", state=MembersOnlyState(name="Tea"))
    sealed = pending.request.room_state
    assert sealed is not None
    with pytest.raises(ValueError, match="room_state"):
        replace(pending.request, room_state=bytes(MAX_SEALED_STATE + 1)).to_bytes()
    encoded = pending.request.to_bytes()
    assert UpdateRequest.from_bytes(encoded).room_state == sealed


def test_a_state_opens_for_its_room_epoch_and_secret_only() -> None:
    state, secret = MembersOnlyState(name="Tea"), StateSecret.generate()
    sealed = seal_state(state, secret, ROOM, 7)
    assert open_state(sealed, secret, ROOM) == state
    box = SealedState.from_bytes(sealed)
    wrong = [
        (sealed, StateSecret.generate(), ROOM),
        (sealed, secret, replace(ROOM, name="other")),
        (replace(box, epoch=8).to_bytes(), secret, ROOM),
        (replace(box, ciphertext=box.ciphertext[:-1] + b"\0").to_bytes(), secret, ROOM),
        (sealed[:-1], secret, ROOM),
        (b"", secret, ROOM),
        (seal_state(replace(state, version=2), secret, ROOM, 7), secret, ROOM),
    ]
    for one, key, room in wrong:
        with pytest.raises(StateRejected):
            open_state(one, key, room)
    with pytest.raises(ParseError):
        MembersOnlyState.from_bytes(state.to_bytes() + b"\0")


# --- names shown later -------------------------------------------------------------------------------


@pytest.mark.parametrize("identities", [Identities.NOBODY, Identities.ADMINS_ONLY])
def test_a_member_shows_who_it_is_when_it_wants_to(identities: Identities) -> None:
    bench = RoomBench(world=WORLD, identities=identities)
    bench.commit("alice", add=["bob", "cathy"])
    leaf = bench.leaf_of("bob")
    assert bench.rooms["cathy"].whois(leaf, bench.world.trust, bench.now).standing is Standing.HIDDEN
    done = bench.commit("bob", reveal=True)
    assert all(followed.problems == () for followed in done.followed.values())
    bench.revealed.add("bob")
    bench.check_agreement()
    entry = bench.rooms["cathy"].whois(leaf, bench.world.trust, bench.now)
    assert entry.member is not None
    assert (entry.standing, entry.member.device.user.name) == (Standing.VERIFIED, "bob")
    bench.commit("alice", add=["dave"])
    bench.commit("alice", remove=["cathy"])
    bench.commit("bob")
    bench.check_agreement()


def test_showing_it_twice_or_where_everybody_does_changes_nothing(bench: RoomBench) -> None:
    before = bench.rooms["bob"].tree_hash
    bench.commit("bob", reveal=True)
    assert bench.rooms["alice"].tree_hash == before
    bench.check_agreement()


def test_nobody_is_shown_by_another(bench: RoomBench) -> None:
    """That the hub refuses it is shown where members cheat; here, that `reveal` is about oneself alone."""
    hidden = RoomBench(world=WORLD, identities=Identities.NOBODY)
    hidden.commit("alice", add=["bob"])
    pending = hidden.stage("bob", reveal=True)
    assert pending.request.auth.content.room_state_hash == digest(None)
    hidden.settle("bob", pending)
    assert hidden.names("alice") == {0: None, 1: "bob"}
