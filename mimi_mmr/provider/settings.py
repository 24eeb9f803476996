"""A provider's settings: a TOML file, environment variables over it, defaults that work.

`MIMI_MMR_DOMAIN`, `MIMI_MMR_TLS__CERTIFICATE` and so on: two underscores go down one table. What is wrong is
found before anything is opened, and named with what was expected; a value is never repeated, it may be a secret.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from mimi_mmr.errors import ConfigError, InvalidUri
from mimi_mmr.uris import check_domain


def _domain(value: str) -> str:
    try:
        return check_domain(value)
    except InvalidUri as error:
        raise ValueError(str(error)) from None


def _https(value: str) -> str:
    try:
        parts = urlsplit(value)
        sound = parts.scheme == "https" and parts.hostname and parts.port != 0
    except ValueError:  # a port that is none
        sound = False
    if (
        not sound
        or parts.path not in ("", "/")
        or parts.query
        or parts.fragment
        or parts.username is not None
    ):
        raise ValueError("expected https://host[:port]")
    return value.rstrip("/")


def _file(value: Path) -> Path:
    try:
        there = value.is_file()
    except OSError as error:
        raise ValueError(f"{error.strerror}: {value.absolute()}") from None
    if not there:
        raise ValueError(f"no such file: {value.absolute()}")
    return value


def _private(value: Path) -> Path:
    """A key: the service's user and group may read it, others may not."""
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


PREFIX = "MIMI_MMR_"
ASSETS_PREFIX = "MIMI_MMR_ASSETS_"
OF_PEOPLE = {f"{PREFIX}HOME", f"{PREFIX}PASSPHRASE"}  # of the commands that use an account
ROLES = ("hub", "accounts", "deliveries")

_S = TypeVar("_S", bound=BaseSettings)

