"""Whatever members do, and in whatever order: they, the hub, and whoever joins hold the same room."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import MmrError, RoomError, WrongEpoch
from mimi_mmr.hub.state import HubRoom
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.room import Room
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.bench import ENGINE, RoomBench, World, next_policy
from treewrap import PublicTree, Suite

HISTORIES = settings(max_examples=50, suppress_health_check=list(HealthCheck))
NAMES = ("bob", "cathy", "dave", "erin", "frank", "gwen")


@dataclass(frozen=True)
class Step:
    """One commit: of what kind, by whom, about how many; and whether a rival's was first."""

    kind: str
    sender: int = 0
    first: int = 0
    count: int = 1
    raced: bool = False


STEPS = st.builds(
    Step,
    kind=st.sampled_from(
        ["add", "add", "remove", "leave", "leave", "heal", "policy", "name", "link", "reveal", "restart"]
    ),
    sender=st.integers(0, 20),
    first=st.integers(0, 20),
    count=st.integers(1, 3),
    raced=st.booleans(),
)


def play(bench: RoomBench, step: Step) -> None:
    """Do what the step says, as far as there is somebody who may."""
    present = sorted(bench.rooms)
    sender = present[step.sender % len(present)]
    chosen = [NAMES[(step.first + at) % len(NAMES)] for at in range(step.count)]
    if step.raced and len(present) > 1:
        race(bench, present[(step.sender + 1) % len(present)], sender)
    if step.kind == "add":
        bench.commit(sender, add=sorted(set(chosen) - bench.rooms.keys()))
    elif step.kind == "remove":
        bench.commit("alice", remove=sorted(set(chosen) & bench.rooms.keys()))
    elif step.kind == "policy":
        role = (Role.MEMBER, Role.ADMIN)[step.count % 2]
        bench.commit("alice", policy=next_policy(bench.state.policy, may_remove=role))
    elif step.kind == "leave":
        leave(bench, sender, sorted(bench.rooms.keys() - {sender, "alice"})[: step.count])
    elif step.kind == "name":
        name = str(step.first)
        bench.commit(sender, state=replace(bench.rooms[sender].members_only.state, name=name))
        bench.room_name = name
    elif step.kind == "link":
        come_by_link(bench, sender, sorted(set(chosen) - bench.rooms.keys())[:1])
    elif step.kind == "reveal":
        bench.commit(sender, reveal=True)
        bench.revealed.add(sender)
    elif step.kind == "restart":
        restart(bench, sender)
    else:
        bench.commit(sender)


def leave(bench: RoomBench, sender: str, going: list[str]) -> None:
    """Whoever wants to go is taken out by somebody, in one commit."""
    done = bench.commit(sender, departures=[bench.rooms[name].departure() for name in going])
    assert all(followed.problems == () for followed in done.followed.values())
    assert not bench.rooms.keys() & set(going)


def come_by_link(bench: RoomBench, sender: str, newcomer: list[str]) -> None:
    link = bench.make_link(sender)
    for name in newcomer:
        bench.let_in(sender, bench.knock(bench.ask(link, name)), name)


def restart(bench: RoomBench, name: str) -> None:
    """A process that ends with a commit on its way, and one without."""
    bench.restart(name)
    pending = bench.stage(name)
    again = bench.restart(name, bench.at_rest(name, pending))
    assert again is not None
    bench.settle(name, again)


def race(bench: RoomBench, winner: str, loser: str) -> None:
    """Two commits for one epoch. The second is refused without a trace; its sender follows, and can go on."""
    first, second = bench.stage(winner), bench.stage(loser)
    before = bench.rooms[loser].epoch, bench.rooms[loser].tree_hash
    accepted = bench.accept(first.request)
    first.accept()
    with bench.refused_by_hub(WrongEpoch):
        bench.hub_takes(second.request)
    second.reject()
    assert (bench.rooms[loser].epoch, bench.rooms[loser].tree_hash) == before
    bench.deliver(accepted.events)
    bench.check_agreement()


def reloaded(bench: RoomBench) -> HubRoom:
    """The hub's state as its store would give it back."""
    state = bench.state
    wrap = PublicTree.from_bytes(state.wrap.to_bytes())
    ratchet = RatchetTree.from_bytes(state.ratchet.to_bytes())
    return HubRoom.load(
        state.room, state.epoch, ratchet, wrap, state.policy, state.sealed_state, state.commit_hash
    )


