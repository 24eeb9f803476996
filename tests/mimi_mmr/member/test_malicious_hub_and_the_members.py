"""Malicious hub: what no member signed, a member does not believe, and stays where it is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    Desynchronised,
    EngineError,
    HubRefusal,
    MmrError,
    NotAllowed,
    ParseError,
    PseudonymProofRejected,
    RemovedFromRoom,
    RoomError,
    WelcomeRejected,
    WrongSigner,
)
from mimi_mmr.hub.mode import SNAPSHOT_CLOCK_SKEW
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.room import Room
from mimi_mmr.member.whois import Standing
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import parse_application
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.credentials import LeafIdentity, make_credential
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.queues import queue_id, seal_queue_id
from mimi_mmr.protocol.room.events import CommitEvent, EventKind, ReportEvent, WelcomeEvent
from mimi_mmr.protocol.room.policy import Identities, Role, RoleAssignment, sign_policy
from mimi_mmr.protocol.room.requests import (
    CommitReport,
    CommitReportTBS,
    RepairKind,
    Snapshot,
    SnapshotRequest,
    SnapshotTBS,
    digest,
    sign_report,
    sign_snapshot,
)
from mimi_mmr.uris import MimiUri
from tests.mimi_mmr.bench import DAY, ENGINE, Committed, RoomBench, next_policy, welcome_event


def fingerprint(room: Room) -> tuple[Any, ...]:
    return (
        room.epoch,
        room.tree_hash,
        room.policy,
        room._local.group.ratchet_tree(),
        dict(room.problems),
        room.removed,
    )


@contextmanager
def refused_by_member(room: Room, error: type[MmrError], match: str) -> Iterator[None]:
    """The member refuses what happens inside, for this reason, and is what it was."""
    before = fingerprint(room)
    with pytest.raises(error, match=match) as refusal:
        yield
    assert type(refusal.value) is error
    assert fingerprint(room) == before


def commit_event(done: Committed) -> CommitEvent:
    return CommitEvent.from_bytes(done.event(EventKind.COMMIT))


def withheld(bench: RoomBench, victim: str, sender: str, **changes: Any) -> CommitEvent:
    """An honest commit that everybody but the victim has followed."""
    room = bench.rooms.pop(victim)
    leaf = bench.leaves.pop(victim)
    pending = bench.stage(sender, **changes)
    accepted = bench.accept(pending.request)
    pending.accept()
    bench.leaves[victim] = leaf
    for name, member in bench.rooms.items():
        if name != sender:
            member.follow(CommitEvent.from_bytes(accepted.events[0].event), bench.now)
    bench.rooms[victim] = room
    return CommitEvent.from_bytes(accepted.events[0].event)


# --- commits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["commit", "member_update"])
def test_a_swapped_part_of_a_commit_is_refused(bench: RoomBench, part: str) -> None:
    other = commit_event(bench.commit("alice", policy=next_policy(bench.state.policy)))
    event = withheld(bench, "bob", "alice", policy=next_policy(bench.state.policy))
    swaps = [getattr(other, part), getattr(event, part)[:-1], None if part == "member_update" else b""]
    for swap in swaps:
        with refused_by_member(bench.rooms["bob"], WrongSigner, "not the one that its committer signed"):
            bench.rooms["bob"].follow(replace(event, **{part: swap}), bench.now)
    bench.rooms["bob"].follow(event, bench.now)
    bench.check_agreement()


def test_a_commit_that_its_sender_did_not_sign_is_refused(bench: RoomBench) -> None:
    event = withheld(bench, "bob", "alice")
    bob = bench.rooms["bob"]
    for changes in ({"tree_hash": bytes(32)}, {"sender": bench.leaf_of("cathy")}, {"policy_hash": bytes(32)}):
        forged = replace(event.auth, content=replace(event.auth.content, **changes))
        with refused_by_member(bob, WrongSigner, "not signed by the leaf"):
            bob.follow(replace(event, auth=forged), bench.now)
    nobody = replace(event.auth, content=replace(event.auth.content, sender=77))
    with refused_by_member(bob, WrongSigner, "no member at leaf 77"):
        bob.follow(replace(event, auth=nobody), bench.now)


def test_a_gap_or_a_repetition_is_noticed(bench: RoomBench) -> None:
    bob = bench.rooms["bob"]
    first = withheld(bench, "bob", "alice")
    second = withheld(bench, "bob", "cathy")
    with refused_by_member(bob, Desynchronised, "expected a commit of epoch 2, got one of epoch 3"):
        bob.follow(second, bench.now)
    bob.follow(first, bench.now)
    with refused_by_member(bob, Desynchronised, "expected a commit of epoch 3, got one of epoch 2"):
        bob.follow(first, bench.now)
    bob.follow(second, bench.now)
    bench.check_agreement()


def test_an_event_of_another_room_is_refused(bench: RoomBench) -> None:
    event = withheld(bench, "bob", "alice")
    elsewhere = replace(event.auth.content, room=replace(bench.uri, name="other"))
    moved = replace(event.auth, content=elsewhere)
    with refused_by_member(bench.rooms["bob"], Desynchronised, "expected a commit of epoch"):
        bench.rooms["bob"].follow(replace(event, auth=moved), bench.now)


# --- policy ------------------------------------------------------------------------------------------


def test_another_policy_than_the_committers_is_refused(bench: RoomBench) -> None:
    """One that is left out, and one that is slipped in."""
    bob = bench.rooms["bob"]
    event = withheld(bench, "bob", "alice", policy=next_policy(bench.state.policy, may_add=Role.ADMIN))
    with refused_by_member(bob, Desynchronised, "another policy than the one that the hub sent"):
        bob.follow(replace(event, policy=None), bench.now)
    other = sign_policy(
        next_policy(bob.policy, may_remove=Role.MEMBER), bench.leaf_of("alice"), bench.leaves["alice"].key
    )
    with refused_by_member(bob, Desynchronised, "another policy than the one that the hub sent"):
        bob.follow(replace(event, policy=other), bench.now)
    bob.follow(event, bench.now)


def test_a_hub_that_lets_a_member_make_itself_admin_is_not_obeyed(bench: RoomBench) -> None:
    """Hub and Bob together: Bob signs the policy, the hub spreads it, Cathy and Alice refuse."""
    roles = (RoleAssignment(bench.pseudonym("bob"), Role.ADMIN),)
    pending = bench.stage("bob", policy=next_policy(bench.state.policy, roles=roles))
    request = pending.request
    event = CommitEvent(request.auth, request.commit, request.member_update, request.policy)
    for name in ("alice", "cathy"):
        with refused_by_member(bench.rooms[name], NotAllowed, "somebody who may not"):
            bench.rooms[name].follow(event, bench.now)


@pytest.mark.parametrize("changes", [{"serial": 0}, {"serial": 7}, {"identities": Identities.NOBODY}])
def test_an_admins_policy_that_rolls_back_or_hides_names_is_refused(
    bench: RoomBench, changes: dict[str, Any]
) -> None:
    request = bench.stage("alice", policy=next_policy(bench.state.policy, **changes)).request
    event = CommitEvent(request.auth, request.commit, request.member_update, request.policy)
    with refused_by_member(bench.rooms["bob"], NotAllowed, "not as it may be"):
        bench.rooms["bob"].follow(event, bench.now)


def added_with_the_pseudonym_of(bench: RoomBench, name: str) -> tuple[SigningKey, PendingCommit, Any]:
    """Bob adds leaf 3, with a forged proof that it is of `name`; the hub lets it in, and the others follow."""
    gwen, set_key, key = bench.person("gwen"), SigningKey.generate(), SigningKey.generate()
    credential, ilk = make_credential(gwen, set_key, key, int(bench.now) + DAY)
    credential = replace(credential, user_pseudonym=bench.pseudonym(name))
    queue_key = bench.world.providers["a.example"].queue_key.public
    queue = seal_queue_id("a.example", queue_key, queue_id(AccessToken.generate()), key.public)
    client = ENGINE.client(LeafIdentity(credential, queue).to_bytes(), key)
    pending = bench.stage("bob", add=[OpenKeyPackage(client.key_package(), ilk.reveal())])
    request = pending.request
    event = CommitEvent(request.auth, request.commit, request.member_update, None)
    for other in ("alice", "cathy"):
        followed = bench.rooms[other].follow(event, bench.now)
        assert any("leaf 3" in problem for problem in followed.problems)
        assert {one.leaf for one in bench.rooms[other].who(bench.world.trust, bench.now) if one.why} == {3}
    pending.accept()
    return key, pending, client


def test_a_leaf_that_claims_the_admins_pseudonym_does_not_change_the_policy(bench: RoomBench) -> None:
    """The hub lets in a leaf with a forged proof; everybody is told, and obeys it in nothing."""
    key, pending, client = added_with_the_pseudonym_of(bench, "alice")
    request = pending.request
    group = client.join(request.welcome or b"", pending._mls.ratchet_tree)
    assert group.own_leaf == 3
    staged = group.stage_commit()
    signed = sign_policy(next_policy(bench.state.policy), 3, key)
    forged = replace(
        request.auth.content,
        epoch=3,
        sender=3,
        commit_hash=digest(staged.commit),
        member_update_hash=digest(None),
        policy_hash=signed.policy.hash,
    )
    auth = replace(request.auth, content=forged, signature=key.sign("CommitAuthTBS", forged.to_bytes()))
    hostile = CommitEvent(auth, staged.commit, None, signed)
    for name in ("alice", "bob", "cathy"):
        with refused_by_member(bench.rooms[name], PseudonymProofRejected, "user pseudonym"):
            bench.rooms[name].follow(hostile, bench.now)


def test_a_leaf_that_claims_a_pseudonym_has_no_commit_undone(bench: RoomBench) -> None:
    """Neither by the order of an admin that it is not, nor by the report of a member that it is not."""
    key, _, _ = added_with_the_pseudonym_of(bench, "alice")
    commit = bench.stage("bob").request
    cathy = bench.rooms["cathy"]

    def says(leaf: int, by: SigningKey, kind: RepairKind) -> CommitReport:
        return sign_report(CommitReportTBS(bench.uri, cathy.epoch, leaf, digest(commit.commit), kind), by)

    alice = bench.leaf_of("alice"), bench.leaves["alice"].key
    ground = says(bench.leaf_of("cathy"), bench.leaves["cathy"].key, RepairKind.CANNOT_PROCESS)
    forged = ReportEvent(says(3, key, RepairKind.REOPEN), (ground,), commit.auth, None)
    with refused_by_member(cathy, PseudonymProofRejected, "user pseudonym"):
        cathy.check_undone(forged, commit.commit)
    honest = ReportEvent(says(*alice, RepairKind.REOPEN), (ground,), commit.auth, None)
    cathy.check_undone(honest, commit.commit)  # the control
    with refused_by_member(cathy, PseudonymProofRejected, "user pseudonym"):
        cathy.check_undone(replace(honest, grounds=(says(3, key, RepairKind.CANNOT_PROCESS),)), commit.commit)


def test_a_removal_that_the_policy_forbids_is_told_to_everybody(bench: RoomBench) -> None:
    """Hub and Bob together remove the admin. MLS goes on, and the members know who did it."""
    pending = bench.stage("bob", remove=["alice"])
    request = pending.request
    event = CommitEvent(request.auth, request.commit, request.member_update, None)
    followed = bench.rooms["cathy"].follow(event, bench.now)
    bob = bench.leaf_of("bob")
    assert any(f"leaf {bob} did what it may not do" in problem for problem in followed.problems)
    assert bench.rooms["alice"].follow(event, bench.now).removed_self


# --- joining -----------------------------------------------------------------------------------------


@pytest.fixture
def dave(bench: RoomBench) -> tuple[RoomBench, WelcomeEvent, Snapshot]:
    """Dave's Welcome and the snapshot that belongs to it; nobody has joined with it yet."""
    pending = bench.stage("alice", add=["dave"])
    accepted = bench.accept(pending.request)
    pending.accept()
    bench.deliver([event for event in accepted.events if event.kind is EventKind.COMMIT])
    event = next(one.event for one in accepted.events if one.kind is EventKind.WELCOME)
    return bench, WelcomeEvent.from_bytes(event), bench.snapshots[-1]


