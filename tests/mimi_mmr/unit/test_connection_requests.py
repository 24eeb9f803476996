"""Connecting: packages, requests and responses that are for one person, one purpose, and a while."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest

from mimi_mmr.connections import (
    REQUEST_LIFETIME,
    ConnectionPackage,
    ConnectionRequest,
    ConnectionResponse,
    ContactCode,
    ReplyInbox,
    check_pin,
    make_connection_package,
    make_request,
    make_response,
    open_request,
    open_response,
    seal_request,
    seal_response,
)
from mimi_mmr.credentials import DeviceIdentity, fingerprint
from mimi_mmr.errors import (
    BindingRejected,
    CertificateRejected,
    ConnectionRefused,
    CredentialExpired,
    SealedBoxRejected,
    SignatureRejected,
)
from mimi_mmr.labels import SigningKey
from mimi_mmr.sealing import Kem, SealingKey
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
