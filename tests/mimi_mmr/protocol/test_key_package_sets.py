"""KeyPackage sets: what may lie on a shelf, who opens what is wrapped with it, and who may claim it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mimi_mmr.crypto.sealing import Kem, SealingKey, pad
from mimi_mmr.crypto.secret import AccessToken, ConnectionKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    CredentialExpired,
    IdentityError,
    InvalidCommit,
    LinkRejected,
    NoKeyPackages,
    ParseError,
    PseudonymProofRejected,
    SealedBoxRejected,
    SignatureRejected,
)
from mimi_mmr.mls.wire import KeyPackage
from mimi_mmr.protocol.credentials import DeviceIdentity, LeafIdentity, make_credential
from mimi_mmr.protocol.key_packages import (
    CLAIM_LIFETIME,
    LIFETIME_SKEW,
    ClaimStatus,
    KeyMaterialAnswer,
    KeyMaterialClaim,
    KeyMaterialRequest,
    KeyPackageSet,
    OpenKeyPackage,
    SetEntry,
    SetUpload,
    SetUploadTBS,
    ShelfOrder,
    ShelfOrderKind,
    ShelfOrderTBS,
    check_set,
    fetch_token,
    open_answer,
    open_claim,
    pseudonym_of,
    seal_answer,
    seal_claim,
    shelf_id,
    sign_order,
    sign_upload,
    unwrap,
    wrap,
)
from mimi_mmr.protocol.queues import queue_id, seal_queue_id
from tests.mimi_mmr.bench import DAY, ENGINE, World


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def bob(world: World) -> DeviceIdentity:
    return world.device("bob", "b.example")


def package(
    world: World,
    device: DeviceIdentity,
    set_key: SigningKey,
    *,
    leaf_key: SigningKey | None = None,
    queue: str | None = None,
    expiry: float = 30 * DAY,
    **changes: object,
) -> bytes:
    """A KeyPackage whose leaf says whatever a hostile client wants it to say, all signatures right."""
    key = leaf_key or SigningKey.generate()
    credential, _ = make_credential(device, set_key, key, int(world.now + expiry))
    if changes:
        credential = replace(credential, **changes)  # type: ignore[arg-type]
        proof = set_key.sign("PseudonymSetTBS", credential.tbs.to_bytes())
        credential = replace(credential, set_signature=proof)
    domain = queue or device.user.domain
    queue_key = world.providers[domain].queue_key.public
    address = seal_queue_id(domain, queue_key, queue_id(AccessToken.generate()), key.public)
    return ENGINE.client(LeafIdentity(credential, address).to_bytes(), key).key_package()


# --- what a set is -----------------------------------------------------------------------------------


def test_a_set_is_of_one_pseudonym_and_several_clients(world: World, bob: DeviceIdentity) -> None:
    set_key = SigningKey.generate()
    packages = [package(world, bob, set_key) for _ in range(3)]
    leaves = check_set(packages, world.now)
    assert len({leaf.credential.client_pseudonym for leaf in leaves}) == 3
    assert len({leaf.credential.user_pseudonym for leaf in leaves}) == 1
    assert pseudonym_of([OpenKeyPackage(packages[0], bytes(32))]) == leaves[0].credential.user_pseudonym


def test_two_pseudonyms_in_a_set(world: World, bob: DeviceIdentity) -> None:
    packages = [package(world, bob, SigningKey.generate()) for _ in range(2)]
    with pytest.raises(
        PseudonymProofRejected, match="expected one user pseudonym in a KeyPackage set, got 2"
    ):
        check_set(packages, world.now)


def test_an_empty_set(world: World) -> None:
    with pytest.raises(PseudonymProofRejected, match="got 0"):
        check_set([], world.now)


def test_one_client_pseudonym_twice_in_a_set(world: World, bob: DeviceIdentity) -> None:
    set_key = SigningKey.generate()
    one = package(world, bob, set_key)
    client = check_set([one], world.now)[0].credential.client_pseudonym
    with pytest.raises(PseudonymProofRejected, match="client pseudonym stands twice"):
        check_set([one, package(world, bob, set_key, client_pseudonym=client)], world.now)


def test_one_signature_key_twice_in_a_set(world: World, bob: DeviceIdentity) -> None:
    set_key, leaf_key = SigningKey.generate(), SigningKey.generate()
    packages = [package(world, bob, set_key, leaf_key=leaf_key) for _ in range(2)]
    with pytest.raises(PseudonymProofRejected, match="signature key stands twice"):
        check_set(packages, world.now)


def test_a_queue_at_another_provider_than_the_pseudonym(world: World, bob: DeviceIdentity) -> None:
    with pytest.raises(IdentityError, match="queue is at another provider"):
        check_set([package(world, bob, SigningKey.generate(), queue="c.example")], world.now)


def test_an_expired_credential_or_key_package(world: World, bob: DeviceIdentity) -> None:
    with pytest.raises(CredentialExpired, match="credential has expired"):
        check_set([package(world, bob, SigningKey.generate(), expiry=-1)], world.now)
    lasting = package(world, bob, SigningKey.generate(), expiry=9999 * DAY)
    lifetime = KeyPackage.from_bytes(lasting).leaf_node.lifetime
    assert lifetime is not None
    for outside in (lifetime[0] - 2 * 3600, lifetime[1] + 1):
        with pytest.raises(CredentialExpired, match="outside its lifetime"):
            check_set([lasting], outside)


def test_a_key_package_with_a_forged_signature_or_none_at_all(world: World, bob: DeviceIdentity) -> None:
    whole = package(world, bob, SigningKey.generate())
    with pytest.raises(SignatureRejected):
        check_set([whole[:-1] + bytes([whole[-1] ^ 1])], world.now)
    for nonsense in (b"", whole[:-1], whole + b"\0"):
        with pytest.raises(ParseError):
            check_set([nonsense], world.now)


def test_a_credential_that_is_for_another_key_than_the_leafs(world: World, bob: DeviceIdentity) -> None:
    credential, _ = make_credential(bob, SigningKey.generate(), SigningKey.generate(), int(world.now) + DAY)
    key = SigningKey.generate()
    queue = seal_queue_id("b.example", world.providers["b.example"].queue_key.public, bytes(32), key.public)
    made = ENGINE.client(LeafIdentity(credential, queue).to_bytes(), key).key_package()
    with pytest.raises(LinkRejected, match="another key than the leaf's"):
        check_set([made], world.now)


def test_an_identity_that_is_no_leaf_identity(world: World) -> None:
    made = ENGINE.client(b"bob", SigningKey.generate()).key_package()
    with pytest.raises((ParseError, InvalidCommit)):
        check_set([made], world.now)


# --- wrapped link keys -------------------------------------------------------------------------------


def test_only_the_connection_key_opens_a_wrapped_link_key(world: World, bob: DeviceIdentity) -> None:
    key, made = ConnectionKey.generate(), world.key_package(bob)
    entry = wrap(made.open, key)
    assert unwrap(entry, key) == made.open
    assert made.leaf.ilk.reveal() not in entry.to_bytes()
    with pytest.raises(LinkRejected, match="not wrapped under this connection's key"):
        unwrap(entry, ConnectionKey.generate())


def test_a_wrapped_link_key_is_for_one_key_package(world: World, bob: DeviceIdentity) -> None:
    key = ConnectionKey.generate()
    one, other = (wrap(world.key_package(bob).open, key) for _ in range(2))
    with pytest.raises(LinkRejected):
        unwrap(SetEntry(one.key_package, other.wrapped_ilk), key)


def test_token_and_shelf_give_nothing_of_the_connection_key() -> None:
    key, upload = ConnectionKey.generate(), SigningKey.generate().public
    token = fetch_token(key)
    assert token == fetch_token(ConnectionKey(key.reveal()))
    assert token.reveal() != key.reveal()
    assert shelf_id(token, upload) != shelf_id(token, SigningKey.generate().public)
    assert shelf_id(token, upload) != shelf_id(fetch_token(ConnectionKey.generate()), upload)


# --- shelves -----------------------------------------------------------------------------------------


def test_uploads_and_orders_are_signed_by_the_shelfs_key(world: World, bob: DeviceIdentity) -> None:
    key, other = SigningKey.generate(), SigningKey.generate()
    entries = KeyPackageSet((wrap(world.key_package(bob).open, ConnectionKey.generate()),))
    upload = sign_upload(SetUploadTBS(bytes(32), bytes(16), False, int(world.now), entries), key)
    SetUpload.from_bytes(upload.to_bytes()).verify()
    order = sign_order(ShelfOrderTBS(bytes(32), int(world.now), ShelfOrderKind.TAKE_BACK, (bytes(16),)), key)
    ShelfOrder.from_bytes(order.to_bytes()).verify()
    forged = [
        replace(upload, upload_public_key=other.public),
        replace(upload, content=replace(upload.content, last_resort=True)),
        replace(upload, content=replace(upload.content, shelf=b"\1" * 32)),
        replace(order, upload_public_key=other.public),
        replace(order, content=replace(order.content, shelf=b"\1" * 32)),
        replace(order, content=replace(order.content, kind=ShelfOrderKind.CLOSE)),
        replace(order, content=replace(order.content, serials=(b"\1" * 16,))),
        replace(order, content=replace(order.content, issued=order.content.issued + 1)),
        replace(order, content=replace(order.content, nonce=bytes(16))),
        replace(order, signature=upload.signature),
    ]
    for one in forged:
        with pytest.raises(SignatureRejected):
            one.verify()


# --- claims ------------------------------------------------------------------------------------------


def claim_of(world: World, **changes: object) -> KeyMaterialClaim:
    claim = KeyMaterialClaim(
        1,
        "a.example",
        "b.example",
        bytes(32),
        bytes(32),
        SealingKey.generate(Kem.X_WING).public,
        int(world.now) + CLAIM_LIFETIME,
    )
    return replace(claim, **changes)  # type: ignore[arg-type]


def test_a_claim_reaches_the_provider_through_the_hub_it_names(world: World) -> None:
    key, claim = SealingKey.generate(Kem.X_WING), claim_of(world)
    request = KeyMaterialRequest.from_bytes(seal_claim(claim, key.public).to_bytes())
    assert open_claim(request, key, "a.example", world.now) == claim


def test_a_claim_passed_on_by_another_hub_does_not_open(world: World) -> None:
    key = SealingKey.generate(Kem.X_WING)
    request = seal_claim(claim_of(world), key.public)
    with pytest.raises(SealedBoxRejected):
        open_claim(request, key, "c.example", world.now)
    with pytest.raises(SealedBoxRejected):
        open_claim(replace(request, provider="c.example"), key, "a.example", world.now)
    with pytest.raises(SealedBoxRejected):
        open_claim(request, SealingKey.generate(Kem.X_WING), "a.example", world.now)


def test_a_claim_whose_inside_names_another_hub_is_refused(world: World) -> None:
    key, claim = SealingKey.generate(), claim_of(world, hub="c.example")
    box = key.public.seal("key material claim", b"a.example\0b.example", pad(claim.to_bytes(), 512))
    with pytest.raises(NoKeyPackages, match="another hub or provider"):
        open_claim(KeyMaterialRequest("b.example", box), key, "a.example", world.now)


def test_a_claim_is_good_for_minutes_and_an_hour_for_clocks_that_differ(world: World) -> None:
    key = SealingKey.generate()
    for lasting in (1 - LIFETIME_SKEW, 2 * CLAIM_LIFETIME + LIFETIME_SKEW):
        open_claim(
            seal_claim(claim_of(world, expiry=int(world.now) + lasting), key.public),
            key,
            "a.example",
            world.now,
        )
    for lasting in (-1 - LIFETIME_SKEW, -LIFETIME_SKEW, 2 * CLAIM_LIFETIME + LIFETIME_SKEW + 2):
        request = seal_claim(claim_of(world, expiry=int(world.now) + lasting), key.public)
        with pytest.raises(NoKeyPackages, match="expired, or claims to live too long"):
            open_claim(request, key, "a.example", world.now)


def test_a_claim_of_an_unknown_version_is_refused(world: World) -> None:
    key = SealingKey.generate()
    with pytest.raises(NoKeyPackages, match="version"):
        open_claim(seal_claim(claim_of(world, version=2), key.public), key, "a.example", world.now)


def test_claims_of_anybody_have_one_size(world: World) -> None:
    key = SealingKey.generate()
    sizes = {
        len(seal_claim(claim_of(world, hub=hub, provider=provider), key.public).claim.ciphertext)
        for hub in ("a.example", "a-rather-long-hub.example")
        for provider in ("b.example", "some-other-provider.example")
    }
    assert len(sizes) == 1


def test_an_answer_opens_for_the_requester_and_says_nothing_to_others(
    world: World, bob: DeviceIdentity
) -> None:
    key = SealingKey.generate(Kem.X_WING)
    entries = KeyPackageSet((wrap(world.key_package(bob).open, ConnectionKey.generate()),))
    taken = seal_answer(KeyMaterialAnswer(ClaimStatus.TAKEN, False, entries), key.public)
    assert open_answer(taken, key) == entries
    with pytest.raises(SealedBoxRejected):
        open_answer(taken, SealingKey.generate(Kem.X_WING))


def test_nothing_to_claim_has_the_size_of_something(world: World, bob: DeviceIdentity) -> None:
    key = SealingKey.generate(Kem.X_WING)
    entries = KeyPackageSet((wrap(world.key_package(bob).open, ConnectionKey.generate()),))
    taken = seal_answer(KeyMaterialAnswer(ClaimStatus.TAKEN, False, entries), key.public)
    nothing = seal_answer(KeyMaterialAnswer(ClaimStatus.NOTHING, False, None), key.public)
    assert len(taken.ciphertext) == len(nothing.ciphertext)
    with pytest.raises(NoKeyPackages):
        open_answer(nothing, key)
    with pytest.raises(NoKeyPackages):
        open_answer(seal_answer(KeyMaterialAnswer(ClaimStatus.NOTHING, False, entries), key.public), key)
    with pytest.raises(NoKeyPackages):
        open_answer(seal_answer(KeyMaterialAnswer(ClaimStatus.TAKEN, False, None), key.public), key)
