"""Every setting of a provider and of an asset host, as pydantic models."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict, Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mimi_mmr.protocol.peers import MAX_NOTIFY
from mimi_mmr.provider.settings.values import (
    Address,
    Domain,
    ExistingFile,
    HttpsOrigin,
    KeyFile,
    Level,
    Listen,
    Network,
)
from ohttp_relay.server import ConnectionLimits

PREFIX = "MIMI_MMR_"
ASSETS_PREFIX = "MIMI_MMR_ASSETS_"
ROLES = ("hub", "accounts", "deliveries")


class _SettingsTable(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ServerTls(_SettingsTable):
    """A server's certificate chain and key (PEM)."""

    certificate: ExistingFile = Field(description="PEM: the server's certificate and those it leads to")
    key: KeyFile = Field(description="PEM: its key, not readable by others")


class Tls(ServerTls):
    """A server's certificate chain and key, and the roots for other servers' certificates (PEM)."""

    ca: ExistingFile | None = Field(
        None, description="PEM: roots for other servers' certificates, instead of the system's"
    )


class Databases(_SettingsTable):
    """A URL for each role (`sqlite:///…`, `postgresql://…`); they must differ. Default: files in `data_dir`."""

    hub: str | None = Field(default=None, description="URL; without one, `hub.sqlite` in `data_dir`")
    accounts: str | None = Field(
        default=None, description="URL; without one, `accounts.sqlite` in `data_dir`"
    )
    deliveries: str | None = Field(
        default=None, description="URL; without one, `deliveries.sqlite` in `data_dir`"
    )


class AssetStorage(_SettingsTable):
    """The asset host for this provider's users, and the token with which the provider writes to it."""

    origin: HttpsOrigin = Field(description="`https://host[:port]` of the asset host")
    upload_token: str = Field(min_length=16, description="the asset host's `upload_token`")
    networks: tuple[Network, ...] = Field(
        (), description="non-public networks that this asset host may be in"
    )
    listen: Listen | None = Field(
        None,
        description="run the asset host in this process, on this address:port; else it is one of its own",
    )


class ConnectionSettings(_SettingsTable):
    """Limits of the connections that a server accepts."""

    most: int = Field(
        default=10_000,
        ge=1,
        description="most connections at once; never more than half of the file descriptors",
    )
    handshake_seconds: float = Field(default=10.0, gt=0, description="until the TLS handshake is complete")
    head_seconds: float = Field(
        default=15.0, gt=0, description="until a new connection's first request has arrived, without its body"
    )
    body_seconds: float = Field(default=30.0, gt=0, description="until a request's body has arrived, and …")
    body_rate: int = Field(
        default=16 << 10, ge=1, description="… a second more for every so many bytes of it"
    )
    idle_seconds: float = Field(
        default=75.0, gt=0, description="until a connection without a request is closed"
    )
    reading_seconds: float = Field(
        default=75.0, gt=0, description="without progress while a client reads an answer, until it is closed"
    )

    @property
    def limits(self) -> ConnectionLimits:
        """The limits as the server takes them; `idle_seconds` is the HTTP library's."""
        return ConnectionLimits(
            connections=self.most,
            handshake_seconds=self.handshake_seconds,
            head_seconds=self.head_seconds,
            body_seconds=self.body_seconds,
            body_rate=self.body_rate,
            reading_seconds=self.reading_seconds,
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
        """Let environment variables override the file."""
        return (env_settings, init_settings)


class Settings(_FromFileAndEnvironment):
    """The settings of `mimi-mmr serve`."""

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
    asset_host: AssetStorage | None = None
    source_address: Address | None = Field(
        None, description="local address of connections to other providers; default: the system's choice"
    )
    max_queue_bytes: int = Field(64 << 20, ge=1 << 16, description="most bytes that wait in one queue")
    max_queues: int = Field(1_000_000, ge=1, description="most queues that are kept")
    max_page_bytes: int = Field(
        4 << 20, ge=1 << 16, description="most bytes of messages in one answer, unless one message is larger"
    )
    max_pages_bytes: int = Field(
        64 << 20, ge=1 << 20, description="most bytes of messages that are read at once, for all answers"
    )
    max_bodies_bytes: int = Field(
        256 << 20, ge=1 << 20, description="most bytes of large requests that are received at once"
    )
    max_request_bytes: int = Field(
        16 << 20,
        ge=1 << 16,
        le=MAX_NOTIFY - (1 << 20),  # what a room's members are sent has to fit into a notification
        description="largest request out of the gateway",
    )
    connections: ConnectionSettings = ConnectionSettings()
    log_level: Level = Field("info", description="debug, info, warning or error")
    record_dir: Path | None = Field(None, description="record every frame here, for tests and audits")

    def database_url(self, role: str) -> str:
        """Return the URL of one role's database."""
        given: str | None = getattr(self.database, role)
        if given is not None:
            return given
        path = self.data_dir / f"{role}.sqlite"  # may have letters that mean something in a URL
        return sa.URL.create("sqlite", database=str(path)).render_as_string()


class AssetHostSettings(_FromFileAndEnvironment):
    """The settings of `mimi-mmr asset-host`."""

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
    connections: ConnectionSettings = ConnectionSettings()
    log_level: Level = Field("info", description="debug, info, warning or error")
    record_dir: Path | None = Field(None, description="record every frame here, for tests and audits")
