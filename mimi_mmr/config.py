"""A provider's settings: a TOML file, environment variables over it, defaults that work.

`MIMI_MMR_DOMAIN`, `MIMI_MMR_TLS__CERTIFICATE` and so on: two underscores go down one table.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar
from urllib.parse import urlsplit

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
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/") or parts.query:
        raise ValueError("expected https://host[:port]")
    return value.rstrip("/")


def _file(value: Path) -> Path:
    if not value.is_file():
        raise ValueError("no such file")
    return value


def _private(value: Path) -> Path:
    """A key: the service's user and group may read it, others may not."""
    if _file(value).stat().st_mode & 0o007:
        raise ValueError("readable by others; expected mode 640 or less")
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


ASSETS_PREFIX = "MIMI_MMR_ASSETS_"

_S = TypeVar("_S", bound=BaseSettings)

Domain = Annotated[str, AfterValidator(_domain)]
HttpsOrigin = Annotated[str, AfterValidator(_https)]
ExistingFile = Annotated[Path, AfterValidator(_file)]
KeyFile = Annotated[Path, AfterValidator(_private)]
Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
Listen = Annotated[str, AfterValidator(_listen)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Tls(_Table):
    """The server's certificate chain and key (PEM), and what other servers' must lead to."""

    certificate: ExistingFile
    key: KeyFile
    ca: ExistingFile | None = Field(None, description="trust for other servers; the system's if not given")


class Databases(_Table):
    """A URL for each role (`sqlite:///…`, `postgresql://…`); they must differ. Default: files in `data_dir`."""

    hub: str | None = None
    accounts: str | None = None
    deliveries: str | None = None


class AssetHost(_Table):
    """Where this provider's users put assets, and the token that lets the provider write there."""

    origin: HttpsOrigin
    upload_token: str = Field(min_length=16)
    networks: tuple[Network, ...] = Field((), description="non-public networks that it may be in")


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
        env_prefix="MIMI_MMR_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    domain: Domain
    base_url: HttpsOrigin
    tls: Tls
    listen: Listen = "127.0.0.1:8443"
    data_dir: Path = Path("data")
    trust_dir: Path = Field(Path("trust"), description="one <domain>.pem with the CA of each provider")
    database: Databases = Databases()
    peers: dict[Domain, HttpsOrigin] = {}
    asset_host: AssetHost | None = None
    source_address: Address | None = Field(
        None, description="local address for connections to other providers"
    )
    max_queue_bytes: int = Field(64 << 20, ge=1 << 16)
    max_queues: int = Field(1_000_000, ge=1)
    max_request_bytes: int = Field(16 << 20, ge=1 << 16)
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    record_dir: Path | None = Field(None, description="record every frame, for tests and audits")

    def database_url(self, role: str) -> str:
        """The URL of one role's database."""
        given: str | None = getattr(self.database, role)
        return given or f"sqlite:///{self.data_dir / role}.sqlite"


class AssetHostSettings(_FromFileAndEnvironment):
    """Everything `mimi-mmr asset-host` can be told."""

    model_config = SettingsConfigDict(
        env_prefix=ASSETS_PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    tls: Tls
    listen: Listen = "127.0.0.1:8444"
    data_dir: Path = Path("assets")
    upload_token: str = Field(min_length=16)
    max_asset_bytes: int = Field(64 << 20, ge=1)
    log_level: str = Field("info", pattern="^(debug|info|warning|error)$")
    record_dir: Path | None = None


def load_settings(path: Path | None) -> Settings:
    """A provider's settings; raises `ConfigError` naming every bad one."""
    settings = _load(Settings, path, beside=ASSETS_PREFIX)
    if settings.domain in settings.peers:
        raise ConfigError(
            f"peers: {settings.domain} is this provider; a gateway must not be relayed to itself"
        )
    urls = [settings.database_url(role) for role in ("hub", "accounts", "deliveries")]
    if len(set(urls)) != len(urls):
        raise ConfigError(
            "database: hub, accounts and deliveries must be three databases, so that none can be joined"
        )
    if not settings.trust_dir.is_dir():
        raise ConfigError(f"trust_dir: no such directory: {settings.trust_dir}")
    return settings


def load_asset_host_settings(path: Path | None) -> AssetHostSettings:
    """An asset host's settings; raises `ConfigError` naming every bad one."""
    return _load(AssetHostSettings, path)


def _load(kind: type[_S], path: Path | None, beside: str | None = None) -> _S:
    values = _read(path) if path is not None else {}
    prefix = kind.model_config.get("env_prefix", "")
    _check_environment(kind, prefix, beside)
    try:
        return kind(**values)
    except ValidationError as error:
        raise ConfigError(_explain(error, prefix)) from None
    except SettingsError as error:  # a table in one variable; its words name the field, not the value
        field = re.search(r'"(\w+)"', str(error))
        name = f"{prefix}{field[1] if field else ''}".upper()
        raise ConfigError(f"{name}: expected JSON, for a whole table in one variable") from None


def _check_environment(kind: type[BaseSettings], prefix: str, beside: str | None) -> None:
    """Refuse a variable that no setting has; variables below `beside` are another command's."""
    for name in sorted(os.environ):
        if not name.startswith(prefix) or (beside is not None and name.startswith(beside)):
            continue
        if name.removeprefix(prefix).partition("__")[0].lower() not in kind.model_fields:
            raise ConfigError(f"{name}: no such setting")


def _read(path: Path) -> Mapping[str, Any]:
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not TOML: not UTF-8") from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: not TOML: {error}") from None
    return {name: _absolute(name, value, path.parent) for name, value in values.items()}


def _absolute(name: str, value: Any, base: Path) -> Any:
    """Paths in a file are relative to the file."""
    if name.endswith("_dir") and isinstance(value, str):
        return base / value
    if name == "tls" and isinstance(value, dict):
        return {key: base / entry if isinstance(entry, str) else entry for key, entry in value.items()}
    return value


def _explain(error: ValidationError, prefix: str) -> str:
    lines = []
    for item in error.errors(
        include_input=False, include_url=False
    ):  # a value may be a secret: name only the place
        place = ".".join(str(part) for part in item["loc"])
        variable = prefix + "__".join(str(part) for part in item["loc"]).upper()
        lines.append(f"{place} (or {variable}): {item['msg']}")
    return "\n".join(lines)


def activated_socket(listen: str) -> int | None:
    """The file descriptor that `fd:N` names, or that systemd passed (LISTEN_FDS)."""
    kind, _, number = listen.rpartition(":")
    if kind == "fd":
        return int(number)
    if os.environ.get("LISTEN_PID") == str(os.getpid()) and os.environ.get("LISTEN_FDS", "0") != "0":
        return 3
    return None
