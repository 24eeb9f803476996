"""Which targets a gateway may fetch, and which addresses it may connect to (RFC 9458, section 6.3).

An allow-list of origins is required.  After name resolution, addresses that are not public are refused unless
their network is listed.  The connection goes to the address that was checked, so a name that resolves to
another address the second time (DNS rebinding) gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from ohttp_relay.errors import ConfigurationError, TargetRefused
from ohttp_relay.transport.http import FIELD_LINE, FIELD_LINES
from ohttp_relay.transport.urls import is_loopback, parse_url

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}
# The authority of a request: a name or an IPv4 address, or an IPv6 address in brackets; then a port.
_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9._-]{1,255}))(?::([0-9]{0,5}))?")
# Not public although `is_global` may be true: shared services, translation and tunnel prefixes.
_NEVER: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # a cloud's metadata service on a public address
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "fec0::/10",
        "5f00::/16",
    )
)
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Origin:
    """Scheme, host and port of a target, normalized (RFC 6454)."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self._authority}"

    @property
    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def url(self, path: str) -> URL:
        """Return the URL of `path` at this origin; `path` has the query, or is `*`, and keeps its octets."""
        return URL.build(scheme=self.scheme, authority=self._authority, path=path, encoded=True)

    @staticmethod
    @lru_cache(maxsize=64)  # a gateway has few targets
    def of_request(scheme: str, authority: str) -> Origin:
        """Return the origin that a request's scheme and authority name.  Raises TargetRefused.

        The allow-list is asked about this origin, and the URL to fetch is made from it, so both are the same.
        """
        scheme, found = scheme.lower(), _AUTHORITY.fullmatch(authority)
        if scheme not in _DEFAULT_PORTS or found is None:
            raise TargetRefused("the target is not an origin: expected https and host[:port]")
        host = _normalized(found[1] or found[2])
        port = int(found[3]) if found[3] else _DEFAULT_PORTS[scheme]
        if not host or not 0 < port < 1 << 16:
            raise TargetRefused("the target is not an origin: its host or port is not valid")
        return Origin(scheme, host, port)

    @classmethod
    def parse(cls, text: str) -> Origin:
        """Parse a setting: `scheme://host[:port]`, no path.  Raises ConfigurationError."""
        try:
            url = parse_url(text)
        except ValueError:
            raise ConfigurationError(f"not an origin: {text!r}") from None
        extra = url.raw_user or url.raw_path_qs not in ("", "/") or url.raw_fragment
        if url.scheme not in _DEFAULT_PORTS or not url.raw_host or extra:
            raise ConfigurationError(f"an origin is https://host[:port], got {text!r}")
        return cls(url.scheme, _normalized(url.raw_host), url.port or _DEFAULT_PORTS[url.scheme])


def _normalized(host: str) -> str:
    """Return a host in one spelling: lower case, no dot at the end, IPv6 addresses in their short form."""
    if ":" in host:
        try:
            return ipaddress.IPv6Address(host).compressed
        except ValueError:
            return ""
    return host.lower().removesuffix(".")


def embedded_addresses(address: Address) -> list[Address]:
    """Return the address and every IPv4 address embedded in it (mapped, NAT64, 6to4, Teredo)."""
    found: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        found += [inner for inner in (address.ipv4_mapped, address.sixtofour) if inner is not None]
        if address.teredo is not None:
            found += address.teredo
        if address in _NAT64:
            found.append(ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF))
    return found


def is_public(address: Address) -> bool:
    """Tell whether the address, with those embedded in it, is a public unicast address."""
    return all(_is_public(part) for part in _deciding(address))


def _deciding(address: Address) -> list[Address]:
    parts = embedded_addresses(address)
    # For a mapped or translated address the embedded one decides; for a tunnel, both do.
    return parts[1:] if len(parts) > 1 and _is_embedded_v4(address) else parts


def _is_embedded_v4(address: Address) -> bool:
    return isinstance(address, ipaddress.IPv6Address) and (
        address.ipv4_mapped is not None or address in _NAT64
    )


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(address in network for network in _NEVER if network.version == address.version)


