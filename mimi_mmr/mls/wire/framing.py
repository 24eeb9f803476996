"""MLSMessage and the contents that this profile uses (RFC 9420, sections 6 and 12.4.3.1)."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from mimi_mmr.errors import InvalidCommit, ParseError
from mimi_mmr.mls.wire.commit import (
    Add,
    HPKECiphertext,
    Proposal,
    Remove,
    UpdatePath,
    read_commit,
    read_proposal,
)
from mimi_mmr.mls.wire.keypackage import KeyPackage
from mimi_mmr.mls.wire.limits import (
    AUTHENTICATED_DATA,
    CIPHER_SUITE,
    GROUP_ID,
    HASH,
    MAX_MESSAGE,
    MLS10,
    SIGNATURE,
    TAG,
    ContentType,
    WireFormat,
)
from mimi_mmr.presentation import U64, Code, Nested, Opaque, Reader, Struct, Vector


@dataclass(frozen=True, slots=True)
class PublicCommit:
    """A commit in a PublicMessage; `sender` is a leaf index. Members check its three authenticators."""

    group_id: bytes
    epoch: int
    sender: int
    authenticated_data: bytes
    proposals: tuple[Add | Remove, ...]
    path: UpdatePath | None
    signature: bytes = field(repr=False)
    confirmation_tag: bytes = field(repr=False)
    membership_tag: bytes = field(repr=False)
    encoded: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PublicProposal:
    """A standalone proposal in a PublicMessage; no commit of this profile may refer to it."""

    group_id: bytes
    epoch: int
    sender: int
    authenticated_data: bytes
    proposal: Proposal
    signature: bytes = field(repr=False)
    membership_tag: bytes = field(repr=False)
    encoded: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PrivateMessage:
    """A PrivateMessage (RFC 9420, section 6.3): its plaintext header fields, and the whole message as `encoded`."""

    group_id: bytes
    epoch: int
    content_type: ContentType
    authenticated_data: bytes
    encoded: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class WelcomeMessage:
    """A Welcome and the KeyPackageRefs of its recipients, 32 bytes each (RFC 9420, section 12.4.3.1)."""

    cipher_suite: int
    refs: tuple[bytes, ...]
    encoded: bytes = field(repr=False)


Message: TypeAlias = PublicCommit | PublicProposal | PrivateMessage | WelcomeMessage | KeyPackage


class SenderType(enum.IntEnum):
    """SenderType (RFC 9420, section 6)."""

    MEMBER = 1
    EXTERNAL = 2
    NEW_MEMBER_PROPOSAL = 3
    NEW_MEMBER_COMMIT = 4


@dataclass(frozen=True, slots=True)
class _PrivateContent(Struct):
    group_id: Annotated[bytes, GROUP_ID]
    epoch: Annotated[int, U64]
    content_type: Annotated[ContentType, Code(ContentType)]
    authenticated_data: Annotated[bytes, AUTHENTICATED_DATA]
    encrypted_sender_data: Annotated[bytes, Opaque(256, 16)]
    ciphertext: Annotated[bytes, Opaque(MAX_MESSAGE, 16)]


@dataclass(frozen=True, slots=True)
class _EncryptedGroupSecrets(Struct):
    new_member: Annotated[bytes, HASH]
    encrypted_group_secrets: Annotated[HPKECiphertext, Nested(HPKECiphertext)]


_SECRETS = Vector(Nested(_EncryptedGroupSecrets), MAX_MESSAGE, 1 << 16)
_GROUP_INFO = Opaque(MAX_MESSAGE, 16)


def parse_message(data: bytes) -> Message:
    """Parse one MLSMessage of at most 16 MiB; no bytes may follow it.

    Raises `ParseError` for anything but an MLSMessage of version mls10 and cipher suite 1, and `InvalidCommit` for
    one that this profile does not use.
    """
    if len(data) > MAX_MESSAGE:
        raise ParseError(f"MLSMessage of {len(data)} bytes, at most {MAX_MESSAGE} allowed", 0)
    reader = Reader(data)
    message = _read_message(reader)
    reader.done("MLSMessage")
    return message


def parse_commit(data: bytes) -> PublicCommit:
    """Parse a commit; raise `ParseError`, or `InvalidCommit` for another kind of message."""
    message = parse_message(data)
    if not isinstance(message, PublicCommit):
        raise InvalidCommit("expected a commit as an MLS PublicMessage")
    return message


def parse_application(data: bytes) -> PrivateMessage:
    """Parse an application message; raise `ParseError`, or `InvalidCommit` for another kind of message."""
    message = parse_message(data)
    if not isinstance(message, PrivateMessage) or message.content_type is not ContentType.APPLICATION:
        raise InvalidCommit("expected an application message as an MLS PrivateMessage")
    return message


def _read_message(reader: Reader) -> Message:
    version = reader.uint(2, "MLSMessage.version")
    if version != MLS10:
        raise ParseError(f"MLSMessage of version {version}, expected mls10 ({MLS10})", 0)
    match Code(WireFormat, 2).read(reader, "MLSMessage.wire_format"):
        case WireFormat.PUBLIC_MESSAGE:
            return _read_public(reader)
        case WireFormat.PRIVATE_MESSAGE:
            return _read_private(reader)
        case WireFormat.WELCOME:
            return _read_welcome(reader)
        case WireFormat.KEY_PACKAGE:
            return KeyPackage.read_from(reader)
        case _:
            raise InvalidCommit("GroupInfo messages are not used in these rooms")


def _read_public(reader: Reader) -> PublicCommit | PublicProposal:
    group_id = GROUP_ID.read(reader, "FramedContent.group_id")
    epoch = reader.uint(8, "FramedContent.epoch")
    sender = _read_sender(reader)
    authenticated_data = AUTHENTICATED_DATA.read(reader, "FramedContent.authenticated_data")
    content_type = Code(ContentType).read(reader, "FramedContent.content_type")
    if content_type is ContentType.APPLICATION:
        raise InvalidCommit("an application message must be a PrivateMessage")
    if content_type is ContentType.PROPOSAL:
        proposal = read_proposal(reader)
        signature, _, membership_tag = _read_authenticators(reader, confirmed=False)
        return PublicProposal(
            group_id, epoch, sender, authenticated_data, proposal, signature, membership_tag, reader.data
        )
    commit = read_commit(reader)
    return PublicCommit(
        group_id,
        epoch,
        sender,
        authenticated_data,
        commit.proposals,
        commit.path,
        *_read_authenticators(reader, confirmed=True),
        encoded=reader.data,
    )


def _read_sender(reader: Reader) -> int:
    kind = Code(SenderType).read(reader, "Sender.sender_type")
    if kind is not SenderType.MEMBER:
        raise InvalidCommit(f"messages from a {kind.name} sender are not used in these rooms")
    return reader.uint(4, "Sender.leaf_index")


def _read_authenticators(reader: Reader, *, confirmed: bool) -> tuple[bytes, bytes, bytes]:
    signature = SIGNATURE.read(reader, "FramedContentAuthData.signature")
    confirmation_tag = TAG.read(reader, "FramedContentAuthData.confirmation_tag") if confirmed else b""
    return signature, confirmation_tag, TAG.read(reader, "PublicMessage.membership_tag")


def _read_private(reader: Reader) -> PrivateMessage:
    content = _PrivateContent.read_from(reader)
    return PrivateMessage(
        content.group_id, content.epoch, content.content_type, content.authenticated_data, reader.data
    )


def _read_welcome(reader: Reader) -> WelcomeMessage:
    start = reader.offset
    cipher_suite = reader.uint(2, "Welcome.cipher_suite")
    if cipher_suite != CIPHER_SUITE:
        raise ParseError(f"Welcome of cipher suite {cipher_suite}, expected {CIPHER_SUITE}", start)
    secrets: tuple[_EncryptedGroupSecrets, ...] = _SECRETS.read(reader, "Welcome.secrets")
    _GROUP_INFO.read(reader, "Welcome.encrypted_group_info")
    return WelcomeMessage(cipher_suite, tuple(entry.new_member for entry in secrets), reader.data)