Joining = tuple[RoomBench, WelcomeEvent, Snapshot]


def joined(dave: Joining, event: WelcomeEvent | None = None, snapshot: Snapshot | None = None) -> Room:
    bench, honest, whole = dave
    return Room.join(bench.packages["dave"], event or honest, snapshot or whole)


def test_an_honest_snapshot_joins(dave: Joining) -> None:
    bench = dave[0]
    bench.rooms["dave"] = joined(dave)
    bench.check_agreement()


def test_a_stale_tree_is_named_as_such(dave: Joining) -> None:
    bench, _, snapshot = dave
    for old in bench.snapshots[:-1]:
        with pytest.raises(Desynchronised, match=r"Tree Wrap tree: .*epoch"):
            joined(dave, snapshot=replace(snapshot, public_tree=old.public_tree))


def test_a_tree_with_any_byte_changed_is_refused(dave: Joining) -> None:
    whole = dave[2].public_tree
    for at in range(0, len(whole), 5):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(Desynchronised, match="the hub's Tree Wrap tree: "):
            joined(dave, snapshot=replace(dave[2], public_tree=changed))
    for cut in (b"", whole[:-1], whole + b"\0"):
        with pytest.raises(Desynchronised):
            joined(dave, snapshot=replace(dave[2], public_tree=cut))


