"""Malicious member: a room begins with its creator's own leaf, pseudonym, policy and tree, or not at all."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    CredentialExpired,
    InvalidCommit,
    MmrError,
    NotAllowed,
    ParseError,
    PseudonymProofRejected,
    SignatureRejected,
    TreeMismatch,
    WrongSigner,
)
from mimi_mmr.hub.mode import HubMode
from mimi_mmr.member.leaves import PreparedLeaf
from mimi_mmr.member.room import Room
from mimi_mmr.member.tree_secrets import EXPORTER_LABEL, POLICY_SECRET
from mimi_mmr.protocol.room.policy import Identities, Role, RoleAssignment, sign_policy
from mimi_mmr.protocol.room.requests import CreateRoomRequest, digest
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, ENGINE, RoomBench, World
from treewrap import DEFAULT_ARITY, EpochSecret, LeafSecret, RoomSecret, Set, SetRoomSecret, Suite, WrapTree


@pytest.fixture(scope="module")
def world() -> World:
    return World()


class Creation:
    """Alice's room to be, with her keys."""

    def __init__(self, world: World, identities: Identities = Identities.EVERYONE) -> None:
        self.world = world
        self.leaf: PreparedLeaf = world.leaf(world.device("alice"))
        self.uri = MimiUri("a.example", Kind.ROOM, "room")
        self.room, self.request = Room.create(self.uri, self.leaf, identities)

    def resign(self, key: SigningKey | None = None, **changes: Any) -> CreateRoomRequest:
        """Other parts, every hash brought up to date, signed."""
        signed = {name: changes.pop(name) for name in ("room", "tree_hash") if name in changes}
        request = replace(self.request, **changes)
        hashes = {
            "ratchet_tree_hash": digest(request.ratchet_tree),
            "tree_update_hash": digest(request.tree_update),
            "policy_hash": request.policy.policy.hash,
        }
        content = replace(request.content, **(hashes | signed))
        signature = (key or self.leaf.key).sign("CreateRoomTBS", content.to_bytes())
        return replace(request, content=content, signature=signature)

    def tree(self, *changes: Any, epoch: int = 0, arity: int = DEFAULT_ARITY) -> dict[str, Any]:
        """A first tree that does something else."""
        secret = self.room._local.group.export_secret(EXPORTER_LABEL, self.room._local.group.group_id, 32)
        policy = SetRoomSecret(POLICY_SECRET, RoomSecret(self.room.policy.policy.hash))
        staged = WrapTree.create(Suite(arity), self.room._local.group.group_id).stage(
            [*changes, policy], epoch=epoch, epoch_secret=EpochSecret(secret)
        )
        return {"tree_update": staged.update.to_bytes(), "tree_hash": staged.tree_hash}

    def policy(self, **changes: Any) -> Any:
        return sign_policy(replace(self.room.policy.policy, **changes), 0, self.leaf.key)


@pytest.fixture
def creation(world: World) -> Creation:
    return Creation(world)


def refused(creation: Creation, request: CreateRoomRequest, error: type[MmrError], match: str = "") -> None:
    with pytest.raises(error, match=match or None) as refusal:
        HubMode("a.example").create(CreateRoomRequest.from_bytes(request.to_bytes()), creation.world.now)
    assert type(refusal.value) is error


@pytest.mark.parametrize("identities", list(Identities), ids=lambda one: one.name)
def test_an_honest_creation_is_accepted(world: World, identities: Identities) -> None:
    creation = Creation(world, identities)
    new = HubMode("a.example").create(creation.resign(), world.now)
    assert new.state.members.keys() == {0}
    shown = {0} if identities is not Identities.NOBODY else set()
    assert set(new.state.wrap.occupied) == shown
    assert new.state.wrap.tree_hash == creation.room.tree_hash


def test_a_room_of_another_hub_is_refused(creation: Creation) -> None:
    with pytest.raises(NotAllowed, match=r"rooms here have URIs of b\.example"):
        HubMode("b.example").create(creation.request, creation.world.now)


def test_a_request_signed_by_somebody_else_is_refused(creation: Creation) -> None:
    refused(creation, creation.resign(SigningKey.generate()), WrongSigner)


def test_a_room_renamed_after_signing_or_before_is_refused(creation: Creation) -> None:
    """The leaf's tree is bound to the MLS group, and its id is the room's URI."""
    other = replace(creation.uri, name="other")
    renamed = replace(creation.request, content=replace(creation.request.content, room=other))
    refused(creation, renamed, WrongSigner)
    refused(creation, creation.resign(room=other), NotAllowed, "not this room's first")


