"""Malicious member: the hub refuses what its role, its leaf or its commit do not allow, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    CredentialExpired,
    EngineError,
    IdentityError,
    InvalidCommit,
    LinkRejected,
    NotAllowed,
    ParseError,
    PseudonymProofRejected,
    SignatureRejected,
    TreeMismatch,
    UnknownSender,
    WrongEpoch,
    WrongSigner,
)
from mimi_mmr.mls.wire import LeafNode, PublicCommit, parse_message
from mimi_mmr.protocol.content import Content
from mimi_mmr.protocol.credentials import LeafIdentity, make_credential
from mimi_mmr.protocol.key_packages import OpenKeyPackage
from mimi_mmr.protocol.queues import queue_id, seal_queue_id
from mimi_mmr.protocol.room.events import EventKind
from mimi_mmr.protocol.room.policy import Identities, Role, RoleAssignment, sign_policy
from mimi_mmr.protocol.room.requests import (
    MAX_APPLICATION,
    SubmitMessageRequest,
    UpdateRequest,
    digest,
    sign_submit,
)
from tests.mimi_mmr.bench import DAY, ENGINE, RoomBench, next_policy
from tests.mimi_mmr.mls.mls_world import leaf_bytes, place_of
from treewrap import Blank, LeafSecret, Rebuild, Set, TreeUpdate

# --- epochs ------------------------------------------------------------------------------------------


def test_a_commit_of_a_past_epoch_is_answered_with_the_current_one(bench: RoomBench) -> None:
    late = bench.stage("bob")
    bench.commit("cathy")
    bench.commit("cathy")
    with bench.refused_by_hub(WrongEpoch, "in epoch 4"):
        try:
            bench.hub_takes(late.request)
        except WrongEpoch as error:
            assert error.current_epoch == bench.state.epoch == 4
            raise


def test_a_commit_of_an_epoch_to_come_is_refused(bench: RoomBench) -> None:
    request = bench.stage("bob").request
    for epoch in (request.auth.content.epoch + 1, 2**64 - 1):
        with bench.refused_by_hub(WrongEpoch):
            bench.hub_takes(bench.resign(request, "bob", epoch=epoch))


def test_a_replayed_commit_is_refused(bench: RoomBench) -> None:
    done = bench.commit("bob")
    with bench.refused_by_hub(WrongEpoch):
        bench.hub_takes(done.request)
    # as one of the new epoch, which its sender signs all over, it is still the old commit inside
    with bench.refused_by_hub(InvalidCommit, "another group or epoch"):
        bench.hub_takes(bench.resign(done.request, "bob", epoch=bench.state.epoch))


def test_a_commit_of_another_room_is_refused(bench: RoomBench) -> None:
    other = RoomBench(creator="bob", world=bench.world)
    other.uri = replace(other.uri, name="other")
    request = bench.stage("bob").request
    with bench.refused_by_hub(WrongSigner, "another room"):
        bench.hub_takes(bench.resign(request, "bob", room=other.uri))


# --- who sends ---------------------------------------------------------------------------------------


def test_a_leaf_that_is_not_there_sends_nothing(bench: RoomBench) -> None:
    request = bench.stage("bob").request
    for leaf in (3, 2**32 - 1):
        with bench.refused_by_hub(UnknownSender, f"no member at leaf {leaf}"):
            bench.hub_takes(bench.resign(request, "bob", sender=leaf))


def test_a_removed_leaf_sends_nothing(bench: RoomBench) -> None:
    late = bench.stage("bob")
    bench.commit("alice", remove=["bob"])
    request = bench.resign(late.request, "bob", epoch=bench.state.epoch)
    with bench.refused_by_hub(UnknownSender):
        bench.hub_takes(request)


def test_a_request_signed_by_a_leaf_that_did_not_send_it(bench: RoomBench) -> None:
    request = bench.stage("bob").request
    with bench.refused_by_hub(WrongSigner, "not signed by the leaf that it names"):
        bench.hub_takes(bench.resign(request, "cathy"))


def test_a_commit_of_another_leaf_can_not_be_sent_as_ones_own(bench: RoomBench) -> None:
    request = bench.stage("bob").request
    stolen = bench.resign(request, "cathy", sender=bench.leaf_of("cathy"))
    with bench.refused_by_hub(WrongSigner, "by another leaf than the one that signed"):
        bench.hub_takes(stolen)


@pytest.mark.parametrize("part", ["commit", "welcome", "tree_update", "member_update"])
def test_no_part_can_be_swapped_after_signing(bench: RoomBench, part: str) -> None:
    request, other = bench.stage("bob", add=["dave"]).request, bench.stage("cathy", add=["eve"]).request
    for swapped in (getattr(other, part), None if part != "commit" else b""):
        with bench.refused_by_hub(WrongSigner, "not the one that its signature covers"):
            bench.hub_takes(replace(request, **{part: swapped}))


@pytest.mark.parametrize("field", ["commit_hash", "tree_hash", "policy_hash", "member_update_hash"])
def test_no_signed_field_can_be_changed(bench: RoomBench, field: str) -> None:
    request = bench.stage("bob").request
    changed = replace(request.auth.content, **{field: bytes(32)})
    with bench.refused_by_hub(WrongSigner):
        bench.hub_takes(replace(request, auth=replace(request.auth, content=changed)))


# --- who is added ------------------------------------------------------------------------------------


def hostile_package(
    bench: RoomBench,
    *,
    forge: Callable[[RoomBench, Any, SigningKey], Any] = lambda bench, credential, set_key: credential,
    queue: str = "",
    expiry: float = 30 * DAY,
    who: str = "gwen",
) -> OpenKeyPackage:
    """A KeyPackage whose signatures are all right, and whose credential says what a hostile client wants."""
    person, set_key, key = bench.person(who), SigningKey.generate(), SigningKey.generate()
    credential, ilk = make_credential(person, set_key, key, int(bench.now + expiry))
    credential = forge(bench, credential, set_key)
    domain = queue or credential.user_pseudonym.domain
    queue_key = bench.world.providers[domain].queue_key.public
    address = seal_queue_id(domain, queue_key, queue_id(AccessToken.generate()), key.public)
    made = ENGINE.client(LeafIdentity(credential, address).to_bytes(), key).key_package()
    return OpenKeyPackage(made, ilk.reveal())


def proven(credential: Any, set_key: SigningKey) -> Any:
    return replace(credential, set_signature=set_key.sign("PseudonymSetTBS", credential.tbs.to_bytes()))


def claims_alice(bench: RoomBench, credential: Any, set_key: SigningKey) -> Any:
    return proven(replace(credential, user_pseudonym=bench.pseudonym("alice")), set_key)


def claims_alice_and_her_key(bench: RoomBench, credential: Any, set_key: SigningKey) -> Any:
    alice = bench.leaves["alice"].identity.credential
    mine = {"user_pseudonym": alice.user_pseudonym, "set_public_key": alice.set_public_key}
    return proven(replace(credential, **mine), set_key)


def forges_the_proof(bench: RoomBench, credential: Any, set_key: SigningKey) -> Any:
    return proven(credential, SigningKey.generate())


def is_for_another_key(bench: RoomBench, credential: Any, set_key: SigningKey) -> Any:
    return proven(replace(credential, signature_public_key=SigningKey.generate().public), set_key)


def takes_bobs_client(bench: RoomBench, credential: Any, set_key: SigningKey) -> Any:
    bob = bench.leaves["bob"].identity.credential.client_pseudonym
    return proven(replace(credential, client_pseudonym=bob), set_key)


@pytest.mark.parametrize(
    ("hostile", "error", "match"),
    [
        ({"forge": forges_the_proof}, PseudonymProofRejected, "leaf 3: the set key .* did not sign"),
        ({"forge": claims_alice}, PseudonymProofRejected, "leaf 3: the user pseudonym is not the hash"),
        ({"forge": claims_alice_and_her_key}, PseudonymProofRejected, "leaf 3: the set key .* did not sign"),
        ({"forge": is_for_another_key}, LinkRejected, "leaf 3: .* for another key than the leaf's"),
        ({"queue": "c.example"}, IdentityError, "leaf 3: the leaf's queue is at another provider"),
        ({"expiry": -1}, CredentialExpired, "leaf 3: .* expired"),
    ],
)
def test_a_leaf_that_lies_is_not_added(
    bench: RoomBench, hostile: dict[str, Any], error: type[IdentityError], match: str
) -> None:
    pending = bench.stage("bob", add=[hostile_package(bench, **hostile)])
    with bench.refused_by_hub(error, match):
        bench.hub_takes(pending.request)


def test_a_client_pseudonym_that_is_in_the_room_is_not_added_again(bench: RoomBench) -> None:
    """Pseudonyms of two providers differ anyhow, so it is somebody at Bob's provider who takes his."""
    package = hostile_package(bench, forge=takes_bobs_client, who="eve")
    pending = bench.stage("bob", add=[package])
    with bench.refused_by_hub(InvalidCommit, "leaf 3: the client pseudonym is in the room already"):
        bench.hub_takes(pending.request)


