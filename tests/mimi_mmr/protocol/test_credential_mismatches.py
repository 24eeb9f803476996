"""Each way in which a credential can lie has its own error."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.sealing import pad
from mimi_mmr.crypto.secret import IdentityLinkKey
from mimi_mmr.crypto.signing import MLS, SigningKey
from mimi_mmr.errors import (
    BindingRejected,
    CertificateRejected,
    CredentialExpired,
    IdentityError,
    LinkRejected,
    PseudonymProofRejected,
)
from mimi_mmr.presentation import Reader, layout
from mimi_mmr.protocol.credentials import (
    CREDENTIAL_LIFETIME,
    LINK_MULTIPLE,
    DeviceIdentity,
    IdentityLinkTBE,
    PseudonymousCredential,
    RealCredential,
    bind_device,
    fingerprint,
    make_credential,
    open_claim,
    open_link,
    resolve,
    verify_in_step,
)
from mimi_mmr.uris import Kind, MimiUri, self_certifying_pseudonym
from tests.mimi_mmr.bench import DAY, World


@dataclass
class Made:
    """A credential with every key that its maker has."""

    device: DeviceIdentity
    set_key: SigningKey
    leaf_key: SigningKey
    credential: PseudonymousCredential
    ilk: IdentityLinkKey

    def forge(self, set_key: SigningKey | None = None, **changes: Any) -> PseudonymousCredential:
        """The credential with other content, its proof and its link made anew by whoever has these keys."""
        changed = replace(self.credential, **changes)
        proof = (set_key or self.set_key).sign("PseudonymSetTBS", changed.tbs.to_bytes())
        link = self.device.seal_link(changed.tbs, self.ilk)
        return replace(changed, set_signature=proof, identity_link_ciphertext=link)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(scope="module")
def bob(world: World) -> Made:
    return make(world, world.device("bob", "b.example"))


def make(world: World, device: DeviceIdentity) -> Made:
    set_key, leaf_key = SigningKey.generate(), SigningKey.generate()
    expiry = int(world.now) + CREDENTIAL_LIFETIME
    credential, ilk = make_credential(device, set_key, leaf_key, expiry)
    return Made(device, set_key, leaf_key, credential, ilk)


def sealed(made: Made, link: bytes, **changes: Any) -> PseudonymousCredential:
    """The credential with this plaintext in its link."""
    credential = replace(made.credential, **changes)
    box = AESGCM(made.ilk.reveal()).encrypt(bytes(12), link, credential.tbs.to_bytes())
    return replace(credential, identity_link_ciphertext=box)


def remade(made: Made, real: RealCredential, key: SigningKey | None = None) -> PseudonymousCredential:
    """The credential with this real one in its link, the link's signature by this key or the device's."""
    content = made.credential.tbs.to_bytes()
    signature = (key or made.device.key).sign("PseudonymousCredentialTBS", content, prefix=MLS)
    return sealed(made, pad(IdentityLinkTBE(signature, real).to_bytes(), LINK_MULTIPLE))


def check(
    world: World,
    credential: PseudonymousCredential,
    made: Made,
    ilk: IdentityLinkKey | None = None,
    later: float = 0,
) -> str:
    key = made.leaf_key.public
    return resolve(credential, ilk or made.ilk, key, world.trust, world.now + later).device.user.name


def test_an_honest_credential_resolves(world: World, bob: Made) -> None:
    assert check(world, bob.credential, bob) == "bob"
    member = resolve(bob.credential, bob.ilk, bob.leaf_key.public, world.trust, world.now)
    assert member.pseudonym == bob.credential.user_pseudonym
    assert fingerprint(member.device.identity_key) == fingerprint(bob.device.credential.identity_key)
    assert PseudonymousCredential.from_bytes(bob.credential.to_bytes()) == bob.credential


def test_a_forged_pseudonym_proof(world: World, bob: Made) -> None:
    forged = bob.forge(set_key=SigningKey.generate())
    with pytest.raises(PseudonymProofRejected, match="did not sign this credential"):
        check(world, forged, bob)


def test_somebody_elses_pseudonym_claimed(world: World, bob: Made) -> None:
    """With or without the set key that the pseudonym is the hash of."""
    eve = make(world, world.device("eve", "b.example"))
    stolen = bob.credential.user_pseudonym
    with pytest.raises(PseudonymProofRejected, match="not the hash"):
        check(world, eve.forge(user_pseudonym=stolen), eve)
    claimed = eve.forge(user_pseudonym=stolen, set_public_key=bob.set_key.public)
    with pytest.raises(PseudonymProofRejected, match="did not sign"):
        check(world, claimed, eve)


def test_the_same_set_key_at_another_provider_is_another_pseudonym(world: World, bob: Made) -> None:
    elsewhere = replace(bob.credential.user_pseudonym, domain="c.example")
    with pytest.raises(PseudonymProofRejected, match="not the hash"):
        check(world, bob.forge(user_pseudonym=elsewhere), bob)


def test_client_and_user_pseudonym_of_different_providers(world: World, bob: Made) -> None:
    elsewhere = replace(bob.credential.client_pseudonym, domain="c.example")
    with pytest.raises(PseudonymProofRejected, match="different providers"):
        check(world, bob.forge(client_pseudonym=elsewhere), bob)


def test_identity_links_swapped_between_two_leaves(world: World, bob: Made) -> None:
    """Also when the link keys are swapped with them: a link is sealed for one credential's content."""
    cathy = make(world, world.device("cathy", "c.example"))
    swapped = replace(bob.credential, identity_link_ciphertext=cathy.credential.identity_link_ciphertext)
    for ilk in (bob.ilk, cathy.ilk):
        with pytest.raises(LinkRejected, match="does not open with this key for this credential"):
            check(world, swapped, bob, ilk)


