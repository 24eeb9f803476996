"""KeyPackage sets over HTTP: taken once, through a hub that sees nothing; every refusal looks the same."""

from __future__ import annotations

import dataclasses
import secrets

import pytest

from mimi_mmr.client import Client
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey, unpad
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    BindingRejected,
    HubRefusal,
    NoKeyPackages,
    NotAllowed,
    PeerError,
    SealedBoxRejected,
)
from mimi_mmr.protocol.key_packages import (
    MAX_SET_LIFETIME,
    ClaimStatus,
    KeyMaterialAnswer,
    KeyMaterialRequest,
    KeyPackageSet,
    SetUploadTBS,
    ShelfOrder,
    ShelfOrderKind,
    ShelfOrderTBS,
    ShelfReport,
    fetch_token,
    open_answer,
    shelf_id,
    sign_order,
    sign_upload,
    wrap,
)
from tests.mimi_mmr.client.inside import way_to
from tests.mimi_mmr.conftest import LiveWorld, connect
from tests.mimi_mmr.provider.doors import Answer, a_claim, obliviously
from tests.mimi_mmr.provider.store.conftest import statements


@dataclasses.dataclass
class Pair:
    """Alice and Bob, connected; each one's contact for the other."""

    alice: Client
    bob: Client
    to_bob: Contact
    to_alice: Contact

    async def claim(self, hub: str, request: KeyMaterialRequest) -> bytes:
        return await self.alice.path.call(hub, "POST", "/v1/keyMaterial/b.example", request.to_bytes())

    @property
    def shelf(self) -> bytes:
        """Bob's, for Alice."""
        return shelf_id(fetch_token(self.to_alice.own_key), self.to_alice.upload_key.public)

    def order(self, kind: ShelfOrderKind, *serials: bytes, issued: float | None = None) -> ShelfOrder:
        when = int(self.bob.context.clock() if issued is None else issued)
        return sign_order(ShelfOrderTBS(self.shelf, when, kind, serials), self.to_alice.upload_key)

    async def give(self, order: ShelfOrder) -> ShelfReport:
        path = "/v1/keyPackages/order"
        return ShelfReport.from_bytes(await self.bob.path.call("b.example", "POST", path, order.to_bytes()))

    async def close(self) -> None:
        await self.give(self.order(ShelfOrderKind.CLOSE))


@pytest.fixture
async def pair(live: LiveWorld) -> Pair:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    return Pair(alice, bob, *await connect(alice, bob))


async def test_a_set_is_taken_once(pair: Pair) -> None:
    await pair.bob.key_packages.publish(pair.to_alice, 2)
    first = await pair.alice.key_packages.claim(pair.to_bob, "a.example")
    second = await pair.alice.key_packages.claim(pair.to_bob, "c.example")
    assert first != second
    with pytest.raises(NoKeyPackages):
        await pair.alice.key_packages.claim(pair.to_bob, "a.example")


async def test_a_replayed_claim_is_refused_and_takes_nothing(pair: Pair) -> None:
    await pair.bob.key_packages.publish(pair.to_alice, 2)
    request, key = await a_claim(pair.alice, pair.to_bob, "a.example")
    open_answer(SealedBox.from_bytes(await pair.claim("a.example", request)), key)
    with pytest.raises(PeerError):
        await pair.claim("a.example", request)
    assert await pair.alice.key_packages.claim(pair.to_bob, "a.example")


async def test_a_claim_is_good_for_the_hub_that_it_was_made_for(pair: Pair) -> None:
    await pair.bob.key_packages.publish(pair.to_alice, 1)
    for_a, _ = await a_claim(pair.alice, pair.to_bob, "a.example")
    with pytest.raises(PeerError):
        await pair.claim("c.example", for_a)
    with pytest.raises(HubRefusal, match="another provider"):
        await pair.alice.path.call("a.example", "POST", "/v1/keyMaterial/c.example", for_a.to_bytes())
    elsewhere = KeyMaterialRequest("c.example", for_a.claim)
    with pytest.raises(PeerError):
        await pair.alice.path.call("a.example", "POST", "/v1/keyMaterial/c.example", elsewhere.to_bytes())
    assert await pair.alice.key_packages.claim(pair.to_bob, "a.example")