def test_a_key_package_outside_its_lifetime_is_not_added(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    package = parse_message(pending.request.commit).proposals[0].key_package
    bench.hub_takes(pending.request)
    bench.world.now = package.leaf_node.lifetime[0] - 2 * 3600
    with bench.refused_by_hub(CredentialExpired, "leaf 3: .* outside its lifetime"):
        bench.hub_takes(pending.request)


def test_a_key_package_is_not_added_twice(bench: RoomBench) -> None:
    package = bench.package("dave")
    bench.settle("bob", bench.stage("bob", add=[package]), ["dave"])
    with pytest.raises(EngineError):
        bench.stage("cathy", add=[package])
    bench.stage("cathy").reject()  # the refusal left nothing behind


def test_a_commit_can_not_change_its_senders_credential_or_key(bench: RoomBench) -> None:
    """Not even to another queue of the same credential: what members have seen of a leaf stays."""
    pending = bench.stage("bob")
    commit = parse_message(pending.request.commit)
    assert isinstance(commit, PublicCommit)
    assert commit.path
    leaf, key = commit.path.leaf_node, bench.leaves["bob"].key
    place = place_of(bench.leaf_of("bob"), commit.group_id)
    identity = LeafIdentity.from_bytes(leaf.identity)
    queue_key = bench.world.providers["b.example"].queue_key.public
    elsewhere = seal_queue_id("b.example", queue_key, bytes(32), key.public)
    moved = leaf_bytes(leaf, key, place, identity=replace(identity, queue=elsewhere).to_bytes())
    rekeyed = leaf_bytes(leaf, SigningKey.generate(), place)
    assert forged_leaf(
        bench, pending.request, leaf, leaf_bytes(leaf, key, place)
    )  # the forge itself is sound
    for hostile in (moved, rekeyed):
        with bench.refused_by_hub(InvalidCommit, "fixed for its life"):
            forged_leaf(bench, pending.request, leaf, hostile)
    unsigned = replace(leaf, encoded=leaf.encoded[:-1] + bytes([leaf.encoded[-1] ^ 1]))
    with bench.refused_by_hub(SignatureRejected, "the path's leaf"):
        forged_leaf(bench, pending.request, leaf, unsigned)


def forged_leaf(bench: RoomBench, request: UpdateRequest, old: LeafNode, new: LeafNode) -> Any:
    assert request.commit.count(old.encoded) == 1
    commit = request.commit.replace(old.encoded, new.encoded)
    return bench.hub_takes(bench.resign(request, "bob", commit=commit))


# --- the Tree Wrap update ----------------------------------------------------------------------------


def dave(bench: RoomBench) -> LeafSecret:
    return LeafSecret(bench.leaves["dave"].ilk.reveal())


EVIL = LeafSecret(b"\x66" * 32)


def test_an_update_that_sets_another_leaf_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    for leaf in (bench.leaf_of("alice"), 7):
        request = bench.with_changes("bob", pending, [Set(3, dave(bench)), Set(leaf, EVIL)])
        with bench.refused_by_hub(TreeMismatch, f"does not match the commit at leaf {leaf}"):
            bench.hub_takes(request)


def test_an_update_that_blanks_another_leaf_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("bob")
    request = bench.with_changes("bob", pending, [Blank(bench.leaf_of("alice"))])
    with bench.refused_by_hub(TreeMismatch, "at leaf 0"):
        bench.hub_takes(request)


def test_an_update_that_leaves_out_the_added_leaf_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    with bench.refused_by_hub(TreeMismatch, "at leaf 3"):
        bench.hub_takes(bench.with_changes("bob", pending, []))
    with bench.refused_by_hub(TreeMismatch, "at leaf 3"):
        bench.hub_takes(bench.with_changes("bob", pending, [Set(4, dave(bench))]))


def test_an_update_that_does_not_blank_the_removed_leaf_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("alice", remove=["bob"])
    for changes in ([], [Set(bench.leaf_of("bob"), EVIL)], [Blank(bench.leaf_of("cathy"))]):
        with bench.refused_by_hub(TreeMismatch, "does not match the commit at leaf"):
            bench.hub_takes(bench.with_changes("alice", pending, changes))


def test_an_add_or_remove_without_an_update_is_refused(bench: RoomBench) -> None:
    for pending, sender in (
        (bench.stage("bob", add=["dave"]), "bob"),
        (bench.stage("alice", remove=["bob"]), "alice"),
    ):
        request = bench.resign(pending.request, sender, tree_update=None, member_update=None)
        with bench.refused_by_hub(TreeMismatch, "comes with a Tree Wrap update"):
            bench.hub_takes(request)


def test_an_update_for_the_members_that_the_hub_did_not_get_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("bob")
    staged = bench.forge_tree("bob", pending, [Set(bench.leaf_of("bob"), EVIL)])
    request = bench.resign(pending.request, "bob", member_update=staged.member_update.to_bytes())
    with bench.refused_by_hub(TreeMismatch):
        bench.hub_takes(request)


def test_a_wrong_tree_hash_is_refused_with_and_without_an_update(bench: RoomBench) -> None:
    with bench.refused_by_hub(TreeMismatch, "the signed tree hash is not the room's"):
        bench.hub_takes(bench.resign(bench.stage("bob").request, "bob", tree_hash=bytes(32)))
    request = bench.stage("cathy", add=["dave"]).request
    with bench.refused_by_hub(TreeMismatch, "not the one that was signed"):
        bench.hub_takes(bench.resign(request, "cathy", tree_hash=bytes(32)))
    assert request.tree_update
    lying = replace(TreeUpdate.from_bytes(request.tree_update), tree_hash=bytes(32)).to_bytes()
    with bench.refused_by_hub(TreeMismatch, "does not verify"):
        bench.hub_takes(bench.resign(request, "cathy", tree_update=lying, tree_hash=bytes(32)))


def test_an_update_of_another_epoch_is_refused(bench: RoomBench) -> None:
    pending = bench.stage("bob", add=["dave"])
    for epoch in (bench.state.epoch + 2, 2**63):
        request = bench.with_changes("bob", pending, [Set(3, dave(bench))], epoch=epoch)
        with bench.refused_by_hub(TreeMismatch, "epoch"):
            bench.hub_takes(request)


def test_an_update_made_for_an_older_tree_is_refused(bench: RoomBench) -> None:
    old = bench.stage("bob", add=["dave"]).request
    bench.commit("alice", add=["erin"])
    new = bench.stage("cathy", add=["frank"]).request
    assert old.tree_update
    tree_hash = TreeUpdate.from_bytes(old.tree_update).tree_hash
    with bench.refused_by_hub(TreeMismatch, "does not verify"):
        bench.hub_takes(bench.resign(new, "cathy", tree_update=old.tree_update, tree_hash=tree_hash))


def test_an_update_that_is_malformed_or_one_byte_off_is_refused(bench: RoomBench) -> None:
    request = bench.stage("bob", add=["dave"]).request
    whole = request.tree_update or b""
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 11)]
    for update in [b"", whole[:-1], whole + b"\0", *flipped]:
        with bench.refused_by_hub(TreeMismatch):
            bench.hub_takes(bench.resign(request, "bob", tree_update=update))