@dataclass(frozen=True, slots=True)
class TargetPolicy:
    """The origins a gateway serves, and the non-public networks it may connect to for them."""

    origins: frozenset[Origin]
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, origins: Iterable[str], networks: Iterable[str] = ()) -> TargetPolicy:
        """Return the policy of texts such as `https://a.example` and `127.0.0.0/8`.

        Raises ConfigurationError.
        """
        try:
            allowed = tuple(ipaddress.ip_network(text) for text in networks)
        except ValueError as error:
            raise ConfigurationError(f"not a network: {error}") from None
        parsed = frozenset(Origin.parse(text) for text in origins)
        for origin in parsed:
            if origin.scheme == "http" and not is_loopback(origin.host):
                raise ConfigurationError(
                    f"{origin} would be fetched without encryption (RFC 9458, section 6.3)"
                )
        return cls(parsed, allowed)

    def check_origin(self, scheme: str, authority: str) -> Origin:
        """Return the origin of a request's target.  Raises TargetRefused unless it is on the list."""
        origin = Origin.of_request(scheme, authority)
        if origin not in self.origins:
            raise TargetRefused("the target is not on the allow-list")
        return origin

    def check_address(self, text: str) -> None:
        """Check an address.  Raises TargetRefused unless it may be connected to."""
        address = ipaddress.ip_address(text.partition("%")[0])
        if is_public(address):
            return
        for network in self.networks:
            if any(part in network for part in _deciding(address) if part.version == network.version):
                return
        raise TargetRefused("the target resolves to an address that is not public")


class CheckedResolver(AbstractResolver):
    """A resolver that returns only addresses that the policy allows."""

    def __init__(self, policy: TargetPolicy, inner: AbstractResolver | None = None) -> None:
        self._policy = policy
        self._inner = inner or aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Resolve and check a name.  Raises TargetRefused if any of its addresses is refused."""
        found = await self._inner.resolve(host, port, family)
        for result in found:  # one refused address refuses the name: an honest origin has none
            self._policy.check_address(result["host"])
        return found

    async def close(self) -> None:
        """Close the inner resolver."""
        await self._inner.close()


class CheckedConnector(aiohttp.TCPConnector):
    """A connector that connects only to addresses that the policy allows."""

    def __init__(
        self,
        policy: TargetPolicy,
        *,
        resolver: AbstractResolver | None = None,
        ssl_context: ssl.SSLContext | None = None,
        limit: int = 512,
        dns_seconds: int = 10,
    ) -> None:
        super().__init__(
            resolver=CheckedResolver(policy, resolver),
            ssl=ssl_context or True,
            limit=limit,
            ttl_dns_cache=dns_seconds,
            use_dns_cache=dns_seconds > 0,
            socket_factory=self._make_socket,
        )
        self._policy = policy

    def _make_socket(self, info: aiohttp.AddrInfoType) -> socket.socket:
        # Checked here too: a literal address passes no resolver, a cached one may be older than the policy.
        family, kind, protocol, _, address = info
        self._policy.check_address(str(address[0]))
        return socket.socket(family, kind, protocol)


def open_target_session(
    policy: TargetPolicy,
    *,
    ssl_context: ssl.SSLContext | None = None,
    resolver: AbstractResolver | None = None,
    timeout: float = 30.0,
    dns_seconds: int = 10,
) -> aiohttp.ClientSession:
    """Return a session for fetching targets: checked addresses, no cookies, no decompression.

    `timeout` is in seconds, for connecting and between reads; resolved names are cached for `dns_seconds`.
    """
    return aiohttp.ClientSession(
        connector=CheckedConnector(
            policy, ssl_context=ssl_context, resolver=resolver, dns_seconds=dns_seconds
        ),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
        max_line_size=FIELD_LINE,
        max_field_size=FIELD_LINE,
        max_headers=FIELD_LINES,
    )
