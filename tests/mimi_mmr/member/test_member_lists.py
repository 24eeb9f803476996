"""Who is in a room is read once an epoch, and is never that of another epoch."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, cast

import pytest

from mimi_mmr.errors import RoomError
from mimi_mmr.member import member_list
from mimi_mmr.member.member_list import MemberList
from mimi_mmr.member.room import Room
from mimi_mmr.mls.engine import Applied, MlsGroup
from mimi_mmr.mls.wire import PublicCommit
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.room.policy import Role
from tests.mimi_mmr.bench import RoomBench, World, next_policy

WORLD = World()


@pytest.fixture
def bench() -> RoomBench:
    made = RoomBench(world=WORLD)
    made.commit("alice", add=["bob", "cathy", "dave"])
    return made


class Parses:
    """How often each identity was parsed since the last look."""

    def __init__(self) -> None:
        self._seen: Counter[bytes] = Counter()

    def parse(self, encoded: bytes) -> LeafIdentity:
        self._seen[encoded] += 1
        return LeafIdentity.from_bytes(encoded)

    def take(self) -> Counter[bytes]:
        seen, self._seen = self._seen, Counter()
        return seen


@pytest.fixture
def parses(monkeypatch: pytest.MonkeyPatch) -> Parses:
    counting = Parses()

    class Counted:
        from_bytes = staticmethod(counting.parse)

    monkeypatch.setattr(member_list, "LeafIdentity", Counted)
    return counting


def ask_everything(bench: RoomBench, room: Room) -> None:
    """Everything that asks who is in the room."""
    room.who(WORLD.trust, bench.now)
    for leaf in room.members.readable:
        room.whois(leaf, WORLD.trust, bench.now)
        room.resolve(leaf, WORLD.trust, bench.now)
    assert room.members.by_client
    assert room.members.by_user
    room.problems  # noqa: B018  # reads the list
    bench.intent(bench.at(room.own_leaf) or "", remove=[0]).due(room.members)


def truth(bench: RoomBench, room: Room) -> dict[int, bytes]:
    """The members as the room's MLS group has them now."""
    return {leaf: identity for leaf, (identity, _) in room._local.group.credentials().items()}


def check(bench: RoomBench, room: Room) -> None:
    members = room.members
    assert members.epoch == room.epoch
    assert {leaf: identity.to_bytes() for leaf, identity in members.identities.items()} == truth(bench, room)
    assert members.by_client == {
        identity.credential.client_pseudonym: leaf for leaf, identity in members.identities.items()
    }
    leaves = {leaf: user for user, found in members.by_user.items() for leaf in found}
    assert leaves == {
        leaf: identity.credential.user_pseudonym for leaf, identity in members.identities.items()
    }


def test_members_are_read_once_an_epoch(bench: RoomBench, parses: Parses) -> None:
    bench.restart("bob")
    bob = bench.rooms["bob"]
    parses.take()
    for _ in range(3):
        ask_everything(bench, bob)
    assert parses.take() == Counter(truth(bench, bob).values())


def test_what_an_epoch_leaves_as_it_was_is_not_read_again(bench: RoomBench, parses: Parses) -> None:
    for room in bench.rooms.values():
        ask_everything(bench, room)
    parses.take()
    bench.commit("cathy")
    for room in bench.rooms.values():
        ask_everything(bench, room)
        check(bench, room)
    assert parses.take() == Counter()
    bench.commit("alice", add=["erin"])
    newcomer = truth(bench, bench.rooms["alice"])[4]
    del bench.rooms["erin"]
    for room in bench.rooms.values():
        ask_everything(bench, room)
    assert parses.take() == Counter({newcomer: 4})


def test_a_list_is_never_of_another_epoch(bench: RoomBench) -> None:
    """By following, by accepting, by joining, after a restart; and what was read before stays what it was."""
    kept: list[tuple[MemberList, dict[int, LeafIdentity]]] = []

    def look() -> None:
        for room in bench.rooms.values():
            check(bench, room)
            kept.append((room.members, dict(room.members.identities)))

    look()
    bench.commit("bob", add=["erin"])
    look()
    bench.commit("alice", remove=["bob"])
    look()
    bench.commit("erin", add=["frank"])  # who gets the leaf that Bob had
    assert bench.leaf_of("frank") == 1
    look()
    bench.restart("cathy")
    look()
    pending = bench.stage("cathy", add=["grace"])
    check(bench, bench.rooms["cathy"])  # a commit on its way changes nothing yet
    pending.reject()
    look()
    for members, identities in kept:
        assert dict(members.identities) == identities


def test_a_removed_members_list_is_of_the_epoch_it_last_saw(bench: RoomBench) -> None:
    bob = bench.rooms["bob"]
    before = bob.members
    bench.commit("alice", remove=["bob"])
    assert bob.removed
    assert bob.members is before
    assert bob.epoch == before.epoch


