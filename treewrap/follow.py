"""A member's side of someone else's change: check it, and compute the same tree."""

from __future__ import annotations

import hmac
from dataclasses import replace

from treewrap.changes import ChangeKind, ChangeSet
from treewrap.codec import Reader
from treewrap.errors import (
    ChangeError,
    ConfirmationError,
    FollowError,
    LinkError,
    ParseError,
    TreeHashMismatch,
    UpdateRefused,
    WrapError,
    WrongEpochSecret,
)
from treewrap.labels import LEAF_WRAP, LINKS_WRAP, ROOM_WRAP
from treewrap.links.records import LinkChange, link_changes_from_bytes
from treewrap.links.rules import Verifier, apply_link_changes, check_link_change
from treewrap.outcome import Before, Outcome, Staged
from treewrap.root import read_named_secret
from treewrap.rules import is_removal, next_extra
from treewrap.secret import EpochSecret, LeafSecret, RoomSecret
from treewrap.suite import GroupContext, UpdateKeys, unseal
from treewrap.wire import MemberUpdate


def follow(
    before: Before,
    update: MemberUpdate,
    *,
    epoch_secret: EpochSecret,
    epoch: int | None,
    verify: Verifier | None,
    now: int | None,
) -> Staged:
    """Compute the tree that an update leads to.

    If no member of the epoch made the update, raises StaleEpoch, WrongEpochSecret or ConfirmationError. If a member
    made it wrongly, raises WrapError, LinkError or TreeHashMismatch, with `staged`. If it can't be followed at all,
    raises UpdateRefused.
    """
    before.header.check_next(update.header, epoch)
    keys = UpdateKeys(before.context, epoch_secret, update.header.salt)
    authentic = hmac.compare_digest(keys.confirm(update.confirmed()), update.tag)
    changes, errors = _unwrap(before.context, update, keys)
    if not authentic and _nothing_opens(update, errors):
        raise WrongEpochSecret(f"update of epoch {update.epoch}: nothing in it opens under this epoch secret")
    try:
        shape = before.plan(changes)
        removal = is_removal(changes.leaves, shape, before.context.bits)
        links, link_errors = _sound_links(before, changes, removal, verify, now)
        changes = changes._replace(links=links)
        extra = next_extra(before.extra, changes, removal=removal)
    except ChangeError as error:
        raise (UpdateRefused(str(error)) if authentic else ConfirmationError("changes")) from error
    outcome = before.seal(shape, changes.leaves, extra, update.epoch, keys)
    if not authentic:
        raise ConfirmationError(_which_differs(update, outcome, keys))
    staged = Staged(before.holder, outcome, before.version)
    for wrong in errors + link_errors:
        raise wrong.with_staged(staged)
    if outcome.tree_hash != update.tree_hash:
        raise TreeHashMismatch(expected=update.tree_hash, computed=outcome.tree_hash, staged=staged)
    return staged


def _which_differs(update: MemberUpdate, outcome: Outcome, keys: UpdateKeys) -> str:
    computed = replace(update, header=outcome.header, tree_hash=outcome.tree_hash)
    fits = hmac.compare_digest(keys.confirm(computed.confirmed()), update.tag)
    return "tree hash" if fits else "changes"


def _nothing_opens(update: MemberUpdate, errors: list[FollowError]) -> bool:
    wraps = (
        len(update.rooms) + bool(update.links) + sum(kind is ChangeKind.SET for _, kind, _ in update.leaves)
    )
    return 0 < wraps == len(errors)


def _unwrap(
    context: GroupContext, update: MemberUpdate, keys: UpdateKeys
) -> tuple[ChangeSet, list[FollowError]]:
    errors: list[FollowError] = []
    leaves: dict[int, LeafSecret | None] = {}
    for leaf, kind, wrapped in update.leaves:
        if kind is ChangeKind.REJECT:
            continue
        leaves[leaf] = None
        if kind is ChangeKind.SET:
            plaintext = unseal(keys.wrap(LEAF_WRAP, leaf), wrapped, context.wrap_aad(leaf, update.epoch))
            if plaintext is None:
                errors.append(WrapError(f"leaf {leaf}: its wrapped secret does not open"))
            else:
                leaves[leaf] = LeafSecret(plaintext)
    rooms: dict[str, RoomSecret] = {}
    for number, wrapped in enumerate(update.rooms):
        plaintext = unseal(keys.wrap(ROOM_WRAP, number), wrapped, context.wrap_aad(number, update.epoch))
        try:
            name, secret = _named(plaintext)
            rooms[name] = secret
        except ParseError:
            errors.append(WrapError(f"room secret at position {number}: its wrap does not open"))
    rejected = tuple(leaf for leaf, kind, _ in update.leaves if kind is ChangeKind.REJECT)
    links, link_errors = _unwrap_links(context, update, keys)
    changes = ChangeSet(leaves, rejected, rooms, update.repaired, update.rebuilt, links)
    return changes, errors + link_errors


def _unwrap_links(
    context: GroupContext, update: MemberUpdate, keys: UpdateKeys
) -> tuple[tuple[LinkChange, ...], list[FollowError]]:
    if not update.links:
        return (), []
    plaintext = unseal(keys.wrap(LINKS_WRAP, 0), update.links, context.wrap_aad(0, update.epoch))
    try:
        return link_changes_from_bytes(plaintext or b""), []
    except ParseError:
        return (), [LinkError("link changes: their wrap does not open")]


def _named(plaintext: bytes | None) -> tuple[str, RoomSecret]:
    reader = Reader(plaintext or b"")
    named = read_named_secret(reader)
    reader.end("room secret")
    return named


def _sound_links(
    before: Before, changes: ChangeSet, removal: bool, verify: Verifier | None, now: int | None
) -> tuple[tuple[LinkChange, ...], list[FollowError]]:
    """Return the link changes that are signed and fit the live links, and the errors of the other changes."""
    sound: tuple[LinkChange, ...] = ()
    errors: list[FollowError] = []
    for change in changes.links:
        try:
            check_link_change(
                change,
                group_id=before.context.group_id,
                leaving=changes.leaving(),
                verify=verify,
                now=now,
            )
            apply_link_changes(before.extra.links, (*sound, change), removal=removal)
            sound += (change,)
        except LinkError as error:
            errors.append(error)
    return sound, errors
