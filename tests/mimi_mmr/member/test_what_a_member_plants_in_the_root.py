"""What a member puts into the root of the Tree Wrap tree keeps nobody in, and nobody out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from mimi_mmr.member.tree_secrets import POLICY_SECRET, ROOM_SECRETS
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.policy import Identities
from tests.mimi_mmr.bench import RoomBench
from treewrap import AddLink, Change, Link, LinkKey, RoomSecret, SetRoomSecret, TreeUpdate

STRANGE = [SetRoomSecret(f"strange {number:02}", RoomSecret.generate()) for number in range(62)]


@pytest.fixture(params=list(Identities))
def bench(request: pytest.FixtureRequest) -> RoomBench:
    made = RoomBench(identities=request.param)
    made.commit("alice", add=["bob", "cathy"])
    return made


def plant(bench: RoomBench, changes: Sequence[Change]) -> dict[str, tuple[str, ...]]:
    """Bob commits with these changes of the tree; what the others found wrong."""
    pending = bench.stage("bob")
    request = bench.with_changes("bob", pending, changes)
    hidden = replace(TreeUpdate.from_bytes(request.tree_update or b""), seals=())
    accepted = bench.accept(bench.resign(request, "bob", tree_update=hidden.to_bytes()))
    pending.accept()
    problems = {name: followed.problems for name, followed in bench.deliver(accepted.events).items()}
    for name in ("alice", "cathy"):
        if bench.rooms[name].diverged:
            bench.rooms[name].adopt(bench.snapshots[-1])
    return problems


def test_a_member_who_plants_a_join_link_is_removed(bench: RoomBench) -> None:
    key = LinkKey.generate()
    link = Link(bytes(16), key.kem, key.public_key, bench.leaf_of("bob"), int(bench.now) + 3600, 1)
    problems = plant(bench, [AddLink(link)])
    assert all(any("link" in problem for problem in problems[name]) for name in ("alice", "cathy"))
    assert len(bench.rooms["alice"]._local.tree.links()) == 1
    bench.commit("alice", remove=["bob"])
    assert {len(bench.rooms[name]._local.tree.links()) for name in ("alice", "cathy")} == {0}
    assert sorted(bench.rooms["alice"].members.identities) == [0, 2]


def test_a_wrong_policy_in_the_root_keeps_no_newcomer_out(bench: RoomBench) -> None:
    problems = plant(bench, [SetRoomSecret(POLICY_SECRET, RoomSecret(b"\x66" * 32))])
    assert any("policy" in problem for problem in problems["alice"])
    bench.commit("cathy", add=["dave"])
    assert bench.rooms["dave"].epoch == bench.rooms["cathy"].epoch
    assert bench.rooms["dave"].problems == {}


def test_names_that_rooms_do_not_use_are_taken_out_by_the_next_commit_of_another(bench: RoomBench) -> None:
    bench.commit("alice", state=MembersOnlyState(name="garden"))
    problems = plant(bench, STRANGE)
    assert any("leaf 1: " in problem for problem in problems["alice"])
    assert len(bench.rooms["alice"]._local.tree.room_secrets()) == 64
    done = bench.commit("cathy")
    assert done.followed["alice"].problems == ()
    for name in ("alice", "cathy"):
        assert set(bench.rooms[name]._local.tree.room_secrets()) == ROOM_SECRETS
        assert bench.rooms[name].members_only.state.name == "garden"
    bench.commit("alice", state=MembersOnlyState(name="orchard"))
    assert bench.rooms["cathy"].members_only.state.name == "orchard"
    shown = bench.created.policy.policy.identities is Identities.EVERYONE
    assert (bench.names("alice") == {0: "alice", 1: "bob", 2: "cathy"}) == shown


def test_a_removal_takes_them_out_too(bench: RoomBench) -> None:
    plant(bench, STRANGE)
    bench.commit("alice", remove=["bob"])
    assert set(bench.rooms["cathy"]._local.tree.room_secrets()) == {POLICY_SECRET}
