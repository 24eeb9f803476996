"""Local and remote provider against people who connect; strangers against shelves; a removed device.

Over real providers. A provider has its users' directory, its CA and all deposits in its hands: what it does with
them is seen by the client it is done to, or changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from mimi_mmr.client import Client
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import (
    BindingRejected,
    CertificateRejected,
    ConnectionRefused,
    CredentialExpired,
    IdentityError,
    NoKeyPackages,
    NotAllowed,
    RoomError,
    SignatureRejected,
    Unauthorized,
)
from mimi_mmr.protocol.accounts import AddDeviceRequest, AddDeviceTBS, PublishRequest, access_token_hash
from mimi_mmr.protocol.connections import (
    ConnectionCancel,
    ConnectionPackage,
    ConnectionRequest,
    ContactCode,
    ReplyInbox,
    make_cancel,
    make_connection_package,
    make_request,
    open_deposit,
    seal_cancel,
    seal_request,
)
from mimi_mmr.protocol.credentials import fingerprint
from mimi_mmr.protocol.deposits import Deposit, Inbox
from mimi_mmr.protocol.key_packages import (
    KeyPackageSet,
    SetUploadTBS,
    ShelfOrder,
    ShelfOrderKind,
    ShelfOrderTBS,
    ShelfReport,
    fetch_token,
    shelf_id,
    sign_order,
    sign_upload,
    wrap,
)
from mimi_mmr.provider.store.tables import connection_requests
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.client.people.test_hostile_provider_and_people import impostor_of
from tests.mimi_mmr.conftest import Clock, LiveWorld, connect
from tests.mimi_mmr.provider.doors import obliviously, straight, token_of
from tests.mimi_mmr.provider.test_accounts_over_http import bearer

Issue = Callable[[MimiUri, MimiUri, bytes, float], bytes]
BOB = "/v1/account/bob"


async def deposited(live: LiveWorld, domain: str) -> list[tuple[int, bytes]]:
    """What lies in all inboxes of a provider."""
    async with live.providers[domain].accounts._store._database.read() as connection:
        query = sa.select(connection_requests.c.id, connection_requests.c.deposit)
        rows = await connection.execute(query.order_by(connection_requests.c.id))
        return [(row.id, row.deposit) for row in rows]


def serving(live: LiveWorld, domain: str, package: ConnectionPackage) -> None:
    """From now on the provider gives everybody this package, whoever is asked for."""

    async def take_package(_user: MimiUri, _now: float) -> bytes:
        return package.to_bytes()

    live.providers[domain].accounts._store.take_package = take_package  # type: ignore[method-assign]


# --- a provider that substitutes ---------------------------------------------------------------------


async def test_a_substituted_package_is_refused_with_a_contact_code_and_nothing_is_sent(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    code = bob.contact_code
    fake = await impostor_of(live, bob)
    with pytest.raises(BindingRejected, match="not the one the contact code names"):
        await alice.people.request_connection(code)
    assert await deposited(live, "b.example") == []
    without = await alice.people.request_connection(bob.user)  # trust on first use, and said to be that
    assert not without.pinned
    assert without.recipient.identity_key == fake.account.me.credential.identity_key


async def test_a_package_of_another_user_of_the_same_provider_is_refused(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    eve = await live.person("eve", "b.example")
    package = make_connection_package(
        eve.account.me,
        SealingKey.generate().public,
        last_resort=False,
        expiry=int(eve.context.clock()) + 86400,
    )
    serving(live, "b.example", package)
    for code in (bob.user, ContactCode(bob.user, fingerprint(eve.account.me.credential.identity_key))):
        with pytest.raises(ConnectionRefused, match="another user's"):
            await alice.people.request_connection(code)
    assert await deposited(live, "b.example") == []


async def test_an_old_package_is_refused_even_of_the_right_person(live: LiveWorld) -> None:
    clock = Clock()
    alice, bob = await live.person("alice", "a.example", clock=clock), await live.person("bob", "b.example")
    now = bob.context.clock()
    key = SealingKey.generate().public
    old = make_connection_package(bob.account.me, key, last_resort=True, expiry=int(now) + 5 * 86400)
    serving(live, "b.example", old)
    assert (await alice.people.request_connection(bob.contact_code)).pinned
    clock.ahead = 6 * 86400
    with pytest.raises(CredentialExpired):
        await alice.people.request_connection(bob.contact_code)
    clock.ahead = 200 * 86400  # nor when the device's certificate ended
    with pytest.raises(IdentityError):
        await alice.people.request_connection(bob.contact_code)


async def test_a_certificate_for_another_key_or_another_name_is_refused_at_registration(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = live.providers["a.example"].accounts._ca
    issue: Issue = ca.issue_device
    other = SigningKey.generate().public
    eve, tablet = MimiUri("a.example", Kind.USER, "eve"), MimiUri("a.example", Kind.DEVICE, "eve-tablet")
    phone = MimiUri.of_device(eve, "phone")

    lies: list[tuple[Issue, type[IdentityError]]] = [
        (lambda user, device, _, now: issue(user, device, other, now), IdentityError),
        (lambda _, __, key, now: issue(eve, phone, key, now), IdentityError),
        (lambda user, _, key, now: issue(user, tablet, key, now), IdentityError),
        (lambda user, device, key, now: issue(user, device, key, now - 200 * 86400), CertificateRejected),
    ]
    alice = live.client("alice", "a.example")
    for lie, error in lies:
        with monkeypatch.context() as patch:
            patch.setattr(ca, "issue_device", lie)
            with pytest.raises(error):
                await alice.register()
        with pytest.raises(RoomError, match="register first"):
            _ = alice.account.me
    await alice.register()  # the account was hers all the time
    assert alice.account.me.device == alice.device


# --- a provider that replays and re-orders deposits --------------------------------------------------


async def rewrite(live: LiveWorld, domain: str, deposits: list[bytes]) -> None:
    """All inboxes' deposits are these, for Bob, in this order."""
    async with live.providers[domain].accounts._store._database.write() as connection:
        await connection.execute(sa.delete(connection_requests))
        uri = str(MimiUri(domain, Kind.USER, "bob"))
        for deposit in deposits:
            await connection.execute(sa.insert(connection_requests).values(uri=uri, deposit=deposit))


