"""A planted fact is found in every kind of view, in every encoding, whatever stands around it."""

from __future__ import annotations

import base64
import json
import logging
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimi_mmr.lab.ledger import (
    Fact,
    FactKind,
    PartyRole,
    Verdict,
    View,
    asset_host_view,
    by_design,
    database_content,
    frames_content,
    matrix,
    provider_views,
    search,
)
from mimi_mmr.provider.record import Recorder

VALUE = b"alice-\xe4/7f3a+9c ~key"
ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "raw": bytes,
    "hex": lambda value: value.hex().encode(),
    "hex, upper": lambda value: value.hex().upper().encode(),
    "base64, 0": lambda value: base64.b64encode(value),
    "base64, 1": lambda value: base64.b64encode(b"x" + value),
    "base64, 2": lambda value: base64.b64encode(b"xy" + value),
    "base64url, 0": lambda value: base64.urlsafe_b64encode(value),
    "base64url, 1": lambda value: base64.urlsafe_b64encode(b"x" + value + b"z"),
    "base64url, 2": lambda value: base64.urlsafe_b64encode(b"xy" + value + b"zw").rstrip(b"="),
    "url": lambda value: quote(value, safe="").encode(),
    "url, path": lambda value: quote(value).encode(),
    "url, form": lambda value: quote_plus(value).encode(),
    "url, lower": lambda value: re.sub(
        b"%..", lambda found: found[0].lower(), quote(value, safe="").encode()
    ),
    "url, every byte": lambda value: "".join(f"%{byte:02x}" for byte in value).encode(),
}


def fact(value: bytes = VALUE, kind: FactKind = FactKind.NAME) -> Fact:
    return Fact(kind, "Alice", "a.example", value)


def found_in(content: bytes, value: bytes = VALUE) -> bool:
    return bool(search([View("h.example", PartyRole.HUB, content)], [fact(value)]))


def database(path: Path, *values: object, wal: bool = False, page: int = 512) -> sqlite3.Connection:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA page_size={page}")
    connection.execute("PRAGMA journal_mode=WAL" if wal else "PRAGMA journal_mode=DELETE")
    connection.execute("CREATE TABLE things (id INTEGER PRIMARY KEY, thing)")
    connection.executemany("INSERT INTO things (thing) VALUES (?)", [(value,) for value in values])
    connection.commit()
    return connection


BYTES, TEXT = ("database", "log", "frame body"), ("header", "path", "peer")  # text holds no raw bytes
PLACES = [(kind, name) for name in ENCODINGS for kind in (*BYTES, *TEXT) if kind in BYTES or name != "raw"]


@pytest.mark.parametrize(("kind", "encoding"), PLACES)
def test_a_leak_of_each_kind_is_found_in_each_encoding(tmp_path: Path, kind: str, encoding: str) -> None:
    leak = ENCODINGS[encoding](VALUE)
    text = leak.decode("utf-8", "surrogateescape")
    data, records, log = tmp_path / "data", tmp_path / "record", tmp_path / "log.jsonl"
    data.mkdir()
    log.write_bytes(b"")
    recorder = Recorder(records)
    if kind == "database":
        database(data / "hub.sqlite", b"before" + leak + b"after").close()
    elif kind == "log":
        log.write_bytes(b'{"event": "' + leak + b'"}\n')
    elif kind == "frame body":
        recorder.write("hub", "in", body=b"before" + leak + b"after")
    elif kind == "header":
        recorder.write("hub", "in", headers=[("X-Something", text)])
    elif kind == "path":
        recorder.write("hub", "in", path=f"/v1/{text}?x")
    else:
        recorder.write("hub", "in", peer=text)
    views = provider_views("h.example", data, records, [log])
    (view,) = [view for view in views if view.role is PartyRole.HUB]
    (sighting,) = search([view], [fact()])
    assert not sighting.by_design
    assert "h.example as hub saw Alice's name" in str(sighting)
    assert (
        matrix([view], [fact()], [sighting]).cells["h.example", PartyRole.HUB][FactKind.NAME] is Verdict.SEEN
    )


@settings(max_examples=150)
@given(
    st.binary(min_size=8, max_size=48),
    st.sampled_from(sorted(ENCODINGS)),
    st.binary(max_size=40),
    st.binary(max_size=40),
)
def test_a_value_is_found_whatever_stands_around_it(
    value: bytes, encoding: str, before: bytes, after: bytes
) -> None:
    assert found_in(before + ENCODINGS[encoding](value) + after, value)


