"""Connecting: packages, requests and responses that are for one person, one purpose, and a while."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest

from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, pad_to
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    BindingRejected,
    CertificateRejected,
    ConnectionRefused,
    CredentialExpired,
    ParseError,
    SealedBoxRejected,
    SignatureRejected,
)
from mimi_mmr.protocol.connections import (
    REQUEST_LIFETIME,
    REQUEST_SIZE,
    ConnectionCancel,
    ConnectionDeposit,
    ConnectionKeyOffer,
    ConnectionPackage,
    ConnectionRequest,
    ConnectionResponse,
    ContactCode,
    DepositKind,
    ReplyInbox,
    check_pin,
    make_cancel,
    make_connection_package,
    make_request,
    make_response,
    newest_offer,
    open_deposit,
    open_request,
    open_response,
    request_size,
    seal_cancel,
    seal_request,
    seal_response,
)
from mimi_mmr.protocol.credentials import DeviceIdentity, VerifiedDevice, fingerprint
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.bench import DAY, World


@dataclass
class Asked:
    """Alice asks Bob."""

    world: World
    alice: DeviceIdentity
    bob: DeviceIdentity
    key: SealingKey
    package: ConnectionPackage
    response_key: SealingKey
    request: ConnectionRequest

    @property
    def pin(self) -> bytes:
        return fingerprint(self.bob.credential.identity_key)

    @property
    def now(self) -> float:
        return self.world.now


@pytest.fixture(scope="module")
def asked() -> Asked:
    world = World()
    alice, bob = world.device("alice", "a.example"), world.device("bob", "b.example")
    key, response_key = SealingKey.generate(Kem.X_WING), SealingKey.generate(Kem.X_WING)
    expiry = int(world.now) + 30 * DAY
    package = make_connection_package(bob, key.public, last_resort=False, expiry=expiry)
    request = make_request(alice, package, inbox(alice), response_key.public, world.now)
    return Asked(world, alice, bob, key, package, response_key, request)


def inbox(device: DeviceIdentity) -> ReplyInbox:
    return ReplyInbox(device.user.domain, bytes(range(32)))


# --- packages ----------------------------------------------------------------------------------------


def test_a_package_is_the_users_whose_code_one_has(asked: Asked) -> None:
    package = ConnectionPackage.from_bytes(asked.package.to_bytes())
    code = ContactCode.parse(str(ContactCode(asked.bob.user, asked.pin)))
    device = package.verify(code.user, code.fingerprint, asked.world.trust, asked.now)
    assert device.user == asked.bob.user
    assert package.verify(code.user, None, asked.world.trust, asked.now) == device


def test_a_hostile_provider_can_not_substitute_a_package_against_a_contact_code(asked: Asked) -> None:
    """It certifies a device of its own for the very same user: without a code nobody could tell."""
    fake = asked.world.device("bob", "b.example")
    package = make_connection_package(
        fake, SealingKey.generate().public, last_resort=False, expiry=int(asked.now) + DAY
    )
    package.verify(asked.bob.user, None, asked.world.trust, asked.now)
    with pytest.raises(BindingRejected, match="not the one the contact code names"):
        package.verify(asked.bob.user, asked.pin, asked.world.trust, asked.now)


def test_a_pin_is_compared_whole(asked: Asked) -> None:
    device = asked.package.verify(asked.bob.user, None, asked.world.trust, asked.now)
    check_pin(device, asked.pin)
    for wrong in (b"", asked.pin[:-1], asked.pin[:-1] + bytes([asked.pin[-1] ^ 1]), bytes(32)):
        with pytest.raises(BindingRejected):
            check_pin(device, wrong)


def test_a_package_of_another_user_is_refused(asked: Asked) -> None:
    with pytest.raises(ConnectionRefused, match="another user's"):
        asked.package.verify(asked.alice.user, None, asked.world.trust, asked.now)
    relabelled = replace(asked.package.content, user_uri=asked.alice.user)
    signature = asked.bob.key.sign("ConnectionPackageTBS", relabelled.to_bytes())
    forged = replace(asked.package, content=relabelled, signature=signature)
    for user in (asked.alice.user, asked.bob.user):
        with pytest.raises(ConnectionRefused):
            forged.verify(user, None, asked.world.trust, asked.now)


def test_a_package_with_another_key_in_it_is_refused(asked: Asked) -> None:
    swapped = replace(asked.package.content, public_key=SealingKey.generate().public)
    with pytest.raises(SignatureRejected, match="ConnectionPackage"):
        replace(asked.package, content=swapped).verify(
            asked.bob.user, asked.pin, asked.world.trust, asked.now
        )


def test_a_package_expires(asked: Asked) -> None:
    asked.package.verify(asked.bob.user, None, asked.world.trust, asked.now + 29 * DAY)
    with pytest.raises(CredentialExpired):
        asked.package.verify(asked.bob.user, None, asked.world.trust, asked.now + 31 * DAY)
    with pytest.raises(CertificateRejected):
        asked.package.verify(asked.bob.user, None, asked.world.trust, asked.now + 200 * DAY)


# --- requests ----------------------------------------------------------------------------------------


def verify(asked: Asked, request: ConnectionRequest, later: float = 0) -> MimiUri:
    return request.verify(asked.bob.user, asked.package.hash, asked.world.trust, asked.now + later).user


def resign(asked: Asked, **changes: object) -> ConnectionRequest:
    content = replace(asked.request.content, **changes)  # type: ignore[arg-type]
    return ConnectionRequest(content, asked.alice.key.sign("ConnectionRequestTBS", content.to_bytes()))


def test_a_request_arrives_sealed_and_names_its_sender(asked: Asked) -> None:
    box = seal_request(asked.request, asked.package)
    assert verify(asked, open_request(box, asked.key, asked.package.hash)) == asked.alice.user
    assert b"alice" not in box.to_bytes()


def test_a_request_opens_for_the_package_it_was_sealed_to_only(asked: Asked) -> None:
    box = seal_request(asked.request, asked.package)
    with pytest.raises(SealedBoxRejected):
        open_request(box, SealingKey.generate(Kem.X_WING), asked.package.hash)
    with pytest.raises(SealedBoxRejected):
        open_request(box, asked.key, bytes(32))


def test_a_request_for_another_recipient_is_refused(asked: Asked) -> None:
    """Bob can't pass Alice's request on as if it were for Cathy, nor for another package of hers."""
    cathy = MimiUri("c.example", Kind.USER, "cathy")
    with pytest.raises(ConnectionRefused, match="another user or another connection package"):
        asked.request.verify(cathy, asked.package.hash, asked.world.trust, asked.now)
    with pytest.raises(ConnectionRefused, match="another user or another connection package"):
        asked.request.verify(asked.bob.user, bytes(32), asked.world.trust, asked.now)


def test_a_request_expires_and_can_not_claim_to_live_for_ever(asked: Asked) -> None:
    with pytest.raises(CredentialExpired):
        verify(asked, asked.request, later=REQUEST_LIFETIME + 1)
    with pytest.raises(CredentialExpired):
        verify(asked, resign(asked, expiry=int(asked.now) + 100 * DAY))
    with pytest.raises(CredentialExpired):
        verify(asked, resign(asked, version=2))


def test_a_request_under_somebody_elses_name_is_refused(asked: Asked) -> None:
    mallory = asked.world.device("mallory", "a.example")
    content = asked.request.content
    forged = ConnectionRequest(content, mallory.key.sign("ConnectionRequestTBS", content.to_bytes()))
    with pytest.raises(SignatureRejected, match="ConnectionRequest"):
        verify(asked, forged)


@pytest.mark.parametrize("part", ["inbox", "key", "expiry"])
def test_no_part_of_a_request_can_be_exchanged(asked: Asked, part: str) -> None:
    content = asked.request.content
    changed = {
        "inbox": replace(content, reply_inbox=ReplyInbox("a.example", bytes(32))),
        "key": replace(content, connection_response_key=SealingKey.generate().public),
        "expiry": replace(content, expiry=content.expiry + 1),
    }[part]
    with pytest.raises(SignatureRejected):
        verify(asked, replace(asked.request, content=changed))


def test_a_reply_inbox_at_a_third_provider_is_refused(asked: Asked) -> None:
    with pytest.raises(ConnectionRefused, match="reply inbox"):
        verify(asked, resign(asked, reply_inbox=ReplyInbox("c.example", bytes(32))))


def test_a_request_has_one_size_whoever_sends_it(asked: Asked) -> None:
    """From the shortest name to the longest that URIs allow."""
    sizes = set()
    for name in ("a", "alexandra", "a" * 64, "a" * 121):
        device = asked.world.device(name, "a.example")
        for kem in Kem:
            request = make_request(
                device, asked.package, inbox(device), SealingKey.generate(kem).public, asked.now
            )
            sizes.add(len(seal_request(request, asked.package).to_bytes()))
    assert len(sizes) == 1


# --- cancels -----------------------------------------------------------------------------------------


def requester(asked: Asked) -> VerifiedDevice:
    return asked.request.verify(asked.bob.user, asked.package.hash, asked.world.trust, asked.now)


def test_a_request_is_taken_back_by_who_made_it(asked: Asked) -> None:
    box = seal_cancel(make_cancel(asked.alice, asked.request), asked.package)
    cancel = open_deposit(box, asked.key, asked.package.hash)
    assert isinstance(cancel, ConnectionCancel)
    cancel.verify(asked.request, requester(asked))
    request = open_deposit(seal_request(asked.request, asked.package), asked.key, asked.package.hash)
    assert request == asked.request


def test_nobody_else_takes_a_request_back(asked: Asked) -> None:
    """Nor does another device of hers, nor does a signature of hers that was made for something else."""
    content = make_cancel(asked.alice, asked.request).content
    encoded = content.to_bytes()
    signatures = [asked.bob.key.sign("ConnectionCancelTBS", encoded)]
    signatures += [asked.world.device("alice", "a.example").key.sign("ConnectionCancelTBS", encoded)]
    signatures += [
        asked.alice.key.sign(label, encoded) for label in ("ConnectionRequestTBS", "UserBindingTBS")
    ]
    signatures += [asked.request.signature]
    for signature in signatures:
        with pytest.raises(SignatureRejected, match="ConnectionCancel"):
            ConnectionCancel(content, signature).verify(asked.request, requester(asked))


def test_a_cancel_is_about_one_request(asked: Asked) -> None:
    again = make_request(
        asked.alice, asked.package, inbox(asked.alice), SealingKey.generate().public, asked.now
    )
    cancel = make_cancel(asked.alice, asked.request)
    with pytest.raises(ConnectionRefused, match="another request"):
        cancel.verify(again, requester(asked))
    for changes in ({"recipient": asked.alice.user}, {"request_hash": bytes(32)}, {"version": 2}):
        content = replace(cancel.content, **changes)
        signed = ConnectionCancel(content, asked.alice.key.sign("ConnectionCancelTBS", content.to_bytes()))
        with pytest.raises(ConnectionRefused):
            signed.verify(asked.request, requester(asked))


@pytest.mark.parametrize("kem", list(Kem))
def test_a_cancel_has_the_size_of_a_request(asked: Asked, kem: Kem) -> None:
    key = SealingKey.generate(kem)
    package = make_connection_package(asked.bob, key.public, last_resort=False, expiry=int(asked.now) + DAY)
    request = make_request(asked.alice, package, inbox(asked.alice), asked.response_key.public, asked.now)
    boxes = [seal_request(request, package), seal_cancel(make_cancel(asked.alice, request), package)]
    assert {len(box.ciphertext) for box in boxes} == {request_size(kem)}


def test_who_takes_requests_only_is_told_that_it_is_none(asked: Asked) -> None:
    box = seal_cancel(make_cancel(asked.alice, asked.request), asked.package)
    with pytest.raises(ConnectionRefused, match="got a cancel"):
        open_request(box, asked.key, asked.package.hash)


def test_what_is_neither_request_nor_cancel_is_malformed(asked: Asked) -> None:
    def sealed(plaintext: bytes) -> SealedBox:
        padded = pad_to(plaintext, REQUEST_SIZE)
        return asked.package.content.public_key.seal("connection deposit", asked.package.hash, padded)

    request, cancel = asked.request.to_bytes(), make_cancel(asked.alice, asked.request).to_bytes()
    for plaintext in (
        b"",
        b"\x03" + ConnectionDeposit(DepositKind.REQUEST, request).to_bytes()[1:],
        ConnectionDeposit(DepositKind.CANCEL, request).to_bytes(),
        ConnectionDeposit(DepositKind.REQUEST, cancel).to_bytes(),
        ConnectionDeposit(DepositKind.REQUEST, request).to_bytes() + b"\x00",
        request,
    ):
        with pytest.raises(ParseError):
            open_deposit(sealed(plaintext), asked.key, asked.package.hash)


# --- responses ---------------------------------------------------------------------------------------


def test_a_response_is_by_the_user_and_identity_key_that_were_asked(asked: Asked) -> None:
    recipient = asked.package.verify(asked.bob.user, asked.pin, asked.world.trust, asked.now)
    made = make_response(asked.bob, asked.request.hash, [asked.world.key_package(asked.bob).open])
    box = seal_response(made, asked.response_key.public)
    response = open_response(box, asked.response_key, asked.request.hash)
    device = response.verify(asked.request.hash, recipient, asked.world.trust, asked.now)
    assert device.user == asked.bob.user


def test_a_response_by_another_identity_is_refused(asked: Asked) -> None:
    recipient = asked.package.verify(asked.bob.user, asked.pin, asked.world.trust, asked.now)
    others = [asked.world.device("eve", "b.example"), asked.world.device("bob", "b.example")]
    for device in others:
        response = make_response(device, asked.request.hash, [asked.world.key_package(device).open])
        with pytest.raises(BindingRejected, match="another user, or another identity key"):
            response.verify(asked.request.hash, recipient, asked.world.trust, asked.now)


def test_a_response_to_another_request_is_refused(asked: Asked) -> None:
    recipient = asked.package.verify(asked.bob.user, asked.pin, asked.world.trust, asked.now)
    response = make_response(asked.bob, bytes(32), [])
    with pytest.raises(ConnectionRefused, match="answers another request"):
        response.verify(asked.request.hash, recipient, asked.world.trust, asked.now)
    box = seal_response(response, asked.response_key.public)
    with pytest.raises(SealedBoxRejected):
        open_response(box, asked.response_key, asked.request.hash)


def test_the_key_packages_of_a_response_can_not_be_exchanged(asked: Asked) -> None:
    recipient = asked.package.verify(asked.bob.user, asked.pin, asked.world.trust, asked.now)
    response = make_response(asked.bob, asked.request.hash, [asked.world.key_package(asked.bob).open])
    eve = asked.world.key_package(asked.world.device("eve", "b.example")).open
    forged = replace(response, content=replace(response.content, key_packages=(eve,)))
    with pytest.raises(SignatureRejected, match="ConnectionResponse"):
        forged.verify(asked.request.hash, recipient, asked.world.trust, asked.now)
    assert ConnectionResponse.from_bytes(response.to_bytes()) == response


def test_signatures_of_one_purpose_serve_no_other(asked: Asked) -> None:
    content = asked.request.content
    for label in ("ConnectionPackageTBS", "ConnectionResponseTBS", "UserBindingTBS"):
        forged = ConnectionRequest(content, asked.alice.key.sign(label, content.to_bytes()))
        with pytest.raises(SignatureRejected):
            verify(asked, forged)
    assert SigningKey.generate().sign("A", b"") != SigningKey.generate().sign("A", b"")


# --- rotation ----------------------------------------------------------------------------------------


def test_a_larger_version_replaces_a_connection_key_and_nothing_else_does() -> None:
    def offer(version: int, key: int) -> ConnectionKeyOffer:
        return ConnectionKeyOffer(version, bytes([key]) * 32, bytes(32))

    known = offer(2, 0)
    assert newest_offer(None, known) == known
    for late in (offer(1, 1), offer(2, 1), offer(0, 1), known):
        assert not late.replaces(known)
        assert newest_offer(known, late) == known
    for fresh in (offer(3, 1), offer(2**64 - 1, 1)):
        assert fresh.replaces(known)
        assert newest_offer(known, fresh) == fresh


def test_offers_that_come_in_any_order_and_again_leave_the_newest() -> None:
    offers = [ConnectionKeyOffer(version, bytes([version]) * 32, bytes(32)) for version in (1, 2, 3)]
    for order in itertools.permutations(offers + offers[:2]):
        known = None
        for came in order:
            known = newest_offer(known, came)
        assert known == offers[2]
