"""Which targets a gateway reaches: allow-list, addresses, rebinding."""

from __future__ import annotations

import ipaddress
import socket

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from ohttp_relay.client import OhttpClient
from ohttp_relay.errors import ConfigurationError, TargetRefused
from ohttp_relay.transport import Origin, TargetPolicy, open_target_session
from ohttp_relay.transport.targets import is_public
from tests.ohttp_relay.world import LOOPBACK, World


class Names(AbstractResolver):
    """A resolver of the test's own: each name has a list of answers, given in turn."""

    def __init__(self, answers: dict[str, list[list[str]]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        left = self.answers[host]
        addresses = left.pop(0) if len(left) > 1 else left[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def close(self) -> None:
        pass


NOT_PUBLIC = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::",
    "::1",
    "::127.0.0.1",
    "fe80::1",
    "fc00::1",
    "fd00:ec2::254",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2002:a00:1::1",
    "2001:0:a00:1::1",
    "100::1",
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_addresses_that_are_not_public_are_refused(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))
    with pytest.raises(TargetRefused):
        TargetPolicy.of([]).check_address(text)


@pytest.mark.parametrize("text", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_public_addresses_pass(text: str) -> None:
    TargetPolicy.of([]).check_address(text)


def test_listed_networks_pass_also_as_mapped_addresses() -> None:
    policy = TargetPolicy.of([], ["10.1.0.0/16", "fd00::/8"])
    for text in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::1"):
        policy.check_address(text)
    for text in ("10.2.0.1", "::ffff:10.2.0.1", "fc00::1", "127.0.0.1"):
        with pytest.raises(TargetRefused):
            policy.check_address(text)


def test_origins_are_compared_whole() -> None:
    policy = TargetPolicy.of(["https://a.example", "https://b.example:8443", "https://[2606:4700::1111]"])
    for scheme, authority in [
        ("https", "a.example"),
        ("https", "A.EXAMPLE:443"),
        ("https", "a.example."),
        ("https", "b.example:8443"),
        ("https", "[2606:4700::1111]"),
        ("https", "[2606:4700:0::1111]:"),
        ("HTTPS", "a.example:"),
        ("https", "a.example:00443"),
    ]:
        policy.check_origin(scheme, authority)
    for scheme, authority in [
        ("http", "a.example"),
        ("https", "a.example:444"),
        ("https", "b.example"),
        ("https", "x.a.example"),
        ("https", "a.example.evil.example"),
        ("https", "a.example@evil.example"),
        ("https", "evil.example#a.example"),
        ("https", "a.example/x"),
        ("https", "a.example?x"),
        ("https", "a.example#"),
        ("https", "a.example/"),
        ("https", "a.example\\"),
        ("https", "a.example:443@"),
        ("https", "a.example.."),
        ("https", "%61.example"),
        ("https", "a.example "),
        ("https", "[2606:4700::1111"),
        ("https", "[2606:4700::1111%25eth0]"),
        ("https", "[:::::]"),
        ("https", "2606:4700::1111"),
        ("https", ""),
        ("https", "."),
        ("https", "a.example:99999"),
        ("https", "a.example:0"),
        ("ftp", "a.example"),
    ]:
        with pytest.raises(TargetRefused):
            policy.check_origin(scheme, authority)


@pytest.mark.parametrize(
    "text",
    [
        "a.example",
        "https://",
        "https://a/x",
        "https://u@a",
        "ftp://a",
        "https://a:x",
        "*",
        "https://[::1]:44@",
        "https://a?x",
        "https://a#x",
    ],
)
def test_settings_that_are_not_origins_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError):
        Origin.parse(text)
    with pytest.raises(ConfigurationError):
        TargetPolicy.of([], ["10.0.0.1/8"])


def test_the_url_that_is_fetched_is_made_from_the_origin_that_was_checked() -> None:
    origin = TargetPolicy.of(["https://[2606:4700::1111]:8443"]).check_origin(
        "https", "[2606:4700:0::1111]:8443"
    )
    for path in ("/", "/a/../b", "/a?b=%2F&c", "/?", "*"):
        url = origin.url(path)
        assert (url.scheme, url.raw_host, url.port) == (origin.scheme, origin.host, origin.port)
        assert url.raw_path_qs == path


async def gateway_of(
    world: World, origins: list[str], names: Names, networks: tuple[str, ...] = ()
) -> OhttpClient:
    policy = TargetPolicy.of(origins, networks)
    session = open_target_session(policy, ssl_context=world.tls, resolver=names)
    world._closing.append(session)
    return await world.start(gateway={"targets": policy, "session": session})


async def test_names_with_a_bad_address_are_refused_by_a_real_gateway(world: World) -> None:
    names = Names({"asset.example": [["127.0.0.1"]], "mixed.example": [["93.184.216.34", "127.0.0.1"]]})
    client = await gateway_of(world, ["https://asset.example", "https://mixed.example"], names)
    for name in ("asset.example", "mixed.example"):
        async with client.get(f"https://{name}/") as response:
            assert response.status == 403
            assert "not public" in await response.text()
    assert names.asked == ["asset.example", "mixed.example"]


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "[::1]", "169.254.169.254", "[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]"]
)
async def test_literal_addresses_on_the_allow_list_are_still_checked(world: World, host: str) -> None:
    client = await gateway_of(world, [f"https://{host}"], Names({}))
    async with client.get(f"https://{host}/") as response:
        assert response.status == 403


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "localhost.", "127.0.0.1.nip.io"]
)
async def test_other_ways_to_write_an_address_gain_nothing(world: World, host: str) -> None:
    names = Names({name: [["127.0.0.1"]] for name in (host, host.rstrip("."), "127.0.0.1")})
    client = await gateway_of(world, [f"https://{host}"], names)
    async with client.get(f"https://{host}/") as response:
        assert response.status in (403, 504)
    assert world.target.requests == []


async def by_name(world: World, names: Names, networks: tuple[str, ...]) -> tuple[OhttpClient, str]:
    """A gateway whose one target is the world's, reached by name; connections and names are not kept."""

    async def once(request: web.Request) -> web.Response:
        answer = web.Response()
        answer.force_close()
        return answer

    world.target.answer = once
    port = (await world.serve(world.target.app())).rpartition(":")[2]
    origin = f"https://asset.example:{port}"
    policy = TargetPolicy.of([origin], networks)
    session = open_target_session(policy, ssl_context=world.tls, resolver=names, dns_seconds=0)
    world._closing.append(session)
    return await world.start(gateway={"targets": policy, "session": session}), origin


async def test_the_address_connected_to_is_the_address_that_was_checked(world: World) -> None:
    names = Names({"asset.example": [["127.0.0.1"], ["169.254.169.254"]]})
    client, origin = await by_name(world, names, LOOPBACK)
    async with client.get(origin + "/") as response:
        assert response.status == 200
    assert names.asked == ["asset.example"]  # asked once: the answer that was checked is the one used


async def test_a_name_that_rebinds_is_refused_at_the_second_question(world: World) -> None:
    names = Names({"asset.example": [["127.0.0.1"], ["127.9.9.9"]]})
    client, origin = await by_name(world, names, ("127.0.0.1/32",))
    for expected in (200, 403):
        async with client.get(origin + "/") as response:
            assert response.status == expected
    assert len(world.target.requests) == 1


async def test_a_session_that_checks_no_addresses_is_refused(world: World) -> None:
    async with aiohttp.ClientSession() as session:
        with pytest.raises(ConfigurationError):
            await world.start(gateway={"session": session})
