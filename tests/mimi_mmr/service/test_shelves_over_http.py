"""KeyPackage sets over HTTP: taken once, through a hub that sees nothing; every refusal looks the same."""

from __future__ import annotations

import dataclasses
import secrets

import pytest

from mimi_mmr.client import Client
from mimi_mmr.contacts import Contact
from mimi_mmr.errors import (
    BindingRejected,
    HubRefusal,
    NoKeyPackages,
    NotAllowed,
    PeerError,
    SealedBoxRejected,
)
from mimi_mmr.keypackages import (
    KeyMaterialRequest,
    KeyPackageSet,
    SetUploadTBS,
    ShelfOrderTBS,
    fetch_token,
    open_answer,
    shelf_id,
    sign_upload,
    sign_withdrawal,
    wrap,
)
from mimi_mmr.labels import SigningKey
from mimi_mmr.sealing import Kem, SealedBox, SealingKey
from tests.mimi_mmr.conftest import LiveWorld, connect
from tests.mimi_mmr.service.doors import a_claim, obliviously


@dataclasses.dataclass
class Pair:
    """Alice and Bob, connected; each one's contact for the other."""

    alice: Client
    bob: Client
    to_bob: Contact
    to_alice: Contact

    async def claim(self, hub: str, request: KeyMaterialRequest) -> bytes:
        return await self.alice.path.call(hub, "POST", "/v1/keyMaterial/b.example", request.to_bytes())

    async def withdraw(self) -> None:
        shelf = shelf_id(fetch_token(self.to_alice.own_key), self.to_alice.upload_key.public)
        order = sign_withdrawal(ShelfOrderTBS(shelf, int(self.bob._clock())), self.to_alice.upload_key)
        await self.bob.path.call("b.example", "POST", "/v1/keyPackages/withdraw", order.to_bytes())


@pytest.fixture
async def pair(live: LiveWorld) -> Pair:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    return Pair(alice, bob, *await connect(alice, bob))


async def test_a_set_is_taken_once(pair: Pair) -> None:
    await pair.bob.publish_key_packages(pair.to_alice, 2)
    first = await pair.alice.claim(pair.to_bob, "a.example")
    second = await pair.alice.claim(pair.to_bob, "c.example")
    assert first != second
    with pytest.raises(NoKeyPackages):
        await pair.alice.claim(pair.to_bob, "a.example")


async def test_a_replayed_claim_is_refused_and_takes_nothing(pair: Pair) -> None:
    await pair.bob.publish_key_packages(pair.to_alice, 2)
    request, key = await a_claim(pair.alice, pair.to_bob, "a.example")
    open_answer(SealedBox.from_bytes(await pair.claim("a.example", request)), key)
    with pytest.raises(PeerError):
        await pair.claim("a.example", request)
    assert await pair.alice.claim(pair.to_bob, "a.example")


async def test_a_claim_is_good_for_the_hub_that_it_was_made_for(pair: Pair) -> None:
    await pair.bob.publish_key_packages(pair.to_alice, 1)
    for_a, _ = await a_claim(pair.alice, pair.to_bob, "a.example")
    with pytest.raises(PeerError):
        await pair.claim("c.example", for_a)
    with pytest.raises(HubRefusal, match="another provider"):
        await pair.alice.path.call("a.example", "POST", "/v1/keyMaterial/c.example", for_a.to_bytes())
    elsewhere = KeyMaterialRequest("c.example", for_a.claim)
    with pytest.raises(PeerError):
        await pair.alice.path.call("a.example", "POST", "/v1/keyMaterial/c.example", elsewhere.to_bytes())
    assert await pair.alice.claim(pair.to_bob, "a.example")


async def test_a_claim_for_a_provider_that_the_hub_does_not_know_is_refused(pair: Pair) -> None:
    request, _ = await a_claim(pair.alice, pair.to_bob, "a.example")
    unknown = KeyMaterialRequest("d.example", request.claim)
    with pytest.raises(PeerError, match="not a configured peer"):
        await pair.alice.path.call("a.example", "POST", "/v1/keyMaterial/d.example", unknown.to_bytes())


