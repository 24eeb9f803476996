"""What a newcomer gets wrong is named in words that say what to do instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from mimi_mmr.app.cli import app
from mimi_mmr.errors import ConfigError
from mimi_mmr.provider.settings import load_asset_host_settings, load_settings
from tests.mimi_mmr.provider.settings.settings_world import Place

README = Path(__file__).parents[4] / "README.md"


def refusal(place: Place) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(place.config)
    return str(refused.value)


# --- names -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MIMI_MMR_LISEN", "MIMI_MMR_LISTEN"),
        ("MIMI_MMR_TLS_KEY", "MIMI_MMR_TLS__KEY"),
        ("MIMI_MMR_TLS__CERT", "MIMI_MMR_TLS__CERTIFICATE"),
        ("MIMI_MMR_ASSET_HOST_ORIGIN", "MIMI_MMR_ASSET_HOST__ORIGIN"),
        ("MIMI_MMR_ASSETS_LISEN", "MIMI_MMR_ASSETS_LISTEN"),
        ("mimi_mmr_lisen", "MIMI_MMR_LISTEN"),
    ],
)
def test_a_variable_that_no_setting_has_is_named_with_what_it_is_like(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    monkeypatch.setenv(name, "x")
    said = f"{name}: no such setting; did you mean {meant}?"
    assert refusal(place) == said
    with pytest.raises(ConfigError) as refused:
        load_asset_host_settings(place.world.asset_host.config)
    assert str(refused.value).startswith(f"{name}: no such setting")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MIMI_MMR_PORT", "tcp://10.0.0.1:443"),
        ("MIMI_MMR_PORT_443_TCP", "tcp://10.0.0.1:443"),
        ("MIMI_MMR_PORT_443_TCP_PROTO", "tcp"),
        ("MIMI_MMR_PORT_443_TCP_PORT", "443"),
        ("MIMI_MMR_PORT_443_TCP_ADDR", "10.0.0.1"),
        ("MIMI_MMR_SERVICE_HOST", "10.0.0.1"),
        ("MIMI_MMR_SERVICE_PORT", "443"),
        ("MIMI_MMR_SERVICE_PORT_HTTPS", "443"),
        ("MIMI_MMR_ASSETS_PORT", "tcp://10.0.0.1:8444"),
        ("MIMI_MMR_HUB_SERVICE_HOST", "10.0.0.1"),
    ],
)
def test_variables_that_kubernetes_sets_for_a_service_of_this_name_are_passed_over(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    load_settings(place.config)
    load_asset_host_settings(place.world.asset_host.config)
    monkeypatch.setenv("MIMI_MMR_PORT", "8443")  # which a person wrote, who wants another port
    assert refusal(place).startswith("MIMI_MMR_PORT: no such setting")


def test_a_variable_that_is_like_none_is_named_alone(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIMI_MMR_XYZZY", "x")
    assert refusal(place) == "MIMI_MMR_XYZZY: no such setting"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('lisen = "x"', "lisen: no such setting; did you mean listen?"),
        ("xyzzy = 1", "xyzzy: no such setting"),
        ('peers.b.example = "https://b.example"', 'in quotes: "b.example" = "https://…"'),
        (
            'peers = {"b.example" = "b.example"}',
            "peers.b.example (or in MIMI_MMR_PEERS): expected https://host",
        ),
        ('peers = {"x" = "https://b.example"}', "peers.x (or in MIMI_MMR_PEERS): "),
        ("domain = 3", "domain (or MIMI_MMR_DOMAIN): expected text"),
        ('max_queues = "many"', "max_queues (or MIMI_MMR_MAX_QUEUES): expected a whole number"),
        ("max_queues = 0", "max_queues (or MIMI_MMR_MAX_QUEUES): expected 1 or more"),
        ('log_level = "loud"', "log_level (or MIMI_MMR_LOG_LEVEL): expected 'debug', 'info', 'warning' or"),
        ("data_dir = 3", "data_dir (or MIMI_MMR_DATA_DIR): expected a path"),
        ("database = 3", "database (or MIMI_MMR_DATABASE): expected a table"),
        (
            'asset_host = {origin = "https://x.example", upload_token = "short"}',
            "(or MIMI_MMR_ASSET_HOST__UPLOAD_TOKEN): expected 16 characters or more",
        ),
        (
            f'asset_host = {{origin = "https://x.example", upload_token = "{"s" * 16}", networks = ["x"]}}',
            "asset_host.networks.0 (or in MIMI_MMR_ASSET_HOST__NETWORKS): expected a network such as",
        ),
        ('source_address = "x"', "source_address (or MIMI_MMR_SOURCE_ADDRESS): expected an IP address"),
        (
            'base_url = "https://a.example:port"',
            "base_url (or MIMI_MMR_BASE_URL): expected https://host[:port]",
        ),
        (
            'base_url = "https://me@a.example"',
            "base_url (or MIMI_MMR_BASE_URL): expected https://host[:port]",
        ),
    ],
)
def test_a_bad_setting_is_explained(place: Place, line: str, said: str) -> None:
    name = re.split(r"[ .]", line)[0]
    text = re.sub(rf"^{name} = .*\n", "", place.config.read_text(), flags=re.MULTILINE)
    if name == "peers":
        text = re.sub(r"\[peers\]\n(\".*\n)+", "", text)
    if name == "asset_host":
        text = re.sub(r"\[asset_host\]\n(\w.*\n)+", "", text)
    place.config.write_text(f"{line}\n{text}")
    found = refusal(place)
    assert said in found
    assert "Value error" not in found
    assert "\n" not in found


@pytest.mark.parametrize("name", ["TLS", "PEERS", "DATABASE", "ASSET_HOST", "ASSET_HOST__NETWORKS"])
@pytest.mark.parametrize("given", ["{s3cret", "3", '"s3cret"', "[1]", "null", '{"s3cret": 1}'])
def test_a_table_in_a_variable_that_is_none_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, given: str
) -> None:
    if (name, given) == ("DATABASE", "null"):
        return
    monkeypatch.setenv(f"MIMI_MMR_{name}", given)
    try:
        load_settings(place.config)
    except ConfigError as error:
        assert name.partition("__")[0].lower() in str(error).lower()
    else:
        assert given == "null"


def test_a_missing_file_is_named_from_the_root_on(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.rewrite(r"^certificate = .*$", 'certificate = "nowhere.pem"')
    path = place.directory / "nowhere.pem"
    assert refusal(place) == f"tls.certificate (or MIMI_MMR_TLS__CERTIFICATE): no such file: {path}"
    monkeypatch.chdir(place.directory.parent)  # a path in a file is relative to the file, wherever one is
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        load_settings(Path(place.directory.name, "config.toml"))


def test_a_name_that_is_too_long_for_a_file_is_no_surprise(place: Place) -> None:
    place.rewrite(r"^certificate = .*$", f'certificate = "{"x" * 5000}"')
    assert refusal(place).startswith("tls.certificate (or MIMI_MMR_TLS__CERTIFICATE): File name too long")


def test_every_line_of_several_says_who_speaks(place: Place) -> None:
    place.config.write_text('domain = "x"\nlisten = "y"\ncolour = 1')
    done = CliRunner().invoke(app, ["serve", "--config", str(place.config)])
    assert done.exit_code == 2
    lines = done.stderr.splitlines()
    assert len(lines) == 6
    assert all(line.startswith("mimi-mmr: ") for line in lines)


# --- databases ---------------------------------------------------------------------------------------


def databases(place: Place, **urls: str) -> None:
    lines = ", ".join(f'{role} = "{url}"' for role, url in urls.items())
    place.put_first(f"database = {{{lines}}}")


SAME = {
    "a dot": ("sqlite:///x.sqlite", "sqlite:///./x.sqlite"),
    "a way round": ("sqlite:///x.sqlite", "sqlite:///data/../x.sqlite"),
    "another driver": ("sqlite:///x.sqlite", "sqlite+aiosqlite:///x.sqlite"),
    "a link": ("sqlite:///real.sqlite", "sqlite:///link.sqlite"),
    "a hard link": ("sqlite:///real.sqlite", "sqlite:///hard.sqlite"),
    "a query": ("sqlite:///x.sqlite", "sqlite:///x.sqlite?timeout=5"),
    "the default": ("sqlite:///data/accounts.sqlite", ""),
    "a port that goes without saying": ("postgresql://h/d", "postgresql://h:5432/d"),
    "another user": ("postgresql://me@h/d", "postgresql://you:secret@h/d"),
    "the driver": ("postgresql://h/d", "postgresql+asyncpg://h/d"),
    "capitals": ("postgresql://db.example/d", "postgresql://DB.Example./d"),
    "no host": ("postgresql:///d", "postgresql://localhost/d"),
    "the loop": ("postgresql://127.0.0.1/d", "postgresql://localhost/d"),
    "a host in the query": ("postgresql://h/d", "postgresql:///d?host=h"),
}
APART = {
    "two files": ("sqlite:///x.sqlite", "sqlite:///y.sqlite"),
    "two servers": ("postgresql://h/d", "postgresql://i/d"),
    "two ports": ("postgresql://h/d", "postgresql://h:5433/d"),
    "two databases": ("postgresql://h/d", "postgresql://h/e"),
}


@pytest.mark.parametrize("what", SAME)
def test_one_database_under_two_names_is_refused(place: Place, what: str) -> None:
    (place.directory / "real.sqlite").touch()
    (place.directory / "link.sqlite").symlink_to("real.sqlite")
    (place.directory / "hard.sqlite").hardlink_to(place.directory / "real.sqlite")
    hub, accounts = SAME[what]
    databases(place, hub=hub, **({"accounts": accounts} if accounts else {}))
    assert refusal(place).startswith("database: hub and accounts are one database")


@pytest.mark.parametrize("what", APART)
def test_two_databases_are_two(place: Place, what: str) -> None:
    hub, deliveries = APART[what]
    databases(place, hub=hub, deliveries=deliveries)
    load_settings(place.config)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?uri=true",
        "sqlite:///file:x?mode=memory&uri=true",
    ],
)
def test_a_database_in_memory_is_refused(place: Place, url: str) -> None:
    databases(place, deliveries=url)
    assert refusal(place).startswith("database.deliveries: expected a file")


def test_a_sqlite_path_in_a_file_is_relative_to_the_file(place: Place) -> None:
    databases(place, hub="sqlite:///x.sqlite", accounts="sqlite:////y.sqlite")
    settings = load_settings(place.config)
    assert settings.database_url("hub") == f"sqlite:///{place.directory}/x.sqlite"
    assert settings.database_url("accounts") == "sqlite:////y.sqlite"


ODD = ["a%20b", "%41", "what?", "what?mode=ro", "a#b", "a b+c", "ü"]


@pytest.mark.parametrize("odd", ODD)
def test_a_data_directory_of_any_letters_holds_its_databases(place: Place, odd: str) -> None:
    place.rewrite(r"^data_dir = .*$", f'data_dir = "{odd}"')
    url = sa.make_url(load_settings(place.config).database_url("hub"))
    assert (url.database, url.query) == (str(place.directory / odd / "hub.sqlite"), {})


@pytest.mark.parametrize("odd", ODD)
def test_a_sqlite_path_is_relative_to_a_file_in_a_directory_of_any_letters(place: Place, odd: str) -> None:
    (place.directory / odd).mkdir()
    databases(place, hub="sqlite:///x%41.sqlite?timeout=5")
    moved = place.config.rename(place.directory / odd / "config.toml")
    for name in ("tls.pem", "tls-key.pem"):
        (place.directory / name).rename(place.directory / odd / name)
    url = sa.make_url(load_settings(moved).database_url("hub"))
    assert (url.database, url.query) == (str(place.directory / odd / "xA.sqlite"), {"timeout": "5"})


# --- origins -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("https://storage.a.example", "https://storage.a.example"),
        ("https://storage.a.example:443", "https://storage.a.example"),
        ("https://Storage.A.Example/", "https://storage.a.example"),
        ("HTTPS://storage.a.example.:8444", "https://storage.a.example:8444"),
        ("https://[2001:DB8:0:0::1]", "https://[2001:db8::1]"),
        ("https://[2001:DB8::1]:443", "https://[2001:db8::1]"),
    ],
)
def test_an_origin_has_one_spelling_however_it_is_written(place: Place, written: str, read: str) -> None:
    host = f'asset_host = {{origin = "{written}", upload_token = "{"s" * 16}"}}'
    place.config.write_text(re.sub(r"(?ms)^\[asset_host\].*?(?=^\[)", "", place.config.read_text()))
    place.put_first(host)
    place.rewrite(r"^base_url = .*$", f'base_url = "{written}"')
    settings = load_settings(place.config)
    assert settings.asset_host is not None
    assert (settings.base_url, settings.asset_host.origin) == (read, read)


@pytest.mark.parametrize(
    "written", ["https://storage.a.example..", "https://storage..a.example", "https://."]
)
def test_an_origin_whose_host_has_an_empty_label_is_refused(place: Place, written: str) -> None:
    place.rewrite(r"^base_url = .*$", f'base_url = "{written}"')
    with pytest.raises(ConfigError, match=r"base_url .*expected https://host"):
        load_settings(place.config)


# --- peers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["https://mimi.A.example", "https://mimi.a.example:443", "https://mimi.a.example/"]
)
def test_a_peer_at_ones_own_address_is_refused(place: Place, url: str) -> None:
    place.rewrite(r"^base_url = .*$", 'base_url = "https://mimi.a.example"')
    place.rewrite(r'^"b.example" = .*$', f'"b.example" = "{url}"')
    assert refusal(place).startswith("peers.b.example: expected the peer's URL")


# --- places ------------------------------------------------------------------------------------------


def test_a_default_is_beside_the_file_too(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place.rewrite(r"^data_dir = .*$", "")
    place.rewrite(r"^trust_dir = .*$", "")
    monkeypatch.chdir("/")
    assert refusal(place).startswith(
        f"trust_dir: no such directory: {place.directory / 'trust'}; expected that of a.example.pem"
    )
    (place.directory / "trust").symlink_to(place.world.trust_dir)
    assert load_settings(place.config).data_dir == place.directory / "data"
    monkeypatch.setenv("MIMI_MMR_DATA_DIR", "elsewhere")
    assert load_settings(place.config).data_dir == Path("elsewhere")


def test_a_place_to_keep_in_that_can_not_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for keep in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nowhere")):
        done = CliRunner().invoke(app, ["demo", "--keep", str(keep)])
        assert done.exit_code == 2
        assert done.stderr.startswith(f"mimi-mmr: --keep {keep}: ")
        assert isinstance(done.exception, SystemExit)
