"""RFC 9420's public messages, read strictly: bytes in, object or `ParseError` out. No I/O, no secrets.

Well-formed MLS messages that this profile does not use (other senders, proposals by reference, other proposal
types) raise `InvalidCommit` instead.
"""

from mimi_mmr.mls.wire.commit import Add, HPKECiphertext, Proposal, Remove, Update, UpdatePath, UpdatePathNode
from mimi_mmr.mls.wire.framing import (
    Message,
    PrivateMessage,
    PublicCommit,
    PublicProposal,
    WelcomeMessage,
    parse_application,
    parse_commit,
    parse_message,
)
from mimi_mmr.mls.wire.keypackage import KeyPackage, verify_key_package
from mimi_mmr.mls.wire.leaf import Capabilities, LeafNode, LeafNodeSource
from mimi_mmr.mls.wire.limits import CIPHER_SUITE, ContentType, Extension, WireFormat

__all__ = [
    "CIPHER_SUITE",
    "Add",
    "Capabilities",
    "ContentType",
    "Extension",
    "HPKECiphertext",
    "KeyPackage",
    "LeafNode",
    "LeafNodeSource",
    "Message",
    "PrivateMessage",
    "Proposal",
    "PublicCommit",
    "PublicProposal",
    "Remove",
    "Update",
    "UpdatePath",
    "UpdatePathNode",
    "WelcomeMessage",
    "WireFormat",
    "parse_application",
    "parse_commit",
    "parse_message",
    "verify_key_package",
]
