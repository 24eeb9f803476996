"""The making of KeyPackages, partly ahead and in common time slots, and of leaves, each with its queue."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Sequence

from mimi_mmr.client.account import Account
from mimi_mmr.client.context import Context
from mimi_mmr.client.transport.private_path import gather
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.crypto.sealing import SealingPublicKey
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.member.leaves import PreparedKeyPackage, PreparedLeaf, prepare_key_package, prepare_leaf
from mimi_mmr.mls.wire import KeyPackage

MADE_AHEAD = 4


class KeyPackageMaker:
    """The maker of this client's KeyPackages. Some are made ahead.

    A KeyPackage shows the second in which it was made, which must not distinguish users. So all clients make theirs
    at multiples of `slot` seconds. One that took longer than the slot's first second is made again in the next
    slot.
    """

    def __init__(self, context: Context, account: Account, queues: Queues, slot: float) -> None:
        """Start with none made ahead."""
        self._context = context
        self._account = account
        self._queues = queues
        self.slot = slot
        self._made: deque[PreparedKeyPackage] = deque()

    async def take(self, count: int) -> list[PreparedKeyPackage]:
        """Return `count` KeyPackages, each under its own user pseudonym; make more now if too few are ready."""
        while len(self._made) < count:  # another task may take some while these are made
            await self.prepare(max(count, MADE_AHEAD))
        return [self._made.popleft() for _ in range(count)]

    async def prepare(self, count: int) -> None:
        """Have at least `count` made ahead, each with its own user pseudonym and queue."""
        missing = count - len(self._made)
        if missing > 0:
            keys = [SigningKey.generate() for _ in range(missing)]
            self._made.extend(await self.make(keys))

    async def make(self, set_keys: Sequence[SigningKey]) -> list[PreparedKeyPackage]:
        """Make one KeyPackage for each set key, under its user pseudonym and with its own queue."""
        queue_key = await self._queue_key()
        made: list[PreparedKeyPackage] = []
        while len(made) < len(set_keys):
            made += await self._make_in_slot(set_keys[len(made) :], queue_key)
        await gather([self._queues.create(one.leaf.queue, accepts_deposits=False) for one in made])
        return made

    async def _make_in_slot(
        self, set_keys: Sequence[SigningKey], queue_key: SealingPublicKey
    ) -> list[PreparedKeyPackage]:
        """Make as many as fit in the slot's first second, but at least one, for slots shorter than that."""
        start = math.ceil(time.time() / self.slot) * self.slot  # the library's clock is the system's
        leaves = [self._leaf(key, queue_key) for key in set_keys]  # which says nothing of when
        await asyncio.sleep(max(0.0, start - time.time()))
        made: list[PreparedKeyPackage] = []
        for leaf in leaves:
            package = prepare_key_package(leaf)
            if self.slot >= 2 and not _of_second(package, int(start)):
                break
            made.append(package)
        return made

    async def leaf(self) -> PreparedLeaf:
        """Make a leaf, with its queue, for a room that this client creates."""
        leaf = self._leaf(SigningKey.generate(), await self._queue_key())
        await self._queues.create(leaf.queue, accepts_deposits=False)
        return leaf

    async def _queue_key(self) -> SealingPublicKey:
        me = self._account.me
        return (await self._context.path.provider(me.user.domain)).queue_key

    def _leaf(self, set_key: SigningKey, queue_key: SealingPublicKey) -> PreparedLeaf:
        context = self._context
        return prepare_leaf(
            context.engine, self._account.me, set_key, queue_key, context.clock(), context.mls_rows
        )


def _of_second(package: PreparedKeyPackage, second: int) -> bool:
    lifetime = KeyPackage.from_bytes(package.key_package).leaf_node.lifetime
    return lifetime is not None and lifetime[0] == second
