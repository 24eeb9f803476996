"""The straight path, whole: people connect, share a room, one leaves, another comes."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from mimi_mmr.member.whois import Standing
from mimi_mmr.provider.settings import Databases
from tests.mimi_mmr.conftest import LiveWorld, connect, invited, until_epoch


async def test_members_resolve_one_another_and_a_removed_member_stops_reading(live: LiveWorld) -> None:
    await main_path(live)


async def test_a_provider_on_postgresql_does_the_same(live: LiveWorld, postgres: Any) -> None:
    urls = {}
    for role in ("hub", "accounts", "deliveries"):
        postgres.psql(f"create database {role}")
        urls[role] = sa.make_url(postgres.get_uri()).set(database=role).render_as_string(hide_password=False)
    await live.stop("a.example")
    await live.start("a.example", database=Databases(**urls))
    await main_path(live)
    await live.stop("a.example")
    for role in urls:
        postgres.psql(f"drop database {role}")


async def main_path(live: LiveWorld) -> None:
    alice = await live.person("alice", "a.example")
    bob = await live.person("bob", "b.example")
    cathy = await live.person("cathy", "c.example")
    dave = await live.person("dave", "a.example")
    to_bob, bobs = await connect(alice, bob)
    to_cathy, cathys = await connect(alice, cathy)
    _, to_dave = await connect(dave, alice)
    for client, contact in ((bob, bobs), (cathy, cathys), (dave, dave.people.contacts[alice.user])):
        await client.key_packages.publish(contact, 1)

    room = await alice.rooms.create()
    await alice.rooms.add(room, [to_bob, to_cathy])
    at_bob, at_cathy = await invited(bob), await invited(cathy)
    for client, joined in ((bob, at_bob), (cathy, at_cathy)):
        await until_epoch(client, joined, room.room.epoch)
        assert joined.problems == ()

    everybody = {alice.user, bob.user, cathy.user}
    for client, joined in ((alice, room), (bob, at_bob), (cathy, at_cathy)):
        known = client.rooms.who(joined)
        assert {entry.standing for entry in known} == {Standing.VERIFIED}
        assert {entry.member.device.user for entry in known if entry.member} == everybody

    await bob.rooms.send(at_bob, "hello")
    for client, joined in ((alice, room), (cathy, at_cathy)):
        while not joined.messages:
            await client.rooms.sync(joined, wait=5)
        assert joined.messages.popleft().text == "hello"

    asset = b"a picture" * 1000
    await alice.rooms.assets.send(room, "picture", asset)
    while not at_cathy.messages:
        await cathy.rooms.sync(at_cathy, wait=5)
    assert await cathy.rooms.assets.fetch(at_cathy, at_cathy.messages.popleft()) == asset

    leaving = [
        entry.leaf for entry in alice.rooms.who(room) if entry.member and entry.member.device.user == bob.user
    ]
    await alice.rooms.remove(room, leaving)
    await alice.rooms.add(room, [to_dave])
    while not at_bob.room.removed:
        await bob.rooms.sync(at_bob, wait=5)
    at_dave = await invited(dave)
    await until_epoch(dave, at_dave, room.room.epoch)
    await until_epoch(cathy, at_cathy, room.room.epoch)
    present = {alice.user, cathy.user, dave.user}
    assert {entry.member.device.user for entry in cathy.rooms.who(at_cathy) if entry.member} == present
    assert room.room.tree_hash == at_cathy.room.tree_hash == at_dave.room.tree_hash