def test_a_rebuilt_tree_can_not_drop_or_invent_a_leaf(bench: RoomBench) -> None:
    """A whole tree sealed anew is taken as it comes, but for whose leaves are in it."""
    tree = bench.rooms["bob"]._local.tree
    pending = bench.stage("bob")
    honest = bench.with_changes("bob", pending, [Rebuild()])
    assert bench.hub_takes(honest)
    hidden = [Blank(bench.leaf_of("alice")), Rebuild()]
    for changes, leaf in ((hidden, 0), ([Set(9, EVIL), Rebuild()], 9)):
        staged = tree.stage(
            changes, epoch=bench.state.epoch + 1, epoch_secret=bench.epoch_secret("bob", pending)
        )
        update = replace(staged.update, changes=())
        request = bench.resign(
            pending.request,
            "bob",
            tree_update=update.to_bytes(),
            member_update=replace(staged.member_update, leaves=()).to_bytes(),
            tree_hash=staged.tree_hash,
        )
        with bench.refused_by_hub(TreeMismatch, f"rebuilt tree does not match the commit at leaf {leaf}"):
            bench.hub_takes(request)


# --- commit and Welcome ------------------------------------------------------------------------------


def test_a_welcome_for_others_than_those_added_is_refused(bench: RoomBench) -> None:
    request, other = bench.stage("bob", add=["dave"]).request, bench.stage("cathy", add=["erin"]).request
    for welcome in (other.welcome, None):
        with bench.refused_by_hub(InvalidCommit, "not for exactly the KeyPackages"):
            bench.hub_takes(bench.resign(request, "bob", welcome=welcome))
    heal = bench.stage("alice").request
    with bench.refused_by_hub(InvalidCommit, "not for exactly the KeyPackages"):
        bench.hub_takes(bench.resign(heal, "alice", welcome=other.welcome))
    with bench.refused_by_hub(InvalidCommit, "expected an MLS Welcome"):
        bench.hub_takes(bench.resign(request, "bob", welcome=request.commit))


