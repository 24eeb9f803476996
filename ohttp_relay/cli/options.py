"""The options that several commands of `ohttp-relay` share, and the checks of their values."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from ohttp_relay.bhttp.padding import Padding, buckets, stream_buckets, unpadded

_WHOLE: Final = 1 << 30  # a message that is not streamed is held in memory
_STREAM: Final = 1 << 50
_DAY: Final = 86_400.0


def between(low: float, high: float) -> Callable[[Any], float]:
    """Return a parser of a number from `low` to `high`."""

    def parse(text: object) -> float:
        try:
            value = float(str(text))
        except ValueError:
            raise typer.BadParameter(f"expected a number, got {text!r}") from None
        if not low <= value <= high:  # not a number is refused here too
            raise typer.BadParameter(f"expected {low:g} to {high:g}, got {text}")
        return value

    return parse


def seconds(what: str, low: float, high: float) -> Any:
    """Return an option for a time in seconds; `what` and the range from `low` to `high` are its help."""
    return number(what, low, high, "SECONDS")


def number(what: str, low: float, high: float, unit: str) -> Any:
    """Return an option for a number from `low` to `high` of a unit."""
    return typer.Option(parser=between(low, high), metavar=unit, help=f"{what} {low:g} to {high:g}.")


def size(what: str, most: int = _WHOLE) -> Any:
    """Return an option for a number of bytes from 1,024 to `most`."""
    return typer.Option(min=1024, max=most, metavar="BYTES", help=what)


class PaddingName(StrEnum):
    """The paddings of responses."""

    BUCKETS = "buckets"
    NONE = "none"

    def paddings(self) -> tuple[Padding, Padding]:
        """Return the padding of whole messages and that of streamed ones."""
        return (buckets, stream_buckets) if self is PaddingName.BUCKETS else (unpadded, unpadded)


Host = Annotated[str, typer.Option(envvar="OHTTP_HOST", help="Address to listen on.")]
Port = Annotated[
    int, typer.Option(envvar="OHTTP_PORT", min=0, max=65_535, help="Port to listen on; 0 for any free one.")
]
Workers = Annotated[int, typer.Option(envvar="OHTTP_WORKERS", min=1, max=1024, help="Worker processes.")]
Admin = Annotated[
    int | None,
    typer.Option(
        envvar="OHTTP_ADMIN_PORT", min=1, max=65_535, help="Port for /metrics and /health, on loopback."
    ),
]
Grace = Annotated[float, seconds("Time to finish requests after SIGTERM.", 0, 3600)]
Idle = Annotated[float, seconds("Time after which a connection without a request is closed.", 1, 3600)]

Certificate = Annotated[Path | None, typer.Option(envvar="OHTTP_TLS_CERT", help="PEM certificate chain.")]
PrivateKey = Annotated[Path | None, typer.Option(envvar="OHTTP_TLS_KEY", help="PEM private key.")]
ClientCa = Annotated[
    Path | None, typer.Option(envvar="OHTTP_CLIENT_CA", help="PEM authorities; clients need a certificate.")
]
Trust = Annotated[Path | None, typer.Option(envvar="OHTTP_CA", help="PEM authorities to trust upstream.")]
UpCertificate = Annotated[
    Path | None, typer.Option(envvar="OHTTP_UP_CERT", help="PEM client certificate for upstream.")
]
UpKey = Annotated[Path | None, typer.Option(envvar="OHTTP_UP_KEY", help="PEM private key of --up-cert.")]
Insecure = Annotated[bool, typer.Option(help="Permit plain http on loopback.")]
KeyFolder = Annotated[Path, typer.Option(envvar="OHTTP_KEYS", help="Directory of the key ring.")]
Networks = Annotated[
    list[str] | None, typer.Option(help="Non-public network that targets may be in; repeatable.")
]

MaxSockets = Annotated[
    int, typer.Option(min=0, max=1_000_000, help="WebSockets open at once in each worker.")
]
SocketIdle = Annotated[float, seconds("Time after which a WebSocket without a request is closed.", 1, 3600)]
SocketLife = Annotated[float, seconds("Time after which any WebSocket is closed.", 1, 7 * _DAY)]

MaxRequest = Annotated[int, size("Size of an encapsulated request that is not chunked.")]
MaxResponse = Annotated[int, size("Size of an encapsulated response that is not chunked.")]
MaxStream = Annotated[int, size("Size of a chunked request or response.", _STREAM)]
ClientSeconds = Annotated[float, seconds("Time for a client's next bytes.", 0.1, 3600)]
GatewaySeconds = Annotated[float, seconds("Time for a gateway to begin its answer.", 0.1, 3600)]
TargetSeconds = Annotated[float, seconds("Time for a target to answer.", 0.1, 3600)]
KeyListSeconds = Annotated[float, seconds("Time for which a gateway's key list is cached.", 1, _DAY)]
MaxFields = Annotated[int, typer.Option(min=8, max=10_000, help="Fields in a section of a request.")]
PaddingOption = Annotated[
    PaddingName, typer.Option(help="Padding of responses: to size buckets, or none, which shows their size.")
]
RequireDate = Annotated[bool, typer.Option(help="Refuse requests without a Date.")]

MaxObject = Annotated[int, size("Size of an asset.", _STREAM)]
CacheBytes = Annotated[int, size("Size of the cache.", _STREAM)]
ReadSeconds = Annotated[float, seconds("Time for an asset host's next bytes.", 0.1, 3600)]
TotalSeconds = Annotated[float, seconds("Time for a whole asset.", 0.1, 7 * _DAY)]
FreshSeconds = Annotated[
    float, seconds("Time for which an asset of unknown freshness is served from the cache.", 0, 365 * _DAY)
]
