"""The members-only state against a hub that strips, swaps or rolls it back, and a member who seals it badly."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from mimi_mmr.errors import Desynchronised, NotAllowed, StateRejected, TreeMismatch, WrongSigner
from mimi_mmr.hub.mode import AcceptedCommit
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.events import CommitEvent, EventKind, WelcomeEvent
from mimi_mmr.protocol.room.members_only import MembersOnlyState, StateSecret, seal_state
from mimi_mmr.protocol.room.policy import Identities
from mimi_mmr.protocol.room.requests import UpdateRequest
from tests.mimi_mmr.bench import RoomBench
from treewrap import Blank, LeafSecret, RoomSecret, Set, SetRoomSecret

TEA = MembersOnlyState(name="Tea")


@pytest.fixture
def tea(bench: RoomBench) -> RoomBench:
    bench.commit("alice", state=TEA)
    return bench


def event_of(accepted: AcceptedCommit) -> CommitEvent:
    return CommitEvent.from_bytes(
        next(item.event for item in accepted.events if item.kind is EventKind.COMMIT)
    )


def other(bench: RoomBench) -> bytes:
    """A state that a malicious member and the hub sealed together, under the secret that members hold."""
    secret = bench.rooms["cathy"]._local.tree.room_secret("state").reveal()
    return seal_state(MembersOnlyState(name="Coffee"), StateSecret(secret), bench.uri, bench.state.epoch + 1)


# --- the hub -----------------------------------------------------------------------------------------


def test_a_hub_that_strips_or_swaps_the_state_is_refused(tea: RoomBench) -> None:
    old, forged = tea.state.sealed_state, other(tea)
    pending = tea.stage("alice", state=replace(TEA, topic="Thursdays"))
    event = event_of(tea.accept(pending.request))
    bob = tea.rooms["bob"]
    for sealed_state in (None, old, forged, b"", (event.room_state or b"")[:-1]):
        with pytest.raises(Desynchronised, match="another members-only state"):
            bob.follow(replace(event, room_state=sealed_state), tea.now)
        assert bob.members_only.state == TEA
    assert bob.follow(event, tea.now).problems == ()
    assert bob.members_only.state.topic == "Thursdays"


def test_a_hub_that_slips_a_state_into_a_commit_without_one_is_refused(tea: RoomBench) -> None:
    event = event_of(tea.accept(tea.stage("alice").request))
    with pytest.raises(Desynchronised, match="another members-only state"):
        tea.rooms["bob"].follow(replace(event, room_state=other(tea)), tea.now)


def test_a_joiner_is_given_the_state_that_its_inviter_signed(tea: RoomBench) -> None:
    tea.commit("alice", state=replace(TEA, topic="Thursdays"))
    forged, old = other(tea), tea.snapshots[-2].room_state
    pending = tea.stage("alice", add=["dave"])
    accepted = tea.accept(pending.request)
    welcome = WelcomeEvent.from_bytes(
        next(item.event for item in accepted.events if item.kind is EventKind.WELCOME)
    )
    snapshot = tea.snapshots[-1]
    for sealed_state in (None, old, forged):
        with pytest.raises(Desynchronised, match="members-only state"):
            tea.join("dave", welcome, replace(snapshot, room_state=sealed_state))
    assert tea.join("dave", welcome, snapshot).members_only.state.topic == "Thursdays"


# --- a member ----------------------------------------------------------------------------------------


def test_the_hub_takes_no_removal_without_the_state_sealed_anew(tea: RoomBench) -> None:
    pending = tea.stage("alice", remove=["bob"])
    stripped = tea.resign(pending.request, "alice", room_state=None)
    with tea.refused_by_hub(TreeMismatch, "sealed anew"):
        tea.hub_takes(stripped)


def test_the_hub_takes_no_state_but_the_signed_one(tea: RoomBench) -> None:
    request = tea.stage("alice", state=replace(TEA, topic="Thursdays")).request
    for sealed_state in (None, other(tea)):
        with tea.refused_by_hub(NotAllowed, "another members-only state"):
            tea.hub_takes(replace(request, room_state=sealed_state))
    with tea.refused_by_hub(WrongSigner):
        content = replace(request.auth.content, room_state_hash=bytes(32))
        tea.hub_takes(replace(request, auth=replace(request.auth, content=content)))


def spread(bench: RoomBench, request: UpdateRequest, pending: PendingCommit) -> dict[str, tuple[str, ...]]:
    """The hub can't know better, and takes it; what each member makes of it."""
    accepted = bench.accept(request)
    pending.accept()
    followed = bench.deliver(accepted.events)
    return {name: done.problems for name, done in followed.items() if not done.removed_self}


