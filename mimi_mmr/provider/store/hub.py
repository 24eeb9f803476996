"""The hub's store: rooms by epoch, and the outbox, which gets every accepted event in the same transaction."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from mimi_mmr.errors import JoinRefused, NotAllowed, UnknownRoom, WrongEpoch
from mimi_mmr.hub.links import HubLink
from mimi_mmr.hub.mode import AcceptedCommit, NewRoom
from mimi_mmr.hub.state import EpochId, HubRoom, Outgoing, TreeRows
from mimi_mmr.mls.ratchet.node import SIGNATURE_KEY, signature_key
from mimi_mmr.mls.ratchet.tree import RatchetTree
from mimi_mmr.protocol.room.deliveries import MAX_DELIVERIES, NotifyRequest
from mimi_mmr.protocol.room.events import FanoutMessage
from mimi_mmr.protocol.room.link_orders import MAX_LINKS, NO_SUCH_LINK
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.requests import CommitAuth, CommitReport, Snapshot, group_id
from mimi_mmr.provider.store.database import Database, insert_new
from mimi_mmr.provider.store.tables import (
    commit_reports,
    join_links,
    join_requests,
    outbox,
    room_epochs,
    room_nodes,
    rooms,
    undone_commits,
)
from mimi_mmr.uris import MimiUri
from treewrap import PublicTree, Suite

_RATCHET, _WRAP = 0, 1
_BATCH = 500
SNAPSHOT_EPOCHS = 1000
PENDING_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One notification that waits for its provider."""

    id: int
    destination: str
    body: bytes = field(repr=False)