def test_a_welcome_for_one_too_few_or_too_many_is_refused(bench: RoomBench) -> None:
    two = bench.stage("bob", add=["dave", "erin"]).request
    one = bench.stage("cathy", add=["frank"]).request
    for request, welcome, sender in ((two, one.welcome, "bob"), (one, two.welcome, "cathy")):
        with bench.refused_by_hub(InvalidCommit):
            bench.hub_takes(bench.resign(request, sender, welcome=welcome))


def test_a_private_message_is_no_commit(bench: RoomBench) -> None:
    """Encrypted handshakes would hide from the hub who was added and removed."""
    request = bench.stage("bob").request
    message = bench.rooms["cathy"]._local.group.encrypt(b"hello")
    for wrong in (message, bench.stage("alice", add=["dave"]).request.welcome):
        with bench.refused_by_hub(InvalidCommit, "expected a commit as an MLS PublicMessage"):
            bench.hub_takes(bench.resign(request, "bob", commit=wrong))


def test_a_commit_that_is_malformed_or_cut_is_refused(bench: RoomBench) -> None:
    request = bench.stage("bob", add=["dave"]).request
    for size in range(0, len(request.commit), 97):
        with bench.refused_by_hub(ParseError):
            bench.hub_takes(bench.resign(request, "bob", commit=request.commit[:size]))


