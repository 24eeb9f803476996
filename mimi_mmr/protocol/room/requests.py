"""Requests of members to a hub, and its answers: rooms, commits, messages, snapshots.

After draft-ietf-mimi-protocol-06, sections "Update Room State" and "Submit a Message". A request carries the MLS
message, the Tree Wrap update and the sending leaf's signature, since a hub without GroupInfo can't check the
signature inside the MLS message.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass
from typing import Annotated, ClassVar, Self

from mimi_mmr.crypto.secret import EchoKey
from mimi_mmr.crypto.signing import SigningKey, verify
from mimi_mmr.errors import SignatureRejected, WrongSigner
from mimi_mmr.presentation import U32, U64, Code, Fixed, Maybe, Nested, Opaque, Reader, Struct, Text
from mimi_mmr.protocol.room.departures import DEPARTURES, Departure, departures_hash
from mimi_mmr.protocol.room.policy import SignedPolicy
from mimi_mmr.protocol.room.welcome_proofs import WELCOME_PROOFS, WelcomeProof
from mimi_mmr.uris import ROOM, MimiUri

MAX_MLS_MESSAGE = 1 << 24
MAX_TREE = 1 << 26
MAX_APPLICATION = 1 << 18
MAX_SEALED_STATE = 1 << 16
SEALED_STATE = Maybe(Opaque(MAX_SEALED_STATE))


def group_id(room: MimiUri) -> bytes:
    """Return the MLS group id of a room: its URI."""
    return str(room).encode()


def digest(data: bytes | None) -> bytes:
    """Hash a part with SHA-256; an absent part counts as empty."""
    return hashlib.sha256(data or b"").digest()


def _verified(key: bytes, label: str, content: Struct, signature: bytes) -> None:
    try:
        verify(key, label, content.to_bytes(), signature)
    except SignatureRejected:
        raise WrongSigner("the request is not signed by the leaf that it names as its sender") from None


# --- room creation -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateRoomTBS(Struct):
    """The content that the creator's leaf signs."""

    room: Annotated[MimiUri, ROOM]
    ratchet_tree_hash: Annotated[bytes, Fixed(32)]
    tree_update_hash: Annotated[bytes, Fixed(32)]
    tree_hash: Annotated[bytes, Fixed(32)]
    policy_hash: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class CreateRoomRequest(Struct):
    """A new room: the creator's one-leaf ratchet tree, the first Tree Wrap update, and the policy."""

    LIMIT: ClassVar[int] = 1 << 18
    content: CreateRoomTBS
    signature: Annotated[bytes, Fixed(64)]
    arity: Annotated[int, U32]
    ratchet_tree: Annotated[bytes, Opaque(1 << 17)]
    tree_update: Annotated[bytes, Opaque(1 << 16)]
    policy: SignedPolicy

    def verify(self, signature_key: bytes) -> None:
        """Check signature and parts; raise `WrongSigner`."""
        _verified(signature_key, "CreateRoomTBS", self.content, self.signature)
        content = self.content
        sent = (digest(self.ratchet_tree), digest(self.tree_update), self.policy.policy.hash)
        if sent != (content.ratchet_tree_hash, content.tree_update_hash, content.policy_hash):
            raise WrongSigner("a part of the request is not the one that its signature covers")


# --- commits -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CommitAuthTBS(Struct):
    """The content that the committer's leaf signs, for the hub and all members: each part, the tree, the policy.

    `epoch` is the epoch that the commit ends; `tree_hash`, `policy_hash` and `room_state_hash` are of the next one.
    """

    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]
    sender: Annotated[int, U32]
    commit_hash: Annotated[bytes, Fixed(32)]
    welcome_hash: Annotated[bytes, Fixed(32)]
    tree_update_hash: Annotated[bytes, Fixed(32)]
    member_update_hash: Annotated[bytes, Fixed(32)]
    tree_hash: Annotated[bytes, Fixed(32)]
    policy_hash: Annotated[bytes, Fixed(32)]
    departures_hash: Annotated[bytes, Fixed(32)]
    room_state_hash: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class CommitAuth(Struct):
    """`CommitAuthTBS` with its signature."""

    content: CommitAuthTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, signature_key: bytes) -> None:
        """Check the signature; raise `WrongSigner`."""
        _verified(signature_key, "CommitAuthTBS", self.content, self.signature)