@settings(max_examples=150)
@given(st.binary(min_size=8, max_size=48), st.binary(max_size=40), st.binary(max_size=40), st.booleans())
def test_a_value_inside_something_longer_that_is_encoded_is_found(
    value: bytes, before: bytes, after: bytes, url: bool
) -> None:
    encode = base64.urlsafe_b64encode if url else base64.b64encode
    assert found_in(encode(before + value + after), value)
    assert found_in((before + value + after).hex().encode(), value)


@settings(max_examples=60)
@given(st.binary(min_size=16, max_size=16), st.binary(max_size=400))
def test_what_is_not_there_is_not_found(value: bytes, content: bytes) -> None:
    if value not in content:
        assert not found_in(content, value)


@settings(max_examples=30)
@given(st.lists(st.binary(min_size=8, max_size=24), min_size=1, max_size=12, unique=True), st.data())
def test_each_of_many_facts_is_found_once(values: list[bytes], data: st.DataObject) -> None:
    there = data.draw(st.lists(st.sampled_from(values), unique=True))
    facts = [fact(value) for value in values]
    content = b"\0".join(encode(value) for value in there for encode in ENCODINGS.values())
    seen = [sighting.fact.value for sighting in search([View("h", PartyRole.HUB, content)], facts)]
    assert sorted(set(seen)) == sorted(seen)
    assert set(there) <= set(seen)


def test_one_value_that_is_two_facts_is_found_as_both() -> None:
    facts = [fact(VALUE), Fact(FactKind.DEVICE, "Bob", "b.example", VALUE)]
    assert len(search([View("h", PartyRole.HUB, VALUE)], facts)) == 2