def test_a_commit_with_a_flipped_bit_is_refused_or_is_for_members_to_refuse(bench: RoomBench) -> None:
    """Only a commit's three authenticators are beyond the hub, and the path's encrypted secrets."""
    request = bench.stage("bob").request
    before = bench.hub_fingerprint()
    refused = 0
    for at in range(0, len(request.commit), 5):
        commit = request.commit[:at] + bytes([request.commit[at] ^ 1]) + request.commit[at + 1 :]
        try:
            bench.hub_takes(bench.resign(request, "bob", commit=commit))
        except (ParseError, InvalidCommit, SignatureRejected, WrongSigner, UnknownSender):
            refused += 1
    assert bench.hub_fingerprint() == before
    assert refused > len(request.commit) / 5 / 2


def test_an_oversized_body_is_refused_unread(bench: RoomBench, monkeypatch: pytest.MonkeyPatch) -> None:
    request = bench.stage("bob").request.to_bytes()
    monkeypatch.setattr(UpdateRequest, "LIMIT", len(request) - 1)
    with bench.refused_by_hub(ParseError, f"at most {len(request) - 1} allowed"):
        UpdateRequest.from_bytes(request)
    monkeypatch.setattr(UpdateRequest, "LIMIT", len(request))
    bench.hub_takes(UpdateRequest.from_bytes(request))


