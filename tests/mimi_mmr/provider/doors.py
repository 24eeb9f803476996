"""Ways in: straight over TLS, as nobody should, and through relay and gateway, with the bare answer to look at."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from mimi_mmr.client import Client
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.crypto.sealing import Kem, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.protocol.key_packages import (
    CLAIM_LIFETIME,
    KeyMaterialClaim,
    KeyMaterialRequest,
    fetch_token,
    seal_claim,
)
from mimi_mmr.protocol.peers import PEER_SCHEME
from mimi_mmr.protocol.problems import PROBLEM_URN
from tests.mimi_mmr.client.inside import way_to
from tests.mimi_mmr.conftest import LiveWorld


@dataclass(frozen=True)
class Answer:
    """What came back, whatever it is."""

    status: int
    body: bytes
    kind: str = ""

    @property
    def code(self) -> str:
        """This package's stable code, of a problem document."""
        return str(json.loads(self.body)["type"]).removeprefix(PROBLEM_URN)


async def straight(
    live: LiveWorld,
    domain: str,
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    token: str | None = None,
    peer: str | None = None,
) -> Answer:
    """A request over TLS, without any capsule."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    if peer is not None:
        headers["Authorization"] = f"{PEER_SCHEME} {peer}"
    connector = aiohttp.TCPConnector(ssl=live.world.tls())
    url = live.world.providers[domain].url + path
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.request(method, url, data=body, headers=headers) as answer,
    ):
        return Answer(answer.status, await answer.read(), answer.content_type)


async def obliviously(
    client: Client, domain: str, path: str, body: bytes = b"", *, method: str = "POST"
) -> Answer:
    """A request out of a capsule."""
    through = await way_to(client.path, domain)
    async with through.request(method, f"https://{domain}{path}", data=body) as answer:
        return Answer(answer.status, await answer.read(), answer.headers.get("content-type", ""))


def frames(live: LiveWorld) -> bytes:
    """All that all parties have recorded so far."""
    return b"".join(path.read_bytes() for path in sorted(Path(live.world.root).rglob("*.frames.jsonl")))


async def a_claim(client: Client, contact: Contact, hub: str) -> tuple[KeyMaterialRequest, SealingKey]:
    """A sealed claim on a contact's shelf, and the key that opens the answer."""
    assert contact.theirs is not None
    provider, key = contact.user.domain, SealingKey.generate(Kem.X_WING)
    keys = await client.path.provider(provider)
    token, expiry = fetch_token(contact.theirs.key).reveal(), int(client.context.clock()) + CLAIM_LIFETIME
    claim = KeyMaterialClaim(1, hub, provider, token, contact.theirs.upload_public_key, key.public, expiry)
    return seal_claim(claim, keys.key_material_key), key


def token_of(client: Client) -> AccessToken:
    """The access token of a client's device."""
    return client.account.keys.token


async def eventually(ready: Callable[[], Awaitable[bool]], step: Callable[[], Awaitable[object]]) -> None:
    """Take steps, each of which waits for something, until it is so."""
    for _ in range(100):
        if await ready():
            return
        await step()
    raise AssertionError("it never came")