def test_a_value_that_lies_across_overflow_pages_is_found(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    long = bytes(range(256)) * 8
    database(path, b"y" * 700 + long + b"z" * 700, page=512).close()
    assert long not in path.read_bytes()  # split by the page's header
    assert long in database_content(path)
    assert found_in(database_content(path), long)


def test_a_value_that_is_in_the_wal_only_is_found(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    connection = database(path, b"nothing", wal=True)
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute("INSERT INTO things (thing) VALUES (?)", (VALUE,))
    connection.commit()
    assert VALUE not in path.read_bytes()
    assert VALUE in (tmp_path / "hub.sqlite-wal").read_bytes()
    assert found_in(database_content(path))
    connection.close()


def test_a_row_that_was_deleted_but_still_lies_in_the_file_is_found(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    connection = database(path, VALUE, wal=True)
    connection.execute("DELETE FROM things")
    connection.commit()
    assert found_in(database_content(path))
    connection.close()


def test_values_that_are_no_bytes_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    number, text = 1234567890123, "älice-7f3a9c"
    database(path, number, text, 1.5, None).close()
    content = database_content(path)
    assert found_in(content, str(number).encode())
    assert found_in(content, text.encode())


def test_a_frames_body_is_looked_at_as_it_was(tmp_path: Path) -> None:
    body = bytes(range(256))
    Recorder(tmp_path).write("hub", "in", body=body)
    assert body not in (tmp_path / "hub.frames.jsonl").read_bytes()
    assert body in frames_content(tmp_path / "hub.frames.jsonl")


def test_two_facts_side_by_side_do_not_run_into_each_other(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path)
    recorder.write("hub", "in", body=VALUE[:9])
    recorder.write("hub", "in", body=VALUE[9:])
    assert not found_in(frames_content(tmp_path / "hub.frames.jsonl"))


def test_a_log_counts_for_every_role(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_bytes(VALUE)
    views = provider_views("b.example", tmp_path, tmp_path, [log])
    assert {view.role for view in views} == set(PartyRole)
    assert {sighting.view.role for sighting in search(views, [fact()])} == set(PartyRole)


@pytest.mark.parametrize("place", ["asset", "log", "frame"])
def test_an_asset_host_is_looked_at_too(tmp_path: Path, place: str) -> None:
    assets, records, log = tmp_path / "assets", tmp_path / "record", tmp_path / "log"
    assets.mkdir()
    log.write_bytes(VALUE if place == "log" else b"")
    (assets / ("0" * 32)).write_bytes(b"..." + VALUE if place == "asset" else b"")
    Recorder(records).write("assets", "in", body=VALUE if place == "frame" else b"")
    view = asset_host_view("storage.a.example", assets, records, [log])
    assert [sighting.by_design for sighting in search([view], [fact(kind=FactKind.CONTENT)])] == [False]


def test_without_records_or_databases_there_is_nothing_to_see(tmp_path: Path) -> None:
    views = provider_views("b.example", tmp_path, tmp_path, [])
    assert search(views, [fact()]) == []
    found = matrix(views, [fact()], [])
    assert {cell for row in found.cells.values() for cell in row.values()} == {Verdict.ABSENT}
    assert found.violations == ()


def test_what_logging_writes_is_what_the_ledger_reads(tmp_path: Path) -> None:
    from mimi_mmr.provider import logs

    path = tmp_path / "log.jsonl"
    logger = logging.getLogger("mimi_mmr")
    before = (logger.level, logger.handlers, logger.propagate)
    logs.configure("info")
    try:
        with path.open("w") as stream:
            for handler in logger.handlers:
                assert isinstance(handler, logging.StreamHandler)
                handler.setStream(stream)
            logger.warning("something of %s", "alice-7f3a9c")
    finally:
        logger.level, logger.handlers, logger.propagate = before
    assert json.loads(path.read_text())["event"] == "something of alice-7f3a9c"
    assert found_in(path.read_bytes(), b"alice-7f3a9c")


# --- what is by design -------------------------------------------------------------------------------

OWN, OTHERS = "own", "others'"
ALLOWED: dict[PartyRole, dict[FactKind, set[str]]] = {
    # README, "hub": roster of P with roles, provider domains; R is where it is. Nothing else.
    PartyRole.HUB: {FactKind.PSEUDONYM: {OWN, OTHERS}, FactKind.ROOM: {OWN, OTHERS}},
    # "local provider": that an account exists, IP of its own; not the account behind a P, Q or set.
    PartyRole.ACCOUNTS: {
        FactKind.NAME: {OWN},
        FactKind.DEVICE: {OWN},
        FactKind.REAL_KEY: {OWN},
        FactKind.ADDRESS: {OWN},
    },
    # "local provider": which of its queues share rooms; "remote provider": tokens of its own shelves only.
    PartyRole.DELIVERIES: {
        FactKind.QUEUE: {OWN},
        FactKind.FETCH_TOKEN: {OWN},
        FactKind.PSEUDONYM: {OWN, OTHERS},
        FactKind.ROOM: {OWN, OTHERS},
    },
    # "relay": IP, time, size bucket.
    PartyRole.RELAY: {FactKind.ADDRESS: {OWN, OTHERS}},
    # "gateway": the request; not IP. Requests name users of its own domain, queues of its own, rooms.
    PartyRole.GATEWAY: {
        FactKind.NAME: {OWN},
        FactKind.QUEUE: {OWN},
        FactKind.PSEUDONYM: {OWN, OTHERS},
        FactKind.ROOM: {OWN, OTHERS},
    },
    # "asset host": that the hub fetched.
    PartyRole.ASSETS: {},
}
NEVER = {FactKind.LINK_KEY, FactKind.CONNECTION_KEY, FactKind.CONTENT}


@pytest.mark.parametrize("role", list(PartyRole))
@pytest.mark.parametrize("kind", list(FactKind))
def test_what_a_role_may_learn_is_what_the_threats_say_and_no_more(role: PartyRole, kind: FactKind) -> None:
    for whose, provider in ((OWN, "a.example"), (OTHERS, "b.example")):
        expected = whose in ALLOWED[role].get(kind, set())
        found = by_design(View("a.example", role, b""), Fact(kind, "somebody", provider, b"x"))
        assert found == expected, f"{role} and {whose} {kind}"
        if kind in NEVER:
            assert not found


def test_one_sighting_that_is_not_by_design_colours_the_cell() -> None:
    view = View("a.example", PartyRole.ACCOUNTS, b"")
    mine, theirs = fact(b"alice-12"), Fact(FactKind.NAME, "Bob", "b.example", b"bob-1234")
    seen = search([View(view.party, view.role, b"alice-12 bob-1234")], [theirs, mine])
    for order in (seen, seen[::-1]):
        found = matrix([view], [mine, theirs], order)
        assert found.cells["a.example", PartyRole.ACCOUNTS][FactKind.NAME] is Verdict.SEEN
        assert [sighting.fact.about for sighting in found.violations] == ["Bob"]
    (only,) = [sighting for sighting in seen if sighting.fact is mine]
    assert (
        matrix([view], [mine], [only]).cells["a.example", PartyRole.ACCOUNTS][FactKind.NAME]
        is Verdict.BY_DESIGN
    )
