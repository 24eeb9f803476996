"""Every setting, from the file and from the environment; the environment wins; every bad one is named."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path
from typing import Any

import pytest

from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings import (
    AssetHostSettings,
    ConnectionSettings,
    Settings,
    activated_socket,
    load_asset_host_settings,
    load_settings,
)
from tests.mimi_mmr.provider.settings.settings_world import SECRET, Place


@dataclasses.dataclass
class One:
    """A setting: its place, a line for the file, a value for the environment, and what each comes to."""

    name: str
    line: str
    in_file: object
    variable: str
    in_environment: object


EVERY = [
    One("domain", 'domain = "x.example"', "x.example", "y.example", "y.example"),
    One(
        "base_url",
        'base_url = "https://x.example"',
        "https://x.example",
        "https://y.example/",
        "https://y.example",
    ),
    One("listen", 'listen = "127.0.0.1:1"', "127.0.0.1:1", "[::1]:2", "[::1]:2"),
    One("data_dir", 'data_dir = "/x"', Path("/x"), "/y", Path("/y")),
    One("trust_dir", 'trust_dir = "../trust"', "TRUST", "TRUST", "TRUST"),
    One("database.hub", '[database]\nhub = "sqlite:////x"', "sqlite:////x", "sqlite:////y", "sqlite:////y"),
    One(
        "database.accounts",
        '[database]\naccounts = "sqlite:////x"',
        "sqlite:////x",
        "sqlite:////y",
        "sqlite:////y",
    ),
    One(
        "database.deliveries",
        '[database]\ndeliveries = "sqlite:////x"',
        "sqlite:////x",
        "sqlite:////y",
        "sqlite:////y",
    ),
    One("source_address", 'source_address = "127.0.0.9"', "127.0.0.9", "::1", "::1"),
    One("max_queue_bytes", "max_queue_bytes = 100000", 100_000, "200000", 200_000),
    One("max_request_bytes", "max_request_bytes = 100000", 100_000, "200000", 200_000),
    One("max_page_bytes", "max_page_bytes = 100000", 100_000, "200000", 200_000),
    One("max_pages_bytes", "max_pages_bytes = 2000000", 2_000_000, "3000000", 3_000_000),
    One("max_bodies_bytes", "max_bodies_bytes = 2000000", 2_000_000, "3000000", 3_000_000),
    One("connections.most", "[connections]\nmost = 7", 7, "8", 8),
    One("connections.handshake_seconds", "[connections]\nhandshake_seconds = 1", 1.0, "2", 2.0),
    One("connections.head_seconds", "[connections]\nhead_seconds = 1", 1.0, "2", 2.0),
    One("connections.body_seconds", "[connections]\nbody_seconds = 1", 1.0, "2", 2.0),
    One("connections.body_rate", "[connections]\nbody_rate = 1", 1, "2", 2),
    One("connections.idle_seconds", "[connections]\nidle_seconds = 1", 1.0, "2", 2.0),
    One("connections.reading_seconds", "[connections]\nreading_seconds = 1", 1.0, "2", 2.0),
    One("max_queues", "max_queues = 10", 10, "20", 20),
    One("log_level", 'log_level = "debug"', "debug", "error", "error"),
    One("record_dir", 'record_dir = "/x"', Path("/x"), "/y", Path("/y")),
]


def minimal(place: Place) -> str:
    return "\n".join(
        [
            'domain = "a.example"',
            'base_url = "https://a.example"',
            f'trust_dir = "{place.world.trust_dir}"',
            "[tls]",
            'certificate = "tls.pem"',
            'key = "tls-key.pem"',
        ]
    )


def value(settings: Settings, name: str) -> Any:
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("one", EVERY, ids=lambda one: one.name)
def test_every_setting_is_read_from_the_file_and_the_environment_wins(
    place: Place, one: One, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "\n".join(line for line in minimal(place).splitlines() if not line.startswith(f"{one.name} ="))
    text = f"{base}\n{one.line}" if one.line.startswith("[") else f"{one.line}\n{base}"
    place.config.write_text(text)
    expected = place.world.trust_dir if one.in_file == "TRUST" else one.in_file
    found = value(load_settings(place.config), one.name)
    assert (found.resolve() if one.in_file == "TRUST" else found) == expected
    variable = str(place.world.trust_dir) if one.variable == "TRUST" else one.variable
    monkeypatch.setenv("MIMI_MMR_" + one.name.upper().replace(".", "__"), variable)
    won = value(load_settings(place.config), one.name)
    assert won == (place.world.trust_dir if one.in_environment == "TRUST" else one.in_environment)


def test_tables_are_read_from_both(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    ca = place.world.ca_file
    hosts = (
        f'[asset_host]\norigin = "https://x.example"\nupload_token = "{SECRET}"\nnetworks = ["10.0.0.0/8"]'
    )
    peers = '[peers]\n"b.example" = "https://b.example:444"'
    place.config.write_text(f'{minimal(place)}\nca = "{ca}"\n{hosts}\n{peers}')
    settings = load_settings(place.config)
    assert settings.asset_host is not None
    assert (settings.asset_host.origin, settings.asset_host.networks) == (
        "https://x.example",
        ("10.0.0.0/8",),
    )
    assert settings.peers == {"b.example": "https://b.example:444"}
    assert settings.tls.ca == ca
    monkeypatch.setenv("MIMI_MMR_ASSET_HOST__ORIGIN", "https://y.example")
    monkeypatch.setenv("MIMI_MMR_PEERS", '{"c.example": "https://c.example"}')
    monkeypatch.setenv("MIMI_MMR_TLS__CERTIFICATE", str(ca))
    settings = load_settings(place.config)
    assert settings.asset_host is not None
    assert settings.asset_host.origin == "https://y.example"
    assert settings.asset_host.upload_token == SECRET  # the rest of the table stays the file's
    assert settings.peers["c.example"] == "https://c.example"
    assert settings.tls.certificate == ca


def test_the_environment_alone_is_enough(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    here = place.directory
    for name, given in (
        ("DOMAIN", "a.example"),
        ("BASE_URL", "https://a.example"),
        ("TRUST_DIR", str(place.world.trust_dir)),
        ("TLS__CERTIFICATE", str(here / "tls.pem")),
        ("TLS__KEY", str(here / "tls-key.pem")),
    ):
        monkeypatch.setenv(f"MIMI_MMR_{name}", given)
    assert load_settings(None).domain == "a.example"
    monkeypatch.setenv("MIMI_MMR_ASSETS_UPLOAD_TOKEN", SECRET)  # the asset host's: no concern of this one
    assert load_settings(None).domain == "a.example"


def test_an_asset_hosts_settings_are_read_from_both(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    party = place.world.asset_host
    settings = load_asset_host_settings(party.config)
    assert settings.data_dir == party.directory / "assets"
    for name, given, expected in (
        ("LISTEN", "127.0.0.1:9", "127.0.0.1:9"),
        ("DATA_DIR", "/y", Path("/y")),
        ("UPLOAD_TOKEN", SECRET, SECRET),
        ("MAX_ASSET_BYTES", "77", 77),
        ("LOG_LEVEL", "error", "error"),
        ("RECORD_DIR", "/z", Path("/z")),
        ("CONNECTIONS", '{"most": 7}', ConnectionSettings(most=7)),
    ):
        monkeypatch.setenv(f"MIMI_MMR_ASSETS_{name}", given)
        assert getattr(load_asset_host_settings(party.config), name.lower()) == expected
    assert set(AssetHostSettings.model_fields) == {
        "tls", "listen", "data_dir", "upload_token", "max_asset_bytes", "connections", "log_level", "record_dir",
    }  # fmt: skip


def test_no_setting_is_left_out_here() -> None:
    covered = {one.name.partition(".")[0] for one in EVERY} | {"tls", "peers", "asset_host"}
    assert covered == set(Settings.model_fields)


BAD = {
    "an unknown one": ("colour = 1", "colour"),
    "a domain with one label": ('domain = "example"', "domain"),
    "a domain in capitals": ('domain = "A.Example"', "domain"),
    "a plain URL": ('base_url = "http://a.example"', "base_url"),
    "a URL with a path": ('base_url = "https://a.example/x"', "base_url"),
    "no URL": ("base_url = 7", "base_url"),
    "no address": ('listen = "8443"', "listen"),
    "no port": ('listen = "127.0.0.1:http"', "listen"),
    "too high a port": ('listen = "127.0.0.1:65536"', "listen"),
    "no such directory": ('trust_dir = "nowhere"', "trust_dir"),
    "a queue that holds nothing": ("max_queue_bytes = 1", "max_queue_bytes"),
    "requests of no size": ("max_request_bytes = 0", "max_request_bytes"),
    "requests that no notification holds": ("max_request_bytes = 33554432", "max_request_bytes"),
    "a level that is none": ('log_level = "loud"', "log_level"),
    "no source address": ('source_address = "here"', "source_address"),
    "a table that is none": ("peers = 3", "peers"),
    "itself as a peer": ('peers = {"a.example" = "https://a.example"}', "peers"),
    "a peer that is no domain": ('peers = {"x" = "https://a.example"}', "peers"),
    "a peer over http": ('peers = {"b.example" = "http://b.example"}', "peers.b.example"),
    "two roles on one database": ('database = {hub = "sqlite:////x", accounts = "sqlite:////x"}', "database"),
    "an unknown role": ('database = {relay = "sqlite:////x"}', "database.relay"),
    "a short token": (
        'asset_host = {origin = "https://x.example", upload_token = "s3cret"}',
        "asset_host.upload_token",
    ),
    "no token": ('asset_host = {origin = "https://x.example"}', "asset_host.upload_token"),
    "no network": (
        f'asset_host = {{origin = "https://x.example", upload_token = "{SECRET}", networks = ["s3cret"]}}',
        "asset_host.networks",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_setting_is_named_and_its_value_is_not_told(place: Place, what: str) -> None:
    line, name = BAD[what]
    key = line.partition(" ")[0]
    base = "\n".join(entry for entry in minimal(place).splitlines() if not entry.startswith(f"{key} ="))
    place.config.write_text(f"{line}\n{base}")
    with pytest.raises(ConfigError) as refusal:
        load_settings(place.config)
    assert str(refusal.value).startswith(name)
    assert "s3cret" not in str(refusal.value)


def test_every_bad_setting_is_named_at_once(place: Place) -> None:
    place.config.write_text('domain = "x"\nlisten = "y"\ncolour = 1')
    with pytest.raises(ConfigError) as refusal:
        load_settings(place.config)
    named = [re.split(r"\W", line)[0] for line in str(refusal.value).splitlines()]
    assert set(named) == {"domain", "base_url", "tls", "listen", "colour"}
    assert "MIMI_MMR_BASE_URL" in str(refusal.value)


@pytest.mark.parametrize("entry", ["certificate", "key", "ca"])
def test_a_file_that_is_not_there_is_named(place: Place, entry: str) -> None:
    text = "\n".join(line for line in minimal(place).splitlines() if not line.startswith(f"{entry} ="))
    place.config.write_text(f'{text}\n{entry} = "nowhere.pem"')
    with pytest.raises(ConfigError, match=f"tls.{entry} .*no such file"):
        load_settings(place.config)


def test_a_key_that_others_may_read_is_refused(place: Place) -> None:
    place.config.write_text(minimal(place))
    (place.directory / "tls-key.pem").chmod(0o640)
    load_settings(place.config)
    (place.directory / "tls-key.pem").chmod(0o644)
    with pytest.raises(ConfigError, match=r"tls.key .*readable by others"):
        load_settings(place.config)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"domain = ", "not TOML"), (b"\xff\xfe", "not UTF-8"), (b'upload = "s3cret', "not TOML")],
)
def test_a_file_that_is_no_toml_is_named(place: Place, content: bytes, said: str) -> None:
    place.config.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as refusal:
        load_settings(place.config)
    assert str(place.config) in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_a_file_that_is_not_there_or_no_file_is_named(place: Place) -> None:
    for path in (place.directory / "nowhere.toml", place.directory):
        with pytest.raises(ConfigError, match=str(path)):
            load_settings(path)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("MIMI_MMR_DOMIAN", "a.example"),
        ("MIMI_MMR_TLS__CERT", "s3cret"),
        ("MIMI_MMR_PEERS", "s3cret"),
        ("MIMI_MMR_DATABASE", "{s3cret"),
        ("MIMI_MMR_MAX_QUEUE_BYTES", "s3cret"),
        ("MIMI_MMR_ASSET_HOST__UPLOAD_TOKEN", "s3cret"),
    ],
)
def test_a_bad_variable_is_named_and_its_value_is_not_told(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, given: str
) -> None:
    place.config.write_text(minimal(place))
    monkeypatch.setenv(name, given)
    with pytest.raises(ConfigError) as refusal:
        load_settings(place.config)
    assert name in str(refusal.value)
    assert "s3cret" not in str(refusal.value)


def test_a_socket_is_taken_from_the_parent_that_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.config.write_text(minimal(place))
    for name in ("LISTEN_FDS", "LISTEN_PID"):
        monkeypatch.delenv(name, raising=False)
    own, other = str(os.getpid()), str(os.getpid() + 1)
    for passed, to, expected in (
        ("", "", None),
        ("1", "", None),
        ("1", other, None),
        ("0", own, None),
        ("1", own, 3),
    ):
        monkeypatch.setenv("LISTEN_FDS", passed or "0")
        monkeypatch.setenv("LISTEN_PID", to)
        assert activated_socket(load_settings(place.config).listen) == expected
    assert activated_socket("fd:7") == 7
    monkeypatch.setenv("MIMI_MMR_LISTEN", "127.0.0.1:8443")  # said, even if it is the default: it wins
    assert load_settings(place.config).listen == "127.0.0.1:8443"