# --- roles -------------------------------------------------------------------------------------------


def test_a_member_without_the_role_removes_nobody(bench: RoomBench) -> None:
    for target in ("alice", "cathy"):
        pending = bench.stage("bob", remove=[target])
        with bench.refused_by_hub(NotAllowed, "removing this participant needs the role"):
            bench.hub_takes(pending.request)
        pending.reject()


def test_a_member_without_the_role_adds_nobody(bench: RoomBench) -> None:
    bench.commit("alice", policy=next_policy(bench.state.policy, may_add=Role.ADMIN))
    pending = bench.stage("bob", add=["dave"])
    with bench.refused_by_hub(NotAllowed, "adding needs the role ADMIN"):
        bench.hub_takes(pending.request)
    bench.commit("alice", add=["erin"])


def test_a_member_that_is_no_admin_does_not_change_the_policy(bench: RoomBench) -> None:
    mine = next_policy(bench.state.policy, roles=(RoleAssignment(bench.pseudonym("bob"), Role.ADMIN),))
    with bench.refused_by_hub(NotAllowed, "only an admin changes the policy"):
        bench.hub_takes(bench.stage("bob", policy=mine).request)


def test_a_policy_signed_by_an_admin_is_not_sent_by_somebody_else(bench: RoomBench) -> None:
    signed = sign_policy(next_policy(bench.state.policy), bench.leaf_of("alice"), bench.leaves["alice"].key)
    request = bench.resign(bench.stage("bob").request, "bob", policy=signed, policy_hash=signed.policy.hash)
    with bench.refused_by_hub(NotAllowed, "in a commit of its own leaf"):
        bench.hub_takes(request)


def test_an_admin_signs_its_policies_as_the_leaf_it_is(bench: RoomBench) -> None:
    """Of two admins neither sends the other's policy, nor its own under the other's leaf."""
    alice, bob = bench.pseudonym("alice"), bench.pseudonym("bob")
    roles = (RoleAssignment(alice, Role.ADMIN), RoleAssignment(bob, Role.ADMIN))
    bench.commit("alice", policy=next_policy(bench.state.policy, roles=roles))
    new = next_policy(bench.state.policy)
    request = bench.stage("bob", policy=new).request
    for signer in ("alice", "bob"):
        policy = sign_policy(new, bench.leaf_of("alice"), bench.leaves[signer].key)
        with bench.refused_by_hub(NotAllowed, "in a commit of its own leaf"):
            bench.hub_takes(bench.resign(request, "bob", policy=policy))
    bench.hub_takes(request)


def test_an_admins_policy_must_be_signed_by_the_admin(bench: RoomBench) -> None:
    forged = sign_policy(next_policy(bench.state.policy), bench.leaf_of("alice"), bench.leaves["bob"].key)
    pending = bench.stage("alice", policy=next_policy(bench.state.policy))
    with bench.refused_by_hub(WrongSigner, "policy is not signed by the leaf that it names"):
        bench.hub_takes(bench.resign(pending.request, "alice", policy=forged))