def test_adopting_the_hubs_tree_changes_nobody(bench: RoomBench) -> None:
    bob = bench.rooms["bob"]
    before = bob.members
    bob.adopt(bench.snapshots[-1])
    assert bob.members is before


def test_what_was_wrong_with_a_member_is_not_said_of_who_gets_its_leaf(bench: RoomBench) -> None:
    for remover in ("alice", "cathy"):  # by one's own commit, and by another's
        room = bench.rooms["alice"]
        room._local.reported[1] = "not as it should be"
        assert room.problems == {1: "not as it should be"}
        if remover == "cathy":
            bench.commit("alice", policy=next_policy(bench.state.policy, may_remove=Role.MEMBER))
        bench.commit(remover, remove=[bench.at(1) or ""])
        assert room.problems == {}
        bench.commit("alice", add=[f"{remover}-friend"])
        assert bench.leaf_of(f"{remover}-friend") == 1
        assert room.problems == {}


class Reseated:
    """An MLS group whose next commit also adds somebody: this engine's own commits add or remove, never both."""

    def __init__(self, group: MlsGroup, leaf: int, member: tuple[bytes, bytes]) -> None:
        self._group = group
        self._before = group.epoch
        self._leaf = leaf
        self._member = member

    def __getattr__(self, name: str) -> Any:
        return getattr(self._group, name)

    def process_commit(self, commit: PublicCommit) -> Applied:
        return replace(self._group.process_commit(commit), added=(self._leaf,))

    def credentials(self) -> dict[int, tuple[bytes, bytes]]:
        there = dict(self._group.credentials())
        return there if self._group.epoch == self._before else there | {self._leaf: self._member}


def test_what_was_wrong_with_a_member_is_not_said_of_one_who_came_with_the_same_commit(
    bench: RoomBench,
) -> None:
    local = bench.rooms["bob"]._local
    local.reported[2] = "whoever added this client set a wrong identity link key"
    bench.package("erin")
    erin = bench.leaves["erin"]
    newcomer = erin.identity.to_bytes(), erin.key.public
    local.group = cast("MlsGroup", Reseated(local.group, 2, newcomer))
    bench.commit("alice", remove=["cathy"])
    assert bench.rooms["bob"].members.identities[2] == erin.identity
    assert bench.rooms["bob"].problems == {}


# --- credentials that do not parse ---------------------------------------------------------------------


class Group:
    """As much of an MLS group as a list is read from."""

    def __init__(self, epoch: int, members: dict[int, tuple[bytes, bytes]]) -> None:
        self.epoch = epoch
        self._members = members

    def credentials(self) -> dict[int, tuple[bytes, bytes]]:
        return self._members


def group(epoch: int, members: dict[int, tuple[bytes, bytes]]) -> MlsGroup:
    return cast("MlsGroup", Group(epoch, members))


def test_a_credential_that_does_not_parse_is_a_problem_and_no_member(bench: RoomBench) -> None:
    members = dict(bench.rooms["bob"]._local.group.credentials())
    identity, key = members[2]
    found = MemberList.read(group(5, members | {2: (identity[:-1], key)}), bench.rooms["bob"].members)
    assert found.identities.keys() == {0, 1, 3}
    assert found.problems.keys() == {2}
    assert "the credential is malformed" in found.problems[2]
    assert found.signature_keys == bench.rooms["bob"].members.signature_keys
    assert (found.user(2), found.signature_key(2)) == (None, key)
    assert found.at([2, 3]) == {2: None, 3: found.identities[3]}
    assert found.is_at(2, None)
    assert not found.is_at(2, found.identities[3])
    assert not found.is_at(9, None)
    with pytest.raises(RoomError, match="no member at leaf 9"):
        found.at([9])
    mended = MemberList.read(group(6, members), found)
    assert (mended.problems, mended.identities) == ({}, bench.rooms["bob"].members.identities)


def test_another_identity_under_the_same_key_is_read_anew(bench: RoomBench) -> None:
    """No honest hub lets a leaf change its credential; a list must not depend on that."""
    before = bench.rooms["bob"].members
    members = dict(bench.rooms["bob"]._local.group.credentials())
    swapped = members | {2: (members[3][0], members[2][1])}
    found = MemberList.read(group(5, swapped), before)
    assert found.identities[2] == before.identities[3]
    assert found.by_client[before.readable[3].client] == 2  # the lowest leaf


# --- commits of other implementations --------------------------------------------------------------------


def test_nor_is_it_said_of_who_gets_its_leaf_in_the_same_commit(bench: RoomBench) -> None:
    """Our engine removes or adds in one commit; another one may do both."""
    local = bench.rooms["alice"]._local
    before = local.members
    local.reported |= {1: "not as it should be", 2: "nor is this one"}
    members = dict(local.group.credentials())
    members[1] = members.pop(3)
    local.group = group(before.epoch + 1, members)
    local.drop_reports_of_gone(before)
    assert local.reported == {2: "nor is this one"}