class HubStore:
    """Rooms and outbox of one hub."""

    def __init__(self, database: Database, domain: str) -> None:
        """Store rooms and the outbox in `database`, which holds nothing else."""
        self._database = database
        self._domain = domain

    async def close(self) -> None:
        """Close the database."""
        await self._database.close()

    # --- rooms ---------------------------------------------------------------------------------------

    async def create(self, new: NewRoom) -> None:
        """Store a new room; raise `NotAllowed` if its URI is taken."""
        state = new.state
        try:
            async with self._database.write() as connection:
                values = {
                    "id": str(state.room),
                    "epoch": state.epoch,
                    "sequence": 0,
                    "arity": state.wrap.suite.arity,
                    "commit_hash": state.commit_hash,
                }
                await connection.execute(sa.insert(rooms).values(values))
                header = _header(new.rows, state.policy, state.sealed_state, None)
                await _write_epoch(connection, state.room, state.epoch, new.rows, header)
        except sa.exc.IntegrityError:
            raise NotAllowed("a room of this URI exists") from None

    async def epoch(self, room: MimiUri) -> EpochId:
        """Return which epoch the room is in; raise `UnknownRoom`."""
        async with self._database.read() as connection:
            return await _epoch(connection, room)

    async def load(self, room: MimiUri) -> HubRoom:
        """Load the room in its current epoch; raise `UnknownRoom`."""
        async with self._database.read() as connection:
            current = await _epoch(connection, room)
            return await _state(connection, room, current.number)

    async def advance(self, accepted: AcceptedCommit, now: float) -> None:
        """Move to the next epoch by compare-and-set, with its rows and events.

        Raises `WrongEpoch`, and `NotAllowed` for a commit that was undone before.
        """
        room = accepted.state.room
        undone = undone_commits.c
        same = (
            undone.room == str(room),
            undone.epoch == accepted.epoch,
            undone.commit_hash == accepted.commit_hash,
        )
        async with self._database.write() as connection:
            await self._emit(connection, room, accepted.state.id, accepted.id, accepted.events, now)
            if await connection.scalar(sa.select(undone.epoch).where(*same)) is not None:
                raise NotAllowed(
                    "this commit was undone before, since members can't process it: make a new one"
                )
            header = _header(accepted.rows, accepted.policy, accepted.sealed_state, accepted.auth)
            await _write_epoch(connection, room, accepted.epoch, accepted.rows, header)
            if accepted.ends_links:
                await _forget_links(connection, join_links.c.room == str(room))

    async def began_with(self, room: MimiUri, epoch: int, commit_hash: bytes) -> bool:
        """Return whether this commit began an epoch: then the hub accepted it, even if the answer was lost."""
        epochs = room_epochs.c
        wanted = (epochs.room == str(room), epochs.epoch == epoch, epochs.commit_hash == commit_hash)
        async with self._database.read() as connection:
            return await connection.scalar(sa.select(epochs.epoch).where(*wanted)) is not None

    async def leaf_key(self, room: MimiUri, leaf: int, epoch: int | None = None) -> bytes | None:
        """Return the signature key of a leaf in an epoch, by default the current one; None if there is no leaf.

        This reads one row, so a request's signature can be checked before the room's trees are loaded. Raises
        `UnknownRoom` or `WrongEpoch` for an epoch that is not stored, as `snapshot` does.
        """
        nodes = room_nodes.c
        current = sa.select(rooms.c.epoch).where(rooms.c.id == str(room)).scalar_subquery()
        wanted = _nodes_at(room, current if epoch is None else epoch)
        leaf_row = wanted.where(nodes.tree == _RATCHET, nodes.level == 0, nodes.position == 2 * leaf)
        async with self._database.read() as connection:
            if epoch is not None:
                await _check_stored(connection, room, epoch)
            row = (await connection.execute(leaf_row)).one_or_none()
        return None if row is None else signature_key(row.data)

    async def has_leaf_key(self, room: MimiUri, key: bytes, epoch: int) -> bool:
        """Return whether a leaf of a stored epoch has this signature key; no tree is loaded.

        Raises `UnknownRoom` or `WrongEpoch`, as `snapshot` does.
        """
        nodes = room_nodes.c
        leaves = (nodes.tree == _RATCHET, nodes.level == 0, nodes.position % 2 == 0)
        start, size = SIGNATURE_KEY.start + 1, SIGNATURE_KEY.stop - SIGNATURE_KEY.start
        same = sa.func.substr(nodes.data, start, size) == key
        wanted = _nodes_at(room, epoch).with_only_columns(nodes.position).where(*leaves, same).limit(1)
        async with self._database.read() as connection:
            await _check_stored(connection, room, epoch)
            return await connection.scalar(wanted) is not None

    async def report(self, room: MimiUri, epoch: EpochId, report: CommitReport) -> None:
        """Store a member's report about the commit that began `epoch`, in the place of an earlier one of this leaf.

        Raises `WrongEpoch` if the room is in another epoch.
        """
        leaf, encoded = report.content.sender, report.to_bytes()
        values = {"room": str(room), "epoch": epoch.number, "leaf": leaf, "report": encoded}
        async with self._database.write() as connection:
            await self._in_epoch(connection, room, epoch)
            if not await insert_new(connection, commit_reports, values):
                own = (*_reports_of(room, epoch), commit_reports.c.leaf == leaf)
                await connection.execute(sa.update(commit_reports).where(*own).values(report=encoded))

    async def reports(self, room: MimiUri, epoch: EpochId) -> dict[int, CommitReport | None]:
        """Return the reports about the commit that began `epoch`, by leaf; None for one without a signature."""
        wanted = sa.select(commit_reports).where(*_reports_of(room, epoch)).order_by(commit_reports.c.leaf)
        async with self._database.read() as connection:
            found = await connection.execute(wanted)
            return {row.leaf: row.report and CommitReport.from_bytes(row.report) for row in found}

    async def auth(self, room: MimiUri, epoch: EpochId) -> CommitAuth | None:
        """Return the signature of the commit that began an epoch; None if an older version accepted it."""
        epochs = room_epochs.c
        wanted = sa.select(epochs.auth).where(epochs.room == str(room), epochs.epoch == epoch.number)
        async with self._database.read() as connection:
            found = await connection.scalar(wanted.where(epochs.commit_hash == epoch.commit_hash))
        return None if found is None else CommitAuth.from_bytes(found)

    async def reopen(
        self, room: MimiUri, undone: EpochId, before: EpochId, events: Sequence[Outgoing], now: float
    ) -> None:
        """Undo the commit that began the epoch `undone`, and send the events; raise `WrongEpoch`.

        All join links end: a member whom the commit let in may have ordered one, or knows the others.
        """
        name, nodes, epoch = str(room), room_nodes.c, undone.number
        async with self._database.write() as connection:
            await self._emit(connection, room, undone, before, events, now)
            await connection.execute(
                sa.delete(room_nodes).where(nodes.room == name, nodes.epoch_from == epoch)
            )
            ended = sa.update(room_nodes).where(nodes.room == name, nodes.epoch_to == epoch)
            await connection.execute(ended.values(epoch_to=None))
            for table in (room_epochs, commit_reports):
                gone = sa.and_(table.c.room == name, table.c.epoch == epoch)
                await connection.execute(sa.delete(table).where(gone))
            await _forget_links(connection, join_links.c.room == name)
            values = {"room": name, "epoch": epoch, "commit_hash": undone.commit_hash}
            await connection.execute(sa.insert(undone_commits).values(values))

    async def submit(self, room: MimiUri, epoch: EpochId, events: Sequence[Outgoing], now: float) -> None:
        """Put an application message's events into the outbox; raise `WrongEpoch` for another epoch."""
        async with self._database.write() as connection:
            await self._emit(connection, room, epoch, epoch, events, now)

    async def _emit(
        self,
        connection: AsyncConnection,
        room: MimiUri,
        before: EpochId,
        after: EpochId,
        events: Sequence[Outgoing],
        now: float,
    ) -> None:
        step = (
            sa.update(rooms)
            .where(*_is_in(room, before))
            .values(epoch=after.number, commit_hash=after.commit_hash, sequence=rooms.c.sequence + 1)
            .returning(rooms.c.sequence)
        )
        sequence = await connection.scalar(step)
        if sequence is None:
            raise WrongEpoch((await _epoch(connection, room)).number)
        rows = [row for event in events for row in self._notifications(room, sequence, event, now)]
        if rows:
            await connection.execute(sa.insert(outbox), rows)

    def _notifications(
        self, room: MimiUri, sequence: int, event: Outgoing, now: float
    ) -> list[dict[str, str | bytes]]:
        message = FanoutMessage(room, sequence, int(now * 1000), event.kind, event.event).to_bytes()
        chunks = range(0, len(event.deliveries), MAX_DELIVERIES)
        parts = (event.deliveries[start : start + MAX_DELIVERIES] for start in chunks)
        bodies = (NotifyRequest(self._domain, secrets.token_bytes(16), part, message) for part in parts)
        return [{"destination": event.domain, "body": body.to_bytes()} for body in bodies]

    # --- join links ----------------------------------------------------------------------------------

    async def create_link(self, room: MimiUri, epoch: EpochId, link: HubLink, now: float) -> None:
        """Store a new link; raise `WrongEpoch` if a commit was accepted first, or `NotAllowed`."""
        values = {
            "room": str(room),
            "id": link.id,
            "public_key": link.public_key,
            "expiry": link.expiry,
            "uses_left": link.uses_left,
        }
        async with self._database.write() as connection:
            await self._in_epoch(connection, room, epoch)
            await _forget_links(connection, join_links.c.expiry <= now)
            count = sa.select(sa.func.count()).select_from(join_links).where(join_links.c.room == str(room))
            if (await connection.scalar(count) or 0) >= MAX_LINKS:
                raise NotAllowed(f"a room has at most {MAX_LINKS} join links that have not expired")
            if not await insert_new(connection, join_links, values):
                raise NotAllowed("a join link of this id exists, or has been revoked")

    async def revoke_link(self, room: MimiUri, epoch: EpochId, link: bytes) -> None:
        """Set a link's remaining uses to 0; do nothing if there is no such link. Raise `WrongEpoch`."""
        links = join_links.c
        revoked = sa.update(join_links).where(links.room == str(room), links.id == link).values(uses_left=0)
        async with self._database.write() as connection:
            await self._in_epoch(connection, room, epoch)
            await connection.execute(revoked)

    async def link(self, room: MimiUri, link: bytes) -> HubLink | None:
        """Return a stored join link; None if there is none."""
        links = join_links.c
        wanted = sa.select(join_links).where(links.room == str(room), links.id == link)
        async with self._database.read() as connection:
            row = (await connection.execute(wanted)).one_or_none()
        return None if row is None else HubLink(row.id, row.public_key, row.expiry, row.uses_left)

    async def passed_on(self, room: MimiUri, link: bytes, digest: bytes) -> bool:
        """Return whether this request to join was forwarded before."""
        made = join_requests.c
        wanted = sa.select(made.link).where(made.room == str(room), made.link == link, made.digest == digest)
        async with self._database.read() as connection:
            return await connection.scalar(wanted) is not None

    async def join(
        self,
        room: MimiUri,
        epoch: EpochId,
        link: bytes,
        digest: bytes,
        events: Sequence[Outgoing],
        now: float,
    ) -> None:
        """Count a use of a link and forward the request, once for each `digest`.

        Raises `JoinRefused` if the link has no use left, and `WrongEpoch` if a commit was accepted first.
        """
        links = join_links.c
        live = (links.room == str(room), links.id == link, links.uses_left > 0, links.expiry > now)
        used = sa.update(join_links).where(*live).values(uses_left=links.uses_left - 1)
        values = {"room": str(room), "link": link, "digest": digest}
        async with self._database.write() as connection:
            await self._in_epoch(connection, room, epoch)
            if not await insert_new(connection, join_requests, values):
                return
            if (await connection.execute(used)).rowcount != 1:
                raise JoinRefused(NO_SUCH_LINK)
            await self._emit(connection, room, epoch, epoch, events, now)

    async def _in_epoch(self, connection: AsyncConnection, room: MimiUri, epoch: EpochId) -> None:
        """Lock the room in this epoch until the transaction ends; raise `WrongEpoch` or `UnknownRoom`."""
        held = sa.update(rooms).where(*_is_in(room, epoch)).values(epoch=epoch.number)
        if (await connection.execute(held)).rowcount != 1:
            raise WrongEpoch((await _epoch(connection, room)).number)

    async def snapshot(self, room: MimiUri, epoch: int) -> HubRoom:
        """Return the room as of an epoch that is still stored; raise `UnknownRoom` or `WrongEpoch`."""
        async with self._database.read() as connection:
            await _check_stored(connection, room, epoch)
            return await _state(connection, room, epoch)

    # --- outbox --------------------------------------------------------------------------------------

    async def destinations(self) -> list[str]:
        """Return the providers that have waiting notifications."""
        async with self._database.read() as connection:
            found = await connection.scalars(sa.select(outbox.c.destination).distinct())
            return list(found)

    async def pending(self, destination: str, limit: int = 32, most: int = PENDING_BYTES) -> list[OutboxItem]:
        """Return the oldest notifications for a provider, in order: `limit` of them, and `most` bytes.

        One that is larger alone is returned alone.
        """
        waiting = outbox.c.destination == destination
        sizes = sa.select(outbox.c.id, sa.func.length(outbox.c.body)).where(waiting).order_by(outbox.c.id)
        async with self._database.read() as connection:
            last = size = 0
            for number, length in await connection.execute(sizes.limit(limit)):
                if size and size + length > most:
                    break
                last, size = number, size + length
            query = sa.select(outbox).where(waiting, outbox.c.id <= last).order_by(outbox.c.id)
            return [OutboxItem(row.id, row.destination, row.body) for row in await connection.execute(query)]

    async def delivered(self, item: OutboxItem) -> None:
        """Delete a notification that its provider has confirmed."""
        async with self._database.write() as connection:
            await connection.execute(sa.delete(outbox).where(outbox.c.id == item.id))


