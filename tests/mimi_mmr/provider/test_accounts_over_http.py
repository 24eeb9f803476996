"""Accounts and the directory: who gets in, and what strangers can tell."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass, field, replace

import pytest

from mimi_mmr.client import Client
from mimi_mmr.crypto.certificates import DEVICE_LIFETIME
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.errors import NoKeyPackages, NotAllowed, SignatureRejected, Unauthorized
from mimi_mmr.protocol.accounts import (
    AddDeviceRequest,
    AddDeviceTBS,
    CertificateChain,
    DeviceList,
    PackagesLeft,
    PublishRequest,
    RegisterRequest,
    RegisterTBS,
    access_token_hash,
)
from mimi_mmr.protocol.connections import (
    ConnectionCancel,
    ConnectionPackage,
    ReplyInbox,
    make_cancel,
    make_request,
    open_deposit,
    seal_cancel,
    seal_request,
)
from mimi_mmr.protocol.deposits import Deposit, Inbox
from mimi_mmr.provider.store import accounts as account_store
from mimi_mmr.provider.store.accounts import Device
from mimi_mmr.uris import Kind, MimiUri
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.provider.doors import Answer, obliviously, straight, token_of


def bearer(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def registration(domain: str, user: str, signed_name: str | None = None) -> bytes:
    key = SigningKey.generate()
    proof = key.sign("RegisterTBS", RegisterTBS(domain, signed_name or user, "phone").to_bytes())
    return RegisterRequest(user, "phone", key.public, proof, secrets.token_bytes(32)).to_bytes()


async def test_an_account_opens_to_its_token_only(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    path = "/v1/account/alice/requests"
    good = bearer(token_of(alice).reveal())
    assert (await straight(live, "a.example", path, method="GET", token=good)).status == 200
    for token in (None, "", "AAAA", "not base64!", "é", bearer(bytes(32)), good[:-2], good + "AAAA"):
        answer = await straight(live, "a.example", path, method="GET", token=token)
        assert (answer.status, answer.code) == (401, "unauthorized"), token
    assert await alice.people.connection_requests() == []


async def test_a_wrong_token_and_an_unknown_account_get_the_very_same_answer(live: LiveWorld) -> None:
    await live.person("alice", "a.example")
    wrong = bearer(secrets.token_bytes(32))
    answers = [
        await straight(live, "a.example", f"/v1/account/{user}/requests", method="GET", token=wrong)
        for user in ("alice", "nobody")
    ]
    assert answers[0] == answers[1]


async def test_one_accounts_token_opens_no_other_account(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    dave = await live.person("dave", "a.example")
    packages = tuple(item.package for item in alice.people.connection_packages.values())
    body = PublishRequest(packages).to_bytes()
    for method, path in (("GET", "requests"), ("DELETE", "requests/1"), ("POST", "packages")):
        token = bearer(token_of(dave).reveal())
        answer = await straight(
            live, "a.example", f"/v1/account/alice/{path}", body, method=method, token=token
        )
        assert answer.status == 401
    mine = bearer(token_of(dave).reveal())
    answer = await straight(live, "a.example", "/v1/account/dave/packages", body, token=mine)
    assert (answer.status, answer.code) == (400, "connection")  # another user's packages


async def test_a_taken_name_is_refused_and_stays_its_owners(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    with pytest.raises(NotAllowed, match="taken"):
        await live.client("alice", "a.example").register()
    assert await alice.people.connection_requests() == []


async def test_a_second_persons_phone_is_welcome_and_a_stranger_learns_no_device_name(
    live: LiveWorld,
) -> None:
    """The name `phone` is the first person's; the second gets it too, and so its answer tells nothing."""
    answers = [
        await straight(live, "a.example", "/v1/account", registration("a.example", user))
        for user in ("erin", "frank")
    ]
    assert [answer.status for answer in answers] == [201, 201]
    now = live.providers["a.example"]._clock()
    owners = [certified(live, answer, now)[:2] for answer in answers]
    assert owners == [("erin", "phone"), ("frank", "phone")]


async def test_a_registration_that_an_older_provider_took_is_finished_under_its_older_uri(
    live: LiveWorld,
) -> None:
    """Its answer was lost, and the provider was upgraded meanwhile."""
    alice = live.client("alice", "a.example")
    keys, older = alice.account.keys, MimiUri("a.example", Kind.DEVICE, "alice-phone")
    device = Device(older, keys.device.public, keys.token)
    await live.providers["a.example"].account_store.register(alice.user, device)
    await alice.register()
    assert alice.account.me.device == older
    again = live.restarted(alice)
    assert (again.device, again.account.me.device) == (older, older)
    assert await again.account.registered_devices() == ["alice-phone"]


