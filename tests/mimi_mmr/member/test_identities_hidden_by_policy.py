"""Malicious member: it learns no Id where the policy hides them, through adds, removes and joins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.errors import LinkRejected, PseudonymProofRejected, RoomError, TreeMismatch
from mimi_mmr.member.whois import Standing
from mimi_mmr.mls.ratchet.node import leaf_row
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.credentials import open_link
from mimi_mmr.protocol.room.policy import Identities, Role, RoleAssignment
from tests.mimi_mmr.bench import RoomBench, next_policy
from tests.mimi_mmr.mls.mls_world import leaf_bytes
from treewrap import LeafSecret, Set

HIDING = [Identities.ADMINS_ONLY, Identities.NOBODY]
each_hiding = pytest.mark.parametrize("identities", HIDING, ids=lambda one: one.name)


def admins(bench: RoomBench, *names: str) -> tuple[RoleAssignment, ...]:
    return tuple(RoleAssignment(bench.pseudonym(name), Role.ADMIN) for name in names)


@each_hiding
def test_members_see_pseudonyms_and_no_names_through_a_whole_history(identities: Identities) -> None:
    bench = RoomBench(identities=identities)
    alice = "alice" if identities is Identities.ADMINS_ONLY else None
    for step in (
        lambda: bench.commit("alice", add=["bob", "cathy"]),
        lambda: bench.commit("bob", add=["dave"]),
        lambda: bench.commit("dave"),
        lambda: bench.commit("alice", remove=["cathy"]),
        lambda: bench.commit("dave", add=["erin", "frank"]),
        lambda: bench.commit("alice", remove=["bob"]),
        lambda: bench.commit("frank"),
    ):
        done = step()
        assert not any(followed.problems for followed in done.followed.values())
        bench.check_agreement()
        assert set(bench.state.wrap.occupied) == ({0} if alice else set())
        for name in bench.rooms:
            names = bench.names(name)
            assert names.pop(0) == alice
            assert set(names.values()) <= {None}
    assert {bench.at(leaf) for leaf in bench.state.members} == {"alice", "dave", "erin", "frank"}


@each_hiding
def test_a_hidden_member_is_a_pseudonym_whose_messages_are_read(identities: Identities) -> None:
    bench = RoomBench(identities=identities)
    bench.commit("alice", add=["bob", "cathy"])
    sent = bench.rooms["bob"].encrypt(Content.text("guess who")).app_message
    leaf, content = bench.read("cathy", sent)
    assert content == Content.text("guess who")
    entry = next(one for one in bench.rooms["cathy"].who(bench.world.trust, bench.now) if one.leaf == leaf)
    assert (entry.user, entry.standing, entry.member) == (bench.pseudonym("bob"), Standing.HIDDEN, None)
    with pytest.raises(RoomError, match=f"leaf {leaf} does not show its identity"):
        bench.rooms["cathy"].resolve(leaf, bench.world.trust, bench.now)


@each_hiding
def test_nothing_that_a_member_holds_opens_a_hidden_link(identities: Identities) -> None:
    bench = RoomBench(identities=identities)
    bench.commit("alice", add=["bob", "cathy"])
    tree = bench.rooms["cathy"]._local.tree
    held = {tree.secret(leaf).reveal() for leaf in tree.leaves()}
    held |= {tree.room_secret(name).reveal() for name in tree.room_secrets()}
    held.add(bench.leaves["cathy"].ilk.reveal())
    for key in held:
        with pytest.raises(LinkRejected):
            open_link(bench.leaves["bob"].identity.credential, IdentityLinkKey(key))


@each_hiding
def test_the_hub_refuses_to_have_a_hidden_member_shown(identities: Identities) -> None:
    """Bob adds Dave, whose link key he has from their connection, and would show him to all."""
    bench = RoomBench(identities=identities)
    bench.commit("alice", add=["bob"])
    pending = bench.stage("bob", add=["dave"])
    dave = LeafSecret(bench.leaves["dave"].ilk.reveal())
    for changes in ([Set(2, dave)], [Set(0, dave)]):
        with bench.refused_by_hub(TreeMismatch, "does not match the commit at leaf"):
            bench.hub_takes(bench.with_changes("bob", pending, changes))


def test_a_member_may_reveal_itself_and_hide_again() -> None:
    """A leaf is its owner's: also where the policy hides names, it may set its own link key."""
    bench = RoomBench(identities=Identities.NOBODY)
    bench.commit("alice", add=["bob", "cathy"])
    pending = bench.stage("bob")
    mine = LeafSecret(bench.leaves["bob"].ilk.reveal())
    request = bench.with_changes("bob", pending, [Set(bench.leaf_of("bob"), mine)])
    accepted = bench.accept(request)
    pending.accept()
    assert not any(one.problems for one in bench.deliver(accepted.events).values())
    assert bench.names("alice") == bench.names("cathy") == {0: None, 1: "bob", 2: None}


def test_a_new_admin_is_told_missing_until_it_shows_itself() -> None:
    bench = RoomBench(identities=Identities.ADMINS_ONLY)
    bench.commit("alice", add=["bob", "cathy"])
    bench.commit("alice", policy=next_policy(bench.state.policy, roles=admins(bench, "alice", "bob")))
    assert bench.names("cathy") == {0: "alice", 1: "?", 2: None}
    pending = bench.stage("bob")
    mine = LeafSecret(bench.leaves["bob"].ilk.reveal())
    accepted = bench.accept(bench.with_changes("bob", pending, [Set(1, mine)]))
    pending.accept()
    bench.deliver(accepted.events)
    assert bench.names("cathy") == {0: "alice", 1: "bob", 2: None}


def test_somebody_added_together_with_becoming_admin_is_judged_by_the_policy_that_comes_with_it() -> None:
    """Hub and members must draw the line at the same place, or one of them cries wolf."""
    bench = RoomBench(identities=Identities.ADMINS_ONLY)
    bench.commit("alice", add=["bob", "cathy"])
    package = bench.package("dave")
    new = next_policy(bench.state.policy, roles=admins(bench, "alice", "dave"))
    pending = bench.stage("alice", add=[package], policy=new)
    done = bench.settle("alice", pending, ["dave"])
    assert not any(followed.problems for followed in done.followed.values())
    assert bench.names("bob") == {0: "alice", 1: None, 2: None, 3: "dave"}
    assert bench.rooms["dave"].problems == {}


def test_a_hidden_member_with_a_forged_pseudonym_is_not_taken_for_sound() -> None:
    """A joiner sees what hub and members before it let pass: no link key is needed to check a pseudonym."""
    bench = RoomBench(identities=Identities.NOBODY)
    bench.commit("alice", add=["bob", "cathy"])
    cathy = bench.rooms["cathy"]
    honest = cathy._local.group.leaf(1)
    assert honest
    identity = bench.leaves["bob"].identity
    stolen = replace(identity.credential, user_pseudonym=bench.pseudonym("alice"))
    lying = leaf_bytes(
        honest, bench.leaves["bob"].key, identity=replace(identity, credential=stolen).to_bytes()
    )
    tree = cathy._local.group._tree  # type: ignore[attr-defined]
    tree.replace({2: leaf_row(lying)}, tree.size)
    entry = next(one for one in cathy.who(bench.world.trust, bench.now) if one.leaf == 1)
    assert entry.standing is Standing.UNVERIFIED
    assert "leaf 1: " in entry.why
    with pytest.raises(PseudonymProofRejected):
        stolen.verify(bench.now)