async def _forget_links(connection: AsyncConnection, which: sa.ColumnElement[bool]) -> None:
    """Delete links and the record of the requests made with them."""
    gone = sa.select(join_links.c.room, join_links.c.id).where(which)
    made = sa.tuple_(join_requests.c.room, join_requests.c.link).in_(gone)
    await connection.execute(sa.delete(join_requests).where(made))
    await connection.execute(sa.delete(join_links).where(which))


async def _epoch(connection: AsyncConnection, room: MimiUri) -> EpochId:
    wanted = sa.select(rooms.c.epoch, rooms.c.commit_hash).where(rooms.c.id == str(room))
    row = (await connection.execute(wanted)).one_or_none()
    if row is None:
        raise UnknownRoom("no such room here")
    return EpochId(int(row.epoch), bytes(row.commit_hash))


def _reports_of(room: MimiUri, epoch: EpochId) -> tuple[sa.ColumnElement[bool], ...]:
    return commit_reports.c.room == str(room), commit_reports.c.epoch == epoch.number


def _is_in(room: MimiUri, epoch: EpochId) -> tuple[sa.ColumnElement[bool], ...]:
    """Return the conditions that a room is in this very epoch."""
    return rooms.c.id == str(room), rooms.c.epoch == epoch.number, rooms.c.commit_hash == epoch.commit_hash