async def test_a_claim_for_a_provider_that_the_hub_does_not_know_is_refused(pair: Pair) -> None:
    request, _ = await a_claim(pair.alice, pair.to_bob, "a.example")
    unknown = KeyMaterialRequest("d.example", request.claim)
    with pytest.raises(PeerError, match="not a configured peer"):
        await pair.alice.path.call("a.example", "POST", "/v1/keyMaterial/d.example", unknown.to_bytes())


@dataclasses.dataclass(frozen=True)
class Seen:
    """All that somebody sees of an answer to a claim, who asks through a hub; and the database's work for it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    size: int
    plaintext: bytes
    statements: tuple[str, ...]


async def seen_of(live: LiveWorld, pair: Pair, contact: Contact, hub: str) -> Seen:
    request, key = await a_claim(pair.alice, contact, hub)
    through = await way_to(pair.alice.path, hub)
    url = f"https://{hub}/v1/keyMaterial/b.example"
    with statements(live.providers["b.example"].shelves._store._database) as given:
        async with through.request("POST", url, data=request.to_bytes()) as answer:
            body = await answer.read()
            headers = tuple(sorted(answer.headers.items()))
    plaintext = key.open("key material response", b"", SealedBox.from_bytes(body))
    return Seen(answer.status, headers, len(body), plaintext, tuple(given))


@pytest.mark.parametrize("hub", ["a.example", "b.example"])
async def test_a_blocked_contact_gets_byte_for_byte_what_a_stranger_gets(
    live: LiveWorld, pair: Pair, hub: str
) -> None:
    """Through a hub elsewhere, and through the provider's own."""
    assert pair.to_bob.theirs is not None
    theirs = dataclasses.replace(pair.to_bob.theirs, connection_key=secrets.token_bytes(32))
    stranger = dataclasses.replace(pair.to_bob, theirs=theirs)
    unknown = await seen_of(live, pair, stranger, hub)
    await pair.bob.key_packages.publish(pair.to_alice, 1)
    full = await seen_of(live, pair, pair.to_bob, hub)
    used_up = await seen_of(live, pair, pair.to_bob, hub)
    await pair.bob.key_packages.publish(pair.to_alice, 1)
    await pair.close()
    blocked = await seen_of(live, pair, pair.to_bob, hub)
    assert blocked == unknown == used_up
    assert unpad(blocked.plaintext) == KeyMaterialAnswer(ClaimStatus.NOTHING, False, None).to_bytes()
    assert (full.status, full.headers, full.size) == (blocked.status, blocked.headers, blocked.size)
    assert len(full.plaintext) == len(blocked.plaintext)


async def test_a_closed_shelf_takes_no_more_sets(pair: Pair) -> None:
    await pair.close()
    with pytest.raises(NotAllowed, match="closed"):
        await pair.bob.key_packages.publish(pair.to_alice, 1)


async def test_the_owner_learns_of_each_use_and_takes_back_what_was_used(pair: Pair) -> None:
    await pair.bob.key_packages.publish(pair.to_alice, 2)
    first = await pair.give(pair.order(ShelfOrderKind.REPORT))
    assert [(entry.last_resort, entry.uses) for entry in first.sets] == [(False, 0)] * 2
    await pair.alice.key_packages.claim(pair.to_bob, "a.example")
    serials = [entry.serial for entry in first.sets]
    answer = await pair.give(pair.order(ShelfOrderKind.TAKE_BACK, *serials))
    assert len(answer.taken_back) == 1
    assert answer.sets == ()
    with pytest.raises(NoKeyPackages):
        await pair.alice.key_packages.claim(pair.to_bob, "a.example")
    await pair.bob.key_packages.publish(pair.to_alice, 1)
    assert await pair.alice.key_packages.claim(pair.to_bob, "a.example")


