"""Errors, sorted by what the caller can do about them.

Messages say what was expected, what came and where; they never carry key material, plaintext or a
client's address.
"""

from __future__ import annotations


class OhttpError(Exception):
    """Any failure of this package."""


class ConfigurationError(OhttpError):
    """A setting is wrong (a URL without https, an empty allow-list).  Correct the configuration."""


class ParseError(OhttpError):
    """Bytes from a peer do not have the right format.  Answer with an error."""

    def __init__(self, what: str, offset: int | None = None) -> None:
        super().__init__(what if offset is None else f"{what} (at byte {offset})")
        self.what = what
        self.offset = offset


class InvalidMessage(ParseError):
    """A Binary HTTP message is invalid (RFC 9292, section 4)."""


class TruncatedMessage(InvalidMessage):
    """A Binary HTTP message ends where it must not (RFC 9292, section 3.8)."""


class InvalidKeyList(ParseError):
    """A key list has an encoding error and is discarded whole (RFC 9458, section 3.2)."""


class CapsuleError(OhttpError):
    """An encapsulated message cannot be used."""


class TruncatedCapsule(CapsuleError, ParseError):
    """An encapsulated message is shorter than its own parts."""


class UnknownKey(CapsuleError):
    """The request names a key or a suite that the gateway does not have.  Refresh the key list."""


class OpenFailed(CapsuleError):
    """Authentication failed: another key, or the message was changed."""


class NoUsableKey(OhttpError):
    """A key list has no configuration that this end supports."""


class InconsistentKeys(OhttpError):
    """Sources that must give the same key list differ: the client may be singled out (RFC 9458, section 7)."""


class KeyFileError(OhttpError):
    """Stored keys are missing, damaged, or readable by others."""


class BodyTooLarge(OhttpError):
    """A body is larger than a configured limit."""


class Overloaded(OhttpError):
    """The server holds as much as it may for others' requests.  Try again later."""


class RequestRefused(OhttpError):
    """The gateway opened a request and refuses it."""


class ReplayedRequest(RequestRefused):
    """A request with this encapsulated key was answered before (RFC 9458, section 6.5)."""


class ReplayStoreFull(RequestRefused):
    """The replay store is full, so no request is served.  Try again later."""


class DateRejected(RequestRefused):
    """The request's Date is missing or outside the gateway's window (RFC 9458, section 6.5.2)."""


class TargetRefused(RequestRefused):
    """The target is not on the allow-list, or its address is not one a gateway may connect to."""


class ExpectationRefused(RequestRefused):
    """The request expects 100-continue, which cannot be met (RFC 9458, section 5.1)."""


class TargetUnreachable(OhttpError):
    """The target did not give a whole answer."""


class InvalidAnswer(OhttpError):
    """The target's answer is not valid HTTP, or its fields exceed a limit."""


class ExchangeFailed(OhttpError):
    """An exchange through the relay did not end in an encapsulated response.

    The request may or may not have been processed; it is not repeated automatically
    (RFC 9458, section 6.5), and it is never sent directly.
    """


class RelayRefused(ExchangeFailed):
    """Relay or gateway answered with an error that is not encapsulated."""

    def __init__(self, status: int, problem: str | None = None) -> None:
        super().__init__(
            f"expected an encapsulated response, got status {status} ({problem or 'no problem type'})"
        )
        self.status = status
        self.problem = problem


class SocketEnded(ExchangeFailed):
    """A WebSocket through the relay ended before the response, with this close code.  Open another one."""

    def __init__(self, code: int) -> None:
        super().__init__(f"expected a response, got the end of the socket (close code {code})")
        self.code = code


class KeyRejected(RelayRefused):
    """The gateway could not use the key configuration (problem type ohttp-key)."""
