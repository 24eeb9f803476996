"""Whether a commit that this member can't process was undone: only an admin's order says so, not the hub alone."""

from __future__ import annotations

from mimi_mmr.errors import Desynchronised, NotAllowed, WrongSigner
from mimi_mmr.member.following import authenticate
from mimi_mmr.member.local import LocalRoom
from mimi_mmr.mls.wire import Add, PublicCommit, Remove, parse_commit
from mimi_mmr.protocol.credentials import LeafIdentity
from mimi_mmr.protocol.room.events import ReportEvent
from mimi_mmr.protocol.room.policy import RoomPolicy, SignedPolicy
from mimi_mmr.protocol.room.reopening import Roster, check_reopening
from mimi_mmr.protocol.room.requests import CommitAuth, CommitReport, RepairKind, digest
from mimi_mmr.uris import MimiUri


def check_undone(local: LocalRoom, event: ReportEvent, commit: bytes) -> None:
    """Check an order to undo `commit`, which this member of the epoch before could not process.

    The rule is the hub's. Everything that it depends on is signed by members of this epoch. Raises `NotAllowed`,
    `WrongSigner`, `PseudonymProofRejected` for a leaf that claims another's pseudonym, or `Desynchronised`;
    `ParseError` or `InvalidCommit` for a malformed commit.
    """
    parsed = parse_commit(commit)
    committer = _check_auth(local, event.undone, commit)
    policy = _policy_after(local, event.policy, event.undone)
    before = _before(local)
    actor = _check_report(local, event.report, RepairKind.REOPEN, commit)
    reporters = [_check_report(local, ground, RepairKind.CANNOT_PROCESS, commit) for ground in event.grounds]
    after = Roster(_leaves_after(local, before, parsed), policy)
    check_reopening(before, after, committer=committer, actor=actor, reporters=reporters)


def check_order(local: LocalRoom, event: ReportEvent) -> None:
    """Check an order to undo the commit that began this member's epoch, as far as this member still can.

    An admin of this epoch must have signed it. Raises `NotAllowed`, `WrongSigner`, `PseudonymProofRejected` or
    `Desynchronised`.
    """
    content = event.report.content
    if content.room != local.uri or content.epoch + 1 != local.group.epoch:
        raise Desynchronised(f"an order to undo a commit of epoch {content.epoch}, which is not the last one")
    actor = _signer(local, event.report)
    if not _before(local).has_admin(actor):
        raise NotAllowed("an order to undo a commit that no admin of the room signed")


def _check_auth(local: LocalRoom, auth: CommitAuth | None, commit: bytes) -> MimiUri | None:
    """Return who made the undone commit, None if its credential does not parse."""
    if auth is None:
        raise Desynchronised("the hub does not say who made the commit that it has undone")
    content = auth.content
    if (content.room, content.epoch, content.commit_hash) != (local.uri, local.group.epoch, digest(commit)):
        raise Desynchronised("the hub has undone another commit than the one that can't be processed here")
    authenticate(auth, local.members.signature_key(content.sender))
    return local.members.user(content.sender)


def _policy_after(local: LocalRoom, signed: SignedPolicy | None, auth: CommitAuth | None) -> RoomPolicy:
    policy = (signed or local.policy).policy
    if auth is None or policy.hash != auth.content.policy_hash:
        raise Desynchronised("the hub does not say which policy the undone commit had")
    return policy


def _check_report(local: LocalRoom, report: CommitReport, kind: RepairKind, commit: bytes) -> MimiUri:
    content = report.content
    named = content.room, content.epoch, content.commit_hash, content.kind
    if named != (local.uri, local.group.epoch, digest(commit), kind):
        raise Desynchronised(f"a report of kind {kind.name} about another commit, or of another kind")
    return _signer(local, report)


def _signer(local: LocalRoom, report: CommitReport) -> MimiUri:
    member = local.members.readable.get(report.content.sender)
    if member is None:
        raise WrongSigner(f"no member with a readable credential at leaf {report.content.sender}")
    member.identity.credential.verify_pseudonym()  # otherwise a hub and a member could make any leaf an admin's
    report.verify(member.signature_key)
    return member.user


def _before(local: LocalRoom) -> Roster:
    members = local.members.readable.values()
    return Roster(frozenset((one.signature_key, one.user) for one in members), local.policy.policy)


def _leaves_after(local: LocalRoom, before: Roster, commit: PublicCommit) -> frozenset[tuple[bytes, MimiUri]]:
    removed = {
        local.members.signature_key(proposal.leaf)
        for proposal in commit.proposals
        if isinstance(proposal, Remove)
    }
    added = (proposal.key_package.leaf_node for proposal in commit.proposals if isinstance(proposal, Add))
    kept = {(key, user) for key, user in before.leaves if key not in removed}
    new = {
        (leaf.signature_key, LeafIdentity.from_bytes(leaf.identity).credential.user_pseudonym)
        for leaf in added
    }
    return frozenset(kept | new)