async def test_a_bad_proof_opens_no_account_and_leaves_the_name_free(live: LiveWorld) -> None:
    for body in (registration("a.example", "erin", "frank"), registration("b.example", "erin")):
        answer = await straight(live, "a.example", "/v1/account", body)
        assert (answer.status, answer.code) == (400, SignatureRejected.code)
        assert b"this provider is a.example's" in answer.body  # for whoever took one provider for another
    await live.person("erin", "a.example")


@pytest.mark.parametrize("name", ["", "Alice", "a/b", "a b", "..", "x" * 129, "ä"])
async def test_a_name_that_is_none_is_refused(live: LiveWorld, name: str) -> None:
    key = SigningKey.generate()
    try:
        body = registration("a.example", name)
    except ValueError:
        body = key.public
    answer = await straight(live, "a.example", "/v1/account", body)
    assert answer.status == 400


@pytest.mark.parametrize("number", ["x", "-1", "1.0", "9" * 16, "%31%2e"])
async def test_a_number_of_a_request_is_a_number(live: LiveWorld, number: str) -> None:
    alice = await live.person("alice", "a.example")
    token = bearer(token_of(alice).reveal())
    path = f"/v1/account/alice/requests/{number}"
    answer = await straight(live, "a.example", path, method="DELETE", token=token)
    assert answer.status == 403


