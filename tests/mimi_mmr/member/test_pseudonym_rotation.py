"""Going on in a room under another pseudonym: the old leaf adds the new one, which takes the old one out."""

from __future__ import annotations

import pytest

from mimi_mmr.errors import NotAllowed
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.policy import Identities, Role
from tests.mimi_mmr.bench import RoomBench, World, next_policy

WORLD = World()


def the_same_person(bench: RoomBench, old: str, new: str) -> None:
    """A fresh leaf of this device, under a fresh set key, shall go by the name `new`."""
    bench.devices[new] = bench.devices[old]


def rotate(bench: RoomBench, old: str, new: str) -> None:
    """All that a client does: its role goes over with the Add, and away from the old leaf as that one goes."""
    the_same_person(bench, old, new)
    package = bench.package(new)
    role = bench.state.policy.policy.role(bench.pseudonym(old))
    policy = None
    if role is not Role.MEMBER:
        policy = bench.state.policy.policy.with_role(bench.pseudonym(new), role)
    bench.settle(old, bench.stage(old, add=[package], policy=policy), [new])
    departure = bench.rooms[old].departure()
    bench.commit(new, departures=[departure])


@pytest.mark.parametrize("identities", list(Identities))
@pytest.mark.parametrize("who", ["alice", "bob"])
def test_member_and_admin_change_their_pseudonym(identities: Identities, who: str) -> None:
    bench = RoomBench(world=WORLD, identities=identities)
    bench.commit("alice", add=["bob", "cathy"])
    before = bench.pseudonym(who)
    rotate(bench, who, f"{who}-again")
    bench.check_agreement()
    after = bench.pseudonym(f"{who}-again")
    users = {member.user for member in bench.state.members.values()}
    assert after in users
    assert before not in users
    policy = bench.state.policy.policy
    admin = bench.pseudonym("alice-again" if who == "alice" else "alice")
    assert [entry.user_pseudonym for entry in policy.roles] == [admin]
    assert all(room.problems == {} for room in bench.rooms.values())
    sent = bench.rooms[f"{who}-again"].encrypt(Content.text("still me")).app_message
    assert bench.read("cathy", sent)[1].body == b"still me"
    bench.commit(f"{who}-again", add=["dave"])
    bench.check_agreement()


def test_nothing_of_the_new_leaf_is_the_old_ones() -> None:
    bench = RoomBench(world=WORLD, identities=Identities.NOBODY)
    bench.commit("alice", add=["bob"])
    old = next(member for member in bench.state.members.values() if member.user == bench.pseudonym("bob"))
    rotate(bench, "bob", "bob-again")
    new = next(
        member for member in bench.state.members.values() if member.user == bench.pseudonym("bob-again")
    )
    for name in ("user", "client", "signature_key", "identity", "queue"):
        assert getattr(old, name) != getattr(new, name)


def test_an_admin_that_handed_its_role_over_rules_through_the_new_leaf() -> None:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob"])
    rotate(bench, "alice", "alice-again")
    policy = next_policy(bench.state.policy, may_add=Role.ADMIN)
    with bench.refused_by_hub(NotAllowed):
        bench.hub_takes(bench.stage("bob", policy=policy).request)
    bench.rooms["bob"]._local.group._waiting.reject()
    bench.commit("alice-again", policy=policy)
    bench.commit("alice-again", remove=["bob"])
    bench.check_agreement()


def test_a_rotation_goes_on_after_a_restart_of_either_leaf() -> None:
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob"])
    the_same_person(bench, "bob", "bob-again")
    pending = bench.stage("bob", add=["bob-again"])
    again = bench.restart("bob", bench.at_rest("bob", pending))
    assert again is not None
    bench.settle("bob", again, ["bob-again"])
    departure = bench.rooms["bob"].departure()
    pending = bench.stage("bob-again", departures=[departure])
    again = bench.restart("bob-again", bench.at_rest("bob-again", pending))
    assert again is not None
    bench.settle("bob-again", again)
    assert bench.rooms.keys() == {"alice", "bob-again"}
    bench.check_agreement()


def test_who_may_not_add_stays_who_it_is() -> None:
    """A fresh pseudonym is a newcomer to the hub: it can't tell that the same person is behind it."""
    bench = RoomBench(world=WORLD)
    bench.commit("alice", add=["bob"])
    bench.commit("alice", policy=next_policy(bench.state.policy, may_add=Role.ADMIN))
    the_same_person(bench, "bob", "bob-again")
    pending = bench.stage("bob", add=["bob-again"])
    with bench.refused_by_hub(NotAllowed, "adding needs the role ADMIN"):
        bench.hub_takes(pending.request)