def test_a_state_under_no_secret_of_the_room_is_noticed_and_sealed_anew_by_the_next(tea: RoomBench) -> None:
    pending = tea.stage("cathy", state=replace(TEA, topic="Thursdays"))
    useless = seal_state(TEA, StateSecret.generate(), tea.uri, tea.state.epoch + 1)
    request = tea.resign(pending.request, "cathy", room_state=useless)
    problems = spread(tea, request, replace(pending, request=request))
    assert problems.keys() == {"alice", "bob"}
    for said in problems.values():
        assert said == ("leaf 2: the members-only state does not open under the room's secret",)
    assert tea.rooms["bob"].members_only.state == TEA
    tea.commit("bob", add=["dave"])
    assert tea.rooms["dave"].members_only.state == TEA
    assert tea.rooms["alice"].members_only.state == TEA


def removing_cathy(bench: RoomBench, *, keep: bool, seal: bool) -> dict[str, tuple[str, ...]]:
    """Alice removes Cathy, and the secret that Cathy knows stays in the tree, or the state under it, or both."""
    alice = bench.rooms["alice"]
    old = alice._local.tree.room_secret("state").reveal()
    pending = bench.stage("alice", remove=["cathy"])
    changes = [Blank(2), SetRoomSecret("policy", alice._local.tree.room_secret("policy"))]
    changes += [SetRoomSecret("state", RoomSecret(old))] if keep else []
    staged = bench.forge_tree("alice", pending, changes)
    sealed = seal_state(TEA, StateSecret(old), bench.uri, bench.state.epoch + 1)
    request = bench.resign(
        pending.request,
        "alice",
        tree_update=staged.update.to_bytes(),
        member_update=staged.member_update.to_bytes(),
        tree_hash=staged.tree_hash,
        room_state=sealed if seal else None,
    )
    if seal:
        return spread(bench, request, replace(pending, request=request, _tree=staged))
    parts = request.auth, request.commit, request.member_update, request.policy
    followed = bench.rooms["bob"].follow(CommitEvent(*parts), bench.now)  # from a hub that helps her
    return {"bob": followed.problems}


@pytest.mark.parametrize("seal", [True, False])
@pytest.mark.parametrize("keep", [True, False])
def test_a_removal_that_leaves_the_state_to_the_old_secret_is_noticed(
    tea: RoomBench, keep: bool, seal: bool
) -> None:
    why = "is under a secret that was used before" if keep else "does not open under the room's secret"
    assert removing_cathy(tea, keep=keep, seal=seal) == {"bob": (f"leaf 0: the members-only state {why}",)}
    bob = tea.rooms["bob"]
    assert bob.members_only.state == TEA
    if seal:
        bob.adopt(tea.snapshots[-1])  # the hub's tree does not make it better
    tea.restart("bob")
    bob = tea.rooms["bob"]
    mended = bob.stage(
        CommitIntent(), time.time()
    ).request  # the next commit of an honest member puts it right
    assert mended.room_state is not None


def test_a_removed_member_with_the_hub_reads_no_later_state(tea: RoomBench) -> None:
    cathy = tea.rooms["cathy"]
    tea.commit("alice", remove=["cathy"])
    tea.commit("bob", state=replace(TEA, topic="without Cathy"))
    for snapshot in tea.snapshots[-2:]:
        with pytest.raises(StateRejected):
            cathy.members_only.open(snapshot.room_state or b"")


def test_a_member_can_not_show_another_ones_identity(bench: RoomBench) -> None:
    hidden = RoomBench(world=bench.world, identities=Identities.NOBODY)
    hidden.commit("alice", add=["bob", "cathy"])
    ilk = hidden.leaves["bob"].ilk.reveal()
    pending = hidden.stage("cathy")
    request = hidden.with_changes("cathy", pending, [Set(1, LeafSecret(ilk))])
    with hidden.refused_by_hub(TreeMismatch, "at leaf 1"):
        hidden.hub_takes(request)


def test_messages_go_on_whatever_is_wrong_with_the_state(tea: RoomBench) -> None:
    pending = tea.stage("cathy", state=TEA)
    request = tea.resign(pending.request, "cathy", room_state=b"nonsense")
    assert all(spread(tea, request, replace(pending, request=request)).values())
    sent = tea.rooms["cathy"].encrypt(Content.text("still here")).app_message
    assert tea.read("alice", sent)[1].body == b"still here"
    tea.commit("alice")
    tea.check_agreement()
