"""Accounts and the directory: who gets in, and what strangers can tell."""

from __future__ import annotations

import base64
import secrets

import pytest

from mimi_mmr.endpoints import PublishRequest, RegisterRequest, RegisterTBS
from mimi_mmr.errors import NoKeyPackages, NotAllowed, SignatureRejected, Unauthorized
from mimi_mmr.labels import SigningKey
from mimi_mmr.secret import AccessToken
from mimi_mmr.store import accounts as account_store
from tests.mimi_mmr.conftest import LiveWorld
from tests.mimi_mmr.service.doors import obliviously, straight


def bearer(token: bytes) -> str:
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()


def registration(domain: str, user: str, signed_name: str | None = None) -> bytes:
    key = SigningKey.generate()
    proof = key.sign("RegisterTBS", RegisterTBS(domain, signed_name or user, "phone").to_bytes())
    return RegisterRequest(user, "phone", key.public, proof, secrets.token_bytes(32)).to_bytes()


async def test_an_account_opens_to_its_token_only(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    path = "/v1/account/alice/requests"
    good = bearer(alice._token.reveal())
    assert (await straight(live, "a.example", path, method="GET", token=good)).status == 200
    for token in (None, "", "AAAA", "not base64!", "é", bearer(bytes(32)), good[:-2], good + "AAAA"):
        answer = await straight(live, "a.example", path, method="GET", token=token)
        assert (answer.status, answer.code) == (401, "unauthorized"), token
    alice._token = AccessToken.generate()
    with pytest.raises(Unauthorized):
        await alice.connection_requests()


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
    packages = tuple(item.package for item in alice._packages.values())
    body = PublishRequest(packages).to_bytes()
    for method, path in (("GET", "requests"), ("DELETE", "requests/1"), ("POST", "packages")):
        token = bearer(dave._token.reveal())
        answer = await straight(
            live, "a.example", f"/v1/account/alice/{path}", body, method=method, token=token
        )
        assert answer.status == 401
    mine = bearer(dave._token.reveal())
    answer = await straight(live, "a.example", "/v1/account/dave/packages", body, token=mine)
    assert (answer.status, answer.code) == (400, "connection")  # another user's packages


async def test_a_taken_name_is_refused_and_stays_its_owners(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    with pytest.raises(NotAllowed, match="taken"):
        await live.client("alice", "a.example").register()
    assert await alice.connection_requests() == []


async def test_a_bad_proof_opens_no_account_and_leaves_the_name_free(live: LiveWorld) -> None:
    for body in (registration("a.example", "erin", "frank"), registration("b.example", "erin")):
        answer = await straight(live, "a.example", "/v1/account", body)
        assert (answer.status, answer.code) == (400, SignatureRejected.code)
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
    token = bearer(alice._token.reveal())
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
    await bob.request_connection(live.clients[0].contact_code)
    to_alice = await obliviously(bob, "a.example", "/v1/connectionRequest/alice", deposits[0])
    to_nobody = await obliviously(bob, "a.example", "/v1/connectionRequest/nobody", deposits[0])
    monkeypatch.setattr(account_store, "MAX_REQUESTS", 0)
    to_a_full_inbox = await obliviously(bob, "a.example", "/v1/connectionRequest/alice", deposits[0])
    assert to_alice == to_nobody == to_a_full_inbox
    assert to_alice.status == 202


async def test_a_refused_request_looks_like_one_that_nobody_has_read(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    bob = await live.person("bob", "b.example")
    unread = await bob.request_connection(alice.contact_code)
    assert await bob.complete_connection(unread, wait=0) is None
    (incoming,) = await alice.connection_requests()
    await alice.refuse(incoming)
    assert await alice.connection_requests() == []
    assert await bob.complete_connection(unread, wait=0) is None


async def test_one_time_packages_run_out_and_the_last_resort_stays(live: LiveWorld) -> None:
    alice, bob = live.client("alice", "a.example"), await live.person("bob", "b.example")
    await alice.register(packages=2)
    taken = [await obliviously(bob, "a.example", "/v1/connectionPackage/alice") for _ in range(5)]
    bodies = [answer.body for answer in taken]
    assert len(set(bodies)) == 3
    assert bodies[2] == bodies[3] == bodies[4]
    with pytest.raises(NoKeyPackages):
        await bob.path.call("a.example", "POST", "/v1/connectionPackage/nobody")