def sign_commit(content: CommitAuthTBS, key: SigningKey) -> CommitAuth:
    """Sign a commit's parts as the committer's leaf."""
    return CommitAuth(content, key.sign("CommitAuthTBS", content.to_bytes()))


@dataclass(frozen=True, slots=True)
class UpdateRequest(Struct):
    """-06's HandshakeBundle for a commit, with the Tree Wrap update for hub and members.

    It carries the policy and the sealed members-only state (`room_state`) if they change, and the departures of
    leaving members. `welcome_proofs` has one proof for each client that the Welcome is for.
    """

    LIMIT: ClassVar[int] = 1 << 26
    auth: CommitAuth
    commit: Annotated[bytes, Opaque(MAX_MLS_MESSAGE)]
    welcome: Annotated[bytes | None, Maybe(Opaque(MAX_MLS_MESSAGE))]
    tree_update: Annotated[bytes | None, Maybe(Opaque(MAX_TREE))]
    member_update: Annotated[bytes | None, Maybe(Opaque(MAX_TREE))]
    policy: Annotated[SignedPolicy | None, Maybe(Nested(SignedPolicy))]
    departures: Annotated[tuple[Departure, ...], DEPARTURES] = ()
    room_state: Annotated[bytes | None, SEALED_STATE] = None
    welcome_proofs: Annotated[tuple[WelcomeProof, ...], WELCOME_PROOFS] = ()

    def verify(self, signature_key: bytes) -> None:
        """Check signature and parts; raise `WrongSigner`.

        The Welcome's proofs are no signed part: each covers what is signed.
        """
        self.auth.verify(signature_key)
        content = self.auth.content
        signed = (
            content.commit_hash,
            content.welcome_hash,
            content.tree_update_hash,
            content.member_update_hash,
            content.departures_hash,
        )
        parts = (self.commit, self.welcome, self.tree_update, self.member_update)
        if signed != (*(digest(part) for part in parts), departures_hash(self.departures)):
            raise WrongSigner("a part of the request is not the one that its signature covers")


class UpdateCode(enum.IntEnum):
    """-06, UpdateResponseCode."""

    SUCCESS = 0
    WRONG_EPOCH = 1
    NOT_ALLOWED = 2
    INVALID_PROPOSAL = 3


@dataclass(frozen=True, slots=True)
class UpdateRoomResponse(Struct):
    """-06's struct. `number` is the acceptance time (ms) after SUCCESS, the current epoch after WRONG_EPOCH.

    `error_code` is this package's stable code for the reason; empty on success.
    """

    code: Annotated[UpdateCode, Code(UpdateCode)]
    error_description: Annotated[str, Text(1024)]
    error_code: Annotated[str, Text(64)]
    number: int = 0

    def write_to(self, out: bytearray) -> None:
        """Append the fields that the code selects."""
        Code(UpdateCode).write(out, self.code)
        Text(1024).write(out, self.error_description)
        Text(64).write(out, self.error_code)
        if self.code in (UpdateCode.SUCCESS, UpdateCode.WRONG_EPOCH):
            U64.write(out, self.number)
        elif self.code is UpdateCode.INVALID_PROPOSAL:
            out.append(0)  # ProposalRef invalidProposals<V>: commits here hold proposals by value only

    @classmethod
    def read_from(cls, reader: Reader) -> Self:
        """Read the fields that the code selects."""
        code = UpdateCode(Code(UpdateCode).read(reader, "UpdateRoomResponse.responseCode"))
        description = Text(1024).read(reader, "UpdateRoomResponse.errorDescription")
        reason = Text(64).read(reader, "UpdateRoomResponse.errorCode")
        number = 0
        if code in (UpdateCode.SUCCESS, UpdateCode.WRONG_EPOCH):
            number = reader.uint(8, "UpdateRoomResponse")
        elif code is UpdateCode.INVALID_PROPOSAL:
            reader.vector(0, "UpdateRoomResponse.invalidProposals")
        return cls(code, description, reason, number)


# --- a commit that members can't process --------------------------------------------------------------


