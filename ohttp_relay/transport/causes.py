"""Why a server could not be asked, in words for whoever has to do something about it."""

from __future__ import annotations

import aiohttp


def cause_of(error: BaseException) -> str:
    """Describe the failure of a request in fixed words, without an address; for others, name the error's class."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return "its TLS certificate is not trusted"
        case aiohttp.ClientConnectorDNSError():
            return "its name is not resolved"
        case aiohttp.ClientSSLError():
            return "it does not speak TLS as expected"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return "the connection is refused"
        case aiohttp.ClientConnectorError():
            return "it can't be reached"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | ConnectionError():
            return "the connection broke"
        case TimeoutError():
            return "it does not answer in time"
    return type(error).__name__