async def test_a_deposit_that_comes_twice_is_one_request_and_none_when_it_was_dealt_with(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    await alice.people.request_connection(bob.contact_code)
    ((_, deposit),) = await deposited(live, "b.example")
    await rewrite(live, "b.example", [deposit, deposit])
    incoming = {one.request.hash: one for one in await bob.people.connection_requests()}
    assert len(incoming) == 1
    await bob.people.refuse(next(iter(incoming.values())))
    await rewrite(live, "b.example", [deposit])  # the one-time key that it was sealed to is gone
    assert await bob.people.connection_requests() == []
    assert any("not this" in line for line in bob.refusals.texts())


async def test_deposits_in_another_order_are_the_same_requests(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    for asking in (alice, cathy):
        await asking.people.request_connection(bob.contact_code)
    deposits = [deposit for _, deposit in await deposited(live, "b.example")]
    await rewrite(live, "b.example", deposits[::-1])
    assert {one.device.user for one in await bob.people.connection_requests()} == {alice.user, cathy.user}


async def test_a_deposit_for_somebody_else_is_refused_by_who_gets_it(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    erin = await live.person("erin", "b.example")
    await alice.people.request_connection(erin.contact_code)
    ((_, deposit),) = await deposited(live, "b.example")
    await rewrite(live, "b.example", [deposit])
    assert await bob.people.connection_requests() == []
    assert len(bob.refusals.texts()) == 1


async def test_one_package_that_is_given_to_two_lets_nobody_read_the_others_request(
    live: LiveWorld,
) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    serving(live, "b.example", next(iter(bob.people.connection_packages.values())).package)
    for asking in (alice, cathy):
        await asking.people.request_connection(bob.contact_code)
    requests = {one.device.user: one for one in await bob.people.connection_requests()}
    assert requests.keys() == {alice.user, cathy.user}
    keys = {one.request.content.connection_response_key.public_key for one in requests.values()}
    assert len(keys) == 2


@pytest.mark.parametrize("order", [1, -1])
async def test_a_cancel_that_overtakes_its_request_still_cancels_it(live: LiveWorld, order: int) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    await cathy.people.request_connection(bob.contact_code)
    await alice.people.cancel(await alice.people.request_connection(bob.contact_code))
    deposits = [deposit for _, deposit in await deposited(live, "b.example")]
    assert len({len(deposit) for deposit in deposits[1:]}) == 1
    await rewrite(live, "b.example", deposits[::order])
    assert [one.device.user for one in await bob.people.connection_requests()] == [cathy.user]
    await rewrite(live, "b.example", deposits[2:])  # the cancel once more, without anything to cancel
    assert await bob.people.connection_requests() == []


async def test_a_cancel_undoes_one_request_in_whatever_order_they_come(live: LiveWorld) -> None:
    """And a provider can't make one of anything that it has."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    published = next(iter(bob.people.connection_packages.values()))
    package, private = published.package, published.key
    requests = [
        make_request(
            alice.account.me,
            package,
            ReplyInbox("a.example", secrets.token_bytes(32)),
            SealingKey.generate(Kem.X_WING).public,
            alice.context.clock(),
        )
        for _ in range(2)
    ]
    forged = ConnectionCancel(make_cancel(alice.account.me, requests[1]).content, requests[1].signature)
    boxes = [
        seal_cancel(make_cancel(alice.account.me, requests[0]), package),
        seal_cancel(forged, package),
        *[seal_request(request, package) for request in requests],
    ]
    await rewrite(live, "b.example", [Deposit(package.hash, box).to_bytes() for box in boxes])
    waiting = await straight(
        live, "b.example", f"{BOB}/requests", method="GET", token=bearer(token_of(bob).reveal())
    )
    opened = [
        open_deposit(one.deposit.request, private, package.hash)
        for one in Inbox.from_bytes(waiting.body).deposits
    ]
    cancels = [one for one in opened if isinstance(one, ConnectionCancel)]
    standing = []
    for request in (one for one in opened if isinstance(one, ConnectionRequest)):
        who = request.verify(bob.user, package.hash, live.world.trust(), bob.context.clock())
        refusals = []
        for cancel in cancels:
            try:
                cancel.verify(request, who)
            except (ConnectionRefused, SignatureRejected) as error:
                refusals.append(type(error))
        if len(refusals) == len(cancels):
            standing.append(request)
            assert set(refusals) == {ConnectionRefused, SignatureRejected}
    assert standing == [requests[1]]


# --- strangers and shelves ---------------------------------------------------------------------------


class Shelf:
    """Bob's shelf for Alice, and what a stranger has seen of what he did with it."""

    def __init__(self, bob: Client, contact: Contact, stranger: Client) -> None:
        self.bob, self.contact, self.stranger = bob, contact, stranger
        self.id = shelf_id(fetch_token(contact.own_key), contact.upload_key.public)

    async def upload(self) -> bytes:
        (package,) = await self.bob.key_packages.maker.take(1)
        entries = KeyPackageSet((wrap(package.open, self.contact.own_key),))
        expiry = int(self.bob.context.clock()) + 86400
        content = SetUploadTBS(self.id, secrets.token_bytes(16), False, expiry, entries)
        body = sign_upload(content, self.contact.upload_key).to_bytes()
        await self.bob.path.call("b.example", "POST", "/v1/keyPackages", body)
        return body

    def order(self, kind: ShelfOrderKind, *serials: bytes) -> ShelfOrder:
        content = ShelfOrderTBS(self.id, int(self.bob.context.clock()), kind, serials)
        return sign_order(content, self.contact.upload_key)

    async def give(self, order: ShelfOrder, client: Client | None = None) -> ShelfReport:
        path = (client or self.bob).path
        return ShelfReport.from_bytes(
            await path.call("b.example", "POST", "/v1/keyPackages/order", order.to_bytes())
        )

    async def report(self) -> ShelfReport:
        return await self.give(self.order(ShelfOrderKind.REPORT))


@pytest.fixture
async def shelf(live: LiveWorld) -> tuple[Shelf, Client, Contact]:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    to_bob, to_alice = await connect(alice, bob)
    stranger = await live.person("mallory", "c.example")
    made = Shelf(bob, to_alice, stranger)
    there = await made.report() if await _is_there(made) else ShelfReport((), ())
    if there.sets:
        await made.give(made.order(ShelfOrderKind.TAKE_BACK, *(one.serial for one in there.sets)))
    return made, alice, to_bob


async def _is_there(shelf: Shelf) -> bool:
    try:
        await shelf.report()
    except NotAllowed:
        return False
    return True


Stage = tuple[Shelf, Client, Contact]


async def test_an_upload_that_a_stranger_repeats_puts_nothing_back(shelf: Stage) -> None:
    bobs, alice, to_bob = shelf
    body = await bobs.upload()
    await alice.key_packages.claim(to_bob, "a.example")
    taken = await bobs.upload()
    (there,) = (await bobs.report()).sets
    await bobs.give(bobs.order(ShelfOrderKind.TAKE_BACK, there.serial))
    for old in (body, taken):
        answer = await obliviously(bobs.stranger, "b.example", "/v1/keyPackages", old)
        assert answer.status == 201  # what a retry gets, and no sign of what became of the set
    assert (await bobs.report()).sets == ()
    with pytest.raises(NoKeyPackages):
        await alice.key_packages.claim(to_bob, "a.example")


async def test_an_order_that_a_stranger_repeats_is_refused(shelf: Stage) -> None:
    bobs, alice, to_bob = shelf
    await bobs.upload()
    (there,) = (await bobs.report()).sets
    orders = [bobs.order(ShelfOrderKind.REPORT), bobs.order(ShelfOrderKind.TAKE_BACK, there.serial)]
    for order in orders:
        await bobs.give(order)
    await bobs.upload()
    for order in orders:
        with pytest.raises(NotAllowed, match="given before"):
            await bobs.give(order, bobs.stranger)
    assert await alice.key_packages.claim(to_bob, "a.example")


async def test_a_contact_who_knows_shelf_and_token_gives_no_orders(shelf: Stage) -> None:
    """Nor does what the contact may sign make a shelf of the same name with another key."""
    bobs, alice, to_bob = shelf
    await bobs.upload()
    (there,) = (await bobs.report()).sets
    own = SigningKey.generate()
    for kind in ShelfOrderKind:
        serials = (there.serial,) if kind is ShelfOrderKind.TAKE_BACK else ()
        order = sign_order(ShelfOrderTBS(bobs.id, int(alice.context.clock()), kind, serials), own)
        with pytest.raises(NotAllowed, match="another key"):
            await bobs.give(order, alice)
    assert await alice.key_packages.claim(to_bob, "a.example")


# --- a removed device --------------------------------------------------------------------------------


async def test_a_removed_device_opens_nothing_with_its_token(live: LiveWorld) -> None:
    """The thief of a phone has its token, its keys and its certificate, and goes on."""
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    key, token = SigningKey.generate(), AccessToken.generate()
    hashed = access_token_hash(token)
    tbs = AddDeviceTBS("b.example", "bob", "bob-tablet", key.public, hashed).to_bytes()
    proof = key.sign("AddDeviceTBS", tbs)
    tablet = AddDeviceRequest("bob-tablet", key.public, proof, token.reveal()).to_bytes()
    phone, new = bearer(token_of(bob).reveal()), bearer(token.reveal())
    assert (await straight(live, "b.example", f"{BOB}/devices", tablet, token=phone)).status == 201
    removal = await straight(live, "b.example", f"{BOB}/devices/bob-phone", method="DELETE", token=new)
    assert removal.status == 200

    spy = SigningKey.generate()
    tbs = AddDeviceTBS("b.example", "bob", "bob-spy", spy.public, hashed).to_bytes()
    proof = spy.sign("AddDeviceTBS", tbs)
    spies = AddDeviceRequest("bob-spy", spy.public, proof, secrets.token_bytes(32)).to_bytes()
    packages = PublishRequest(
        tuple(item.package for item in bob.people.connection_packages.values())
    ).to_bytes()
    attempts = [
        ("GET", "/requests", b""),
        ("DELETE", "/requests/1", b""),
        ("GET", "/packages", b""),
        ("POST", "/packages", packages),
        ("DELETE", "/packages", b""),
        ("GET", "/devices", b""),
        ("POST", "/devices", spies),
        ("DELETE", "/devices/bob-tablet", b""),
        ("DELETE", "/devices/bob-phone", b""),
        ("POST", "/certificate", b""),
        ("DELETE", "", b""),
    ]
    for method, path, body in attempts:
        answer = await straight(live, "b.example", BOB + path, body, method=method, token=phone)
        assert (answer.status, answer.code) == (401, Unauthorized.code), (method, path)
    with pytest.raises(NotAllowed, match="taken"):  # nor does the registration, once more
        await bob.register()
    with pytest.raises(NoKeyPackages):  # and nobody is given what only it can open
        await alice.people.request_connection(bob.contact_code)
    assert (await straight(live, "b.example", f"{BOB}/devices", method="GET", token=new)).status == 200