async def _check_stored(connection: AsyncConnection, room: MimiUri, epoch: int) -> None:
    """Raise `UnknownRoom`, or `WrongEpoch` if an epoch is not stored, or no longer."""
    current = (await _epoch(connection, room)).number
    if not max(0, current - SNAPSHOT_EPOCHS) <= epoch <= current:
        raise WrongEpoch(current)


async def _state(connection: AsyncConnection, room: MimiUri, epoch: int) -> HubRoom:
    header = await connection.execute(
        sa.select(room_epochs).where(room_epochs.c.room == str(room), room_epochs.c.epoch == epoch)
    )
    row = header.one()
    arity = await connection.scalar(sa.select(rooms.c.arity).where(rooms.c.id == str(room))) or 0
    policy = SignedPolicy.from_bytes(row.policy)
    ratchet: dict[int, bytes] = {}
    wrap: dict[tuple[int, int], bytes] = {}
    for node in await connection.execute(_nodes_at(room, epoch)):
        if node.tree == _RATCHET:
            ratchet[node.position] = node.data
        else:
            wrap[node.level, node.position] = node.data
    public = PublicTree.from_rows(Suite(arity), group_id(room), row.wrap_header, wrap)
    parts = RatchetTree.from_rows(ratchet), public, policy
    return HubRoom.load(room, epoch, *parts, row.room_state, row.commit_hash)


