"""Malicious member: what it puts into the tree for others is seen for what it is; nobody is lost over it."""

from __future__ import annotations

import hmac
from dataclasses import replace

import pytest

from mimi_mmr.errors import Desynchronised, EngineError, LinkRejected, TreeMismatch
from mimi_mmr.member.committing import PendingCommit
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.member.whois import Standing
from mimi_mmr.mls.wire import KeyPackage
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.room.events import CommitEvent, EventKind, WelcomeEvent
from mimi_mmr.protocol.room.members_only import MembersOnlyState
from mimi_mmr.protocol.room.requests import UpdateRequest
from tests.mimi_mmr.bench import RoomBench
from tests.treewrap.treewrap_world import expand, vector
from treewrap import AddLink, Blank, EpochSecret, LeafSecret, Link, LinkKey, MemberUpdate, Set, TreeUpdate

EVIL = LeafSecret(b"\x66" * 32)


def spread(bench: RoomBench, pending: PendingCommit, request: UpdateRequest) -> dict[str, tuple[str, ...]]:
    """The hub accepts, the others follow; what each of them found wrong."""
    accepted = bench.accept(request)
    pending.accept()
    return {name: followed.problems for name, followed in bench.deliver(accepted.events).items()}


def test_a_wrong_link_key_shows_the_leaf_as_unverified_to_everybody(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    problems = spread(bench, pending, bench.with_changes("bob", pending, [Set(3, EVIL)]))
    assert problems == {"alice": (), "cathy": ()}  # it is a sound update; what is wrong is the key
    for name in ("alice", "cathy"):
        entries = {entry.leaf: entry for entry in bench.rooms[name].who(bench.world.trust, bench.now)}
        assert entries.keys() == {0, 1, 2, 3}
        assert entries[3].standing is Standing.UNVERIFIED
        assert "leaf 3: the identity link does not open with this key" in entries[3].why
        assert entries[3].user == bench.pseudonym("dave")
        assert bench.names(name) == {0: "alice", 1: "bob", 2: "cathy", 3: "?"}
        with pytest.raises(LinkRejected, match="leaf 3: "):
            bench.rooms[name].resolve(3, bench.world.trust, bench.now)
    assert bench.rooms["dave"].problems == {3: "whoever added this client set a wrong identity link key"}
    assert bench.names("dave")[0] == "alice"


def test_the_link_key_of_another_leaf_shows_neither_as_the_other(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave", "erin"])
    keys = {name: LeafSecret(bench.leaves[name].ilk.reveal()) for name in ("dave", "erin")}
    spread(bench, pending, bench.with_changes("bob", pending, [Set(3, keys["erin"]), Set(4, keys["dave"])]))
    assert bench.names("alice") == {0: "alice", 1: "bob", 2: "cathy", 3: "?", 4: "?"}


def garbled(bench: RoomBench, pending: PendingCommit) -> UpdateRequest:
    """Bob adds Dave, and gives the others a wrapped key that does not open, under a right confirmation tag."""
    sent = pending.request.member_update or b""
    update = MemberUpdate.from_bytes(sent)
    (leaf,) = update.leaves
    content = sent[:-32].replace(leaf.wrapped, bytes(len(leaf.wrapped)))
    context = vector(bench.state.group_id) + update.header.salt
    key = expand(bench.epoch_secret("bob", pending).reveal(), b"confirm", context)
    assert hmac.digest(key, sent[:-32], "sha256") == sent[-32:]
    confirmed = content + hmac.digest(key, content, "sha256")
    return bench.resign(pending.request, "bob", member_update=confirmed)


def test_a_wrapped_key_that_does_not_open_shows_the_leaf_as_unverified(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    problems = spread(bench, pending, garbled(bench, pending))
    for name in ("alice", "cathy"):
        assert any("leaf 3" in problem for problem in problems[name])
        entry = next(one for one in bench.rooms[name].who(bench.world.trust, bench.now) if one.leaf == 3)
        assert entry.standing is Standing.UNVERIFIED
        assert entry.why.startswith("leaf 3: its identity link key is missing")
        assert bench.names(name) == {0: "alice", 1: "bob", 2: "cathy", 3: "?"}


def test_the_group_goes_on_after_a_bad_update(bench: RoomBench) -> None:
    """Messages pass, and the one who was wronged is still there."""
    pending = bench.stage("bob", add=["dave"])
    spread(bench, pending, garbled(bench, pending))
    sent = bench.rooms["dave"].encrypt(Content.text("hello")).app_message
    for name in ("alice", "bob", "cathy"):
        assert bench.read(name, sent) == (3, Content.text("hello"))


def test_a_link_that_a_member_plants_in_the_tree_ends_with_the_next_commit_and_stops_none(
    bench: RoomBench,
) -> None:
    """Rooms have no links there; the hub, the newcomer and who adopts have this one, of an hour."""
    key = LinkKey.generate()
    link = Link(bytes(16), key.kem, key.public_key, 1, int(bench.now) + 3600, 1)
    pending = bench.stage("bob", add=["dave"])
    dave = Set(3, LeafSecret(bench.leaves["dave"].ilk.reveal()))
    request = bench.with_changes("bob", pending, [dave, AddLink(link)])
    with bench.refused_by_hub(TreeMismatch, "seals the root to join links"):
        bench.accept(request)
    hidden = replace(TreeUpdate.from_bytes(request.tree_update or b""), seals=()).to_bytes()
    problems = spread(bench, pending, bench.resign(request, "bob", tree_update=hidden))
    for name in ("alice", "cathy"):
        assert any("link" in problem for problem in problems[name])
        bench.rooms[name].adopt(bench.snapshots[-1])
    assert [live.link.id for live in bench.rooms["alice"]._local.tree.links()] == [link.id]
    done = bench.settle("alice", bench.stage("alice", add=["erin"]), ["erin"])
    assert all(followed.problems == () for who, followed in done.followed.items() if who != "bob")
    assert bench.rooms["alice"]._local.tree.links() == ()


def test_a_member_update_under_a_wrong_tag_is_told_and_changes_no_names(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    update = pending.request.member_update or b""
    request = bench.resign(pending.request, "bob", member_update=update[:-1] + bytes([update[-1] ^ 1]))
    problems = spread(bench, pending, request)
    for name in ("alice", "cathy"):
        assert any("Tree Wrap update" in problem for problem in problems[name])
        assert bench.names(name) == {0: "alice", 1: "bob", 2: "cathy", 3: "?"}


def test_a_member_update_that_is_not_the_hubs_is_told(bench: RoomBench) -> None:
    """To the hub Bob adds Dave; to the members he also blanks Alice. They see it, and Alice does not vanish."""
    pending = bench.stage("bob", add=["dave"])
    dave = Set(3, LeafSecret(bench.leaves["dave"].ilk.reveal()))
    other = bench.forge_tree("bob", pending, [dave, Blank(0)])
    request = bench.resign(pending.request, "bob", member_update=other.member_update.to_bytes())
    with bench.refused_by_hub(TreeMismatch, "other changes than the hub's"):
        bench.hub_takes(request)
    event = CommitEvent(request.auth, request.commit, request.member_update, request.policy)
    for name in ("alice", "cathy"):  # from a hub that is in league with Bob
        problems = bench.rooms[name].follow(event, bench.now).problems
        assert any("leaf 0: the Tree Wrap update does not match" in problem for problem in problems)
        assert any("tree hash" in problem for problem in problems)
        assert bench.names(name)[0] == "?"


@pytest.mark.parametrize("told", [None, b"", b"x"])
def test_the_hub_takes_no_tree_update_without_the_members(bench: RoomBench, told: bytes | None) -> None:
    pending = bench.stage("bob", add=["dave"])
    request = bench.resign(pending.request, "bob", member_update=told)
    with bench.refused_by_hub(TreeMismatch):
        bench.hub_takes(request)


def test_a_member_who_hides_its_own_name_is_not_taken_for_hidden_by_policy(bench: RoomBench) -> None:
    """A leaf is its owner's to change; where the policy wants names, its absence is said."""
    pending = bench.stage("bob")
    request = bench.with_changes("bob", pending, [Blank(1)])
    pending.reject()
    pending = bench.stage("bob")
    request = bench.with_changes("bob", pending, [Blank(1)])
    assert bench.hub_takes(request)
    spread(bench, pending, request)
    assert bench.names("alice") == {0: "alice", 1: "?", 2: "cathy"}


def test_a_leafs_queue_can_not_be_given_to_another_leaf(bench: RoomBench) -> None:
    """What the hub sends out is bound to the leaf's own key: whoever copies an address gets nothing by it."""
    done = bench.commit("alice")
    deliveries = [one for event in done.accepted.events for one in event.deliveries]
    assert len({one.leaf_binding for one in deliveries}) == len(deliveries) == 2
    assert len({one.encrypted_queue_id.ciphertext for one in deliveries}) == 2


def test_events_of_the_committer_go_to_everybody_but_it(bench: RoomBench) -> None:
    done = bench.commit("bob", add=["dave"])
    assert {event.kind for event in done.accepted.events} == {EventKind.COMMIT, EventKind.WELCOME}
    assert done.followed.keys() == {"alice", "cathy"}
    welcome = WelcomeEvent.from_bytes(done.event(EventKind.WELCOME))
    assert welcome.auth == CommitEvent.from_bytes(done.event(EventKind.COMMIT)).auth


def test_members_take_over_the_hubs_tree_if_it_shows_everybody_as_before(bench: RoomBench) -> None:
    """Bob gives the members another update than the hub: nobody is stuck, and Dave is known after all."""
    pending = bench.stage("bob", add=["dave"])
    spread(bench, pending, garbled(bench, pending))
    for name in ("alice", "cathy"):
        room = bench.rooms[name]
        assert room.diverged
        with pytest.raises(Desynchronised, match="epoch"):
            room.adopt(bench.snapshots[0])
        room.adopt(bench.snapshots[-1])
        assert not room.diverged
    bench.commit("cathy")
    bench.check_agreement()


def test_a_tree_that_shows_somebody_otherwise_is_sealed_anew_by_the_next_commit(bench: RoomBench) -> None:
    """Bob has his own tree sealed anew, with another key at Alice's leaf: the others keep theirs, and say so."""
    bob = bench.rooms["bob"]
    bob._local.tree.stage([Set(0, EVIL)], epoch=bob.epoch, epoch_secret=EpochSecret(bytes(32))).commit()
    pending = bench.stage("bob")
    problems = spread(bench, pending, pending.request)
    for name in ("alice", "cathy"):
        assert problems[name]
        assert bench.rooms[name].diverged
        assert bench.names(name) == {0: "alice", 1: "bob", 2: "cathy"}
    with pytest.raises(Desynchronised, match="leaf 0"):
        bench.rooms["cathy"].adopt(bench.snapshots[-1])
    bench.commit("cathy")
    for name in ("alice", "cathy"):
        assert not bench.rooms[name].diverged
    bench.commit("alice", add=["dave"])
    assert bench.names("dave") == {0: "alice", 1: "bob", 2: "cathy", 3: "dave"}


def test_a_member_whose_link_key_was_set_wrong_sets_it_right_with_its_next_commit(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    spread(bench, pending, bench.with_changes("bob", pending, [Set(3, EVIL)]))
    assert bench.names("alice")[3] == "?"
    bench.commit("dave")
    assert bench.names("alice")[3] == "dave"
    bench.check_agreement()


def test_a_tree_that_is_not_the_hubs_survives_its_members_process(bench: RoomBench) -> None:
    """Cathy's process ends while her tree differs from the hub's, and again with the repair on its way."""
    bob = bench.rooms["bob"]
    bob._local.tree.stage([Set(0, EVIL)], epoch=bob.epoch, epoch_secret=EpochSecret(bytes(32))).commit()
    pending = bench.stage("bob")
    spread(bench, pending, pending.request)
    bench.restart("cathy")
    assert bench.rooms["cathy"].diverged
    assert bench.names("cathy") == {0: "alice", 1: "bob", 2: "cathy"}
    repair = bench.stage("cathy")
    again = bench.restart("cathy", bench.at_rest("cathy", repair))
    assert again is not None
    bench.settle("cathy", again)
    assert not bench.rooms["cathy"].diverged
    assert {bench.rooms[name].tree_hash for name in ("alice", "cathy")} == {bench.state.wrap.tree_hash}


def test_a_secret_of_the_state_that_members_never_got_comes_with_the_hubs_tree(bench: RoomBench) -> None:
    """Bob names the room, and gives the members a wrapped secret that does not open."""
    pending = bench.stage("bob", state=MembersOnlyState(name="Tea"))
    sent = pending.request.member_update or b""
    update = MemberUpdate.from_bytes(sent)
    (wrapped,) = update.rooms
    content = sent[:-32].replace(wrapped, bytes(len(wrapped)))
    context = vector(bench.state.group_id) + update.header.salt
    key = expand(bench.epoch_secret("bob", pending).reveal(), b"confirm", context)
    confirmed = content + hmac.digest(key, content, "sha256")
    problems = spread(bench, pending, bench.resign(pending.request, "bob", member_update=confirmed))
    for name in ("alice", "cathy"):
        room = bench.rooms[name]
        assert any("members-only state" in problem for problem in problems[name])
        assert room.members_only.state == MembersOnlyState()
        room.adopt(bench.snapshots[-1])
        assert room.members_only.state.name == "Tea"
    bench.commit("cathy")
    bench.check_agreement()
    bench.commit("alice", add=["dave"])
    assert bench.rooms["dave"].members_only.state.name == "Tea"


def test_a_commit_that_nobody_can_process_is_not_waited_for(bench: RoomBench) -> None:
    """It also adds a KeyPackage of the near future. The engine refuses it for another reason, and for good."""
    package = bench.package("dave")
    begins = KeyPackage.from_bytes(package.key_package).leaf_node.lifetime
    assert begins is not None
    pending = bench.rooms["bob"].stage(CommitIntent((package,)), begins[0])
    bench.world.now = begins[0] - 3500.0
    commit = bytearray(pending.request.commit)
    commit[-5] ^= 1  # in a tag that the hub can't check
    request = bench.resign(pending.request, "bob", commit=bytes(commit))
    event = CommitEvent.from_bytes(bench.accept(request).events[0].event)
    for name in ("alice", "cathy"):
        with pytest.raises(EngineError):
            bench.rooms[name].follow(event, bench.now)
