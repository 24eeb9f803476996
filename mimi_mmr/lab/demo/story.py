"""The story: four people, three providers, a room whose hub sees pseudonyms only, and a removed member's attack."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa

from mimi_mmr.client import Membership
from mimi_mmr.client.key_packages.maker import MADE_AHEAD
from mimi_mmr.client.people.contacts import Contact, IncomingRequest, OutgoingRequest
from mimi_mmr.errors import MmrError, RoomError
from mimi_mmr.hub.state import HubRoom
from mimi_mmr.lab.demo.attack import Attempt, HoardingEngine, attack
from mimi_mmr.lab.demo.costs import Costs
from mimi_mmr.lab.demo.people import Person, caught_up, connect, invited, person, together, until, until_keyed
from mimi_mmr.lab.demo.world import PROVIDERS, World, loopback
from mimi_mmr.lab.ledger import Fact, FactKind
from mimi_mmr.member.whois import Standing
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.hub import HubStore

FILL_AT_ONCE = 50
FILLER_NETWORKS = dict(zip(PROVIDERS, (11, 12, 13), strict=True))

Announce = Callable[[str], None]


@dataclass(slots=True)
class Story:
    """The people, their room, and the facts that were planted on the way."""

    world: World
    rng: random.Random
    announce: Announce
    costs: Costs = field(default_factory=Costs)
    people: dict[str, Person] = field(default_factory=dict)
    fillers: list[Person] = field(default_factory=list)
    planted: list[Fact] = field(default_factory=list)
    hoard: HoardingEngine = field(default_factory=HoardingEngine)
    contacts: dict[tuple[str, str], Contact] = field(default_factory=dict)

    # --- people --------------------------------------------------------------------------------------

    def introduce(self) -> None:
        """Make the four people.

        Names and devices carry a random mark of this run, so that no sighting is a coincidence.
        """
        mark = f"{self.rng.getrandbits(32):08x}"
        homes = {"Alice": "a.example", "Bob": "b.example", "Cathy": "c.example", "Dave": "a.example"}
        for number, (name, domain) in enumerate(homes.items(), start=1):
            engine = self.hoard if name == "Bob" else None
            user, device = f"{name.lower()}-{mark}", f"phone{number}-{mark[::-1]}"
            self.people[name] = person(self.world, name, user, device, domain, 10, number, engine)
        self.costs.people += self.people.values()

    async def close(self) -> None:
        """Close everybody's client."""
        for someone in (*self.people.values(), *self.fillers):
            await someone.client.close()

    async def register(self) -> None:
        """Register accounts, certify devices, and publish connection packages."""
        self.announce("Alice and Dave register at a.example, Bob at b.example, Cathy at c.example")
        with self.costs.of("register", len(self.people)):
            for someone in self.people.values():
                await someone.client.register()
        self.announce("Everybody makes KeyPackages, in the same second, each under a pseudonym of its own")
        with self.costs.of("make a KeyPackage", MADE_AHEAD * len(self.people)):
            await together(lambda one: one.client.key_packages.prepare(MADE_AHEAD), self.people.values())

    async def befriend(self) -> None:
        """Make three connections, by contact code."""
        for asking, asked in (("Alice", "Bob"), ("Alice", "Cathy"), ("Dave", "Alice")):
            self.announce(f"{asking} connects to {asked}: package, sealed request, response, room of the two")
            with self.costs.of("connect"):
                pair = await connect(self.people[asking], self.people[asked])
            self.contacts[asking, asked], self.contacts[asked, asking] = pair
        for name in ("Bob", "Cathy", "Dave"):
            await self.stock(self.people[name], self.contacts[name, "Alice"])

    async def stock(self, someone: Person, contact: Contact) -> None:
        """Put KeyPackage sets on a contact's shelf."""
        with self.costs.of("publish a KeyPackage set", 2):
            await someone.client.key_packages.publish(contact, 2)

    # --- the room ------------------------------------------------------------------------------------

    async def make_room(self) -> tuple[Membership, Membership, Membership]:
        """Have Alice make the room, and add Bob and Cathy."""
        alice, bob, cathy = (self.people[name] for name in ("Alice", "Bob", "Cathy"))
        self.announce("Alice makes a room on a.example and adds Bob and Cathy")
        with self.costs.of("create a room"):
            room = await alice.client.rooms.create()
        pair = [self.contacts["Alice", "Bob"], self.contacts["Alice", "Cathy"]]
        with self.costs.of("add (two users: claim, commit, heal)"):
            await alice.client.rooms.add(room, pair)
        with self.costs.of("join", 2):
            at_bob, at_cathy = await invited(bob), await invited(cathy)
        for someone, membership in ((bob, at_bob), (cathy, at_cathy)):
            await caught_up(someone, membership, room.room.epoch)
        return room, at_bob, at_cathy

    def resolve(self, who: str, membership: Membership, expected: set[str]) -> None:
        """Check that a member sees exactly these people, verified, behind the pseudonyms."""
        by_user = {someone.client.user: name for name, someone in self.people.items()}
        with self.costs.of("resolve everybody in the room"):
            known = self.people[who].client.rooms.who(membership)
        names = {by_user.get(entry.member.device.user, "filler") for entry in known if entry.member}
        unverified = [entry for entry in known if entry.standing is not Standing.VERIFIED]
        if names - {"filler"} != expected or unverified or membership.problems:
            raise RoomError(
                f"{who} resolves {sorted(names)}, expected {sorted(expected)}; {membership.problems}"
            )
        self.announce(f"{who} sees {len(known)} pseudonyms and behind them " + ", ".join(sorted(expected)))

    async def talk(self, sender: str, sent_from: Membership, listeners: dict[str, Membership]) -> None:
        """Have one say something, and the others read it."""
        text = f"the password of the day is {self.rng.getrandbits(96):024x}"
        self._plant(FactKind.CONTENT, sender, text.encode())
        with self.costs.of("send a message"):
            await self.people[sender].client.rooms.send(sent_from, text)
        for name, membership in listeners.items():
            message = await self._next_message(name, membership)
            if message != text:
                raise RoomError(f"{name} read something else than {sender} wrote")
        self.announce(f"{sender} writes, {' and '.join(listeners)} read{'s' * (len(listeners) == 1)}")

    async def _next_message(self, name: str, membership: Membership) -> str:
        client = self.people[name].client
        await until(lambda: bool(membership.messages), lambda: client.rooms.sync(membership, 10.0))
        return membership.messages.popleft().text

    async def share_asset(self, room: Membership, at_cathy: Membership) -> None:
        """Have Alice upload an encrypted asset, and Cathy fetch it through relay and gateway."""
        alice, cathy = self.people["Alice"].client, self.people["Cathy"].client
        asset = self.rng.randbytes(200_000)
        self._plant(FactKind.CONTENT, "Alice", asset[:48])
        with self.costs.of("put an asset (200 kB)"):
            reference = await alice.rooms.assets.send(room, "holiday.jpg", asset)
        self._plant(FactKind.CONTENT, "Alice", reference.key)
        await until(lambda: bool(at_cathy.messages), lambda: cathy.rooms.sync(at_cathy, 10.0))
        with self.costs.of("get an asset (200 kB)"):
            received = await cathy.rooms.assets.fetch(at_cathy, at_cathy.messages.popleft())
        if received != asset:
            raise RoomError("Cathy's asset is not Alice's")
        self.announce("Cathy downloads Alice's asset through relay and gateway, and decrypts it")

    async def replace_bob(self, room: Membership, at_bob: Membership, at_cathy: Membership) -> Membership:
        """Remove Bob, and add Dave."""
        alice, dave = self.people["Alice"], self.people["Dave"]
        bob_user = self.people["Bob"].client.user
        leaves = [
            entry.leaf
            for entry in alice.client.rooms.who(room)
            if entry.member and entry.member.device.user == bob_user
        ]
        with self.costs.of("remove a member"):
            await alice.client.rooms.remove(room, leaves)
        with self.costs.of("add (one user: claim, commit, heal)"):
            await alice.client.rooms.add(room, [self.contacts["Alice", "Dave"]])
        with self.costs.of("join"):
            at_dave = await invited(dave)
        await caught_up(dave, at_dave, room.room.epoch)
        await caught_up(self.people["Cathy"], at_cathy, room.room.epoch)
        await caught_up(self.people["Bob"], at_bob, room.room.epoch)
        if not at_bob.room.removed:
            raise RoomError("Bob was removed and does not know it")
        self.announce("Bob is removed, Dave is added")
        return at_dave

    # --- fillers -------------------------------------------------------------------------------------

    async def fill(self, room: Membership, members: int) -> None:
        """Add more members: each registers, connects to Alice and joins for real."""
        mark = f"{self.rng.getrandbits(48):012x}"
        for domain, network in FILLER_NETWORKS.items():
            self.planted.append(
                Fact(FactKind.NAME, "a member", domain, f"filler-{mark}-{domain[0]}".encode())
            )
            if loopback(network, 1):
                self.planted.append(Fact(FactKind.ADDRESS, "a member", domain, f"127.{network}.0.".encode()))
        for start in range(0, members, FILL_AT_ONCE):
            batch = [
                self._filler(mark, number) for number in range(start, min(start + FILL_AT_ONCE, members))
            ]
            await self._admit(room, batch)
            self.announce(f"{start + len(batch)} of {members} more members are in the room")

    def _filler(self, mark: str, number: int) -> Person:
        domain = self.rng.choice(PROVIDERS)
        user, device = f"filler-{mark}-{domain[0]}{number}", f"device-{mark[::-1]}-{number}"
        someone = person(self.world, user, user, device, domain, FILLER_NETWORKS[domain], number % 250 + 1)
        self.fillers.append(someone)
        self.costs.people.append(someone)
        return someone

    async def _admit(self, room: Membership, batch: list[Person]) -> None:
        alice = self.people["Alice"].client
        with self.costs.of("register, connect and stock a member", len(batch)):
            contacts = await self._befriend_all(batch)
        with self.costs.of(f"add ({len(batch)} users: claims, commits)"):
            await alice.rooms.add(room, contacts)
        with self.costs.of("join", len(batch)):
            await together(invited, batch)

    async def _befriend_all(self, batch: list[Person]) -> list[Contact]:
        """Connect everybody of the batch to Alice, step by step; return Alice's contacts."""
        alice = self.people["Alice"].client
        await alice.people.connection_packages.publish(len(batch))
        asked: list[tuple[Person, OutgoingRequest]] = []
        accepted: list[Contact] = []
        made: list[tuple[Person, Contact]] = []

        async def ask(someone: Person) -> None:
            asked.append((someone, await someone.client.people.request_connection(alice.contact_code)))

        async def accept(incoming: IncomingRequest) -> None:
            accepted.append(await alice.people.accept(incoming))

        async def complete(pair: tuple[Person, OutgoingRequest]) -> None:
            contact = await pair[0].client.people.complete_connection(pair[1])
            if contact is None:
                raise RoomError("no response to a member's connection request")
            made.append((pair[0], contact))

        await together(lambda someone: someone.client.register(packages=1), batch)
        wanted = [(alice, len(batch)), *((someone.client, 1) for someone in batch)]
        await together(lambda pair: pair[0].key_packages.prepare(pair[1]), wanted, at_once=len(wanted))
        await together(ask, batch)
        await together(accept, await alice.people.connection_requests())
        await together(complete, asked)
        await until(lambda: all(contact.room for contact in accepted), alice.rooms.check_invitations)
        await together(lambda contact: until_keyed(alice, contact), accepted)
        await together(lambda pair: pair[0].client.key_packages.publish(pair[1], 1), made)
        return accepted

    # --- after ---------------------------------------------------------------------------------------

    async def bobs_attempt(self, room: Membership, at_dave: Membership) -> Attempt:
        """Try everything Bob kept on every epoch of the hub's public tree and on Dave's identity link."""
        async with self._hub_states(room) as states:
            return attack(self.hoard.kept, states, at_dave.leaf.identity.credential)

    @asynccontextmanager
    async def _hub_states(self, room: Membership) -> AsyncIterator[list[HubRoom]]:
        path = self.world.providers[room.uri.domain].directory / "data" / "hub.sqlite"
        url = sa.URL.create("sqlite", database=str(path)).render_as_string()
        store = HubStore(await Database.open(url, tables.hub), room.uri.domain)
        try:
            last = await store.epoch(room.uri)
            yield [await store.snapshot(room.uri, epoch) for epoch in range(last.number + 1)]
        finally:
            await store.close()

    def _plant(self, kind: FactKind, name: str, value: bytes) -> None:
        self.planted.append(Fact(kind, name, self.people[name].provider, value))