async def test_an_order_is_fresh_for_this_shelf_and_by_its_own_key(pair: Pair) -> None:
    await pair.bob.key_packages.publish(pair.to_alice, 1)
    now = pair.bob.context.clock()
    for kind in ShelfOrderKind:
        good = pair.order(kind)
        own = sign_order(good.content, SigningKey.generate())
        elsewhere = dataclasses.replace(good.content, shelf=bytes(32))
        for bad, error in (
            (own, NotAllowed),
            (pair.order(kind, issued=now - 5000), NotAllowed),
            (pair.order(kind, issued=now + 5000), NotAllowed),
            (dataclasses.replace(good, content=elsewhere), PeerError),
            (dataclasses.replace(good, upload_public_key=own.upload_public_key), PeerError),
        ):
            with pytest.raises(error):
                await pair.give(bad)
    for kind in (ShelfOrderKind.REPORT, ShelfOrderKind.CLOSE):
        with pytest.raises(NotAllowed, match="names any"):
            await pair.give(pair.order(kind, bytes(16)))
    assert await pair.alice.key_packages.claim(pair.to_bob, "a.example")


async def test_an_order_that_somebody_repeats_is_refused(pair: Pair) -> None:
    for kind in ShelfOrderKind:
        await pair.bob.key_packages.publish(pair.to_alice, 1)
        once = pair.order(kind)
        await pair.give(once)
        with pytest.raises(NotAllowed, match="given before"):
            await pair.give(once)


async def test_the_refusal_of_an_order_does_not_say_whether_there_ever_was_such_a_shelf(pair: Pair) -> None:
    async def refusal() -> Answer:
        order = pair.order(ShelfOrderKind.REPORT).to_bytes()
        return await obliviously(pair.bob, "b.example", "/v1/keyPackages/order", order)

    unknown = await refusal()
    await pair.bob.key_packages.publish(pair.to_alice, 1)
    await pair.close()
    assert await refusal() == unknown
    assert (unknown.status, unknown.code) == (403, NotAllowed.code)


@pytest.mark.parametrize("expiry", [-1, MAX_SET_LIFETIME + 86400, 2**62])
async def test_a_set_expires_in_the_future_and_not_too_far(pair: Pair, expiry: int) -> None:
    (package,) = await pair.bob.key_packages.maker.take(1)
    entries = KeyPackageSet((wrap(package.open, pair.to_alice.own_key),))
    content = SetUploadTBS(pair.shelf, bytes(16), False, int(pair.bob.context.clock()) + expiry, entries)
    upload = sign_upload(content, pair.to_alice.upload_key)
    with pytest.raises(NotAllowed, match="kept for at most"):
        await pair.bob.path.call("b.example", "POST", "/v1/keyPackages", upload.to_bytes())


async def test_somebody_elses_key_packages_on_a_contacts_shelf_are_refused(
    live: LiveWorld, pair: Pair
) -> None:
    erin = await live.person("erin", "b.example")
    (erins,) = await erin.key_packages.maker.take(1)
    contact = pair.to_alice
    shelf = shelf_id(fetch_token(contact.own_key), contact.upload_key.public)
    expiry = int(pair.bob.context.clock()) // 86400 * 86400 + 86400
    entries = KeyPackageSet((wrap(erins.open, contact.own_key),))
    upload = sign_upload(SetUploadTBS(shelf, bytes(16), False, expiry, entries), contact.upload_key)
    await pair.bob.path.call("b.example", "POST", "/v1/keyPackages", upload.to_bytes())
    with pytest.raises(BindingRejected):
        await pair.alice.key_packages.claim(pair.to_bob, "a.example")


async def test_a_hub_that_serves_another_claims_answer_is_refused(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    await pair.bob.key_packages.publish(pair.to_alice, 2)
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
                await pair.alice.key_packages.claim(pair.to_bob, "a.example")
    assert await pair.alice.key_packages.claim(pair.to_bob, "a.example")
