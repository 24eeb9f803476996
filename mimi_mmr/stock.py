"""KeyPackages in stock, made when everybody makes theirs; and the queues that leaves are to have."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from mimi_mmr.credentials import DeviceIdentity
from mimi_mmr.endpoints import CollectRequest, QueueOrder, QueuePage
from mimi_mmr.labels import SigningKey
from mimi_mmr.leaves import PreparedKeyPackage, PreparedLeaf, prepare_key_package, prepare_leaf
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.private_path import PrivatePath, gather
from mimi_mmr.secret import AccessToken

STOCK = 4
PAGE = 64


class Queues:
    """Queues at one's own provider, made and read through another provider's relay."""

    def __init__(self, path: PrivatePath) -> None:
        """At the provider of this path's user."""
        self._path = path

    async def create(self, token: AccessToken, *, accepts_deposits: bool) -> None:
        """Make the queue that this token reads."""
        order = QueueOrder(token.reveal(), accepts_deposits)
        await self._path.call(self._path.domain, "POST", "/v1/queues", order.to_bytes())

    async def collect(self, token: AccessToken, acknowledged: int, wait: float) -> QueuePage:
        """Acknowledge up to a sequence number and get what follows, waiting up to `wait` seconds for it."""
        request = CollectRequest(token.reveal(), acknowledged, PAGE, int(wait * 1000)).to_bytes()
        answer = await self._path.call(self._path.domain, "POST", "/v1/queues/collect", request)
        return QueuePage.from_bytes(answer)


class KeyPackageStock:
    """KeyPackages made ahead.

    A KeyPackage says in which second it was made, and that must not tell one person's from another's: they are
    made at multiples of `slot` seconds, together with everybody else's.
    """

    def __init__(
        self, engine: MlsEngine, path: PrivatePath, queues: Queues, slot: float, clock: Callable[[], float]
    ) -> None:
        """Nothing in stock yet."""
        self._engine = engine
        self._path = path
        self._queues = queues
        self._slot = slot
        self._clock = clock
        self._made: deque[PreparedKeyPackage] = deque()

    async def take(self, me: DeviceIdentity, count: int) -> list[PreparedKeyPackage]:
        """`count` of them, made now if there are not enough."""
        while len(self._made) < count:  # somebody else may take some while these are made
            await self.prepare(me, max(count, STOCK))
        return [self._made.popleft() for _ in range(count)]

    async def prepare(self, me: DeviceIdentity, count: int) -> None:
        """Have at least `count`, each with a pseudonym and a queue of its own."""
        missing = count - len(self._made)
        if missing <= 0:
            return
        queue_key = (await self._path.provider(me.user.domain)).queue_key
        now = self._clock()
        await asyncio.sleep(math.ceil(now / self._slot) * self._slot - now)
        leaves = [
            prepare_leaf(self._engine, me, SigningKey.generate(), queue_key, self._clock())
            for _ in range(missing)
        ]
        made = [prepare_key_package(leaf) for leaf in leaves]
        await gather([self._queues.create(leaf.queue, accepts_deposits=False) for leaf in leaves])
        self._made.extend(made)

    async def leaf(self, me: DeviceIdentity) -> PreparedLeaf:
        """A leaf for a room of one's own, with its queue."""
        queue_key = (await self._path.provider(me.user.domain)).queue_key
        leaf = prepare_leaf(self._engine, me, SigningKey.generate(), queue_key, self._clock())
        await self._queues.create(leaf.queue, accepts_deposits=False)
        return leaf
