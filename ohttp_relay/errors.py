"""What can go wrong, sorted by what the caller can do about it.

Messages say what was expected, what came and where; they never carry key material, plaintext or a
client's address.
"""

from __future__ import annotations


class OhttpError(Exception):
    """Any failure of this package."""


class ConfigurationError(OhttpError):
    """A setting is wrong (a URL without https, an empty allow-list): fix the configuration."""


class ParseError(OhttpError):
    """Bytes from a peer break a format: nothing to do but answer with an error."""

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
    """The capsule names a key or a suite that the gateway does not hold: refresh the key list."""


class OpenFailed(CapsuleError):
    """Authentication failed: wrong key, or the capsule was changed on its way."""


class NoUsableKey(OhttpError):
    """A key list offers nothing that this end supports."""


class InconsistentKeys(OhttpError):
    """Sources that must give the same key list do not: someone may be singled out (RFC 9458, section 7)."""


class KeyFileError(OhttpError):
    """Stored keys are missing, damaged, or readable by others."""


class BodyTooLarge(OhttpError):
    """A body goes over a configured limit."""


class RequestRefused(OhttpError):
    """The gateway opened a request and will not serve it."""


class ReplayedRequest(RequestRefused):
    """A request with this encapsulated key was answered before (RFC 9458, section 6.5)."""


class ReplayStoreFull(RequestRefused):
    """The replay store cannot remember one more request, so none is served: try again later."""


class DateRejected(RequestRefused):
    """The request's Date is missing or outside the gateway's window (RFC 9458, section 6.5.2)."""


class TargetRefused(RequestRefused):
    """The target is not on the allow-list, or its address is not one a gateway may connect to."""


class ExpectationRefused(RequestRefused):
    """The request expects 100-continue, which cannot be met (RFC 9458, section 5.1)."""


class TargetUnreachable(OhttpError):
    """The target gave no whole answer."""


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
    """A WebSocket through the relay ended, with this close code, before the response came; open another."""

    def __init__(self, code: int) -> None:
        super().__init__(f"expected a response, got the end of the socket (close code {code})")
        self.code = code


class KeyRejected(RelayRefused):
    """The gateway says the key configuration is outdated (problem type ohttp-key)."""
