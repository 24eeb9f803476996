"""A committer's side of a change: from what is asked to what is sent."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from treewrap.changes import Change, ChangeKind, ChangeSet
from treewrap.errors import ChangeError, LinkError, StaleEpoch
from treewrap.geometry import Plan, plan
from treewrap.links.records import (
    AddLink,
    LinkChange,
    Verifier,
    check_link_changes,
    link_change_to_bytes,
    link_changes_to_bytes,
)
from treewrap.links.seals import check_public_key, seal_root
from treewrap.outcome import Holder, NodeSource, Outcome, StagedCommit, reseal
from treewrap.root import RootExtra, RootHeader, named_secret_to_bytes
from treewrap.rules import expire_links, is_removal, next_extra, renew_rooms
from treewrap.secret import EpochSecret, Rng
from treewrap.suite import SALT_SIZE, GroupContext, UpdateKeys, seal
from treewrap.wire import LeafChange, MemberUpdate, SealedNode, TreeUpdate, WrappedLeaf


class Before(NamedTuple):
    """The tree that a change starts from, as a member sees it."""

    holder: Holder
    version: int
    context: GroupContext
    header: RootHeader
    tree_hash: bytes
    extra: RootExtra
    source: NodeSource

    def check_epoch(self, epoch: int) -> None:
        """Make sure that an epoch is one, and newer than the tree's. Raises ChangeError, StaleEpoch."""
        if not 0 <= epoch < 1 << 64:
            raise ChangeError(f"epoch: expected 0 to 2^64 - 1, got {epoch}")
        if self.header.height and epoch <= self.header.epoch:
            raise StaleEpoch("update", tree=self.header.epoch, offered=epoch)

    def plan(self, changes: ChangeSet) -> Plan:
        """Work out which nodes the changes touch. Raises ChangeError for a repair of what is not there."""
        bitmap, height = self.source.bitmap, self.header.height
        for ref in changes.repaired:
            if ref.level > height or not (bitmap(*ref) or ref == (height, 0)):
                raise ChangeError(f"repair: no node at level {ref.level}, index {ref.index}")
        occupied = {leaf: secret is not None for leaf, secret in changes.leaves.items()}
        named = self.source.nodes() if changes.rebuilt else changes.repaired
        return plan(self.context.bits, height, bitmap, occupied, named)


def stage(
    before: Before,
    wanted: Iterable[Change],
    *,
    epoch: int,
    epoch_secret: EpochSecret,
    rng: Rng,
    verify: Verifier | None,
    now: int | None,
) -> StagedCommit:
    """Compute a commit's change of the tree and what to send about it. Raises ChangeError, LinkError."""
    before.check_epoch(epoch)
    changes = ChangeSet.collect(wanted)
    context = before.context
    check_link_changes(changes.links, context.group_id, verify, now)
    for change in changes.links:
        check_new_link(change, changes)
    shape = before.plan(changes)
    removal = is_removal(changes.leaves, shape, context.bits)
    changes = renew_rooms(changes, before.extra, rng) if removal else expire_links(changes, before.extra, now)
    canonical = _canonical(epoch, changes)
    keys = UpdateKeys.draw(context, epoch_secret, rng(SALT_SIZE), before.tree_hash, canonical)
    extra = next_extra(before.extra, changes, removal=removal)
    outcome = reseal(context, before.source, shape, changes.leaves, extra, epoch, keys)
    update = _tree_update(context, before.tree_hash, changes, outcome)
    member_update = _member_update(context, changes, outcome, keys)
    return StagedCommit(before.holder, outcome, before.version, update, member_update)


def check_new_link(change: LinkChange, changes: ChangeSet) -> None:
    """Make sure that a new link can be sealed to, and that its creator stays. Raises LinkError."""
    if isinstance(change, AddLink):
        check_public_key(change.link)
        if changes.leaves.get(change.link.creator, ()) is None:
            raise LinkError(f"link {change.link.id.hex()}: its creator leaves with this commit")


def _canonical(epoch: int, changes: ChangeSet) -> bytes:
    """Encode the changes with their secrets in the clear, for the salt alone."""
    parts = [epoch.to_bytes(8, "big")]
    for leaf, secret in changes.leaves.items():
        parts.append(leaf.to_bytes(4, "big") + (secret.reveal() if secret else b""))
    parts += [named_secret_to_bytes(name, secret) for name, secret in changes.rooms.items()]
    if changes.rejected or changes.repaired or changes.rebuilt or changes.links:
        parts.append(repr((changes.rejected, changes.repaired, changes.rebuilt)).encode())
        parts += map(link_change_to_bytes, changes.links)
    return b"".join([len(part).to_bytes(4, "big") + part for part in parts])


def _tree_update(context: GroupContext, previous: bytes, changes: ChangeSet, outcome: Outcome) -> TreeUpdate:
    rebuilt = changes.rebuilt
    return TreeUpdate(
        header=outcome.header,
        previous_tree_hash=previous,
        tree_hash=outcome.tree_hash,
        changes=tuple([LeafChange(leaf, kind) for leaf, kind in changes.kinds()]),
        repaired=changes.repaired,
        nodes=() if rebuilt else _sealed_nodes(outcome),
        vanished=() if rebuilt else outcome.vanished,
        seals=seal_root(
            context, outcome.extra.links, outcome.root_key, outcome.header.epoch, outcome.tree_hash
        )
        if outcome.extra.links
        else (),
        rebuilt=_rows(outcome) if rebuilt else b"",
    )


def _sealed_nodes(outcome: Outcome) -> tuple[SealedNode, ...]:
    return tuple([SealedNode(level, index, sealed) for level, index, _, _, _, sealed in outcome.written])


def _rows(outcome: Outcome) -> bytes:
    top_down = sorted(outcome.written, key=lambda node: (-node[0], node[1]))
    return b"".join([head + ciphertext for _, _, head, _, _, ciphertext in top_down])


def _member_update(
    context: GroupContext, changes: ChangeSet, outcome: Outcome, keys: UpdateKeys
) -> MemberUpdate:
    epoch = outcome.header.epoch

    def wrap(label: bytes, number: int, plaintext: bytes) -> bytes:
        return seal(keys.wrap(label, number), plaintext, context.leaf_aad(number, epoch))

    leaves = []
    for leaf, kind in changes.kinds():
        secret = changes.leaves[leaf] if kind is ChangeKind.SET else None
        leaves.append(WrappedLeaf(leaf, kind, wrap(b"leaf", leaf, secret.reveal()) if secret else b""))
    rooms = (named_secret_to_bytes(name, secret) for name, secret in changes.rooms.items())
    return MemberUpdate.confirmed_by(
        keys.confirm,
        outcome.header,
        tuple(leaves),
        tuple([wrap(b"room", number, named) for number, named in enumerate(rooms)]),
        changes.repaired,
        changes.rebuilt,
        wrap(b"links", 0, link_changes_to_bytes(changes.links)) if changes.links else b"",
        outcome.tree_hash,
    )