Domain = Annotated[str, AfterValidator(_domain)]
HttpsOrigin = Annotated[str, AfterValidator(_https)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
KeyFile = Annotated[Path, AfterValidator(_private)]
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
Listen = Annotated[str, AfterValidator(_listen)]
Level = Literal["debug", "info", "warning", "error"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerTls(_Table):
    """A server's certificate chain and key (PEM)."""

    certificate: ExistingFile = Field(description="PEM: the server's certificate and those it leads to")
    key: KeyFile = Field(description="PEM: its key, not readable by others")


class Tls(ServerTls):
    """And what other servers' certificates must lead to."""

    ca: ExistingFile | None = Field(
        None, description="PEM: roots for other servers' certificates, instead of the system's"
    )


class Databases(_Table):
    """A URL for each role (`sqlite:///…`, `postgresql://…`); they must differ. Default: files in `data_dir`."""

    hub: str | None = Field(default=None, description="URL; without one, `hub.sqlite` in `data_dir`")
    accounts: str | None = Field(
        default=None, description="URL; without one, `accounts.sqlite` in `data_dir`"
    )
    deliveries: str | None = Field(
        default=None, description="URL; without one, `deliveries.sqlite` in `data_dir`"
    )


class AssetHost(_Table):
    """Where this provider's users put assets, and the token that lets the provider write there."""

    origin: HttpsOrigin = Field(description="`https://host[:port]` of the asset host")
    upload_token: str = Field(min_length=16, description="the asset host's `upload_token`")
    networks: tuple[Network, ...] = Field((), description="non-public networks that asset hosts may be in")
    listen: Listen | None = Field(
        None,
        description="run the asset host in this process, on this address:port; else it is one of its own",
    )


class _FromFileAndEnvironment(BaseSettings):
    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment before file."""
        return (env_settings, init_settings)


class Settings(_FromFileAndEnvironment):
    """Everything `mimi-mmr serve` can be told."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    domain: Domain = Field(description="the provider's domain, in its users' names")
    base_url: HttpsOrigin = Field(description="`https://host[:port]` where others reach this listener")
    tls: Tls
    listen: Listen = Field(
        "127.0.0.1:8443",
        description="address:port, or fd:N; a socket that systemd passes wins over the default",
    )
    data_dir: Path = Field(Path("data"), description="the CA, keys, SQLite databases, cached downloads")
    trust_dir: Path = Field(Path("trust"), description="`<domain>.pem` of every provider's CA, one's own too")
    database: Databases = Databases()
    peers: dict[Domain, HttpsOrigin] = Field(
        {}, description="domain to `https://host[:port]`, for each provider to exchange with and relay to"
    )
    asset_host: AssetHost | None = None
    source_address: Address | None = Field(
        None, description="local address of connections to other providers; default: the system's choice"
    )
    max_queue_bytes: int = Field(64 << 20, ge=1 << 16, description="most bytes that wait in one queue")
    max_queues: int = Field(1_000_000, ge=1, description="most queues that are kept")
    max_request_bytes: int = Field(16 << 20, ge=1 << 16, description="largest request out of the gateway")
    log_level: Level = Field("info", description="debug, info, warning or error")
    record_dir: Path | None = Field(None, description="record every frame here, for tests and audits")

    def database_url(self, role: str) -> str:
        """The URL of one role's database."""
        given: str | None = getattr(self.database, role)
        return given or f"sqlite:///{self.data_dir / role}.sqlite"


class AssetHostSettings(_FromFileAndEnvironment):
    """Everything `mimi-mmr asset-host` can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ASSETS_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tls: ServerTls
    listen: Listen = Field(
        "127.0.0.1:8444",
        description="address:port, or fd:N; a socket that systemd passes wins over the default",
    )
    data_dir: Path = Field(Path("assets"), description="the assets, encrypted by their senders")
    upload_token: str = Field(min_length=16, description="what the provider shows to put an asset")
    max_asset_bytes: int = Field(64 << 20, ge=1, description="largest asset")
    log_level: Level = Field("info", description="debug, info, warning or error")
    record_dir: Path | None = Field(None, description="record every frame here, for tests and audits")


def load_settings(path: Path | None) -> Settings:
    """A provider's settings; raises `ConfigError` naming every bad one."""
    settings = _load(Settings, path)
    if settings.domain in settings.peers:
        raise ConfigError(
            f"peers: {settings.domain} is this provider; a gateway must not be relayed to itself"
        )
    for domain, url in settings.peers.items():
        if _endpoint(url) == _endpoint(settings.base_url):
            raise ConfigError(f"peers.{domain}: expected the peer's URL, not base_url, which is one's own")
    _check_apart(settings)
    if not settings.trust_dir.is_dir():
        raise ConfigError(
            f"trust_dir: no such directory: {settings.trust_dir}; mimi-mmr ca {settings.domain} makes it"
        )
    return settings


def load_asset_host_settings(path: Path | None) -> AssetHostSettings:
    """An asset host's settings; raises `ConfigError` naming every bad one."""
    return _load(AssetHostSettings, path)


def _load(kind: type[_S], path: Path | None) -> _S:
    values = _read(path, kind) if path is not None else {}
    prefix = kind.model_config.get("env_prefix", "")
    _check_environment(kind)
    try:
        settings = kind(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, kind, prefix)) from None
    except SettingsError as error:  # a table in one variable; its words name the field, not the value
        field = re.search(r'"(\w+)"', str(error))
        top = f"{prefix}{field[1] if field else ''}".upper()
        given = sorted(name for name in os.environ if f"{name.upper()}__".startswith(f"{top}__"))
        raise ConfigError(
            f"{', '.join(given)}: expected JSON, for a table or a list in one variable"
        ) from None
    if "listen" not in settings.model_fields_set and socket_was_passed():
        return settings.model_copy(update={"listen": "fd:3"})
    return settings


# --- databases ---------------------------------------------------------------------------------------


def _check_apart(settings: Settings) -> None:
    """Three databases, however their URLs are written."""
    seen: dict[tuple[str, ...], str] = {}
    for role in ROLES:
        place = _database_place(role, settings.database_url(role))
        if place in seen:
            raise ConfigError(
                f"database: {seen[place]} and {role} are one database; expected three, so that none can be joined"
            )
        seen[place] = role


def _database_place(role: str, url: str) -> tuple[str, ...]:
    """What a URL leads to: a file, or a server's database; the URL itself if it is neither."""
    try:
        parsed = sa.make_url(url)
        kind = parsed.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        return (url,)  # whoever opens it says what is wrong
    if kind == "sqlite":
        name = (parsed.database or "").removeprefix("file:").partition("?")[0]
        if name in ("", ":memory:") or "mode=memory" in url:
            raise ConfigError(f"database.{role}: expected a file; what is in memory is lost at the end")
        try:  # two names of one file may differ even then: hard links, bind mounts
            found = Path(name).stat()
        except OSError:
            return kind, os.path.realpath(name)
        return kind, str(found.st_dev), str(found.st_ino)
    if kind == "postgresql":
        host, port = parsed.host or _first(parsed.query.get("host")) or "localhost", parsed.port
        host, _, in_host = host.partition(":") if host.count(":") == 1 else (host, "", "")
        number = str(port or in_host or _first(parsed.query.get("port")) or 5432)
        host = (
            "localhost" if host in ("127.0.0.1", "::1") or host.startswith("/") else host.lower().rstrip(".")
        )
        name = parsed.database or _first(parsed.query.get("database")) or parsed.username or ""
        return kind, host, number, name
    return (url,)


def _first(value: str | tuple[str, ...] | None) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    return value[0]


def _endpoint(url: str) -> tuple[str | None, int]:
    parts = urlsplit(url)
    return parts.hostname, parts.port or 443


# --- the environment ---------------------------------------------------------------------------------


def _check_environment(kind: type[BaseSettings]) -> None:
    """Refuse a variable that no setting of any command has, and name one that it is like."""
    known = {
        variable(part, setting.name) for part in (Settings, AssetHostSettings) for setting in every(part)
    }
    known |= {variable(part, name) for part in (Settings, AssetHostSettings) for name in part.model_fields}
    known |= OF_PEOPLE
    first = kind.model_config.get("env_prefix", "")
    for name in sorted(os.environ):
        upper = name.upper()
        if not upper.startswith(PREFIX) or upper in known or upper.startswith(f"{PREFIX}PEERS__"):
            continue
        alike = _alike(upper, sorted(known, key=lambda one: (not one.startswith(first), one)))
        raise ConfigError(f"{name}: no such setting{alike}")


def _alike(name: str, known: list[str]) -> str:
    """A hint at the known name that `name` may have been meant to be; the first of those that are as near."""
    bare = {_bare(one): one for one in reversed(known)}
    close = difflib.get_close_matches(_bare(name), bare, 1)
    return f"; did you mean {bare[close[0]]}?" if close else ""


def _bare(name: str) -> str:
    return name.removeprefix(PREFIX).replace("_", "").upper()


# --- the file ----------------------------------------------------------------------------------------


def _read(path: Path, kind: type[BaseSettings]) -> Mapping[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not TOML: not UTF-8") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    _check_quotes(values.get("peers"))
    defaults = {name: field.default for name, field in kind.model_fields.items()}
    beside = {name: path.parent / value for name, value in defaults.items() if isinstance(value, Path)}
    return beside | {name: _absolute(name, value, path.parent) for name, value in values.items()}


def _check_quotes(peers: object) -> None:
    """A domain without quotes is a table in a table, in TOML."""
    if not isinstance(peers, dict):
        return
    for name, value in peers.items():
        parts = [name]
        while isinstance(value, dict) and value:
            part, value = next(iter(value.items()))
            parts.append(part)
        if len(parts) > 1:
            domain = ".".join(parts)
            raise ConfigError(f'peers.{domain}: expected the domain in quotes: "{domain}" = "https://…"')


def _absolute(name: str, value: Any, base: Path) -> Any:
    """Paths in a file are relative to the file."""
    if name.endswith("_dir") and isinstance(value, str):
        return base / value
    if name == "tls" and isinstance(value, dict):
        return {key: base / entry if isinstance(entry, str) else entry for key, entry in value.items()}
    if name == "database" and isinstance(value, dict):
        return {
            key: _beside(entry, base) if isinstance(entry, str) else entry for key, entry in value.items()
        }
    return value


def _beside(url: str, base: Path) -> str:
    """A SQLite URL with a relative path, as one with the file's directory before it."""
    relative = re.fullmatch(r"(sqlite(?:\+\w+)?:///)(?!/|:memory:|file:)(.+)", url)
    return f"{relative[1]}{base / relative[2]}" if relative else url


# --- in words ----------------------------------------------------------------------------------------


class Setting(NamedTuple):
    """One setting as a line of a table, with its default or what stands for it."""

    name: str
    default: str
    description: str


def every(kind: type[BaseModel], above: str = "", missing: str = "must be given") -> Iterator[Setting]:
    """Every setting, a table's after one another."""
    for name, field in kind.model_fields.items():
        table = _table(field.annotation)
        if table is not None:
            needed = missing if field.is_required() else f"must be given in `[{name}]`"
            yield from every(table, f"{above}{name}.", needed)
        else:
            default = missing if field.is_required() else _shown(field.default)
            yield Setting(above + name, default, field.description or "")


def _table(annotation: Any) -> type[BaseModel] | None:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _shown(value: object) -> str:
    if value is None or value in ({}, ()):
        return "none"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"`{value}` ({value >> 20} MiB)"
    return f"`{value}`"


def variable(kind: type[BaseSettings], name: str) -> str:
    """The environment variable of a setting, which is named with dots."""
    return kind.model_config.get("env_prefix", "") + name.replace(".", "__").upper()


def settings_table(kind: type[BaseSettings]) -> str:
    """Every setting with its default, as a table in Markdown."""
    lines = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, default, description in every(kind):
        lines.append(f"| `{name}` | {default} | {description} |")
    return "\n".join(lines)


_WORDS = {
    "string_type": "expected text",
    "int_type": "expected a whole number",
    "int_parsing": "expected a whole number",
    "int_from_float": "expected a whole number",
    "dict_type": "expected a table",
    "model_type": "expected a table",
    "tuple_type": "expected a list",
    "path_type": "expected a path",
    "literal_error": "expected {expected}",
    "greater_than_equal": "expected {ge} or more",
    "string_too_short": "expected {min_length} characters or more",
}


def _explain(error: ValidationError, kind: type[BaseSettings], prefix: str) -> str:
    known = [setting.name for setting in every(kind)]
    # a value may be a secret: only the place is named
    items = error.errors(include_input=False, include_url=False)
    return "\n".join(line for item in items for line in _lines(item, known, prefix))


def _lines(item: Any, known: list[str], prefix: str) -> Iterator[str]:
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    place, top = ".".join(parts), parts[0] if parts else ""
    if item["type"] == "extra_forbidden":
        yield f"{place}: no such setting{_alike(place, known)}"
    elif item["type"] == "missing" and place not in known:  # a whole table
        for name in known:
            if name in (f"{place}.certificate", f"{place}.key"):
                yield f"{name} (or {prefix}{name.replace('.', '__').upper()}): not set"
    else:
        inside = top == "peers" or any(part.isdecimal() for part in parts)  # no variable of its own
        name = top if top == "peers" else ".".join(part for part in parts if not part.isdecimal())
        said = "not set" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
        said = _WORDS.get(item["type"], said).format(**item.get("ctx", {}))
        known_as = f"{prefix}{name.replace('.', '__').upper()}"
        yield f"{place} (or {'in ' if inside else ''}{known_as}): {said}"


# --- sockets -----------------------------------------------------------------------------------------


def socket_was_passed() -> bool:
    """Whether systemd passed a socket (LISTEN_FDS), which is number 3 then."""
    return os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0"


def activated_socket(listen: str) -> int | None:
    """The file descriptor that `fd:N` names."""
    kind, _, number = listen.rpartition(":")
    return int(number) if kind == "fd" else None