def test_the_node_that_was_changed_is_named() -> None:
    """In a tree of two levels: level 1, index 1 holds the newcomer."""
    bench = RoomBench(arity=2)
    bench.commit("alice", add=["bob", "cathy"])
    pending = bench.stage("alice", add=["dave"])
    bench.accept(pending.request)
    event = welcome_event(pending.request)
    snapshot = bench.snapshots[-1]
    tag_of_last = snapshot.public_tree[:-1] + bytes([snapshot.public_tree[-1] ^ 1])
    with pytest.raises(Desynchronised, match=r"node \(level 1, index 1\)"):
        bench.join("dave", event, replace(snapshot, public_tree=tag_of_last))


def test_a_tree_rolled_back_in_one_node_is_refused() -> None:
    """The very node of an earlier epoch, whole and once right, in the place where it was."""
    bench = RoomBench(arity=2)
    bench.commit("alice", add=["bob", "cathy"])
    old = bench.state.wrap.to_bytes()
    pending = bench.stage("alice", add=["dave"])
    accepted = bench.accept(pending.request)
    event = welcome_event(pending.request)
    (place, row), *_ = [(at, row) for at, row in accepted.rows.wrap.items() if row and at[0] == 1]
    snapshot = bench.snapshots[-1]
    assert place == (1, 1)
    assert row
    earlier = old[-len(row) + 32 :]  # one slot less
    assert snapshot.public_tree.endswith(row)
    mixed = snapshot.public_tree.removesuffix(row) + earlier
    with pytest.raises(Desynchronised):
        bench.join("dave", event, replace(snapshot, public_tree=mixed))


