"""A committer's side of a change: from what is asked to what is sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from treewrap.changes import Change, ChangeSet
from treewrap.errors import ChangeError, LinkError, StaleEpoch
from treewrap.geometry import plan
from treewrap.links import AddLink, Verifier, check_link_changes, link_change_to_bytes
from treewrap.root import RootExtra, RootHeader, named_secret_to_bytes
from treewrap.rules import is_removal, next_extra, renew_rooms
from treewrap.seals import check_public_key, seal_root
from treewrap.secret import EpochSecret, Rng
from treewrap.staging import Holder, NodeSource, Outcome, StagedCommit, reseal
from treewrap.suite import SALT_SIZE, GroupContext, UpdateKeys, make_salt, seal
from treewrap.wire import LeafChange, MemberUpdate, SealedNode, TreeUpdate, WrappedLeaf

_NO_TAG = b""


@dataclass(frozen=True, slots=True)
class Before:
    """The tree that a change starts from, as a member sees it."""

    holder: Holder
    version: int
    context: GroupContext
    header: RootHeader
    tree_hash: bytes
    extra: RootExtra
    source: NodeSource

    def check_epoch(self, epoch: int) -> None:
        """Make sure that an epoch is newer than the tree's. Raises StaleEpoch."""
        if self.header.height and epoch <= self.header.epoch:
            raise StaleEpoch("update", tree=self.header.epoch, offered=epoch)

    def is_removal(self, changes: ChangeSet) -> bool:
        """Tell whether anyone may have left with these changes."""
        return is_removal(changes.leaves, self.context.suite.id, self.source.bitmap)

    def apply(
        self, changes: ChangeSet, *, removal: bool, epoch: int, salt: bytes, keys: UpdateKeys
    ) -> Outcome:
        """Compute the tree after the changes: the same for everyone, given the salt."""
        extra = next_extra(self.extra, changes, removal=removal)
        occupied = {leaf: secret is not None for leaf, secret in changes.leaves.items()}
        bitmap = self.source.bitmap
        named = self.source.nodes() if changes.rebuilt else changes.repaired
        for ref in changes.repaired:
            if ref.level > self.header.height or not (bitmap(*ref) or ref.level == self.header.height):
                raise ChangeError(f"repair: no node at level {ref.level}, index {ref.index}")
        shape = plan(self.context.suite.id, self.header.height, bitmap, occupied, named)
        return reseal(self.context, self.source, shape, changes.leaves, extra, epoch, salt, keys)


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
    _check_new_links(changes)
    removal = before.is_removal(changes)
    if removal:
        changes = renew_rooms(changes, before.extra, rng)
    salt = make_salt(epoch_secret, rng(SALT_SIZE), before.tree_hash, _canonical(epoch, changes))
    keys = UpdateKeys(context, epoch_secret, salt)
    outcome = before.apply(changes, removal=removal, epoch=epoch, salt=salt, keys=keys)
    update = _tree_update(context, before.tree_hash, changes, outcome)
    member_update = _member_update(context, changes, outcome, keys)
    return StagedCommit(before.holder, outcome, before.version, update, member_update)


def _check_new_links(changes: ChangeSet) -> None:
    for change in changes.links:
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
    parts += [repr((changes.rejected, changes.repaired, changes.rebuilt)).encode()]
    parts += map(link_change_to_bytes, changes.links)
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def _tree_update(context: GroupContext, previous: bytes, changes: ChangeSet, outcome: Outcome) -> TreeUpdate:
    rebuilt = changes.rebuilt
    return TreeUpdate(
        header=outcome.header,
        previous_tree_hash=previous,
        tree_hash=outcome.tree_hash,
        changes=tuple(LeafChange(leaf, kind) for leaf, kind in changes.kinds()),
        repaired=changes.repaired,
        nodes=() if rebuilt else tuple(SealedNode(ref, sealed) for ref, _, sealed in outcome.resealed),
        vanished=() if rebuilt else outcome.vanished,
        seals=seal_root(
            context, outcome.extra.links, outcome.root_key, outcome.header.epoch, outcome.tree_hash
        )
        if outcome.extra.links
        else (),
        rebuilt=_rows(context, outcome) if rebuilt else b"",
    )


def _rows(context: GroupContext, outcome: Outcome) -> bytes:
    top_down = sorted(outcome.resealed, key=lambda node: (-node.ref.level, node.ref.index))
    return b"".join(
        context.node_head(node.epoch, node.bitmap) + ciphertext for _, node, ciphertext in top_down
    )


def _member_update(
    context: GroupContext, changes: ChangeSet, outcome: Outcome, keys: UpdateKeys
) -> MemberUpdate:
    epoch = outcome.header.epoch
    rooms = [named_secret_to_bytes(name, secret) for name, secret in changes.rooms.items()]

    def wrap(label: bytes, number: int, plaintext: bytes) -> bytes:
        return seal(keys.wrap(label, number), plaintext, context.leaf_aad(number, epoch))

    def wrapped(leaf: int) -> bytes:
        secret = changes.leaves.get(leaf)
        return wrap(b"leaf", leaf, secret.reveal()) if secret else b""

    unsigned = MemberUpdate(
        header=outcome.header,
        leaves=tuple(WrappedLeaf(leaf, kind, wrapped(leaf)) for leaf, kind in changes.kinds()),
        rooms=tuple(wrap(b"room", number, named) for number, named in enumerate(rooms)),
        repaired=changes.repaired,
        rebuilt=changes.rebuilt,
        links=changes.links,
        tree_hash=outcome.tree_hash,
        tag=_NO_TAG,
    )
    return unsigned.confirm(keys.confirm)
