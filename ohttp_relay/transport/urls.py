"""URLs of hops and targets."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import quote

from yarl import URL

from ohttp_relay.errors import ConfigurationError

LOOPBACK_NAMES = frozenset({"localhost", "ip6-localhost"})

_TARGET: Final = re.compile(r"(https?)://([^/?#\\]+)([/?][^#]*)?(?:#.*)?", re.IGNORECASE | re.DOTALL)
_IN_URLS: Final = "!$%&'()*+,-./:;=?@_~[]"  # besides letters and digits


def is_loopback(host: str) -> bool:
    """Tell whether a host name or literal address means this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower().rstrip(".") in LOOPBACK_NAMES


def parse_url(text: str, *, encoded: bool = False) -> URL:
    """Return `text` as a URL; with `encoded`, it needs no quoting.  Raises ValueError if it is not a URL."""
    try:
        return URL(text, encoded=encoded)
    except IndexError:  # raised by the library for an authority that ends in "@"
        raise ValueError("the URL's authority has no host") from None


def split_target(url: str | URL) -> tuple[str, str, str]:
    """Return scheme, authority, and path with query ("" if there is none) of a target's URL.

    Authority and path keep their octets: no port is dropped, no dot segment removed.  Only what may not stand in a
    URL is percent-encoded, and a name that is not ASCII becomes its IDNA form.  Raises ConfigurationError.
    """
    text = f"{url.scheme}://{url.raw_authority}{url.raw_path_qs}" if isinstance(url, URL) else url
    found = _TARGET.fullmatch(text)
    if found is None:
        raise ConfigurationError("a target is an absolute http or https URL")
    scheme, authority, path = found[1].lower(), found[2], found[3] or ""
    if "@" in authority:
        raise ConfigurationError("a target's URL must not hold user information")
    if not authority.isascii():
        try:
            authority = URL(f"{scheme}://{authority}").raw_authority
        except ValueError:
            raise ConfigurationError("a target's URL has a host that is not a name") from None
    if path.startswith("?"):
        path = "/" + path
    return scheme, authority, quote(path, safe=_IN_URLS)


def check_url(text: str | URL, *, allow_insecure_loopback: bool = False) -> URL:
    """Return the URL of a hop.  Raises ConfigurationError unless it is https (RFC 9458, section 6).

    `allow_insecure_loopback` permits http to this machine: for tests, and behind a TLS proxy.
    """
    try:
        url = text if isinstance(text, URL) else parse_url(text)
    except ValueError:
        raise ConfigurationError("a hop needs an absolute https URL") from None
    if url.scheme == "https" and url.raw_host:
        return url
    if url.scheme == "http" and allow_insecure_loopback and url.raw_host and is_loopback(url.raw_host):
        return url
    raise ConfigurationError(f"both hops need https, got {url.scheme or 'no scheme'}://{url.raw_host or ''}")