@pytest.mark.parametrize("part", ["ratchet_tree", "tree_update", "policy"])
def test_no_part_can_be_swapped_after_signing(creation: Creation, part: str) -> None:
    other = Creation(creation.world)
    swapped = replace(creation.request, **{part: getattr(other.request, part)})
    refused(creation, swapped, WrongSigner)


def test_a_room_begins_with_one_leaf(creation: Creation) -> None:
    bench = RoomBench()
    bench.commit("alice", add=["bob"])
    two = bench.state.ratchet.to_bytes()
    refused(creation, creation.resign(ratchet_tree=two), InvalidCommit, "exactly one leaf, at index 0")
    refused(creation, creation.resign(ratchet_tree=b""), ParseError)
    unsigned = creation.request.ratchet_tree
    unsigned = unsigned[:-1] + bytes([unsigned[-1] ^ 1])
    refused(creation, creation.resign(ratchet_tree=unsigned), SignatureRejected)


def test_a_creator_with_a_forged_or_expired_credential_is_refused(world: World) -> None:
    creation = Creation(world)
    late = Creation(world)
    late.world = World(now=world.now + 91 * DAY)
    refused(late, creation.request, CredentialExpired)
    mine = creation.leaf.identity
    forged = replace(mine.credential, user_pseudonym=late.leaf.identity.credential.user_pseudonym)
    lying = replace(creation.leaf, identity=replace(mine, credential=forged))
    lying = replace(lying, client=ENGINE.client(lying.identity.to_bytes(), lying.key))
    _, request = Room.create(creation.uri, lying)
    refused(creation, request, PseudonymProofRejected)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"serial": 1}, "not this room's first"),
        ({"room": MimiUri("a.example", Kind.ROOM, "other")}, "not this room's first"),
        ({"roles": ()}, "does not make the creator an admin"),
    ],
)
def test_a_first_policy_is_the_rooms_and_makes_its_creator_admin(
    creation: Creation, changes: dict[str, Any], match: str
) -> None:
    refused(creation, creation.resign(policy=creation.policy(**changes)), NotAllowed, match)


def test_a_first_policy_is_signed_by_the_creator_as_leaf_0(creation: Creation) -> None:
    policy = creation.room.policy.policy
    refused(creation, creation.resign(policy=sign_policy(policy, 0, SigningKey.generate())), WrongSigner)
    refused(creation, creation.resign(policy=sign_policy(policy, 1, creation.leaf.key)), NotAllowed)
    somebody = RoleAssignment(replace(policy.roles[0].user_pseudonym, name="x"), Role.ADMIN)
    refused(creation, creation.resign(policy=creation.policy(roles=(somebody,))), NotAllowed)


def test_the_first_tree_holds_the_creators_leaf_where_the_policy_shows_it(world: World) -> None:
    mine, evil = LeafSecret(bytes(32)), LeafSecret(b"\x66" * 32)
    shown, hidden = Creation(world), Creation(world, Identities.NOBODY)
    for creation, changes in (
        (shown, []),
        (shown, [Set(1, evil)]),
        (shown, [Set(0, mine), Set(1, evil)]),
        (hidden, [Set(0, mine)]),
    ):
        refused(creation, creation.resign(**creation.tree(*changes)), TreeMismatch, "sets leaf 0, where")


def test_the_first_tree_is_of_epoch_0_its_hash_and_a_known_arity(creation: Creation) -> None:
    mine = LeafSecret(creation.leaf.ilk.reveal())
    refused(creation, creation.resign(**creation.tree(Set(0, mine), epoch=1)), TreeMismatch)
    refused(creation, creation.resign(tree_hash=bytes(32)), TreeMismatch, "not the one that was signed")
    for arity in (0, 3, 128, 2**32 - 1):
        refused(creation, creation.resign(arity=arity), TreeMismatch, "does not verify")
    refused(creation, creation.resign(arity=4), TreeMismatch, "does not verify")
    refused(creation, creation.resign(tree_update=b""), TreeMismatch, "does not verify")


def test_an_oversized_creation_is_refused_unread(creation: Creation) -> None:
    with pytest.raises(ParseError, match="allowed"):
        CreateRoomRequest.from_bytes(bytes(CreateRoomRequest.LIMIT + 1))