@pytest.mark.parametrize("hub", ["a.example", "b.example"])
async def test_unknown_withdrawn_and_used_up_shelves_answer_alike_and_as_long_as_a_full_one(
    pair: Pair, hub: str
) -> None:
    answers = {}

    async def ask(what: str, contact: Contact) -> None:
        request, key = await a_claim(pair.alice, contact, hub)
        path = "/v1/keyMaterial/b.example"
        answers[what] = await obliviously(pair.alice, hub, path, request.to_bytes())
        box = SealedBox.from_bytes(answers[what].body)
        if what == "full":
            assert open_answer(box, key).entries
        else:
            with pytest.raises(NoKeyPackages) as refusal:
                open_answer(box, key)
            refusals.add(str(refusal.value))

    refusals: set[str] = set()
    assert pair.to_bob.theirs is not None
    unknown = dataclasses.replace(pair.to_bob.theirs, connection_key=secrets.token_bytes(32))
    await ask("unknown", dataclasses.replace(pair.to_bob, theirs=unknown))
    await pair.bob.publish_key_packages(pair.to_alice, 1)
    await ask("full", pair.to_bob)
    await ask("used up", pair.to_bob)
    await pair.bob.publish_key_packages(pair.to_alice, 1)
    await pair.withdraw()
    await ask("withdrawn", pair.to_bob)
    assert len({(answer.status, answer.kind, len(answer.body)) for answer in answers.values()}) == 1
    assert len(refusals) == 1


async def test_a_withdrawn_shelf_takes_no_more_sets(pair: Pair) -> None:
    await pair.withdraw()
    with pytest.raises(NotAllowed, match="closed"):
        await pair.bob.publish_key_packages(pair.to_alice, 1)


async def test_a_withdrawal_is_fresh_and_by_the_shelfs_own_key(pair: Pair) -> None:
    await pair.bob.publish_key_packages(pair.to_alice, 1)
    shelf = shelf_id(fetch_token(pair.to_alice.own_key), pair.to_alice.upload_key.public)
    now = int(pair.bob._clock())
    for key, issued in ((SigningKey.generate(), now), (pair.to_alice.upload_key, now - 1000)):
        order = sign_withdrawal(ShelfOrderTBS(shelf, issued), key)
        with pytest.raises(NotAllowed):
            await pair.bob.path.call("b.example", "POST", "/v1/keyPackages/withdraw", order.to_bytes())
    assert await pair.alice.claim(pair.to_bob, "a.example")


async def test_somebody_elses_key_packages_on_a_contacts_shelf_are_refused(
    live: LiveWorld, pair: Pair
) -> None:
    erin = await live.person("erin", "b.example")
    (erins,) = await erin._stock.take(erin.me, 1)
    contact = pair.to_alice
    shelf = shelf_id(fetch_token(contact.own_key), contact.upload_key.public)
    expiry = int(pair.bob._clock()) // 86400 * 86400 + 86400
    entries = KeyPackageSet((wrap(erins.open, contact.own_key),))
    upload = sign_upload(SetUploadTBS(shelf, bytes(16), False, expiry, entries), contact.upload_key)
    await pair.bob.path.call("b.example", "POST", "/v1/keyPackages", upload.to_bytes())
    with pytest.raises(BindingRejected):
        await pair.alice.claim(pair.to_bob, "a.example")


async def test_a_hub_that_serves_another_claims_answer_is_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.bob.publish_key_packages(pair.to_alice, 2)
    other, _ = await a_claim(pair.alice, pair.to_bob, "a.example")
    kept = await pair.claim("a.example", other)
    forged = SealingKey.generate(Kem.X_WING).public.seal("key material response", b"", bytes(8192)).to_bytes()

    for lie in (kept, forged):

        async def lying(domain: str, method: str, path: str, body: bytes = b"", lie: bytes = lie) -> bytes:
            assert (domain, path) == ("a.example", "/v1/keyMaterial/b.example")
            return lie

        with monkeypatch.context() as patch:
            patch.setattr(pair.alice.path, "call", lying)
            with pytest.raises(SealedBoxRejected):
                await pair.alice.claim(pair.to_bob, "a.example")
    assert await pair.alice.claim(pair.to_bob, "a.example")
