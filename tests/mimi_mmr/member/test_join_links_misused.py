"""Join links in wrong hands, at wrong times, in wrong rooms: the hub refuses, and so do members if it does not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    JoinRefused,
    MmrError,
    NotAllowed,
    PseudonymProofRejected,
    SignatureRejected,
    UnknownSender,
    WelcomeRejected,
    WrongEpoch,
    WrongSigner,
)
from mimi_mmr.hub.links import check_order
from mimi_mmr.member.intent import CommitIntent
from mimi_mmr.protocol.key_packages import LIFETIME_SKEW
from mimi_mmr.protocol.room.join_links import JoinLink, LinkSeed, make_join_request
from mimi_mmr.protocol.room.link_orders import (
    MAX_LIFETIME,
    MAX_USES,
    JoinRequestTBS,
    LinkKind,
    sign_join,
    sign_link_order,
)
from mimi_mmr.protocol.room.members_only import StateSecret, seal_state
from mimi_mmr.protocol.room.policy import Role
from tests.mimi_mmr.bench import DAY, RoomBench, next_policy
from treewrap import Blank, RoomSecret, SetRoomSecret


@contextmanager
def refused(error: type[MmrError], match: str | None = None) -> Iterator[None]:
    with pytest.raises(error, match=match) as refusal:
        yield
    assert type(refusal.value) is error


NOT_ANY_MORE = "no such join link, or it can't be used any more"


# --- at the hub --------------------------------------------------------------------------------------


def test_unknown_expired_used_up_and_wrongly_signed_are_refused_alike(bench: RoomBench) -> None:
    link = bench.make_link("alice", uses=1, lifetime=DAY)
    request = bench.ask(link, "erin")
    kept = bench.links[link.id]
    unknown = replace(link, seed=LinkSeed.generate())
    forged = sign_join(request.content, SigningKey.generate())
    elsewhere = sign_join(replace(request.content, room=replace(bench.uri, name="other")), link.signing_key)
    said = set()
    for one, at_hub in (
        (bench.ask(unknown, "erin"), kept),
        (request, replace(kept, expiry=int(bench.now))),
        (request, replace(kept, uses_left=0)),
        (request, replace(kept, public_key=unknown.signing_key.public)),
        (forged, kept),
        (elsewhere, kept),
        (replace(request, content=replace(request.content, link_id=bytes(32))), kept),
    ):
        bench.links[link.id] = at_hub
        with pytest.raises(JoinRefused) as refusal:
            bench.knock(one)
        said.add(str(refusal.value))
    assert said == {NOT_ANY_MORE}
    bench.links[link.id] = kept
    bench.knock(request)


def test_a_link_of_one_room_is_none_of_another(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    other = RoomBench(world=bench.world)
    request = bench.ask(link, "erin")
    with refused(JoinRefused, NOT_ANY_MORE):
        other.knock(request)
    moved = JoinLink(replace(bench.uri, name="other"), link.identities, link.seed)
    with refused(JoinRefused, NOT_ANY_MORE):
        bench.knock(bench.ask(moved, "erin"))
    with refused(JoinRefused, "none of the room's links"):
        other.rooms["alice"].join_links.open_request(request, bench.now)


def orders(bench: RoomBench) -> dict[str, tuple[type[MmrError], Any]]:
    room = bench.rooms["bob"]
    live = room.join_links.make(int(bench.now) + DAY, 3)
    content = room.join_links.order(live).content
    key = bench.leaves["bob"].key

    def signed(**changes: Any) -> Any:
        return sign_link_order(replace(content, **changes), key)

    return {
        "for too long": (NotAllowed, signed(expiry=int(bench.now) + MAX_LIFETIME + LIFETIME_SKEW + 2)),
        "expired": (NotAllowed, signed(expiry=int(bench.now))),
        "for nobody": (NotAllowed, signed(uses=0)),
        "for too many": (NotAllowed, signed(uses=MAX_USES + 1)),
        "of an old epoch": (WrongEpoch, signed(epoch=content.epoch - 1)),
        "of a coming epoch": (WrongEpoch, signed(epoch=content.epoch + 1)),
        "of another room": (WrongSigner, signed(room=replace(bench.uri, name="other"))),
        "as another": (WrongSigner, signed(sender=0)),
        "as nobody": (UnknownSender, signed(sender=77)),
        "changed": (WrongSigner, replace(signed(), content=replace(content, uses=4))),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "for too long",
        "expired",
        "for nobody",
        "for too many",
        "of an old epoch",
        "of a coming epoch",
        "of another room",
        "as another",
        "as nobody",
        "changed",
    ],
)
def test_a_wrong_order_is_refused(bench: RoomBench, kind: str) -> None:
    error, order = orders(bench)[kind]
    with refused(error):
        check_order(bench.state, order, bench.now)


def test_who_may_not_add_orders_no_link_and_revokes_none(bench: RoomBench) -> None:
    live = bench.rooms["bob"].join_links.make(int(bench.now) + DAY, 3)
    bench.commit("alice", policy=next_policy(bench.state.policy, may_add=Role.ADMIN))
    for kind in LinkKind:
        with refused(NotAllowed, "adding needs the role ADMIN"):
            check_order(bench.state, bench.rooms["bob"].join_links.order(live, kind), bench.now)


def test_a_removed_member_uses_no_old_link_and_makes_none(bench: RoomBench) -> None:
    link = bench.make_link("cathy")
    cathy = bench.rooms["cathy"]
    live = cathy.join_links.make(int(bench.now) + DAY, 3)
    order = cathy.join_links.order(live)
    bench.commit("alice", remove=["cathy"])
    with refused(JoinRefused, NOT_ANY_MORE):
        bench.knock(bench.ask(link, "cathy"))
    with refused(UnknownSender):
        check_order(bench.state, order, bench.now)


# --- a hub that passes on what it should not ---------------------------------------------------------


def test_members_open_no_request_by_an_expired_link(bench: RoomBench) -> None:
    link = bench.make_link("alice", lifetime=DAY)
    event = bench.knock(bench.ask(link, "erin"))
    with refused(JoinRefused, "expired"):
        bench.rooms["bob"].join_links.open_request(event, bench.now + DAY)
    long = bench.rooms["alice"].join_links.make(int(bench.now) + 30 * DAY, 1)
    bench.commit("alice", state=replace(bench.rooms["alice"].members_only.state, links=(long,)))
    event = bench.ask(bench.rooms["alice"].join_links.link(long), "frank")
    with refused(JoinRefused, "expired"):
        bench.rooms["bob"].join_links.open_request(event, bench.now)


def test_members_count_uses_themselves(bench: RoomBench) -> None:
    link = bench.make_link("alice", uses=1)
    first, second = bench.ask(link, "erin"), bench.ask(link, "frank")
    bench.let_in("bob", first, "erin")
    for name in ("alice", "bob", "erin"):
        with refused(JoinRefused, "none of the room's links"):
            bench.rooms[name].join_links.open_request(second, bench.now)


def test_a_request_that_comes_again_lets_nobody_in_twice(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    event = bench.knock(bench.ask(link, "erin"))
    bench.let_in("bob", event, "erin")
    for name in ("alice", "erin"):
        with refused(JoinRefused, "added already"):
            bench.rooms[name].join_links.open_request(event, bench.now)


def test_a_request_that_comes_again_after_its_maker_was_removed_lets_nobody_in(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    event = bench.knock(bench.ask(link, "erin"))
    bench.let_in("bob", event, "erin")
    bench.commit("alice", remove=["erin"])
    again = bench.make_link("alice")
    for name in ("alice", "bob"):
        with refused(JoinRefused, "none of the room's links"):
            bench.rooms[name].join_links.open_request(event, bench.now)
    assert again.id != link.id


def test_two_members_who_answer_at_once_add_one_newcomer(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    event = bench.knock(bench.ask(link, "erin"))
    slow = bench.rooms["alice"]
    packages = slow.join_links.open_request(event, bench.now)
    state = slow.join_links.after_join(event, slow.members_only.state)
    intent = CommitIntent(tuple(packages), state=lambda _: state)
    bench.let_in("bob", event, "erin")
    assert intent.due(slow.members) is None
    with pytest.raises(MmrError):  # even without a look at who is there by now
        bench.hub_takes(slow.stage(intent, time.time()).request)


def test_a_request_that_no_link_made_is_refused_by_members(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    request = bench.ask(link, "erin")
    box = replace(request.content.box, ciphertext=request.content.box.ciphertext[:-1] + b"\0")
    wrong = [
        replace(request, signature=bytes(64)),
        sign_join(request.content, SigningKey.generate()),
        sign_join(replace(request.content, box=box), link.signing_key),
        sign_join(replace(request.content, link_id=bytes(32)), link.signing_key),
        sign_join(replace(request.content, room=replace(bench.uri, name="other")), link.signing_key),
        sign_join(
            JoinRequestTBS(bench.uri, link.id, link.sealing_key.public.seal("something else", link.id, b"x")),
            link.signing_key,
        ),
    ]
    for one in wrong:
        with refused(JoinRefused):
            bench.rooms["bob"].join_links.open_request(one, bench.now)


def test_a_hub_without_the_link_reads_and_makes_no_request(bench: RoomBench) -> None:
    """It knows id and public key; the seed is what opens, and signs."""
    link = bench.make_link("alice")
    request = bench.ask(link, "erin")
    user = bench.person("erin").user.name.encode()
    kept = bench.links[link.id]
    assert user not in request.to_bytes()
    assert link.seed.reveal() not in repr(kept).encode() + kept.public_key + kept.id
    assert link.seed.reveal() not in (bench.state.sealed_state or b"")


def test_a_removal_that_keeps_links_is_said_and_ends_them(bench: RoomBench) -> None:
    """Alice removes Cathy, and seals the members-only state with the link that Cathy knows."""
    link = bench.make_link("cathy")
    event = bench.knock(bench.ask(link, "erin"))
    alice, secret = bench.rooms["alice"], StateSecret.generate()
    pending = bench.stage("alice", remove=["cathy"])
    changes = [Blank(2), SetRoomSecret("policy", alice._local.tree.room_secret("policy"))]
    changes.append(SetRoomSecret("state", RoomSecret(secret.reveal())))
    staged = bench.forge_tree("alice", pending, changes)
    request = bench.resign(
        pending.request,
        "alice",
        tree_update=staged.update.to_bytes(),
        member_update=staged.member_update.to_bytes(),
        tree_hash=staged.tree_hash,
        room_state=seal_state(alice.members_only.state, secret, bench.uri, bench.state.epoch + 1),
    )
    accepted = bench.accept(request)
    replace(pending, request=request, _tree=staged).accept()
    followed = bench.deliver(accepted.events)["bob"]
    assert followed.problems == (
        "leaf 0: the members-only state still has join links, which end with a removal",
    )
    bob = bench.rooms["bob"]
    with refused(JoinRefused, "none of the room's links"):
        bob.join_links.open_request(event, bench.now)
    del bench.rooms["cathy"]
    bench.commit("bob")
    assert bench.rooms["alice"].members_only.state.links == ()
    bench.check_agreement()


# --- somebody with a link ----------------------------------------------------------------------------


def test_the_devices_of_a_request_are_one_users(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    with refused(PseudonymProofRejected, "expected one user pseudonym"):
        bench.rooms["bob"].join_links.open_request(bench.ask(link, "erin", "frank"), bench.now)
    package = bench.package("erin")
    with refused(PseudonymProofRejected, "stands twice"):
        bench.rooms["bob"].join_links.open_request(make_join_request(link, [package, package]), bench.now)


def test_a_forged_key_package_lets_nobody_in(bench: RoomBench) -> None:
    link = bench.make_link("alice")
    package = bench.package("erin")
    last = package.key_package[-1] ^ 1
    forged = replace(package, key_package=package.key_package[:-1] + bytes([last]))
    with refused(SignatureRejected):
        bench.rooms["bob"].join_links.open_request(make_join_request(link, [forged]), bench.now)
    expired = bench.ask(link, "erin")
    with pytest.raises(MmrError):
        bench.rooms["bob"].join_links.open_request(expired, bench.now + 6 * DAY * 1000)


def test_whoever_lies_about_its_names_key_is_shown_as_unverified_and_is_shown_no_room(
    bench: RoomBench,
) -> None:
    """Its client takes no Welcome: whoever made it does not have the KeyPackage's key."""
    link = bench.make_link("alice")
    package = replace(bench.package("erin"), identity_link_key=bytes(32))
    with refused(WelcomeRejected, "proof is wrong"):
        bench.let_in("bob", make_join_request(link, [package]), "erin")
    assert bench.names("alice")[3] == "?"