async def test_a_request_to_nobody_gets_the_very_same_answer_as_one_to_somebody(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    await live.person("alice", "a.example")
    bob = live.client("bob", "b.example")
    await bob.register(packages=0)
    deposits: list[bytes] = []
    call = bob.path.call

    async def listening(domain: str, method: str, path: str, body: bytes = b"") -> bytes:
        if "connectionRequest" in path:
            deposits.append(body)
        return await call(domain, method, path, body)

    monkeypatch.setattr(bob.path, "call", listening)
    await bob.people.request_connection(live.clients[0].contact_code)
    to_alice = await obliviously(bob, "a.example", "/v1/connectionRequest/alice", deposits[0])
    to_nobody = await obliviously(bob, "a.example", "/v1/connectionRequest/nobody", deposits[0])
    monkeypatch.setattr(account_store, "MAX_REQUESTS", 0)
    to_a_full_inbox = await obliviously(bob, "a.example", "/v1/connectionRequest/alice", deposits[0])
    assert to_alice == to_nobody == to_a_full_inbox
    assert to_alice.status == 202


async def test_a_provider_can_not_tell_a_cancel_from_a_request(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    taken = await obliviously(bob, "a.example", "/v1/connectionPackage/alice")
    package = ConnectionPackage.from_bytes(taken.body)
    inbox = ReplyInbox("b.example", secrets.token_bytes(32))
    key = SealingKey.generate(Kem.X_WING)
    request = make_request(bob.account.me, package, inbox, key.public, bob.context.clock())
    answers, bodies = [], []
    for box in (seal_request(request, package), seal_cancel(make_cancel(bob.account.me, request), package)):
        bodies.append(Deposit(package.hash, box).to_bytes())
        answers.append(await obliviously(bob, "a.example", "/v1/connectionRequest/alice", bodies[-1]))
    assert answers[0] == answers[1]
    assert answers[0].status == 202
    assert len(bodies[0]) == len(bodies[1])
    waiting = await ask(live, "GET", "/requests", token_of(alice))
    private = alice.people.connection_packages[package.hash].key
    opened = [
        open_deposit(item.deposit.request, private, package.hash)
        for item in Inbox.from_bytes(waiting.body).deposits
    ]
    assert opened[0] == request
    assert isinstance(opened[1], ConnectionCancel)
    who = request.verify(alice.user, package.hash, live.world.trust(), alice.context.clock())
    opened[1].verify(request, who)


async def test_a_refused_request_looks_like_one_that_nobody_has_read(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    bob = await live.person("bob", "b.example")
    unread = await bob.people.request_connection(alice.contact_code)
    assert await bob.people.complete_connection(unread, wait=0) is None
    (incoming,) = await alice.people.connection_requests()
    await alice.people.refuse(incoming)
    assert await alice.people.connection_requests() == []
    assert await bob.people.complete_connection(unread, wait=0) is None


async def test_one_time_packages_run_out_and_the_last_resort_stays(live: LiveWorld) -> None:
    alice, bob = live.client("alice", "a.example"), await live.person("bob", "b.example")
    await alice.register(packages=2)
    taken = [await obliviously(bob, "a.example", "/v1/connectionPackage/alice") for _ in range(5)]
    bodies = [answer.body for answer in taken]
    assert len(set(bodies)) == 3
    assert bodies[2] == bodies[3] == bodies[4]
    with pytest.raises(NoKeyPackages):
        await bob.path.call("a.example", "POST", "/v1/connectionPackage/nobody")


# --- devices -----------------------------------------------------------------------------------------


@dataclass
class Tablet:
    """A further device of Alice's, as a client would make it."""

    name: str = "alice-tablet"
    key: SigningKey = field(default_factory=SigningKey.generate)
    token: AccessToken = field(default_factory=AccessToken.generate)

    def request(self, user: str = "alice") -> bytes:
        token = access_token_hash(self.token)
        tbs = AddDeviceTBS("a.example", user, self.name, self.key.public, token).to_bytes()
        proof = self.key.sign("AddDeviceTBS", tbs)
        return AddDeviceRequest(self.name, self.key.public, proof, self.token.reveal()).to_bytes()


async def ask(
    live: LiveWorld, method: str, path: str, token: AccessToken, body: bytes = b"", user: str = "alice"
) -> Answer:
    where = f"/v1/account/{user}{path}"
    return await straight(live, "a.example", where, body, method=method, token=bearer(token.reveal()))


async def names(live: LiveWorld, token: AccessToken) -> tuple[str, ...]:
    answer = await ask(live, "GET", "/devices", token)
    assert answer.status == 200
    return DeviceList.from_bytes(answer.body).devices


def certified(live: LiveWorld, answer: Answer, now: float) -> tuple[str, str, bytes]:
    chain = CertificateChain.from_bytes(answer.body).certificates
    user, device, key = live.world.trust().verify_device(chain, now)
    return user.name, device.name, key


async def test_the_very_same_registration_again_gets_a_certificate_again(live: LiveWorld) -> None:
    body = registration("a.example", "erin")
    first, again = [await straight(live, "a.example", "/v1/account", body) for _ in range(2)]
    assert (first.status, again.status) == (201, 201)
    now = live.providers["a.example"]._clock()
    assert certified(live, first, now) == certified(live, again, now)
    other = await straight(live, "a.example", "/v1/account", registration("a.example", "erin"))
    assert (other.status, other.code) == (403, NotAllowed.code)


async def test_a_device_is_added_by_another_and_removes_it_when_it_is_lost(live: LiveWorld) -> None:
    alice, tablet = await live.person("alice", "a.example"), Tablet()
    for _ in range(2):  # the first answer is lost
        answer = await ask(live, "POST", "/devices", token_of(alice), tablet.request())
        assert answer.status == 201
    now = live.providers["a.example"]._clock()
    assert certified(live, answer, now) == ("alice", "alice-tablet", tablet.key.public)
    assert await names(live, tablet.token) == ("alice-phone", "alice-tablet")
    for _ in range(2):
        assert (await ask(live, "DELETE", "/devices/alice-phone", tablet.token)).status == 200
    with pytest.raises(Unauthorized):
        await alice.people.connection_requests()
    assert await names(live, tablet.token) == ("alice-tablet",)
    last = await ask(live, "DELETE", "/devices/alice-tablet", tablet.token)
    assert (last.status, last.code) == (403, NotAllowed.code)


async def test_a_device_may_remove_itself(live: LiveWorld) -> None:
    alice, tablet = await live.person("alice", "a.example"), Tablet()
    await ask(live, "POST", "/devices", token_of(alice), tablet.request())
    assert (await ask(live, "DELETE", "/devices/alice-tablet", tablet.token)).status == 200
    assert (await ask(live, "GET", "/devices", tablet.token)).status == 401
    assert await names(live, token_of(alice)) == ("alice-phone",)


async def test_a_device_is_added_for_the_account_and_with_the_token_that_it_signed_for(
    live: LiveWorld,
) -> None:
    alice, tablet = await live.person("alice", "a.example"), Tablet()
    good = AddDeviceRequest.from_bytes(tablet.request())
    bad = [
        AddDeviceRequest.from_bytes(tablet.request(user="dave")),
        replace(good, device="alice-laptop"),
        replace(good, access_token=secrets.token_bytes(32)),
        replace(good, device_public_key=SigningKey.generate().public),
    ]
    for request in bad:
        answer = await ask(live, "POST", "/devices", token_of(alice), request.to_bytes())
        assert (answer.status, answer.code) == (400, SignatureRejected.code)
    dave = await live.person("dave", "a.example")
    for token in (token_of(dave), AccessToken.generate()):
        answer = await ask(live, "POST", "/devices", token, good.to_bytes())
        assert (answer.status, answer.code) == (401, Unauthorized.code)
    assert await names(live, token_of(alice)) == ("alice-phone",)
    other = Tablet("alice-phone")
    answer = await ask(live, "POST", "/devices", token_of(alice), other.request())
    assert (answer.status, answer.code) == (403, NotAllowed.code)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/devices"),
        ("POST", "/devices"),
        ("DELETE", "/devices/alice-phone"),
        ("POST", "/certificate"),
        ("GET", "/packages"),
        ("POST", "/packages"),
        ("DELETE", "/packages"),
        ("DELETE", ""),
    ],
)
async def test_nothing_of_an_account_is_anybody_elses(live: LiveWorld, method: str, path: str) -> None:
    alice, dave = await live.person("alice", "a.example"), await live.person("dave", "a.example")
    answers = [
        await ask(live, method, path, token, user=user)
        for user, token in (
            ("alice", token_of(dave)),
            ("alice", AccessToken.generate()),
            ("nobody", token_of(dave)),
            ("nobody", AccessToken.generate()),
        )
    ]
    assert {answer.status for answer in answers} == {401}
    assert len(set(answers)) == 1
    assert await names(live, token_of(alice)) == ("alice-phone",)


async def test_a_certificate_is_renewed_for_the_key_that_is_stored(
    live: LiveWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    alice = await live.person("alice", "a.example")
    accounts = live.providers["a.example"].accounts
    now = accounts._clock()
    later = now + DEVICE_LIFETIME.total_seconds() - 86400
    monkeypatch.setattr(accounts, "_clock", lambda: later)
    answer = await ask(live, "POST", "/certificate", token_of(alice))
    assert answer.status == 200
    for moment in (later, later + DEVICE_LIFETIME.total_seconds() - 2 * 86400):
        found = certified(live, answer, moment)
        assert found == ("alice", "alice-phone", alice.account.me.key.public)
    assert (await ask(live, "POST", "/certificate", token_of(alice), b"\0")).status == 413


async def test_a_closed_account_is_gone_for_its_owner_and_for_strangers(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    assert (await ask(live, "DELETE", "", token_of(alice))).status == 200
    assert (await ask(live, "DELETE", "", token_of(alice))).status == 401
    gone = await obliviously(bob, "a.example", "/v1/connectionPackage/alice")
    assert gone == await obliviously(bob, "a.example", "/v1/connectionPackage/nobody")
    with pytest.raises(NotAllowed, match="taken"):
        await live.client("alice", "a.example").register()


async def left(live: LiveWorld, client: Client) -> PackagesLeft:
    return PackagesLeft.from_bytes((await ask(live, "GET", "/packages", token_of(client))).body)


async def test_a_device_sees_its_packages_go_and_withdraws_them(live: LiveWorld) -> None:
    alice, bob = await live.person("alice", "a.example"), await live.person("bob", "b.example")
    before = await left(live, alice)
    assert (before.account, before.device.last_resorts) == (before.device, 1)
    await obliviously(bob, "a.example", "/v1/connectionPackage/alice")
    after = await left(live, alice)
    assert after.device == replace(before.device, one_time=before.device.one_time - 1)
    assert after.device.earliest_expiry == min(
        one.package.content.expiry for one in alice.people.connection_packages.values()
    )
    assert (await ask(live, "DELETE", "/packages", token_of(alice))).status == 200
    with pytest.raises(NoKeyPackages):
        await bob.path.call("a.example", "POST", "/v1/connectionPackage/alice")
    none = (await left(live, alice)).account
    assert (none.one_time, none.last_resorts, none.earliest_expiry) == (0, 0, None)


async def test_a_device_publishes_its_own_packages_only(live: LiveWorld) -> None:
    alice, tablet = await live.person("alice", "a.example"), Tablet()
    await ask(live, "POST", "/devices", token_of(alice), tablet.request())
    phones = PublishRequest(
        tuple(item.package for item in alice.people.connection_packages.values())
    ).to_bytes()
    answer = await ask(live, "POST", "/packages", tablet.token, phones)
    assert (answer.status, answer.code) == (403, NotAllowed.code)
