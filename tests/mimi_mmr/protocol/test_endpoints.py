"""The table of endpoints: every row once, paths that are built and read back, bodies that are parsed strictly."""

from __future__ import annotations

from types import NoneType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimi_mmr.errors import ParseError
from mimi_mmr.presentation import Struct
from mimi_mmr.protocol import endpoints
from mimi_mmr.protocol.endpoints import (
    COLLECT,
    DOWNLOAD_ASSET,
    ENDPOINTS,
    LIST_DEVICES,
    PUT_ASSET,
    REMOVE_DEVICE,
    UPDATE_ROOM,
    Endpoint,
    Way,
    endpoints_table,
    to_body,
)
from mimi_mmr.protocol.queues import CollectRequest

each_endpoint = pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda row: f"{row.method} {row.template}")
names = st.text(min_size=1, max_size=40).filter(lambda name: name not in (".", ".."))


def test_every_endpoint_of_the_module_is_in_the_table_once() -> None:
    named = [value for value in vars(endpoints).values() if isinstance(value, Endpoint)]
    assert sorted(map(id, named)) == sorted(map(id, ENDPOINTS))
    rows = [(row.method, row.template) for row in ENDPOINTS]
    assert len(set(rows)) == len(rows)


@each_endpoint
@given(data=st.data())
def test_a_path_is_matched_by_its_own_row_alone_and_gives_its_names_back(
    endpoint: Endpoint[Any, Any], data: st.DataObject
) -> None:
    given_names = {name: data.draw(names) for name in endpoint.names}
    path = endpoint.path(given_names)
    assert path.isascii()
    assert path.count("/") == endpoint.template.count("/")
    found = [(row, matched) for row in ENDPOINTS if (matched := row.match(endpoint.method, path)) is not None]
    assert found == [(endpoint, given_names)]


@each_endpoint
def test_what_is_another_path_is_not_matched(endpoint: Endpoint[Any, Any]) -> None:
    path = endpoint.path(dict.fromkeys(endpoint.names, "x"))
    for other in (path + "/", "/" + path, path + "/x", path.upper(), path[1:], ""):
        assert endpoint.match(endpoint.method, other) is None, other
    assert endpoint.match("PATCH", path) is None


@pytest.mark.parametrize(
    "wrong", [{}, {"user": "a"}, {"device": "b"}, {"user": "a", "device": "b", "room": "c"}]
)
def test_a_path_with_other_names_than_its_own_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected the names user, device, got"):
        REMOVE_DEVICE.path(wrong)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_make_another_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="can't be the name of a room"):
        UPDATE_ROOM.path({"room": name})


def test_names_are_quoted_so_that_none_becomes_two_parts_of_a_path() -> None:
    assert UPDATE_ROOM.path({"room": "a/b?c=%2e"}) == "/v1/update/a%2Fb%3Fc%3D%252e"
    url = "https://assets.example:8443/x"
    assert DOWNLOAD_ASSET.path({"url": url}) == "/proxyDownload/https%3A%2F%2Fassets.example%3A8443%2Fx"
    assert REMOVE_DEVICE.path({"user": "{device}", "device": "d"}) == "/v1/account/%7Bdevice%7D/devices/d"


def test_bodies_are_parsed_as_the_table_says() -> None:
    asked = CollectRequest(bytes(32), 1, 2, 3)
    assert COLLECT.read_request(to_body(asked)) == asked
    with pytest.raises(ParseError):
        COLLECT.read_request(to_body(asked) + b"\0")
    with pytest.raises(ParseError):
        COLLECT.read_answer(b"")
    assert PUT_ASSET.read_request(b"ciphertext") == b"ciphertext"
    assert LIST_DEVICES.read_request(to_body(None)) is None


@each_endpoint
def test_a_row_is_of_wire_structs_and_its_limits_are_not_above_what_they_allow(
    endpoint: Endpoint[Any, Any],
) -> None:
    for kind in (endpoint.request, endpoint.answer):
        assert kind in (bytes, NoneType) or issubclass(kind, Struct)
    if endpoint.way is not Way.PEER and issubclass(endpoint.request, Struct):
        assert endpoint.limit <= endpoint.request.LIMIT
    assert endpoint.status in (200, 201, 202)


def test_the_printed_table_has_every_row_under_the_way_that_reaches_it() -> None:
    printed = endpoints_table()
    sections = printed.split("**")[1:]
    assert len(sections) == 2 * len(Way)
    for way in Way:
        section = sections[sections.index(way.name.capitalize()) + 1]
        rows = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
        assert rows == [f"{row.method} {row.template}" for row in ENDPOINTS if row.way is way]