def test_a_link_opened_and_sealed_again_for_another_leaf(world: World, bob: Made) -> None:
    """A member who can open Bob's link copies what is inside into a leaf of her own."""
    eve = make(world, world.device("eve", "b.example"))
    inside = pad(open_link(bob.credential, bob.ilk).to_bytes(), LINK_MULTIPLE)
    with pytest.raises(LinkRejected, match=r"identity link: .* not by the expected key"):
        check(world, sealed(eve, inside), eve)


def test_a_link_copied_from_another_room_of_the_same_user(world: World, bob: Made) -> None:
    elsewhere = make(world, bob.device)
    inside = pad(open_link(elsewhere.credential, elsewhere.ilk).to_bytes(), LINK_MULTIPLE)
    with pytest.raises(LinkRejected, match="not by the expected key"):
        check(world, sealed(bob, inside), bob)


def test_the_wrong_link_key(world: World, bob: Made) -> None:
    with pytest.raises(LinkRejected, match="does not open with this key"):
        check(world, bob.credential, bob, IdentityLinkKey.generate())


def test_a_credential_for_another_leafs_key(world: World, bob: Made) -> None:
    with pytest.raises(LinkRejected, match="another leaf's signature key"):
        resolve(bob.credential, bob.ilk, SigningKey.generate().public, world.trust, world.now)


def test_an_expired_credential(world: World, bob: Made) -> None:
    assert check(world, bob.forge(expiry=int(world.now) + 1), bob) == "bob"
    with pytest.raises(CredentialExpired):
        check(world, bob.forge(expiry=int(world.now)), bob)


def test_a_prolonged_credential(world: World, bob: Made) -> None:
    longer = replace(bob.credential, expiry=bob.credential.expiry + 1)
    with pytest.raises(PseudonymProofRejected, match="did not sign"):
        check(world, longer, bob)


def test_an_expired_device_certificate_behind_a_live_credential(world: World, bob: Made) -> None:
    lasting = bob.forge(expiry=int(world.now) + 400 * DAY)
    with pytest.raises(CertificateRejected):
        check(world, lasting, bob, later=200 * DAY)


def test_an_unknown_version(world: World, bob: Made) -> None:
    with pytest.raises(PseudonymProofRejected, match="version"):
        check(world, bob.forge(version=2), bob)


@pytest.mark.parametrize("which", ["leaf", "set"])
def test_the_same_key_for_real_and_pseudonymous_would_link_all_rooms(world: World, which: str) -> None:
    device = world.device("bob", "b.example")
    set_key = device.key if which == "set" else SigningKey.generate()
    leaf_key = device.key if which == "leaf" else SigningKey.generate()
    credential, ilk = make_credential(device, set_key, leaf_key, int(world.now) + DAY)
    with pytest.raises(LinkRejected, match="real and pseudonymous key are the same"):
        resolve(credential, ilk, leaf_key.public, world.trust, world.now)


@pytest.mark.parametrize("which", ["leaf", "set"])
def test_the_identity_key_as_a_pseudonymous_one_would_link_all_rooms(world: World, which: str) -> None:
    identity = SigningKey.generate()
    device = world.device("bob", "b.example", identity)
    set_key = identity if which == "set" else SigningKey.generate()
    leaf_key = identity if which == "leaf" else SigningKey.generate()
    credential, ilk = make_credential(device, set_key, leaf_key, int(world.now) + DAY)
    with pytest.raises(LinkRejected, match="real and pseudonymous key are the same"):
        resolve(credential, ilk, leaf_key.public, world.trust, world.now)


def test_a_device_of_another_provider_behind_the_pseudonym(world: World, bob: Made) -> None:
    elsewhere = self_certifying_pseudonym("c.example", bob.set_key.public)
    client = replace(bob.credential.client_pseudonym, domain="c.example")
    with pytest.raises(LinkRejected, match="another provider than the identity"):
        check(world, bob.forge(user_pseudonym=elsewhere, client_pseudonym=client), bob)


def test_a_device_certified_by_a_provider_that_is_not_the_users(world: World, bob: Made) -> None:
    key, user = SigningKey.generate(), MimiUri("c.example", Kind.USER, "bob")
    device = MimiUri("c.example", Kind.DEVICE, "bob-phone")
    chain = (world.providers["c.example"].ca.issue_device(user, device, key.public, world.now),)
    lying = DeviceIdentity(
        bob.device.user,
        bob.device.device,
        key,
        bind_device(SigningKey.generate(), bob.device.user, bob.device.device, chain, key.public),
    )
    made = make(world, lying)
    with pytest.raises(BindingRejected):
        check(world, made.credential, made)


