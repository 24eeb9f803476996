"""Everything that mimi_mmr raises, as one small tree.

Leaf classes differ by what the caller can do about them. `code` is what crosses the wire, and stays the same
from version to version; a message says what was expected and what came, never a secret or an identity.
"""

from __future__ import annotations

from typing import ClassVar


class MmrError(Exception):
    """Base of every error raised by this package."""

    code: ClassVar[str] = "error"


class ParseError(MmrError):
    """Bytes that are not what their type says. `offset` counts from the start of the outermost struct."""

    code = "malformed"

    def __init__(self, what: str, offset: int) -> None:
        """Remember where, beside what."""
        super().__init__(f"{what}, at byte {offset}")
        self.what = what
        self.offset = offset


class InvalidUri(MmrError):
    """Not a MIMI URI of the kind that was expected."""

    code = "invalid-uri"


class ConfigError(MmrError):
    """A setting that can't be used; the message names it."""

    code = "config"


class StateError(MmrError):
    """A client's state file that can't be opened or written: missing, in use, damaged, or another passphrase's."""

    code = "state"


class BodyTooLarge(MmrError):
    """A request or a struct above its limit."""

    code = "too-large"


# --- identities -----------------------------------------------------------------------------------


class IdentityError(MmrError):
    """A claim of identity that does not hold."""

    code = "identity"


class CertificateRejected(IdentityError):
    """A device certificate that does not chain to its provider's trust anchor, or names something else."""

    code = "certificate"


class BindingRejected(IdentityError):
    """The user's identity key did not sign this device, or is not the one that was pinned."""

    code = "user-binding"


class PseudonymProofRejected(IdentityError):
    """A user pseudonym whose set key does not hash to it, or did not sign this credential."""

    code = "pseudonym-proof"


class CredentialExpired(IdentityError):
    """A credential or link used after its expiry."""

    code = "expired"


class LinkRejected(IdentityError):
    """An identity link that does not open, or speaks of another leaf."""

    code = "identity-link"


class SignatureRejected(IdentityError):
    """A signature that is not by the key it should be by."""

    code = "signature"


# --- connections ----------------------------------------------------------------------------------


class ConnectionRefused(MmrError):
    """A connection package, request or response that can't be used."""

    code = "connection"


class NoKeyPackages(MmrError):
    """Nothing to claim under this token (unknown, withdrawn, or used up: the answers are the same)."""

    code = "no-key-packages"


class SealedBoxRejected(MmrError):
    """An HPKE ciphertext that does not open with this key, for this purpose."""

    code = "sealed-box"


# --- hub ------------------------------------------------------------------------------------------


class HubRefusal(MmrError):
    """The hub did not accept a request; nothing has changed."""

    code = "refused"


class WrongEpoch(HubRefusal):
    """A commit or message made for an epoch that is not the room's."""

    code = "wrong-epoch"
    _WORDS: ClassVar[str] = "the room is in epoch "

    def __init__(self, current_epoch: int) -> None:
        """Say which epoch the room is in, so that the sender can catch up."""
        super().__init__(f"{self._WORDS}{current_epoch}")
        self.current_epoch = current_epoch

    @classmethod
    def reported(cls, message: str) -> MmrError:
        """Return the error that a server reported in these words; a `PeerError` if they are not this error's."""
        number = message.removeprefix(cls._WORDS)
        if number == message or not (number.isascii() and number.isdecimal() and len(number) < 21):
            return PeerError(message)
        return cls(int(number))


class NotAllowed(HubRefusal):
    """The room's policy does not give the sender's role this right."""

    code = "not-allowed"


class UnknownSender(HubRefusal):
    """No such leaf in the room."""

    code = "unknown-sender"


class WrongSigner(HubRefusal):
    """A request that the leaf it names did not sign."""

    code = "wrong-signer"


class InvalidCommit(HubRefusal):
    """A commit, credential or leaf that the public group state does not allow."""

    code = "invalid-commit"


class TreeMismatch(HubRefusal):
    """A Tree Wrap update that does not match its commit, or does not verify."""

    code = "tree-mismatch"


class UnknownRoom(HubRefusal):
    """No such room here."""

    code = "unknown-room"


class JoinRefused(HubRefusal):
    """A join link that is unknown, expired or used up (the answers are the same), or a request it did not make."""

    code = "join-refused"


# --- delivery -------------------------------------------------------------------------------------


class QueueFull(MmrError):
    """A queue at its bound: the hub keeps the message and tries again, nothing is lost."""

    code = "queue-full"


class UnknownQueue(MmrError):
    """A queue id that opens to no queue of this provider, or belongs to another leaf."""

    code = "unknown-queue"


class Unauthorized(MmrError):
    """Credentials for this endpoint are missing or wrong."""

    code = "unauthorized"


class PeerError(MmrError):
    """Another provider answered with an error or not at all."""

    code = "peer"


class PeerRefused(PeerError):
    """Another provider will not take this request, now or later."""

    code = "peer-refused"


class PrivatePathFailed(MmrError):
    """Oblivious HTTP did not work; the client stops here, it never retries in the clear."""

    code = "private-path"


# --- a member's room ------------------------------------------------------------------------------


class RoomError(MmrError):
    """A member's room can't do this."""

    code = "room"


class EngineError(RoomError):
    """The MLS engine refused; the message is the engine's."""

    code = "mls"


class Desynchronised(RoomError):
    """The hub's account of the room is not what the members computed."""

    code = "desynchronised"


class StateRejected(RoomError):
    """A members-only state that does not open for the room's members, or is not what it should be."""

    code = "room-state"


class RemovedFromRoom(RoomError):
    """This client is no longer a member."""

    code = "removed"


# What a server may tell a client of; anything else a peer says is its own word, and a `PeerError`.
_REPORTED = (
    BodyTooLarge,
    NoKeyPackages,
    Unauthorized,
    QueueFull,
    UnknownQueue,
    HubRefusal,
    NotAllowed,
    UnknownSender,
    WrongSigner,
    InvalidCommit,
    TreeMismatch,
    UnknownRoom,
    JoinRefused,
    CredentialExpired,
    PseudonymProofRejected,
    LinkRejected,
    SealedBoxRejected,
)
CODES: dict[str, type[MmrError]] = {cls.code: cls for cls in _REPORTED}


def from_code(code: str, message: str) -> MmrError:
    """Return a server's error as the class it has here; `PeerError` for a code that no server may report."""
    if code == WrongEpoch.code:
        return WrongEpoch.reported(message)
    return CODES.get(code, PeerError)(message)
