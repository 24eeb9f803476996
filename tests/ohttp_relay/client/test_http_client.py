"""The request that a client makes of a URL and fields."""

from __future__ import annotations

import pytest
from yarl import URL

from ohttp_relay.client.http_client import build_request
from ohttp_relay.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "authority", "path"),
    [
        ("https://a.example", "a.example", "/"),
        ("https://a.example?", "a.example", "/?"),
        ("https://A.example:443/a/../b/./c//d", "A.example:443", "/a/../b/./c//d"),
        ("https://a.example:443/a/../b?x=%2f&y=+#part", "a.example:443", "/a/../b?x=%2f&y=+"),
        ("https://a.example/a/../b c?\u00e9=|", "a.example", "/a/../b%20c?%C3%A9=%7C"),
        ("https://m\u00fcnchen.example/a/../b", "xn--mnchen-3ya.example", "/a/../b"),
        ("HTTPS://[2001:DB8::1]:443/", "[2001:DB8::1]:443", "/"),
        (URL("https://a.example:443/a/../b?", encoded=True), "a.example:443", "/a/../b"),
    ],
)
def test_a_target_has_the_octets_that_the_caller_wrote(url: str | URL, authority: str, path: str) -> None:
    request = build_request("GET", url, b"", ())
    assert (request.scheme, request.authority, request.path) == ("https", authority, path)


def test_options_without_a_path_asks_the_server_as_a_whole() -> None:
    assert build_request("OPTIONS", "https://a.example", b"", ()).path == "*"
    assert build_request("OPTIONS", "https://a.example/", b"", ()).path == "/"


def test_cookie_lines_stay_apart_in_binary_http() -> None:
    """They are joined where HTTP/1.1 begins, at the gateway (RFC 9113, section 8.2.3)."""
    request = build_request("GET", "https://a.example", b"", [("Cookie", "a=1"), ("cookie", "b=2")])
    assert request.fields == (("cookie", "a=1"), ("cookie", "b=2"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/x",
        "a.example/x",
        "ftp://a.example/",
        "https://",
        "https:///x",
        "https:a.example",
        "https://u@a/",
    ],
)
def test_what_is_no_target_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="target"):
        build_request("GET", url, b"", ())
