"""A hub alone makes a group with the room's URI, and a Welcome to it for a KeyPackage that it has seen.

Everything in such a Welcome is of the hub's making: the adder's key in the ratchet tree, the policy, the
signatures. What it can't make is the proof that its maker has the KeyPackage's identity link key.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mimi_mmr.crypto.signing import expand_with_label, key_package_ref
from mimi_mmr.errors import InvalidCommit, RoomError, WelcomeRejected
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.key_packages import NamelessKeyPackage, OpenKeyPackage
from mimi_mmr.protocol.room.events import EventKind, WelcomeEvent
from mimi_mmr.protocol.room.policy import Identities
from mimi_mmr.protocol.room.welcome_proofs import WelcomeProof, check_welcome, prove_welcome
from tests.mimi_mmr.bench import RoomBench, World, welcome_event

WORLD = World()
MODES = list(Identities)


def of_the_hub(
    victim: RoomBench, package: OpenKeyPackage, identities: Identities
) -> tuple[RoomBench, WelcomeEvent]:
    """A group of the hub's own, with a leaf under a certificate of its CA, that has added a KeyPackage it has seen.

    The hub guesses the identity link key.
    """
    hub = RoomBench("nobody", identities, world=victim.world)
    assert hub.uri == victim.uri
    seen = OpenKeyPackage(package.key_package, bytes(32))
    pending = hub.rooms["nobody"].stage(CommitIntent((seen,)), time.time())
    hub.accept(pending.request)
    pending.accept()
    return hub, welcome_event(pending.request)


@pytest.mark.parametrize("shown", MODES)
@pytest.mark.parametrize("real", MODES)
def test_a_hub_alone_brings_nobody_into_a_room_of_its_own(real: Identities, shown: Identities) -> None:
    bench = RoomBench(world=WORLD, identities=real)
    package = bench.package("dave")
    hub, forged = of_the_hub(bench, package, shown)
    proofs = [
        forged.proofs,
        (),
        tuple(WelcomeProof(key_package_ref(package.key_package), bytes(32)) for _ in range(2)),
        (replace(forged.proofs[0], key_package_ref=bytes(32)),),
    ]
    for tried in proofs:
        with pytest.raises(WelcomeRejected, match="proof"):
            bench.join("dave", replace(forged, proofs=tried), hub.snapshots[-1])
    # The control: nothing else is wrong with that Welcome. And the real one still comes.
    assert bench.join("dave", bench.proven(forged, "dave"), hub.snapshots[-1]).uri == bench.uri


def test_the_real_welcome_comes_after_a_forged_one() -> None:
    bench = RoomBench(world=WORLD)
    package = bench.package("dave")
    hub, forged = of_the_hub(bench, package, Identities.NOBODY)
    with pytest.raises(WelcomeRejected):
        bench.join("dave", forged, hub.snapshots[-1])
    bench.settle("alice", bench.stage("alice", add=[package]), ["dave"])
    bench.check_agreement()


def test_a_proof_is_for_one_key_package_and_one_commit() -> None:
    """A hub that has seen a proof can use it for nothing else, not even for another commit of the same adder."""
    bench = RoomBench(world=WORLD)
    package = bench.package("dave")
    other = bench.stage("alice", add=[package])
    seen = welcome_event(other.request)
    other.reject()
    hub, forged = of_the_hub(bench, package, Identities.EVERYONE)
    with pytest.raises(WelcomeRejected, match="proof is wrong"):
        bench.join("dave", replace(forged, proofs=seen.proofs), hub.snapshots[-1])
    for changes in ({"epoch": 7}, {"commit_hash": bytes(32)}, {"policy_hash": bytes(32)}, {"sender": 5}):
        content = replace(seen.auth.content, **changes)
        with pytest.raises(WelcomeRejected):
            check_welcome(seen.proofs, bench.packages["dave"].ref, package.welcome_key, content)
    check_welcome(seen.proofs, bench.packages["dave"].ref, package.welcome_key, seen.auth.content)


@pytest.mark.parametrize("identities", MODES)
def test_whoever_comes_by_a_link_takes_no_welcome_but_a_members(identities: Identities) -> None:
    bench = RoomBench(world=WORLD, identities=identities)
    bench.commit("alice", add=["bob"])
    request = bench.knock(bench.ask(bench.make_link("alice"), "erin"))
    package = bench.packages["erin"].open
    hub, forged = of_the_hub(bench, package, Identities.NOBODY)
    with pytest.raises(WelcomeRejected, match="proof is wrong"):
        bench.join("erin", forged, hub.snapshots[-1])
    bench.let_in("bob", request, "erin")
    bench.check_agreement()


def test_the_hub_passes_on_a_proof_for_each_added_client_and_no_other() -> None:
    bench = RoomBench(world=WORLD)
    pending = bench.stage("alice", add=["bob", "cathy"])
    first, second = pending.request.welcome_proofs
    strange = replace(second, key_package_ref=bytes(32))
    for proofs in ((), (first,), (first, first), (first, second, first), (first, strange)):
        with bench.refused_by_hub(InvalidCommit, "proofs are not for exactly the KeyPackages"):
            bench.hub_takes(replace(pending.request, welcome_proofs=proofs))
    bench.settle("alice", pending, ["bob", "cathy"])
    healing = bench.stage("bob")
    with bench.refused_by_hub(InvalidCommit, "proofs are not for exactly"):
        bench.hub_takes(replace(healing.request, welcome_proofs=(first,)))
    event = bench.settle("bob", healing).accepted.events[0]
    assert event.kind is EventKind.COMMIT


def test_the_key_of_a_proof_gives_no_name_away_and_is_of_one_key_package() -> None:
    bench = RoomBench(world=WORLD, identities=Identities.NOBODY)
    package = bench.package("dave")
    nameless = package.without_name()
    assert isinstance(nameless, NamelessKeyPackage)
    assert nameless.welcome_key == package.welcome_key == bench.packages["dave"].welcome_key
    assert package.identity_link_key not in nameless.to_bytes()
    ref = key_package_ref(package.key_package)
    assert nameless.key == expand_with_label(package.ilk, "welcome", ref)
    assert nameless.key != expand_with_label(package.ilk, "welcome", bytes(32))
    content = bench.stage("alice").request.auth.content
    assert prove_welcome([nameless], content) == prove_welcome([package], content)


def test_a_room_that_shows_names_adds_nobody_without_one() -> None:
    bench = RoomBench(world=WORLD)
    nameless = bench.package("dave").without_name()
    with pytest.raises(RoomError, match="without its identity link key"):
        bench.rooms["alice"].stage(CommitIntent((nameless,)), time.time())
    bench.commit("alice", add=["bob"])
