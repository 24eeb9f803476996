"""All errors of mimi_mmr, as one small tree.

Leaf classes differ in what the caller can do about them. `code` is sent over the wire and stays the same in all
versions. A message says what was expected and what came, without secrets or identities.
"""

from __future__ import annotations

from typing import ClassVar, Self


class MmrError(Exception):
    """Base of every error raised by this package. `hint` says what a person can do; it stays on this machine."""

    code: ClassVar[str] = "error"
    hint: str = ""

    def with_hint(self, hint: str) -> Self:
        """Return this error with a hint of its own, which is shown instead of the one for its code."""
        self.hint = hint
        return self


class ParseError(MmrError):
    """Bytes that do not encode the expected type. `offset` counts from the start of the outermost struct."""

    code = "malformed"

    def __init__(self, what: str, offset: int) -> None:
        """Store the offset; the message names the problem and the offset."""
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
    """A client's state file can't be opened or written: missing, in use, damaged, or wrong passphrase."""

    code = "state"


class BodyTooLarge(MmrError):
    """A request or a struct above its limit."""

    code = "too-large"


# --- identities -----------------------------------------------------------------------------------


class IdentityError(MmrError):
    """A claim of identity that is not valid."""

    code = "identity"


class CertificateRejected(IdentityError):
    """A device certificate that does not chain to its provider's trust anchor, or has the wrong names."""

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
    """An identity link that does not open, or is for another leaf."""

    code = "identity-link"


class SignatureRejected(IdentityError):
    """A signature that does not verify under the expected key."""

    code = "signature"


# --- connections ----------------------------------------------------------------------------------


class ConnectionRefused(MmrError):
    """A connection package, request or response that can't be used."""

    code = "connection"


class NoKeyPackages(MmrError):
    """Nothing to claim with this token; unknown, closed and empty shelves give the same answer."""

    code = "no-key-packages"


class SealedBoxRejected(MmrError):
    """An HPKE ciphertext that does not open with this key for this purpose."""

    code = "sealed-box"


# --- hub ------------------------------------------------------------------------------------------


class HubRefusal(MmrError):
    """The hub refused a request; nothing has changed."""

    code = "refused"


class WrongEpoch(HubRefusal):
    """A commit or message for another epoch than the room's current one."""

    code = "wrong-epoch"
    _WORDS: ClassVar[str] = "the room is in epoch "

    def __init__(self, current_epoch: int) -> None:
        """Store the room's current epoch, so that the sender can catch up."""
        super().__init__(f"{self._WORDS}{current_epoch}")
        self.current_epoch = current_epoch

    @classmethod
    def reported(cls, message: str) -> MmrError:
        """Parse a server's message for this error; return a `PeerError` if it has another form."""
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
    """A request that was not signed by the leaf it names."""

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
    """A join link that is unknown, expired or used up (same answer), or a request that the link did not sign."""

    code = "join-refused"


# --- delivery -------------------------------------------------------------------------------------


class QueueFull(MmrError):
    """A queue, reply inbox, shelf, account, asset host or provider at its limit; nothing was stored."""

    code = "queue-full"


class UnknownQueue(MmrError):
    """A sealed queue id that names no queue of this provider, or was sealed for another leaf."""

    code = "unknown-queue"


class Unauthorized(MmrError):
    """Credentials for this endpoint are missing or wrong."""

    code = "unauthorized"


class ShutOut(Unauthorized):
    """This device's provider does not know it any more: the account is deleted, or the device was removed."""

    code = "shut-out"


class PeerError(MmrError):
    """Another provider answered with an error or not at all."""

    code = "peer"


class NotReached(PeerError):
    """No connection to a provider could be made: nothing of the request has arrived there."""


class PeerRefused(PeerError):
    """Another provider will not take this request, now or later."""

    code = "peer-refused"


class PrivatePathFailed(MmrError):
    """Oblivious HTTP failed; the client never retries without it."""

    code = "private-path"


# --- a member's room ------------------------------------------------------------------------------


class RoomError(MmrError):
    """A member's room can't do this."""

    code = "room"


class EngineError(RoomError):
    """The MLS engine refused an operation; the message comes from the engine."""

    code = "mls"


class LifetimeRefused(EngineError):
    """The MLS engine refused a KeyPackage that is outside its lifetime by the engine's clock."""


class OwnMessage(EngineError):
    """A message that this client, or another copy of its state, has sent."""


class NotYet(RoomError):
    """A KeyPackage that is not valid yet by this device's clock; the same works at `due`, in seconds since 1970."""

    code = "not-yet"

    def __init__(self, due: float, now: float) -> None:
        """Store when it is due; the message says how far the two clocks are apart at least."""
        ahead = max(1, round(due - now))
        span = f"{ahead} seconds" if ahead < 120 else f"{round(ahead / 60)} minutes"
        super().__init__(
            f"a KeyPackage is valid only in {span} by this device's clock: the clock of the device that made it is "
            "ahead, or this one is behind"
        )
        self.due = due


class Desynchronised(RoomError):
    """The hub's state of the room differs from what the members computed."""

    code = "desynchronised"


class OlderCopy(RoomError):
    """A newer copy of this client's state was used in the room: keys for sending may be used already."""

    code = "older-copy"


class StateRejected(RoomError):
    """A members-only state that does not open for the room's members, or has invalid content."""

    code = "room-state"


class UnknownDevice(RoomError):
    """The user has no device of that name."""

    code = "unknown-device"


class DeviceRefused(RoomError):
    """The user's existing device did not add this one to the account; the message has its reason."""

    code = "device-refused"


class WelcomeRejected(RoomError):
    """A Welcome that was not made by anybody to whom this client gave the KeyPackage, or not for this use."""

    code = "welcome"


class RemovedFromRoom(RoomError):
    """This client is no longer a member."""

    code = "removed"


# The errors that a server may report to a client; any other code becomes a `PeerError`.
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
    """Return the error class for a server's code; `PeerError` for a code that no server may report."""
    if code == WrongEpoch.code:
        return WrongEpoch.reported(message)
    return CODES.get(code, PeerError)(message)
