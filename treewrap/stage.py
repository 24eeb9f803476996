"""A committer's side of a change: from the changes wanted to the messages sent."""

from __future__ import annotations

from collections.abc import Container, Iterable

from treewrap.changes import Change, ChangeKind, ChangeSet
from treewrap.codec import vector
from treewrap.errors import ChangeError
from treewrap.labels import LEAF_WRAP, LINKS_WRAP, ROOM_WRAP
from treewrap.links.records import link_changes_to_bytes
from treewrap.links.rules import Verifier, check_link_change, expired_links
from treewrap.links.seals import seal_root
from treewrap.outcome import Before, Holder, Outcome, Staged
from treewrap.root import named_secret_to_bytes
from treewrap.rules import is_removal, next_extra, renew_rooms
from treewrap.secret import EpochSecret, LeafSecret, Rng
from treewrap.suite import SALT_SIZE, GroupContext, UpdateKeys, pack_place, seal
from treewrap.wire import LeafChange, MemberUpdate, SealedNode, TreeUpdate, WrappedLeaf, refs_to_bytes


class StagedCommit(Staged):
    """A committer's staged change: `update` is for the hub, `member_update` for the other members."""

    __slots__ = ("member_update", "update")

    def __init__(
        self, holder: Holder, outcome: Outcome, version: int, update: TreeUpdate, member_update: MemberUpdate
    ) -> None:
        super().__init__(holder, outcome, version)
        self.update = update
        self.member_update = member_update


def stage(
    before: Before,
    wanted: Iterable[Change],
    *,
    epoch: int,
    epoch_secret: EpochSecret,
    rng: Rng,
    verify: Verifier | None,
    now: int | None,
    renewed: Container[str] | None,
) -> StagedCommit:
    """Compute a commit's change of the tree and both messages about it.

    Raises ChangeError, StaleEpoch, LinkError.
    """
    before.check_epoch(epoch)
    changes = ChangeSet.collect(wanted)
    context = before.context
    for change in changes.links:
        leaving = changes.leaving()
        check_link_change(change, group_id=context.group_id, leaving=leaving, verify=verify, now=now)
    shape = before.plan(changes)
    removal = is_removal(changes.leaves, shape, context.bits)
    if removal:
        changes = renew_rooms(changes, before.extra, rng, renewed)
    elif before.extra.links:
        over = expired_links(before.extra.links, changes.links, now)
        changes = changes._replace(links=over + changes.links)
    extra = next_extra(before.extra, changes, removal=removal)
    if extra.links and now is None:
        raise ChangeError(f"now: needed while join links live, and {len(extra.links)} will")
    canonical = canonical_changes(epoch, changes)
    keys = UpdateKeys.draw(context, epoch_secret, rng(SALT_SIZE), before.tree_hash, canonical)
    outcome = before.seal(shape, changes.leaves, extra, epoch, keys)
    update = _tree_update(context, before.tree_hash, changes, outcome)
    member_update = _member_update(context, changes, outcome, keys)
    return StagedCommit(before.holder, outcome, before.version, update, member_update)


def canonical_changes(epoch: int, changes: ChangeSet) -> bytes:
    """Encode CanonicalChanges: the changes with their secrets in the clear, for the salt alone."""
    return b"".join(
        (
            epoch.to_bytes(8, "big"),
            vector(
                b"".join(
                    [
                        pack_place(kind, leaf) + _reveal(changes.leaves.get(leaf))
                        for leaf, kind in changes.kinds()
                    ]
                )
            ),
            vector(b"".join([named_secret_to_bytes(name, room) for name, room in changes.rooms.items()])),
            refs_to_bytes(changes.repaired),
            bytes((changes.rebuilt,)),
            link_changes_to_bytes(changes.links),
        )
    )


def _reveal(secret: LeafSecret | None) -> bytes:
    return secret.reveal() if secret else b""


def _tree_update(context: GroupContext, previous: bytes, changes: ChangeSet, outcome: Outcome) -> TreeUpdate:
    rebuilt, links, epoch = changes.rebuilt, outcome.extra.links, outcome.header.epoch
    return TreeUpdate(
        header=outcome.header,
        previous_tree_hash=previous,
        tree_hash=outcome.tree_hash,
        changes=tuple([LeafChange(leaf, kind) for leaf, kind in changes.kinds()]),
        repaired=changes.repaired,
        nodes=() if rebuilt else _sealed_nodes(outcome),
        vanished=() if rebuilt else outcome.vanished,
        seals=seal_root(context, links, outcome.root_key, epoch, outcome.tree_hash) if links else (),
        rebuilt=_rows(outcome) if rebuilt else b"",
    )


def _sealed_nodes(outcome: Outcome) -> tuple[SealedNode, ...]:
    return tuple([SealedNode(node.level, node.index, node.ciphertext + node.tag) for node in outcome.nodes])


def _rows(outcome: Outcome) -> bytes:
    top_down = sorted(outcome.nodes, key=lambda node: (-node.level, node.index))
    return b"".join([node.row for node in top_down])


def _member_update(
    context: GroupContext, changes: ChangeSet, outcome: Outcome, keys: UpdateKeys
) -> MemberUpdate:
    epoch = outcome.header.epoch

    def wrap(label: bytes, number: int, plaintext: bytes) -> bytes:
        return seal(keys.wrap(label, number), plaintext, context.wrap_aad(number, epoch))

    leaves = []
    for leaf, kind in changes.kinds():
        secret = changes.leaves[leaf] if kind is ChangeKind.SET else None
        leaves.append(WrappedLeaf(leaf, kind, wrap(LEAF_WRAP, leaf, secret.reveal()) if secret else b""))
    rooms = (named_secret_to_bytes(name, secret) for name, secret in changes.rooms.items())
    return MemberUpdate.confirmed_by(
        keys.confirm,
        outcome.header,
        tuple(leaves),
        tuple([wrap(ROOM_WRAP, number, named) for number, named in enumerate(rooms)]),
        changes.repaired,
        changes.rebuilt,
        wrap(LINKS_WRAP, 0, link_changes_to_bytes(changes.links)) if changes.links else b"",
        outcome.tree_hash,
    )
