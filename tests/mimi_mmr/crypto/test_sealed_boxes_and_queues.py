"""HPKE boxes, sealed queue ids, and the signed keys of a provider."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, SealingPublicKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import (
    CertificateRejected,
    CredentialExpired,
    IdentityError,
    LinkRejected,
    ParseError,
    SealedBoxRejected,
    SignatureRejected,
    UnknownQueue,
)
from mimi_mmr.protocol.content import AssetReference, Content, seal_asset
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderKeysTBS, sign_provider_keys
from mimi_mmr.protocol.queues import leaf_binding, open_queue_id, queue_id, seal_queue_id
from tests.mimi_mmr.bench import DAY, World

each_kem = pytest.mark.parametrize("kem", list(Kem), ids=lambda kem: kem.name)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


# --- boxes -------------------------------------------------------------------------------------------


@each_kem
def test_a_box_opens_with_its_key_for_its_purpose_and_context(kem: Kem) -> None:
    key = SealingKey.generate(kem)
    box = key.public.seal("greeting", b"room", b"hello")
    assert key.open("greeting", b"room", SealedBox.from_bytes(box.to_bytes())) == b"hello"
    assert SealingKey(kem, key.seed).open("greeting", b"room", box) == b"hello"
    assert key.public.seal("greeting", b"room", b"hello") != box


@each_kem
def test_a_box_opens_for_nothing_else(kem: Kem) -> None:
    key = SealingKey.generate(kem)
    box = key.public.seal("greeting", b"room", b"hello")
    for opener, purpose, context in (
        (SealingKey.generate(kem), "greeting", b"room"),
        (key, "other", b"room"),
        (key, "greeting", b"other"),
        (key, "greetin", b"groom"),
    ):
        with pytest.raises(SealedBoxRejected, match=f"does not open as {purpose} with this key"):
            opener.open(purpose, context, box)


@each_kem
def test_a_truncated_or_changed_box_does_not_open(kem: Kem) -> None:
    key = SealingKey.generate(kem)
    whole = key.public.seal("greeting", b"", b"hello").ciphertext
    step = max(1, len(whole) // 60)
    cut = [whole[:size] for size in range(0, len(whole), step)]
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), step)]
    for ciphertext in [*cut, *flipped, whole + b"\0"]:
        with pytest.raises(SealedBoxRejected):
            key.open("greeting", b"", SealedBox(kem, ciphertext))


def test_a_box_of_one_kem_is_not_tried_with_a_key_of_the_other() -> None:
    box = SealingKey.generate(Kem.X25519).public.seal("greeting", b"", b"hello")
    with pytest.raises(SealedBoxRejected, match="sealed with KEM X25519, this key is for X_WING"):
        SealingKey.generate(Kem.X_WING).open("greeting", b"", box)


@each_kem
def test_a_public_key_of_another_size_does_not_parse(kem: Kem) -> None:
    key = SealingKey.generate(kem).public
    for wrong in (key.public_key[:-1], b"", bytes(1000)):
        with pytest.raises(ValueError, match=f"a {kem.name} key has"):
            SealingPublicKey(kem, wrong)
    other = next(one for one in Kem if one is not kem)
    with pytest.raises(ParseError, match=f"a {other.name} key has"):
        SealingPublicKey.from_bytes(int(other).to_bytes(2, "big") + key.to_bytes()[2:])


@pytest.mark.parametrize(
    "key", [(Kem.X25519, bytes(32)), (Kem.X_WING, bytes(1216)), (Kem.X_WING, b"\xff" * 1216)]
)
def test_nobody_seals_to_an_unsound_key(key: tuple[Kem, bytes]) -> None:
    with pytest.raises(SealedBoxRejected, match="not a sound one"):
        SealingPublicKey(*key).seal("greeting", b"", b"hello")


def test_a_signature_is_for_one_label_prefix_key_and_content() -> None:
    key = SigningKey.generate()
    signature = key.sign("A", b"content")
    verify(key.public, "A", b"content", signature)
    for public, label, content, prefix in (
        (SigningKey.generate().public, "A", b"content", b"MIMI-MMR 1.0 "),
        (key.public, "B", b"content", b"MIMI-MMR 1.0 "),
        (key.public, "A", b"other", b"MIMI-MMR 1.0 "),
        (key.public, "A", b"content", b"MLS 1.0 "),
    ):
        with pytest.raises(SignatureRejected):
            verify(public, label, content, signature, prefix=prefix)
    for public, cut in ((key.public[:-1], signature), (key.public, signature[:-1]), (key.public, b"")):
        with pytest.raises(SignatureRejected, match="expected a 32-byte key and a 64-byte signature"):
            verify(public, "A", b"content", cut)


# --- queue ids ---------------------------------------------------------------------------------------


def test_a_queue_address_opens_for_its_leaf_at_its_provider() -> None:
    provider, leaf = SealingKey.generate(), SigningKey.generate().public
    queue = queue_id(AccessToken.generate())
    address = seal_queue_id("b.example", provider.public, queue, leaf)
    assert open_queue_id(provider, address.encrypted_queue_id, leaf_binding(leaf)) == queue


def test_a_queue_address_copied_into_another_leaf_is_refused() -> None:
    provider, leaf, thief = SealingKey.generate(), SigningKey.generate().public, SigningKey.generate().public
    address = seal_queue_id("b.example", provider.public, queue_id(AccessToken.generate()), leaf)
    with pytest.raises(UnknownQueue, match="not made for this leaf"):
        open_queue_id(provider, address.encrypted_queue_id, leaf_binding(thief))
    with pytest.raises(UnknownQueue, match="not for this provider"):
        open_queue_id(SealingKey.generate(), address.encrypted_queue_id, leaf_binding(leaf))


def test_a_queue_id_of_another_size_is_refused() -> None:
    provider, leaf = SealingKey.generate(), SigningKey.generate().public
    for wrong in (b"", bytes(31), bytes(33)):
        address = seal_queue_id("b.example", provider.public, wrong, leaf)
        with pytest.raises(UnknownQueue, match="32 bytes"):
            open_queue_id(provider, address.encrypted_queue_id, leaf_binding(leaf))


def test_two_addresses_of_one_queue_have_nothing_in_common() -> None:
    provider, queue = SealingKey.generate(), queue_id(AccessToken.generate())
    leaves = [SigningKey.generate().public for _ in range(2)]
    one, other = (seal_queue_id("b.example", provider.public, queue, leaf) for leaf in leaves)
    first, second = one.encrypted_queue_id.ciphertext, other.encrypted_queue_id.ciphertext
    assert len(first) == len(second)
    assert not any(first[at : at + 8] == second[at : at + 8] for at in range(0, len(first), 8))


def test_a_queue_id_does_not_give_its_token() -> None:
    token = AccessToken.generate()
    assert token.reveal() not in queue_id(token)
    assert queue_id(token) != queue_id(AccessToken.generate())


# --- a provider's keys -------------------------------------------------------------------------------


def provider_keys(world: World, domain: str = "b.example", **changes: object) -> ProviderKeys:
    signer = SigningKey.generate()
    chain = (world.providers["b.example"].ca.issue_provider(signer.public, world.now),)
    content = ProviderKeysTBS(
        domain,
        SealingKey.generate(Kem.X_WING).public,
        SealingKey.generate().public,
        b"keys",
        "https://b.example",
        "",
        int(world.now) + DAY,
    )
    return sign_provider_keys(replace(content, **changes), signer, chain)  # type: ignore[arg-type]


def test_a_providers_keys_verify_for_that_provider_while_they_last(world: World) -> None:
    keys = ProviderKeys.from_bytes(provider_keys(world).to_bytes())
    assert keys.verify("b.example", world.trust, world.now) == keys.keys
    with pytest.raises(CertificateRejected, match=r"expected a certificate of a\.example"):
        keys.verify("a.example", world.trust, world.now)
    with pytest.raises(CredentialExpired):
        keys.verify("b.example", world.trust, world.now + DAY)


def test_a_providers_keys_of_another_domain_are_refused_though_signed(world: World) -> None:
    with pytest.raises(IdentityError, match="another provider's"):
        provider_keys(world, "c.example").verify("b.example", world.trust, world.now)


def test_no_key_can_be_slipped_into_a_signed_document(world: World) -> None:
    keys = provider_keys(world)
    for changes in (
        {"queue_key": SealingKey.generate().public},
        {"key_material_key": SealingKey.generate(Kem.X_WING).public},
        {"ohttp_keys": b"mine"},
        {"base_url": "https://evil.example"},
        {"expiry": keys.keys.expiry + 1},
    ):
        forged = replace(keys, keys=replace(keys.keys, **changes))  # type: ignore[arg-type]
        with pytest.raises(SignatureRejected, match=r"keys of b\.example"):
            forged.verify("b.example", world.trust, world.now)


# --- content and assets ------------------------------------------------------------------------------


def test_the_length_of_a_message_is_a_bucket() -> None:
    sizes = {len(Content.text("x" * length).padded()) for length in range(240)}
    assert sizes == {256}
    assert Content.from_padded(Content.text("héllo").padded()) == Content.text("héllo")
    with pytest.raises(SealedBoxRejected):
        Content.from_padded(b"\xff" * 256)
    with pytest.raises(ParseError):
        Content.from_padded(bytes(256))


def test_an_asset_opens_only_as_what_its_sender_put_there() -> None:
    data = b"a picture" * 99
    key, ciphertext = seal_asset(data)
    assert (len(ciphertext) - 16) % 4096 == 0
    there = AssetReference("https://x", "picture", len(data), key, hashlib.sha256(ciphertext).digest())
    assert there.open(ciphertext) == data
    with pytest.raises(LinkRejected, match="not the one that its sender described"):
        there.open(ciphertext[:-1] + bytes([ciphertext[-1] ^ 1]))
    with pytest.raises(LinkRejected, match="sender's key"):
        replace(there, key=bytes(32)).open(ciphertext)
