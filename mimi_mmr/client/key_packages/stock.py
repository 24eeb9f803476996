"""KeyPackages in stock, made when everybody makes theirs; and the queues that leaves are to have."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, MutableMapping, Sequence

from mimi_mmr.client.transport.private_path import PrivatePath, gather
from mimi_mmr.crypto.sealing import SealedBox, SealingPublicKey
from mimi_mmr.crypto.secret import AccessToken
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.leaves import PreparedKeyPackage, PreparedLeaf, prepare_key_package, prepare_leaf
from mimi_mmr.mls.engine import MlsEngine
from mimi_mmr.mls.wire import KeyPackage
from mimi_mmr.protocol.credentials import DeviceIdentity
from mimi_mmr.protocol.deposits import ReplyDeposit
from mimi_mmr.protocol.queues import CollectRequest, QueueOrder, QueuePage

STOCK = 4
PAGE = 64
Rows = Callable[[SigningKey], MutableMapping[bytes, bytes]]


class Queues:
    """Queues at one's own provider, made and read through another provider's relay."""

    def __init__(self, path: PrivatePath) -> None:
        """At the provider of this path's user."""
        self._path = path

    async def create(self, token: AccessToken, *, accepts_deposits: bool) -> None:
        """Make the queue that this token reads."""
        order = QueueOrder(token.reveal(), accepts_deposits)
        await self._path.call(self._path.domain, "POST", "/v1/queues", order.to_bytes())

    async def delete(self, token: AccessToken) -> None:
        """Forget a queue and what is in it."""
        await self._path.call(self._path.domain, "POST", "/v1/queues/delete", token.reveal())

    async def collect(self, token: AccessToken, acknowledged: int, wait: float) -> QueuePage:
        """Acknowledge up to a sequence number and get what follows, waiting up to `wait` seconds for it."""
        request = CollectRequest(token.reveal(), acknowledged, PAGE, int(wait * 1000)).to_bytes()
        answer = await self._path.call(self._path.domain, "POST", "/v1/queues/collect", request)
        return QueuePage.from_bytes(answer)

    async def deposit(self, domain: str, queue: bytes, box: SealedBox) -> None:
        """Put something into a queue that accepts deposits, of any provider."""
        await self._path.call(domain, "POST", "/v1/replyInbox", ReplyDeposit(queue, box).to_bytes())


class KeyPackageStock:
    """KeyPackages made ahead.

    A KeyPackage says in which second it was made, and that must not tell one person's from another's: they are
    made at multiples of `slot` seconds, together with everybody else's, and those that took longer than that
    second are made again at the next.
    """

    def __init__(
        self,
        engine: MlsEngine,
        path: PrivatePath,
        queues: Queues,
        slot: float,
        clock: Callable[[], float],
        rows: Rows = lambda _: {},
    ) -> None:
        """Nothing in stock yet. What the MLS library stores of a leaf's groups goes to `rows(leaf key)`."""
        self._engine = engine
        self._path = path
        self._queues = queues
        self.slot = slot
        self._clock = clock
        self._rows = rows
        self._made: deque[PreparedKeyPackage] = deque()

    async def take(self, me: DeviceIdentity, count: int) -> list[PreparedKeyPackage]:
        """`count` of them, each of a pseudonym of its own; made now if there are not enough."""
        while len(self._made) < count:  # somebody else may take some while these are made
            await self.prepare(me, max(count, STOCK))
        return [self._made.popleft() for _ in range(count)]

    async def prepare(self, me: DeviceIdentity, count: int) -> None:
        """Have at least `count`, each with a pseudonym and a queue of its own."""
        missing = count - len(self._made)
        if missing > 0:
            keys = [SigningKey.generate() for _ in range(missing)]
            self._made.extend(await self.make(me, keys))

    async def make(self, me: DeviceIdentity, set_keys: Sequence[SigningKey]) -> list[PreparedKeyPackage]:
        """One KeyPackage under the user pseudonym of each of these keys, with a queue of its own."""
        queue_key = (await self._path.provider(me.user.domain)).queue_key
        made: list[PreparedKeyPackage] = []
        while len(made) < len(set_keys):
            made += await self._make_in_slot(me, set_keys[len(made) :], queue_key)
        await gather([self._queues.create(one.leaf.queue, accepts_deposits=False) for one in made])
        return made

    async def _make_in_slot(
        self, me: DeviceIdentity, set_keys: Sequence[SigningKey], queue_key: SealingPublicKey
    ) -> list[PreparedKeyPackage]:
        """As many as can be made in the slot's first second; one at least, if the slots are that short."""
        start = math.ceil(time.time() / self.slot) * self.slot  # the library's clock is the system's
        leaves = [self._leaf(me, key, queue_key) for key in set_keys]  # which says nothing of when
        await asyncio.sleep(max(0.0, start - time.time()))
        made: list[PreparedKeyPackage] = []
        for leaf in leaves:
            package = prepare_key_package(leaf)
            if self.slot >= 2 and not _of_second(package, int(start)):
                break
            made.append(package)
        return made

    async def leaf(self, me: DeviceIdentity, set_key: SigningKey | None = None) -> PreparedLeaf:
        """A leaf for a room of one's own, with its queue."""
        queue_key = (await self._path.provider(me.user.domain)).queue_key
        leaf = self._leaf(me, set_key or SigningKey.generate(), queue_key)
        await self._queues.create(leaf.queue, accepts_deposits=False)
        return leaf

    def _leaf(self, me: DeviceIdentity, set_key: SigningKey, queue_key: SealingPublicKey) -> PreparedLeaf:
        return prepare_leaf(self._engine, me, set_key, queue_key, self._clock(), self._rows)


def _of_second(package: PreparedKeyPackage, second: int) -> bool:
    lifetime = KeyPackage.from_bytes(package.key_package).leaf_node.lifetime
    return lifetime is not None and lifetime[0] == second