def test_another_ratchet_tree_is_refused(dave: Joining) -> None:
    bench, _, snapshot = dave
    tree = RatchetTree.from_bytes(snapshot.ratchet_tree)
    swapped = dict(tree.rows)
    swapped[0], swapped[2] = swapped[2], swapped[0]
    hostile = [RatchetTree.from_rows(swapped).to_bytes(), bench.snapshots[-2].ratchet_tree, b""]
    for ratchet in hostile:
        with pytest.raises(EngineError):
            joined(dave, snapshot=replace(snapshot, ratchet_tree=ratchet))


def test_another_policy_in_the_snapshot_is_refused(dave: Joining) -> None:
    bench, _, snapshot = dave
    key = bench.leaves["alice"].key
    loose = sign_policy(replace(snapshot.policy.policy, may_remove=Role.MEMBER), 0, key)
    with pytest.raises(Desynchronised, match="policy is not the one that the committer signed"):
        joined(dave, snapshot=replace(snapshot, policy=loose))


def test_a_welcome_that_the_committer_did_not_sign_is_refused(dave: Joining) -> None:
    bench, event, _ = dave
    content = event.auth.content
    hostile = SigningKey.generate().sign("CommitAuthTBS", content.to_bytes())
    with pytest.raises(WrongSigner, match="not signed by the leaf"):
        joined(dave, replace(event, auth=replace(event.auth, signature=hostile)))
    for changes in ({"sender": bench.leaf_of("bob")}, {"tree_hash": bytes(32)}, {"welcome_hash": bytes(32)}):
        forged = replace(event, auth=replace(event.auth, content=replace(content, **changes)))
        with pytest.raises(WelcomeRejected, match="proof is wrong"):
            joined(dave, forged)
        with pytest.raises(WrongSigner):  # also if somebody helps who has the KeyPackage's link key
            joined(dave, bench.proven(forged, "dave"))
    nobody = replace(event, auth=replace(event.auth, content=replace(content, sender=9)))
    with pytest.raises(WrongSigner, match="no member at leaf 9"):
        joined(dave, bench.proven(nobody, "dave"))