def test_a_link_signed_by_another_key_than_the_certificates(world: World, bob: Made) -> None:
    signature = SigningKey.generate().sign(
        "PseudonymousCredentialTBS", bob.credential.tbs.to_bytes(), prefix=MLS
    )
    link = pad(IdentityLinkTBE(signature, bob.device.credential).to_bytes(), LINK_MULTIPLE)
    with pytest.raises(LinkRejected, match="identity link: "):
        check(world, sealed(bob, link), bob)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 16383, 16384])
def test_what_is_signed_is_the_same_as_it_travelled_and_as_it_is_encoded(bob: Made, size: int) -> None:
    made = replace(bob.credential, identity_link_ciphertext=bytes(size))
    wire = b"before" + made.to_bytes() + b"behind"
    read = PseudonymousCredential.read_from(Reader(wire, 6))
    assert read == made and hash(read) == hash(made)
    assert read.content == made.content == made.tbs.to_bytes()
    later = replace(read, expiry=read.expiry + 1)
    assert later.content == later.tbs.to_bytes() != read.content


@pytest.mark.parametrize("inside", [b"", b"\0\0\0\0", pad(b"nonsense", 256), b"\xff" * 256])
def test_a_link_whose_inside_is_malformed(world: World, bob: Made, inside: bytes) -> None:
    with pytest.raises(LinkRejected, match="malformed"):
        check(world, sealed(bob, inside), bob)


def test_a_truncated_link(world: World, bob: Made) -> None:
    whole = bob.credential.identity_link_ciphertext
    for size in (0, 1, 15, 16, len(whole) - 1):
        cut = replace(bob.credential, identity_link_ciphertext=whole[:size])
        with pytest.raises(LinkRejected):
            check(world, cut, bob)


def test_the_length_of_a_link_does_not_tell_the_length_of_a_name(world: World) -> None:
    sizes = set()
    for length in range(1, 60, 7):
        made = make(world, world.device("b" * length, "b.example"))
        sizes.add(len(made.credential.identity_link_ciphertext))
    assert all((size - 16) % LINK_MULTIPLE == 0 for size in sizes)
    assert len(sizes) <= 2


def test_two_credentials_of_one_device_have_nothing_in_common(world: World, bob: Made) -> None:
    one, other = make(world, bob.device).credential, make(world, bob.device).credential
    for name, _ in layout(PseudonymousCredential):
        if name not in {"version", "expiry"}:
            assert getattr(one, name) != getattr(other, name), name
    real = bob.device.credential.to_bytes()
    encoded = one.to_bytes()
    chunks = [real[start : start + 16] for start in range(0, len(real) - 16, 16)]
    assert not any(chunk in encoded for chunk in chunks)
    assert b"bob" not in encoded


def test_the_real_credential_is_whole(world: World, bob: Made) -> None:
    again = RealCredential.from_bytes(bob.device.credential.to_bytes())
    assert again.verify(world.trust, world.now).device == bob.device.device
    for one, other in pairwise((again.chain, (*again.chain, *again.chain), ())):
        assert one != other
    with pytest.raises(CertificateRejected):
        replace(again, chain=()).verify(world.trust, world.now)


def test_in_step_each_gets_what_it_gets_alone(world: World, bob: Made) -> None:
    """The first thing that is wrong, whatever is wrong with the others, and whatever is known of them already."""
    cathy, stranger = make(world, world.device("cathy", "c.example")), SigningKey.generate()
    unsigned = replace(bob.credential, set_signature=bytes(64))
    real = bob.device.credential
    uncertified = remade(bob, replace(real, chain=()))
    unbound = remade(bob, replace(real, binding_signature=bytes(64)))
    unlinked = remade(bob, real, stranger)
    made = [bob.credential, unsigned, uncertified, unbound, unlinked, cathy.credential, bob.credential]

    def claims() -> list[Any]:
        owners = [cathy if one is cathy.credential else bob for one in made]
        opened: list[Any] = [
            open_claim(one, owner.ilk, one.signature_public_key, world.now)
            for one, owner in zip(made, owners, strict=True)
        ]
        return [None, CredentialExpired("before"), *opened]

    fresh = TrustAnchors(world.trust.roots)
    for _ in range(2):
        found = verify_in_step(claims(), fresh, world.now)
        assert [type(one).__name__ for one in found] == [
            "NoneType", "CredentialExpired", "ResolvedMember", "PseudonymProofRejected", "CertificateRejected",
            "BindingRejected", "LinkRejected", "ResolvedMember", "ResolvedMember",
        ]  # fmt: skip
        for claim, together in zip(claims()[2:], found[2:], strict=True):
            try:
                alone: object = claim.verify(TrustAnchors(world.trust.roots), world.now)
            except IdentityError as error:
                assert (type(error), str(error)) == (type(together), str(together))
            else:
                assert alone == together
    assert verify_in_step([], fresh, world.now) == []