async def tell(story: Story, members: int) -> Attempt:
    """Play the whole story, in order; raise `MmrError` if anything goes otherwise."""
    story.introduce()
    await story.register()
    await story.befriend()
    room, at_bob, at_cathy = await story.make_room()
    for name, membership in (("Alice", room), ("Bob", at_bob), ("Cathy", at_cathy)):
        story.resolve(name, membership, {"Alice", "Bob", "Cathy"})
    await story.talk("Alice", room, {"Bob": at_bob, "Cathy": at_cathy})
    await story.talk("Bob", at_bob, {"Alice": room, "Cathy": at_cathy})
    if members:
        await story.fill(room, members)
        for name, membership in (("Bob", at_bob), ("Cathy", at_cathy)):
            await caught_up(story.people[name], membership, room.room.epoch)
    at_dave = await story.replace_bob(room, at_bob, at_cathy)
    for name, membership in (("Alice", room), ("Cathy", at_cathy), ("Dave", at_dave)):
        story.resolve(name, membership, {"Alice", "Cathy", "Dave"})
    await story.talk("Dave", at_dave, {"Alice": room, "Cathy": at_cathy})
    attempt = await story.bobs_attempt(room, at_dave)
    if attempt.resolved:
        raise MmrError("Bob resolves Dave: the tree does not keep its promise")
    if not attempt.opened_epochs:
        raise MmrError("Bob opens not even the trees of his own time: the attempt proves nothing")
    last = max(attempt.opened_epochs)
    story.announce(
        f"Bob tries {attempt.tried} keys on the hub's trees of all epochs: he opens those up to epoch {last}, "
        f"the room is in {room.room.epoch}; Dave's link stays shut"
    )
    await story.share_asset(room, at_cathy)
    return attempt