def test_a_welcome_to_another_room_or_epoch_than_signed_is_refused(dave: Joining) -> None:
    bench, event, _ = dave
    alice = bench.leaves["alice"].key
    for changes in ({"room": replace(bench.uri, name="other")}, {"epoch": 7}):
        content = replace(event.auth.content, **changes)
        signature = alice.sign("CommitAuthTBS", content.to_bytes())
        moved = replace(event, auth=replace(event.auth, content=content, signature=signature))
        with pytest.raises(Desynchronised, match="another room or epoch"):
            joined(dave, bench.proven(moved, "dave"))


def test_another_welcome_of_the_same_committer_is_refused(bench: RoomBench) -> None:
    """Made for the same KeyPackage in a commit that was never accepted, with the tree that belongs to it."""
    package = bench.package("dave")
    unused = bench.stage("alice", add=[package])
    welcome, tree = unused.request.welcome or b"", unused._mls.ratchet_tree
    unused.reject()
    pending = bench.stage("alice", add=[package])
    bench.accept(pending.request)
    event = replace(welcome_event(pending.request), welcome=welcome)
    with pytest.raises(WrongSigner, match="Welcome is not the one that its committer signed"):
        bench.join("dave", event, replace(bench.snapshots[-1], ratchet_tree=tree))


def test_a_welcome_that_is_cut_or_changed_is_refused(dave: Joining) -> None:
    event = dave[1]
    with pytest.raises((WrongSigner, EngineError)):
        joined(dave, replace(event, welcome=event.welcome[:-1] + bytes([event.welcome[-1] ^ 1])))
    with pytest.raises(EngineError):
        joined(dave, replace(event, welcome=b""))


def test_a_tree_hash_that_differs_is_refused_though_signed(dave: Joining) -> None:
    """Also a committer's own signature under a wrong hash does not help."""
    bench, event, _ = dave
    content = replace(event.auth.content, tree_hash=bytes(32))
    signature = bench.leaves["alice"].key.sign("CommitAuthTBS", content.to_bytes())
    other = replace(event, auth=replace(event.auth, content=content, signature=signature))
    with pytest.raises(Desynchronised, match="Tree Wrap tree"):
        joined(dave, bench.proven(other, "dave"))


