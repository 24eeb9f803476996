"""A queue at a provider's gateway behind a relay, and scissors between the parties that cut at any byte."""

from __future__ import annotations

import asyncio
import contextlib
import pathlib
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from aiohttp import web

from mimi_mmr.client.transport.private_path import PrivatePath, Purpose, Route
from mimi_mmr.crypto.certificates import TrustAnchors
from mimi_mmr.crypto.sealing import Kem, SealedBox, SealingKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.endpoints import Way
from mimi_mmr.protocol.queues import QueueOrder, QueuePage, queue_id
from mimi_mmr.provider.http import Call, Router
from mimi_mmr.provider.queues import QueueService
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.store import tables
from mimi_mmr.provider.store.database import Database
from mimi_mmr.provider.store.deliveries import DeliveryStore
from ohttp_relay.client import OhttpClient, PinnedKeys
from ohttp_relay.gateway import DEFAULT_PATH, Gateway
from ohttp_relay.keys import KeyRing
from ohttp_relay.relay import Relay
from ohttp_relay.transport import SocketLimits

DOMAIN = "a.example"
LIMITS = SocketLimits(closing_seconds=0.5)


class Scissors:
    """A proxy that cuts each connection after so many bytes of both directions; later ones are left alone."""

    def __init__(self, port: int) -> None:
        self._to = port
        self.lengths: list[int] = []
        self._open: set[asyncio.Task[None]] = set()

    @classmethod
    async def before(cls, port: int) -> Scissors:
        """In front of a port of this machine."""
        made = cls(port)
        made._server = await asyncio.start_server(made._pass, "127.0.0.1", 0)
        made.port = made._server.sockets[0].getsockname()[1]
        return made

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = [self.lengths.pop(0)] if self.lengths else [1 << 60]
        there, back = await asyncio.open_connection("127.0.0.1", self._to)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
            with contextlib.suppress(OSError):
                while data := await source.read(65_536):
                    target.write(data[: left[0]])
                    left[0] -= len(data)
                    if left[0] < 0:
                        break
            for end in (back, writer):
                end.close()  # what was written leaves first: as much comes through as was said

        await asyncio.gather(copy(reader, back), copy(there, writer))

    async def close(self) -> None:
        """Pass nothing more on."""
        self._server.close()


class Path(PrivatePath):
    """To a gateway that needs no looking up."""

    def __init__(self, url: str, keys: bytes) -> None:
        super().__init__(DOMAIN, url, TrustAnchors())
        self._only = OhttpClient(
            url, PinnedKeys(keys), self._sessions[Purpose.RELAY], allow_insecure_loopback=True
        )

    async def _way(self, domain: str) -> tuple[Route, OhttpClient]:
        assert domain == DOMAIN
        return Route("relay.example", DOMAIN, ""), self._only


class World:
    """A client's path, a relay, a gateway, and a provider's queues behind it."""

    def __init__(self, service: QueueService, scissors: tuple[Scissors, Scissors], path: Path) -> None:
        self.scissors = scissors
        self.path = path
        self._service = service

    async def queue(self) -> AccessToken:
        """A new queue."""
        token = AccessToken.generate()
        order = QueueOrder(token.reveal(), accepts_deposits=True)
        await self._service.create(Call(None, order))
        return token

    async def put(self, token: AccessToken, messages: Iterable[bytes]) -> None:
        """Messages into a queue, as boxes that hold them."""
        for message in messages:
            deposit = ReplyDeposit(queue_id(token), SealedBox(Kem.X25519, message))
            await self._service.reply(Call(None, deposit))


def contents(page: QueuePage) -> list[tuple[int, bytes]]:
    """(number, message) of each."""
    return [(item.sequence, SealedBox.from_bytes(item.message).ciphertext) for item in page.messages]


async def _serve(app: web.Application, runners: list[web.AppRunner]) -> int:
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    runners.append(runner)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return int(runner.addresses[0][1])


@asynccontextmanager
async def build(directory: pathlib.Path) -> AsyncIterator[World]:
    """Everything, running."""
    database = await Database.open(f"sqlite:///{directory}/deliveries.db", tables.deliveries)
    key = SealingKey.generate()
    service = QueueService(DeliveryStore(database), key, Recorder(), time.time)
    router = Router(Recorder(), Way.OBLIVIOUS)
    service.mount_oblivious(router)
    ring = KeyRing.generate()
    gateway = Gateway(ring, local={f"https://{DOMAIN}": router.oblivious}, sockets=LIMITS)
    runners: list[web.AppRunner] = []
    inner = await Scissors.before(await _serve(gateway.app(), runners))
    url = f"http://127.0.0.1:{inner.port}{DEFAULT_PATH}"
    relay = Relay({"gw": url}, allow_insecure_loopback=True, sockets=LIMITS)
    outer = await Scissors.before(await _serve(relay.app(), runners))
    path = Path(f"http://127.0.0.1:{outer.port}/gw", ring.public_list())
    try:
        yield World(service, (outer, inner), path)
    finally:
        await path.close()
        service.stopping()
        for runner in reversed(runners):
            await runner.cleanup()
        for one in (inner, outer):
            await one.close()
        await database.close()