def _nodes_at(room: MimiUri, epoch: int | sa.ScalarSelect[int]) -> sa.Select[tuple[int, int, int, bytes]]:
    nodes = room_nodes.c
    ends = sa.or_(nodes.epoch_to.is_(None), nodes.epoch_to > epoch)
    query = sa.select(nodes.tree, nodes.level, nodes.position, nodes.data)
    return query.where(nodes.room == str(room), nodes.epoch_from <= epoch, ends)


def _header(
    rows: TreeRows, policy: SignedPolicy, sealed_state: bytes | None, auth: CommitAuth | None
) -> dict[str, bytes | None]:
    return {
        "wrap_header": rows.wrap_header,
        "policy": policy.to_bytes(),
        "room_state": sealed_state,
        "commit_hash": auth.content.commit_hash if auth else b"",
        "auth": auth.to_bytes() if auth else None,
    }


async def _write_epoch(
    connection: AsyncConnection,
    room: MimiUri,
    epoch: int,
    rows: TreeRows,
    header: Mapping[str, bytes | None],
) -> None:
    values = {"room": str(room), "epoch": epoch, **header}
    await connection.execute(sa.insert(room_epochs).values(values))
    changed: dict[tuple[int, int, int], bytes | None] = {
        (_RATCHET, 0, position): data for position, data in rows.ratchet.items()
    }
    changed |= {(_WRAP, level, position): data for (level, position), data in rows.wrap.items()}
    await _replace_nodes(connection, str(room), epoch, changed)


async def _replace_nodes(
    connection: AsyncConnection, room: str, epoch: int, changed: Mapping[tuple[int, int, int], bytes | None]
) -> None:
    if epoch and changed:
        key = [room_nodes.c[name] == sa.bindparam(f"old_{name}") for name in ("tree", "level", "position")]
        end = sa.update(room_nodes).where(room_nodes.c.room == room, room_nodes.c.epoch_to.is_(None), *key)
        await connection.execute(
            end.values(epoch_to=epoch),
            [{"old_tree": tree, "old_level": level, "old_position": at} for tree, level, at in changed],
        )
    new = [
        {"room": room, "tree": tree, "level": level, "position": at, "epoch_from": epoch, "data": data}
        for (tree, level, at), data in changed.items()
        if data is not None
    ]
    for start in range(0, len(new), _BATCH):
        await connection.execute(sa.insert(room_nodes), new[start : start + _BATCH])


def to_snapshot(state: HubRoom) -> Snapshot:
    """Return a room's state as a snapshot for a joiner."""
    trees = state.ratchet.to_bytes(), state.wrap.to_bytes()
    return Snapshot(state.epoch, *trees, state.policy, state.sealed_state)
