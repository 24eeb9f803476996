"""A departure is worth something from its leaf, in its room, with the commit that carries it, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import InvalidCommit, NotAllowed, RoomError, WrongSigner
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.protocol.room.departures import Departure, sign_departure
from mimi_mmr.protocol.room.events import CommitEvent, EventKind
from mimi_mmr.protocol.room.policy import Role
from tests.mimi_mmr.bench import RoomBench, next_policy


def removing(bench: RoomBench, *departures: Departure, victim: str = "bob") -> PendingCommit:
    """Cathy, who may not, commits the removal; then these departures are put beside it."""
    pending = bench.stage("cathy", remove=[victim])
    request = bench.resign(pending.request, "cathy", departures=departures)
    return replace(pending, request=request)


def forgeries(bench: RoomBench) -> dict[str, tuple[Departure, ...]]:
    bob, cathy = (bench.rooms[name].departure() for name in ("bob", "cathy"))
    other = replace(bench.uri, name="other")
    client = bob.content.client_pseudonym
    return {
        "signed by another": (sign_departure(bench.uri, client, bench.leaves["cathy"].key),),
        "signed by nobody": (sign_departure(bench.uri, client, SigningKey.generate()),),
        "of another room": (sign_departure(other, client, bench.leaves["bob"].key),),
        "of another member": (cathy,),
        "moved to this room": (replace(bob, content=replace(bob.content, room=other)),),
        "twice": (bob, bob),
        "with one too many": (bob, cathy),
    }


KINDS = (
    "signed by another",
    "signed by nobody",
    "of another room",
    "of another member",
    "moved to this room",
    "twice",
    "with one too many",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_departure_removes_nobody_at_the_hub(bench: RoomBench, kind: str) -> None:
    pending = removing(bench, *forgeries(bench)[kind])
    with bench.refused_by_hub(InvalidCommit, "departure"):
        bench.hub_takes(pending.request)
    pending.reject()
    with bench.refused_by_hub(NotAllowed, "removing this participant needs"):
        bench.hub_takes(removing(bench).request)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hub_that_lets_it_pass_is_seen_through(bench: RoomBench, kind: str) -> None:
    """The group follows what MLS did; everybody is told who did what it may not do."""
    pending = removing(bench, *forgeries(bench)[kind])
    request = pending.request
    event = CommitEvent(
        request.auth, request.commit, request.member_update, request.policy, request.departures
    )
    followed = bench.rooms["alice"].follow(event, bench.now)
    assert followed.removed == (1,)
    assert any("leaf 2 sent what is no departure" in problem for problem in followed.problems)
    assert any("leaf 2 did what it may not do" in problem for problem in followed.problems)


def test_a_departure_counts_in_no_other_room_of_the_same_leaf(bench: RoomBench) -> None:
    """A last-resort KeyPackage may have led to two rooms: the pseudonym is the same there, the room is not."""
    elsewhere = sign_departure(
        replace(bench.uri, name="other"),
        bench.rooms["bob"].departure().content.client_pseudonym,
        bench.leaves["bob"].key,
    )
    with pytest.raises(RoomError, match="does not hold"):
        bench.rooms["cathy"].departing(elsewhere)


def test_a_hub_that_strips_a_departure_is_the_one_to_blame(bench: RoomBench) -> None:
    departure = bench.rooms["bob"].departure()
    pending = bench.stage("cathy", departures=[departure])
    accepted = bench.accept(pending.request)
    event = CommitEvent.from_bytes(
        next(item.event for item in accepted.events if item.kind is EventKind.COMMIT)
    )
    other = sign_departure(bench.uri, departure.content.client_pseudonym, SigningKey.generate())
    alice = bench.rooms["alice"]
    for departures in ((), (other,), (departure, departure)):
        with pytest.raises(WrongSigner, match="not the one that its committer signed"):
            alice.follow(replace(event, departures=departures), bench.now)
    assert alice.follow(event, bench.now).problems == ()


def test_a_member_that_strips_its_own_requests_departure_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("cathy", departures=[bench.rooms["bob"].departure()])
    with bench.refused_by_hub(WrongSigner, "not the one that its signature covers"):
        bench.hub_takes(replace(pending.request, departures=()))
    unsigned = bench.resign(pending.request, "cathy", departures=())
    with bench.refused_by_hub(NotAllowed):
        bench.hub_takes(unsigned)


def test_a_departure_is_no_leave_to_take_the_successor_of_a_leaf(bench: RoomBench) -> None:
    departure = bench.rooms["bob"].departure()
    bench.commit("cathy", departures=[departure])
    bench.commit("alice", add=["erin"])
    assert bench.leaf_of("erin") == 1
    pending = removing(bench, departure, victim="erin")
    with bench.refused_by_hub(InvalidCommit, "of a client that the same commit removes"):
        bench.hub_takes(pending.request)


def test_a_departure_gives_no_right_but_this_one(bench: RoomBench) -> None:
    """Cathy brings Bob's departure, and removes Alice with it."""
    bench.commit("alice", policy=next_policy(bench.state.policy, may_remove=Role.MEMBER))
    pending = bench.stage("cathy", remove=["alice"], departures=[bench.rooms["bob"].departure()])
    with bench.refused_by_hub(NotAllowed, "or theirs"):
        bench.hub_takes(pending.request)
