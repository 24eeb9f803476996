"""How a whole public tree begins, in a download and in the hub's store."""

from __future__ import annotations

from dataclasses import dataclass

from treewrap.codec import Reader, vector
from treewrap.links.deferred import DEFERRED_LIMIT, DeferredLeaf
from treewrap.links.records import LinkSeal
from treewrap.root import RootHeader
from treewrap.suite import GROUP_ID_LIMIT, GroupContext
from treewrap.wire import VECTOR_MAX, read_seals, seals_to_bytes


@dataclass(frozen=True, slots=True)
class HubHeader:
    """What stands before all nodes: group, root header, seals for links, and the queue of deferred leaves."""

    context: GroupContext
    header: RootHeader
    seals: tuple[LinkSeal, ...] = ()
    deferred: tuple[DeferredLeaf, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode it: 32 bytes and the group id, without seals and queue."""
        queue = b"".join(leaf.to_bytes() for leaf in self.deferred)
        return self.context.group + self.header.to_bytes() + seals_to_bytes(self.seals) + vector(queue)

    @classmethod
    def read(cls, reader: Reader) -> HubHeader:
        """Read it. Raises ParseError."""
        group_id = reader.vector("group id", GROUP_ID_LIMIT)
        if not group_id:
            raise reader.fail("group id: empty")
        header = RootHeader.read(reader)
        return cls(GroupContext(header.suite, group_id), header, read_seals(reader), _read_queue(reader))


def _read_queue(reader: Reader) -> tuple[DeferredLeaf, ...]:
    items = reader.items("deferred leaves", VECTOR_MAX)
    queue: list[DeferredLeaf] = []
    while items.more():
        queue.append(DeferredLeaf.read(items))
    leaves = [deferred.leaf for deferred in queue]
    if leaves != sorted(set(leaves)) or len(leaves) > DEFERRED_LIMIT:
        raise items.fail("deferred leaves: not in order, or too many")
    return tuple(queue)