class RepairKind(enum.IntEnum):
    """A member's statement about the commit that began the room's current epoch."""

    CANNOT_PROCESS = 1
    REOPEN = 2


@dataclass(frozen=True, slots=True)
class CommitReportTBS(Struct):
    """The content that a reporting leaf signs: the epoch that the commit ended, and the commit's hash."""

    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]
    sender: Annotated[int, U32]
    commit_hash: Annotated[bytes, Fixed(32)]
    kind: Annotated[RepairKind, Code(RepairKind)]


@dataclass(frozen=True, slots=True)
class CommitReport(Struct):
    """A report by a leaf of the previous epoch: it can't process the commit; or, from an admin, undo the commit."""

    content: CommitReportTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self, signature_key: bytes) -> None:
        """Check the signature; raise `WrongSigner`."""
        _verified(signature_key, "CommitReportTBS", self.content, self.signature)


def sign_report(content: CommitReportTBS, key: SigningKey) -> CommitReport:
    """Sign a report as a leaf."""
    return CommitReport(content, key.sign("CommitReportTBS", content.to_bytes()))


# --- application messages ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SubmitTBS(Struct):
    """The content that the sending leaf signs; `echo_tag` lets that leaf recognise its own message."""

    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]
    sender: Annotated[int, U32]
    message_hash: Annotated[bytes, Fixed(32)]
    echo_tag: Annotated[bytes, Fixed(32)]


@dataclass(frozen=True, slots=True)
class SubmitMessageRequest(Struct):
    """-06's request; its sender is a leaf, and the hub knows the leaf's pseudonym."""

    LIMIT: ClassVar[int] = MAX_APPLICATION + 1024
    content: SubmitTBS
    signature: Annotated[bytes, Fixed(64)]
    app_message: Annotated[bytes, Opaque(MAX_APPLICATION)]

    def verify(self, signature_key: bytes) -> None:
        """Check the signature; raise `WrongSigner`."""
        _verified(signature_key, "SubmitTBS", self.content, self.signature)
        if digest(self.app_message) != self.content.message_hash:
            raise WrongSigner("the message is not the one that the request's signature covers")


def echo_tag(key: EchoKey, message_hash: bytes) -> bytes:
    """Make the tag by which the sender's client recognises its message: HMAC-SHA256; 32 bytes."""
    return hmac.digest(key.reveal(), message_hash, hashlib.sha256)


def sign_submit(content: SubmitTBS, message: bytes, key: SigningKey) -> SubmitMessageRequest:
    """Sign a message as the sending leaf."""
    return SubmitMessageRequest(content, key.sign("SubmitTBS", content.to_bytes()), message)


# --- snapshots, for joiners --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SnapshotTBS(Struct):
    """A joiner's request for the room as of `epoch`; `issued` in seconds."""

    room: Annotated[MimiUri, ROOM]
    epoch: Annotated[int, U64]
    signature_public_key: Annotated[bytes, Fixed(32)]
    issued: Annotated[int, U64]


@dataclass(frozen=True, slots=True)
class SnapshotRequest(Struct):
    """`SnapshotTBS` signed with the key of a leaf of that epoch, because only members get the tree."""

    content: SnapshotTBS
    signature: Annotated[bytes, Fixed(64)]

    def verify(self) -> None:
        """Check the signature; raise `WrongSigner`."""
        _verified(self.content.signature_public_key, "SnapshotTBS", self.content, self.signature)


def sign_snapshot(content: SnapshotTBS, key: SigningKey) -> SnapshotRequest:
    """Sign a snapshot request with the joiner's leaf key."""
    return SnapshotRequest(content, key.sign("SnapshotTBS", content.to_bytes()))


@dataclass(frozen=True, slots=True)
class Snapshot(Struct):
    """Ratchet tree, public Tree Wrap tree, policy and sealed members-only state of one epoch."""

    LIMIT: ClassVar[int] = 1 << 29
    epoch: Annotated[int, U64]
    ratchet_tree: Annotated[bytes, Opaque(1 << 28)]
    public_tree: Annotated[bytes, Opaque(1 << 28)]
    policy: SignedPolicy
    room_state: Annotated[bytes | None, SEALED_STATE] = None
