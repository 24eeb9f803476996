"""Who may do what, and whose name is shown."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import NotAllowed, ParseError, WrongSigner
from mimi_mmr.protocol.room.policy import (
    Identities,
    Role,
    RoleAssignment,
    RoomPolicy,
    SignedPolicy,
    default_policy,
    sign_policy,
)
from mimi_mmr.uris import Kind, MimiUri

ROOM = MimiUri("a.example", Kind.ROOM, "room")
ALICE, BOB, CATHY = (MimiUri("a.example", Kind.USER_PSEUDONYM, name) for name in ("alice", "bob", "cathy"))
POLICY = default_policy(ROOM, ALICE)


def test_by_default_the_creator_is_admin_and_members_may_add() -> None:
    assert (POLICY.role(ALICE), POLICY.role(BOB)) == (Role.ADMIN, Role.MEMBER)
    POLICY.allow_add(BOB, CATHY)
    POLICY.allow_remove(ALICE, BOB)
    with pytest.raises(NotAllowed, match="removing this participant needs the role ADMIN"):
        POLICY.allow_remove(BOB, CATHY)


def test_ones_own_clients_may_always_be_removed() -> None:
    nobody = replace(POLICY, may_remove=Role.NEVER, roles=(RoleAssignment(BOB, Role.NOBODY),))
    nobody.allow_remove(BOB, BOB)
    with pytest.raises(NotAllowed):
        nobody.allow_remove(ALICE, BOB)


def test_nobody_removes_a_higher_role() -> None:
    loose = replace(POLICY, may_remove=Role.MEMBER)
    loose.allow_remove(BOB, CATHY)
    with pytest.raises(NotAllowed):
        loose.allow_remove(BOB, ALICE)


def test_a_role_without_rights_adds_nobody() -> None:
    muted = replace(POLICY, roles=(RoleAssignment(BOB, Role.NOBODY),))
    with pytest.raises(NotAllowed, match="adding needs the role MEMBER"):
        muted.allow_add(BOB, CATHY)
    muted.allow_add(CATHY, BOB)
    with pytest.raises(NotAllowed):
        replace(POLICY, may_add=Role.NEVER).allow_add(ALICE, BOB)


def test_ones_own_clients_may_always_be_added() -> None:
    nobody = replace(POLICY, may_add=Role.NEVER, roles=(RoleAssignment(BOB, Role.NOBODY),))
    nobody.allow_add(BOB, BOB)
    for refused in (lambda: nobody.allow_add(BOB, CATHY), lambda: nobody.allow_invite(BOB)):
        with pytest.raises(NotAllowed):
            refused()


def test_a_role_is_given_and_taken_by_the_next_policy() -> None:
    both = POLICY.with_role(BOB, Role.ADMIN)
    assert (both.serial, both.role(ALICE), both.role(BOB)) == (1, Role.ADMIN, Role.ADMIN)
    one = both.with_role(ALICE, Role.MEMBER)
    assert (one.serial, one.roles) == (2, (RoleAssignment(BOB, Role.ADMIN),))
    assert one.with_role(BOB, Role.NOBODY).roles == (RoleAssignment(BOB, Role.NOBODY),)


@pytest.mark.parametrize(
    ("identities", "shown"),
    [
        (Identities.EVERYONE, {ALICE, BOB}),
        (Identities.ADMINS_ONLY, {ALICE}),
        (Identities.NOBODY, set()),
    ],
)
def test_names_are_shown_as_the_policy_says(identities: Identities, shown: set[MimiUri]) -> None:
    policy = default_policy(ROOM, ALICE, identities)
    assert {user for user in (ALICE, BOB) if policy.shows_identity(user)} == shown


def test_a_policy_with_two_roles_for_one_pseudonym_is_none() -> None:
    twice = (RoleAssignment(BOB, Role.MEMBER), RoleAssignment(BOB, Role.ADMIN))
    with pytest.raises(ValueError, match="two roles"):
        replace(POLICY, roles=twice)
    encoded = POLICY.to_bytes()
    entry = RoleAssignment(ALICE, Role.ADMIN).to_bytes()
    doubled = encoded[: -len(entry) - 1] + bytes([2 * len(entry)]) + entry + entry
    with pytest.raises(ParseError):
        RoomPolicy.from_bytes(doubled)


def test_a_role_above_all_can_not_be_given() -> None:
    """NEVER is the bar that nobody reaches; a member who had it as a role would be above every bar."""
    with pytest.raises(ValueError, match="NEVER"):
        replace(POLICY, roles=(RoleAssignment(BOB, Role.NEVER),))


def test_an_unknown_version_or_role_does_not_parse() -> None:
    encoded = POLICY.to_bytes()
    with pytest.raises(ParseError, match="version"):
        RoomPolicy.from_bytes(b"\2" + encoded[1:])
    with pytest.raises(ParseError, match="unknown Role 3"):
        RoomPolicy.from_bytes(encoded[:-1] + b"\3")


def test_a_policy_is_signed_by_the_leaf_it_names() -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    signed = SignedPolicy.from_bytes(sign_policy(POLICY, 3, key).to_bytes())
    signed.verify(key.public)
    forged = [
        replace(signed, signer=4),
        replace(signed, policy=replace(POLICY, serial=1)),
        replace(signed, policy=replace(POLICY, roles=(RoleAssignment(BOB, Role.ADMIN),))),
    ]
    for one in forged:
        with pytest.raises(WrongSigner):
            one.verify(key.public)
    with pytest.raises(WrongSigner):
        signed.verify(other.public)


def test_the_hash_covers_everything() -> None:
    others = [
        replace(POLICY, serial=1),
        replace(POLICY, may_add=Role.ADMIN),
        replace(POLICY, may_remove=Role.MEMBER),
        replace(POLICY, identities=Identities.NOBODY),
        replace(POLICY, roles=()),
        replace(POLICY, room=replace(ROOM, name="other")),
    ]
    assert len({policy.hash for policy in [POLICY, *others]}) == 7
