"""Types of settings' values: a domain, an origin, an existing file, a network, an address."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator

from mimi_mmr.errors import InvalidUri
from mimi_mmr.uris import check_domain, https_origin


def _domain(value: str) -> str:
    try:
        return check_domain(value)
    except InvalidUri as error:
        raise ValueError(str(error)) from None


def _https(value: str) -> str:
    """Return an origin in its one spelling, so that what others publish and ask for can be compared with it."""
    try:
        return https_origin(value)
    except InvalidUri as error:
        raise ValueError(str(error)) from None


def _file(value: Path) -> Path:
    try:
        there = value.is_file()
    except OSError as error:
        raise ValueError(f"{error.strerror}: {value.absolute()}") from None
    if not there:
        raise ValueError(f"no such file: {value.absolute()}")
    return value


def _private(value: Path) -> Path:
    """Check that only the service's user and group may read a key."""
    if _file(value).stat().st_mode & 0o007:
        raise ValueError(f"readable by others; expected mode 640 or less: {value.absolute()}")
    return value


def _network(value: str) -> str:
    try:
        ipaddress.ip_network(value)
    except ValueError:
        raise ValueError("expected a network such as 10.0.0.0/8") from None
    return value


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("expected an IP address") from None
    return value


def _listen(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError("expected address:port, or fd:N for a socket that the parent has opened")
    return value


Domain = Annotated[str, AfterValidator(_domain)]
HttpsOrigin = Annotated[str, AfterValidator(_https)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
KeyFile = Annotated[Path, AfterValidator(_private)]
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
Listen = Annotated[str, AfterValidator(_listen)]
Level = Literal["debug", "info", "warning", "error"]
