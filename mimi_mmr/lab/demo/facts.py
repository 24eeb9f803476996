"""The facts that the run planted, gathered from the people's clients, and the views to search for them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mimi_mmr.lab.demo.people import Person
from mimi_mmr.lab.demo.processes import log_file
from mimi_mmr.lab.demo.world import ASSET_HOST, Party, World
from mimi_mmr.lab.ledger import Fact, FactKind, Trace, View, asset_host_view, provider_views
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.mls.wire import LeafNode
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.key_packages import fetch_token
from mimi_mmr.uris import MimiUri


def facts_of(person: Person) -> Iterator[Fact]:
    """Yield all facts about one person that some party must not learn."""
    client = person.client
    credential = client.account.me.credential

    def fact(kind: FactKind, value: bytes) -> Fact:
        return Fact(kind, person.name, person.provider, value)

    yield fact(FactKind.NAME, client.user.name.encode())
    yield fact(FactKind.DEVICE, client.device.name.encode())
    if person.address:
        yield fact(FactKind.ADDRESS, person.address.encode())
    yield fact(FactKind.REAL_KEY, credential.identity_key)
    yield fact(FactKind.REAL_KEY, client.account.me.key.public)
    for contact in client.people.contacts.values():
        yield fact(FactKind.CONNECTION_KEY, contact.own_key.reveal())
        yield fact(FactKind.FETCH_TOKEN, fetch_token(contact.own_key).reveal())
    for membership in client.rooms.values():
        own = membership.leaf.identity.credential
        yield fact(FactKind.LINK_KEY, membership.leaf.ilk.reveal())
        yield fact(FactKind.QUEUE, membership.leaf.queue.reveal())
        yield fact(FactKind.PSEUDONYM, own.user_pseudonym.name.encode())
        yield fact(FactKind.PSEUDONYM, own.client_pseudonym.name.encode())
        yield fact(FactKind.ROOM, membership.uri.name.encode())


def all_views(world: World) -> list[View]:
    """Return every party's view in every role, from its database, log and frames."""
    views = []
    for party in world.providers.values():
        found = provider_views(
            party.name, party.directory / "data", party.directory / "record", [log_file(party)]
        )
        views += [view for view in found if view.role != "assets" or party.name == _asset_provider()]
    host = world.asset_host
    views.append(
        asset_host_view(host.name, host.directory / "assets", host.directory / "record", [log_file(host)])
    )
    return views


def _asset_provider() -> str:
    return ASSET_HOST.removeprefix("storage.")


def traces(world: World, people: Sequence[Person]) -> list[Trace]:
    """Return each person's leaves as the hubs hold them, and their account as their provider holds it.

    Provider domains are masked, since every party may learn at which provider a pseudonym is.
    """
    owners = {
        membership.leaf.identity.credential.client_pseudonym: person.name
        for person in people
        for membership in person.client.rooms.values()
    }
    found: list[Trace] = []
    for party in world.providers.values():
        found += [*_leaf_traces(party, owners), *_account_traces(party, people)]
    return [Trace(trace.person, trace.place, _masked(world, trace.data)) for trace in found]


def _masked(world: World, data: bytes) -> bytes:
    for domain in world.providers:
        data = data.replace(domain.encode(), b"*" * len(domain))
    return data


def _leaf_traces(party: Party, owners: Mapping[MimiUri, str]) -> Iterator[Trace]:
    query = "SELECT room, epoch_from, data FROM room_nodes WHERE tree = 0 AND position % 2 = 0"
    for room, epoch, row in _rows(party, "hub", query):
        leaf = RatchetTree.from_rows({0: row}).leaves[0]
        owner = owners.get(LeafIdentity.from_bytes(leaf.identity).credential.client_pseudonym)
        if owner is not None:
            yield Trace(owner, f"room {room} at {party.name}", row if epoch else _timeless(row, leaf))


def _timeless(row: bytes, leaf: LeafNode) -> bytes:
    """Drop the lifetime from a creator's first leaf: its hub knows when a room was made, and that is not hidden."""
    start, end = leaf.lifetime or (0, 0)
    lifetime = start.to_bytes(8, "big") + end.to_bytes(8, "big")
    return row.replace(lifetime, bytes(len(lifetime)))


def _account_traces(party: Party, people: Sequence[Person]) -> Iterator[Trace]:
    own = [person for person in people if person.provider == party.name]
    for person in own:
        uri = str(person.client.user)
        for (data,) in _rows(party, "accounts", "SELECT token_hash FROM devices WHERE uri = ?", uri):
            yield Trace(person.name, f"account at {party.name}", data)
        for (data,) in _rows(party, "accounts", "SELECT package FROM connection_packages WHERE uri = ?", uri):
            yield Trace(person.name, f"account at {party.name}", data)


def _rows(party: Party, role: str, query: str, *values: str) -> list[Any]:
    path: Path = party.directory / "data" / f"{role}.sqlite"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()
