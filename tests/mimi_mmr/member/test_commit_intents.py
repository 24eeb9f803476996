"""A wish for a commit knows what of it is still to be done when another commit came first."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mimi_mmr.errors import NotAllowed, RoomError
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.room.policy import RoomPolicy
from tests.mimi_mmr.bench import RoomBench, World

WORLD = World()


@pytest.fixture
def bench() -> RoomBench:
    made = RoomBench(world=WORLD)
    made.commit("alice", add=["bob", "cathy"])
    return made


def test_a_commit_that_only_heals_or_changes_something_is_always_due(bench: RoomBench) -> None:
    members = bench.rooms["alice"].members
    for intent in (
        CommitIntent(),
        CommitIntent(reveal=True),
        CommitIntent(state=lambda state: replace(state, name="Tea")),
        CommitIntent(policy=lambda policy: replace(policy, serial=policy.serial + 1)),
    ):
        assert intent.due(members) == intent
    assert CommitIntent(reveal=True) != CommitIntent()


def test_whoever_is_in_the_room_is_not_added_again(bench: RoomBench) -> None:
    dave, erin = bench.package("dave"), bench.package("erin")
    intent = CommitIntent((dave, erin), state=lambda state: replace(state, name="more of us"))
    assert intent.due(bench.rooms["bob"].members) == intent
    bench.settle("alice", bench.stage("alice", add=[dave]), ["dave"])
    assert intent.due(bench.rooms["bob"].members) == replace(intent, adds=(erin,))
    bench.settle("alice", bench.stage("alice", add=[erin]), ["erin"])
    assert intent.due(bench.rooms["bob"].members) is None


def test_somebody_else_with_the_newcomers_pseudonym_does_not_stand_in_for_it(bench: RoomBench) -> None:
    """The hub refuses the Add, and so it is heard of that the pseudonym is taken."""
    package = bench.package("dave")
    bench.settle("alice", bench.stage("alice", add=[package]), ["dave"])
    members = bench.rooms["alice"].members
    listed = members.readable[3]
    other = replace(listed.identity, queue=members.identities[0].queue)
    taken = replace(members, readable={**members.readable, 3: listed._replace(identity=other)})
    intent = CommitIntent((package,))
    assert intent.due(members) is None
    assert intent.due(taken) == intent


def test_another_member_who_took_the_leaf_stays(bench: RoomBench) -> None:
    alice = bench.rooms["alice"]
    intent = CommitIntent(removes=alice.members.at([1, 2]))
    bench.commit("cathy", departures=[bench.rooms["bob"].departure()])
    rest = intent.due(alice.members)
    assert rest is not None
    assert rest.removes == {2: alice.members.identities[2]}
    bench.commit("cathy", add=["dave"])
    assert bench.leaf_of("dave") == 1
    assert intent.due(alice.members) == rest
    with pytest.raises(RoomError, match="leaf 1 is not of the member who was to be removed"):
        alice.stage(intent, time.time())
    pending = alice.stage(rest, time.time())
    bench.settle("alice", pending)
    assert bench.rooms.keys() == {"alice", "dave"}
    assert intent.due(alice.members) is None


def test_a_departure_is_due_while_its_leaf_is_there(bench: RoomBench) -> None:
    departure = bench.rooms["bob"].departure()
    intent = CommitIntent(departures=(departure,), policy=lambda policy: policy)
    assert intent.due(bench.rooms["cathy"].members) == intent
    bench.commit("alice", remove=["bob"])
    assert intent.due(bench.rooms["cathy"].members) is None


def test_policy_and_state_are_made_of_those_of_the_moment(bench: RoomBench) -> None:
    alice, seen = bench.rooms["alice"], []

    def policy(current: RoomPolicy) -> RoomPolicy:
        seen.append(current.serial)
        return replace(current, serial=current.serial + 1)

    intent = CommitIntent(policy=policy, state=lambda state: replace(state, topic=state.topic + "!"))
    for serial in range(2):
        bench.settle("alice", alice.stage(intent, time.time()))
        assert seen == list(range(serial + 1))
    assert (alice.policy.policy.serial, alice.members_only.state.topic) == (2, "!!")
    bench.check_agreement()


def test_what_a_wish_raises_leaves_the_room_in_use(bench: RoomBench) -> None:
    def refused(policy: RoomPolicy) -> RoomPolicy:
        raise NotAllowed("not like this")

    with pytest.raises(NotAllowed, match="not like this"):
        bench.rooms["bob"].stage(CommitIntent(policy=refused), time.time())
    bench.commit("bob")
    bench.check_agreement()