# --- snapshots are for members -----------------------------------------------------------------------


def ask(bench: RoomBench, key: SigningKey, epoch: int, issued: float | None = None) -> SnapshotRequest:
    tbs = SnapshotTBS(bench.uri, epoch, key.public, int(bench.now if issued is None else issued))
    return SnapshotRequest.from_bytes(sign_snapshot(tbs, key).to_bytes())


def test_a_request_for_a_tree_is_fresh_and_signed(bench: RoomBench) -> None:
    bob = bench.leaves["bob"].key
    bench.mode.check_snapshot(bench.uri, ask(bench, bob, 2), bench.now)
    for issued in (bench.now - SNAPSHOT_CLOCK_SKEW - 1, bench.now + SNAPSHOT_CLOCK_SKEW + 2):
        with pytest.raises(NotAllowed, match="too old"):
            bench.mode.check_snapshot(bench.uri, ask(bench, bob, 2, issued), bench.now)
    with pytest.raises(HubRefusal, match="another room"):
        bench.mode.check_snapshot(
            MimiUri(bench.uri.domain, bench.uri.kind, "x"), ask(bench, bob, 2), bench.now
        )
    mine = ask(bench, SigningKey.generate(), 2)
    stolen = replace(mine, content=replace(mine.content, signature_public_key=bob.public))
    with pytest.raises(WrongSigner):
        bench.mode.check_snapshot(bench.uri, stolen, bench.now)


# --- messages ----------------------------------------------------------------------------------------


def test_a_message_comes_from_the_leaf_that_sent_it_and_once(bench: RoomBench) -> None:
    sent = bench.rooms["bob"].encrypt(Content.text("hello")).app_message
    for reader in ("alice", "cathy"):
        assert bench.read(reader, sent) == (bench.leaf_of("bob"), Content.text("hello"))
        for changed in (sent, sent[:-1] + bytes([sent[-1] ^ 1])):
            with pytest.raises(EngineError):
                bench.read(reader, changed)
        for cut in (sent[:-1], b""):
            with pytest.raises(ParseError):
                bench.read(reader, cut)


def test_a_removed_member_reads_and_sends_no_more(bench: RoomBench) -> None:
    bob = bench.rooms["bob"]
    bench.commit("alice", remove=["bob"])
    assert bob.removed
    later = bench.rooms["alice"].encrypt(Content.text("he is gone")).app_message
    with pytest.raises(RemovedFromRoom):
        bob.decrypt(parse_application(later))
    with pytest.raises(RemovedFromRoom):
        bob.encrypt(Content.text("am I?"))
    with pytest.raises(RemovedFromRoom):
        bob.stage(CommitIntent(), time.time())


def test_a_leaf_that_nobody_has_resolves_to_an_error(bench: RoomBench) -> None:
    with pytest.raises(RoomError, match="no member at leaf 40"):
        bench.rooms["bob"].resolve(40, bench.world.trust, bench.now)


def test_an_expired_name_is_shown_as_unverified_and_stays(bench: RoomBench) -> None:
    later = bench.now + 91 * DAY
    entries = bench.rooms["bob"].who(bench.world.trust, later)
    assert [entry.leaf for entry in entries] == [0, 1, 2]
    assert {entry.standing for entry in entries} == {Standing.UNVERIFIED}
    assert all(f"leaf {entry.leaf}: " in entry.why for entry in entries)


def test_a_malformed_event_is_a_parse_error(bench: RoomBench) -> None:
    event = withheld(bench, "bob", "alice")
    nonsense = b"\0" * 40
    signed = replace(event.auth.content, commit_hash=digest(nonsense))
    signature = bench.leaves["alice"].key.sign("CommitAuthTBS", signed.to_bytes())
    hostile = replace(event, auth=replace(event.auth, content=signed, signature=signature), commit=nonsense)
    with refused_by_member(bench.rooms["bob"], ParseError, "MLSMessage"):
        bench.rooms["bob"].follow(hostile, bench.now)