@pytest.mark.parametrize(
    "changes",
    [{"serial": 0}, {"serial": 2}, {"identities": Identities.NOBODY}, {"room": "other"}],
    ids=lambda changes: next(iter(changes)),
)
def test_a_policy_is_the_next_one_of_the_same_room_and_identities(
    bench: RoomBench, changes: dict[str, Any]
) -> None:
    if "room" in changes:
        changes = {"room": replace(bench.uri, name="other")}
    pending = bench.stage("alice", policy=next_policy(bench.state.policy, **changes))
    with bench.refused_by_hub(NotAllowed, "same room and identities, with the next serial"):
        bench.hub_takes(pending.request)


def test_a_commit_under_another_policy_than_the_rooms_is_refused(bench: RoomBench) -> None:
    request = bench.stage("bob").request
    with bench.refused_by_hub(NotAllowed, "signed under another policy"):
        bench.hub_takes(bench.resign(request, "bob", policy_hash=bytes(32)))
    pending = bench.stage("alice", policy=next_policy(bench.state.policy))
    with bench.refused_by_hub(NotAllowed, "signed under another policy"):
        bench.hub_takes(replace(pending.request, policy=None))


def test_a_policy_change_takes_effect_with_its_commit(bench: RoomBench) -> None:
    """An admin made by it removes from the next commit on, the one unmade no more."""
    roles = (RoleAssignment(bench.pseudonym("bob"), Role.ADMIN),)
    bench.commit("alice", policy=next_policy(bench.state.policy, roles=roles))
    bench.check_agreement()
    with bench.refused_by_hub(NotAllowed):
        bench.hub_takes(bench.stage("alice", remove=["bob"]).request)
    bench.commit("bob", remove=["alice"])
    bench.check_agreement()


# --- application messages ----------------------------------------------------------------------------


def test_a_message_goes_to_all_members_its_sender_too_and_changes_nothing(bench: RoomBench) -> None:
    before = bench.hub_fingerprint()
    events = bench.mode.submit(bench.state, bench.rooms["bob"].encrypt(Content.text("hello")))
    assert bench.hub_fingerprint() == before
    assert {event.kind for event in events} == {EventKind.APPLICATION}
    assert sum(len(event.deliveries) for event in events) == len(bench.state.members) == 3
    assert {event.domain for event in events} == {"a.example", "b.example", "c.example"}


def test_a_message_is_refused_for_what_a_commit_would_be(bench: RoomBench) -> None:
    submit, state = bench.mode.submit, bench.state
    sent = bench.rooms["bob"].encrypt(Content.text("hello"))
    tbs, message, key = sent.content, sent.app_message, bench.leaves["bob"].key
    with bench.refused_by_hub(WrongSigner):
        submit(state, sign_submit(tbs, message, bench.leaves["cathy"].key))
    with bench.refused_by_hub(WrongSigner, "not the one that the request's signature covers"):
        submit(state, replace(sent, app_message=message + b"\0"))
    with bench.refused_by_hub(UnknownSender):
        submit(state, sign_submit(replace(tbs, sender=9), message, key))
    with bench.refused_by_hub(WrongSigner, "another room"):
        submit(state, sign_submit(replace(tbs, room=replace(tbs.room, name="other")), message, key))
    with bench.refused_by_hub(WrongEpoch):
        submit(state, sign_submit(replace(tbs, epoch=tbs.epoch - 1), message, key))
    commit = bench.stage("cathy").request.commit
    with bench.refused_by_hub(InvalidCommit, "expected an application message"):
        submit(state, sign_submit(replace(tbs, message_hash=digest(commit)), commit, key))
    bench.commit("alice")
    with bench.refused_by_hub(InvalidCommit, "another group or epoch"):
        submit(state, sign_submit(replace(tbs, epoch=state.epoch), message, key))


def test_an_oversized_message_is_neither_written_nor_read(bench: RoomBench) -> None:
    sent = bench.rooms["bob"].encrypt(Content.text("hello"))
    with pytest.raises(ValueError, match="app_message"):
        replace(sent, app_message=bytes(MAX_APPLICATION + 1)).to_bytes()
    with pytest.raises(ParseError, match="allowed"):
        SubmitMessageRequest.from_bytes(bytes(SubmitMessageRequest.LIMIT + 1))