@given(
    st.lists(STEPS, min_size=1, max_size=7),
    st.sampled_from(list(Identities)),
    st.sampled_from([2, 4, 16]),
)
@example(
    [Step("add", count=3), Step("remove", first=0), Step("add", sender=1, first=3)], Identities.EVERYONE, 2
)
@example([Step("add", count=3), Step("remove", first=0, count=3), Step("heal")], Identities.EVERYONE, 2)
@example(
    [Step("add", count=3), Step("name"), Step("leave", count=2), Step("link", first=0)], Identities.NOBODY, 2
)
@example(
    [Step("add", count=3), Step("reveal", sender=1), Step("restart", 1), Step("leave")], Identities.NOBODY, 2
)
@HISTORIES
def test_everybody_agrees_after_every_step(steps: list[Step], identities: Identities, arity: int) -> None:
    bench = RoomBench(identities=identities, arity=arity, world=WORLD)
    for step in steps:
        play(bench, step)
        bench.check_agreement()
        again = reloaded(bench)
        assert (again.members, again.wrap.tree_hash) == (bench.state.members, bench.state.wrap.tree_hash)
        assert {room.members_only.state.name for room in bench.rooms.values()} == {bench.room_name}
        assert all(room.problems == {} for room in bench.rooms.values())
        assert len(bench.rooms["alice"].members_only.state.links) >= len(bench.links)
        assert again.ratchet.tree_hash() == bench.state.ratchet.tree_hash()
    bench.state = reloaded(bench)
    bench.commit("alice", add=["zoe"])
    bench.check_agreement()
    sent = bench.rooms["zoe"].encrypt(Content.text("hello")).app_message
    for name in bench.rooms.keys() - {"zoe"}:
        assert bench.read(name, sent)[0] == bench.leaf_of("zoe")


WORLD = World()


@given(st.integers(0, 2), st.integers(0, 2), st.sampled_from(["add", "heal", "remove"]))
@settings(HISTORIES, max_examples=12)
def test_of_two_racing_commits_one_is_accepted_and_the_other_catches_up(
    winner: int, loser: int, kind: str
) -> None:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob", "cathy"])
    names = ["alice", "bob", "cathy"]
    if winner == loser:
        loser = (winner + 1) % 3
    if kind == "remove":
        winner, loser = 0, loser or 1
    first = {
        "add": lambda: bench.stage(names[winner], add=["dave"]),
        "heal": lambda: bench.stage(names[winner]),
        "remove": lambda: bench.stage("alice", remove=[names[3 - loser]]),
    }[kind]()
    second = bench.stage(names[loser], add=["erin"])
    accepted = bench.accept(first.request)
    first.accept()
    with bench.refused_by_hub(WrongEpoch, f"in epoch {bench.state.epoch}"):
        bench.hub_takes(second.request)
    bench.deliver(
        accepted.events
    )  # following the winner rejects what waits, also without a word from the hub
    for name in [name for name, room in bench.rooms.items() if room.removed]:
        del bench.rooms[name]
    second.reject()
    bench.check_agreement()
    bench.commit(names[loser], add=["erin"])
    bench.check_agreement()


def test_a_commit_whose_answer_was_lost_is_accepted_by_following_it() -> None:
    """The hub said yes, and the answer did not arrive: the sender gets its own commit as an event of others."""
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob", "cathy"])
    pending = bench.stage("bob")
    accepted = bench.accept(pending.request)
    bench.deliver(accepted.events)
    pending.accept()
    bench.check_agreement()
    with pytest.raises(MmrError):
        pending.reject()


def test_a_commit_that_can_not_be_made_leaves_nothing_behind() -> None:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob", "cathy"])
    for name in ("alice", "bob"):
        room: Room = bench.rooms[name]
        before = room.epoch, room.tree_hash
        for wrong in (
            CommitIntent(removes={9: room.members.identities[2]}),
            CommitIntent(removes=room.members.at([room.own_leaf])),
            CommitIntent((bench.package("dave"),), room.members.at([2])),
        ):
            with pytest.raises(MmrError):
                room.stage(wrong, time.time())
        assert (room.epoch, room.tree_hash) == before
        bench.commit(name)
        bench.check_agreement()


def test_a_commit_that_fails_half_way_leaves_nothing_behind() -> None:
    """The MLS library is ready with it when it turns out that the newcomer's credential is none."""
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob"])
    nobody = ENGINE.client(b"nobody", SigningKey.generate()).key_package()
    before = bench.rooms["bob"].epoch, bench.rooms["bob"].tree_hash
    with pytest.raises(RoomError, match="the commit can't be made"):
        bench.stage("bob", add=[OpenKeyPackage(nobody, bytes(32))])
    assert (bench.rooms["bob"].epoch, bench.rooms["bob"].tree_hash) == before
    bench.commit("bob", add=["cathy"])
    bench.check_agreement()


def test_a_tree_of_one_arity_is_the_room_for_its_life() -> None:
    bench = RoomBench(arity=2, world=WORLD)
    bench.commit("alice", add=["bob", "cathy", "dave", "erin"])
    assert bench.state.wrap.suite == Suite(2)
    assert bench.state.wrap.height == 3
    bench.commit("alice", remove=["bob", "cathy", "dave", "erin"])
    assert bench.state.wrap.height == 1
    bench.check_agreement()
