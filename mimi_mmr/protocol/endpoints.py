"""The table of endpoints: the one definition of every request to a provider, for both ends.

The provider mounts its endpoints from this table and the client builds its requests from it, so method, path,
bodies and limits can't differ between them. `Way` is the only way to reach an endpoint; neither end has a
setting for it.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Generic, TypeVar, cast
from urllib.parse import quote, unquote

from mimi_mmr.crypto.sealing import SealedBox
from mimi_mmr.presentation import Struct
from mimi_mmr.protocol.accounts import (
    AddDeviceRequest,
    CertificateChain,
    DeviceList,
    PackagesLeft,
    PublishRequest,
    RegisterRequest,
)
from mimi_mmr.protocol.assets import MAX_ASSET, AssetLocation
from mimi_mmr.protocol.connections import ConnectionPackage
from mimi_mmr.protocol.deposits import Deposit, Inbox, ReplyDeposit
from mimi_mmr.protocol.key_packages import KeyMaterialRequest, SetUpload, ShelfOrder, ShelfReport
from mimi_mmr.protocol.peers import MAX_NOTIFY
from mimi_mmr.protocol.provider_keys import ProviderKeys, ProviderList
from mimi_mmr.protocol.queues import CollectRequest, QueueOrder, QueuePage, QueueRemoval
from mimi_mmr.protocol.room.deliveries import NotifyRequest
from mimi_mmr.protocol.room.link_orders import JoinRequest, LinkOrder
from mimi_mmr.protocol.room.requests import (
    CommitReport,
    CreateRoomRequest,
    Snapshot,
    SnapshotRequest,
    SubmitMessageRequest,
    UpdateRequest,
    UpdateRoomResponse,
)

SMALL_BODY = 1 << 16
RELAY_PATH = "/relay"  # a provider's relay; the domain of the gateway's provider follows
NO_PART = ("", ".", "..")  # URL parsers remove such parts (RFC 3986, section 5.2.4)

Req = TypeVar("Req", bound=Struct | bytes | None)
Ans = TypeVar("Ans", bound=Struct | bytes | None)
_Body = TypeVar("_Body", bound=Struct | bytes | None)


class Way(enum.Enum):
    """The way by which a request reaches an endpoint."""

    OBLIVIOUS = "in a capsule of Oblivious HTTP, out of the provider's gateway"
    ACCOUNT = "over TLS, with the access token of one of the account's devices"
    DIRECT = "over TLS"
    PEER = "over TLS, with a `PeerRequest` that another provider has signed"


class ProviderRole(enum.StrEnum):
    """The part of a provider that answers a request and learns its content."""

    HUB = "hub"
    ACCOUNTS = "accounts"
    DELIVERIES = "deliveries"
    ASSETS = "assets"


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[Req, Ans]):
    """One endpoint: a row of the table.

    `template` is the path, with the names in braces. `request` and `answer` are the types of the two bodies: a
    wire struct, `bytes`, or `NoneType` for an empty body. `limit` is the largest request body in bytes, before
    parsing; `status` is the HTTP status of a successful answer.
    """

    method: str
    template: str
    request: type[Req]
    answer: type[Ans]
    way: Way
    role: ProviderRole
    summary: str
    limit: int = SMALL_BODY
    status: int = 200
    names: tuple[str, ...] = field(init=False, repr=False)
    _parts: tuple[str | None, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Split the template into its parts."""
        parts = self.template.split("/")
        names = tuple(part[1:-1] for part in parts if part.startswith("{"))
        object.__setattr__(self, "names", names)
        fixed = tuple(None if part.startswith("{") else part for part in parts)
        object.__setattr__(self, "_parts", fixed)

    @property
    def peer_name(self) -> str:
        """The endpoint's name in a `PeerRequest`: the last part of its path."""
        return self.template.rpartition("/")[2]

    def path(self, names: Mapping[str, str]) -> str:
        """Return the path with these names filled in, percent-encoded.

        Raises `ValueError` if they are not the template's names, or if one can't be a part of a path.
        """
        if set(names) != set(self.names):
            wanted, given = ", ".join(self.names) or "none", ", ".join(sorted(names)) or "none"
            raise ValueError(f"{self.method} {self.template}: expected the names {wanted}, got {given}")
        path = self.template
        for name, value in names.items():
            if value in NO_PART:
                raise ValueError(f"{self.method} {self.template}: {value!r} can't be the name of a {name}")
            path = path.replace(f"{{{name}}}", quote(value, safe=""), 1)
        return path

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Return the decoded names in a request's path, or None if the request is for another endpoint."""
        found = path.split("/")
        if method != self.method or len(found) != len(self._parts):
            return None
        names = []
        for part, value in zip(self._parts, found, strict=True):
            if part is None:
                names.append(unquote(value))
            elif part != value:
                return None
        return dict(zip(self.names, names, strict=True))

    def read_request(self, body: bytes) -> Req:
        """Parse a request's body; raise `ParseError`. Where the type is `NoneType`, the body is ignored."""
        return _read(self.request, body)

    def read_answer(self, body: bytes) -> Ans:
        """Parse an answer's body; raise `ParseError`. Where the type is `NoneType`, the body is ignored."""
        return _read(self.answer, body)


def _read(kind: type[_Body], body: bytes) -> _Body:
    if issubclass(kind, Struct):
        return kind.from_bytes(body)
    return cast("_Body", body if kind is bytes else None)


def to_body(value: Struct | bytes | None) -> bytes:
    """Encode a request or an answer as an HTTP body."""
    if isinstance(value, Struct):
        return value.to_bytes()
    return b"" if value is None else value


OBLIVIOUS, ACCOUNT, DIRECT, PEER = Way.OBLIVIOUS, Way.ACCOUNT, Way.DIRECT, Way.PEER
HUB, ACCOUNTS, DELIVERIES, ASSETS = (
    ProviderRole.HUB,
    ProviderRole.ACCOUNTS,
    ProviderRole.DELIVERIES,
    ProviderRole.ASSETS,
)

# fmt: off

# --- rooms, at their hub -----------------------------------------------------------------------------

CREATE_ROOM = Endpoint(
    "POST", "/v1/rooms", CreateRoomRequest, NoneType, OBLIVIOUS, HUB,
    "create a room", limit=CreateRoomRequest.LIMIT, status=201,
)
UPDATE_ROOM = Endpoint(
    "POST", "/v1/update/{room}", UpdateRequest, UpdateRoomResponse, OBLIVIOUS, HUB,
    'commit a change of the room (-06, "Update Room State")', limit=UpdateRequest.LIMIT,
)
SUBMIT_MESSAGE = Endpoint(
    "POST", "/v1/submitMessage/{room}", SubmitMessageRequest, UpdateRoomResponse, OBLIVIOUS, HUB,
    'send a message to the room (-06, "Submit a Message")', limit=SubmitMessageRequest.LIMIT,
)
REPORT_COMMIT = Endpoint(
    "POST", "/v1/report/{room}", CommitReport, NoneType, OBLIVIOUS, HUB,
    "report that the last commit can't be processed, or have it undone",
)
SNAPSHOT = Endpoint(
    "POST", "/v1/snapshot/{room}", SnapshotRequest, Snapshot, OBLIVIOUS, HUB,
    "fetch both trees and the policy of the epoch that a Welcome is for",
)
ORDER_LINK = Endpoint(
    "POST", "/v1/links/{room}", LinkOrder, NoneType, OBLIVIOUS, HUB,
    "make a join link known, or revoke one",
)
REQUEST_JOIN = Endpoint(
    "POST", "/v1/joinRequests/{room}", JoinRequest, NoneType, OBLIVIOUS, HUB,
    "ask, with a join link, to be added", limit=JoinRequest.LIMIT,
)
KEY_MATERIAL = Endpoint(
    "POST", "/v1/keyMaterial/{provider}", KeyMaterialRequest, SealedBox, OBLIVIOUS, HUB,
    'have a sealed claim for KeyPackages passed on (-06, "Fetch Key Material")',
)

# --- queues and shelves ------------------------------------------------------------------------------

CREATE_QUEUE = Endpoint(
    "POST", "/v1/queues", QueueOrder, NoneType, OBLIVIOUS, DELIVERIES,
    "make a queue", status=201,
)
DELETE_QUEUE = Endpoint(
    "POST", "/v1/queues/delete", QueueRemoval, NoneType, OBLIVIOUS, DELIVERIES,
    "delete a queue and what is in it",
)
COLLECT = Endpoint(
    "POST", "/v1/queues/collect", CollectRequest, QueuePage, OBLIVIOUS, DELIVERIES,
    "acknowledge messages of a queue and get the next ones (a long poll)",
)
REPLY = Endpoint(
    "POST", "/v1/replyInbox", ReplyDeposit, NoneType, OBLIVIOUS, DELIVERIES,
    "put a sealed connection response into a reply inbox", status=202,
)
UPLOAD_KEY_PACKAGES = Endpoint(
    "POST", "/v1/keyPackages", SetUpload, NoneType, OBLIVIOUS, DELIVERIES,
    "put a set of KeyPackages on a shelf", limit=SetUpload.LIMIT, status=201,
)
ORDER_SHELF = Endpoint(
    "POST", "/v1/keyPackages/order", ShelfOrder, ShelfReport, OBLIVIOUS, DELIVERIES,
    "report on a shelf, take sets back from it, or close it", limit=ShelfOrder.LIMIT,
)

# --- directory and assets ----------------------------------------------------------------------------

TAKE_CONNECTION_PACKAGE = Endpoint(
    "POST", "/v1/connectionPackage/{user}", NoneType, ConnectionPackage, OBLIVIOUS, ACCOUNTS,
    "take one of a user's connection packages",
)
REQUEST_CONNECTION = Endpoint(
    "POST", "/v1/connectionRequest/{user}", Deposit, NoneType, OBLIVIOUS, ACCOUNTS,
    "deposit a sealed connection request for a user", status=202,
)
PUT_ASSET = Endpoint(
    "POST", "/v1/assets", bytes, AssetLocation, OBLIVIOUS, ASSETS,
    "put an encrypted asset on the provider's asset host", limit=MAX_ASSET, status=201,
)
DOWNLOAD_ASSET = Endpoint(
    "GET", "/proxyDownload/{url}", NoneType, bytes, OBLIVIOUS, ASSETS,
    'download an asset through the hub (-06, "Download Files")',
)

# --- accounts, by their owners -----------------------------------------------------------------------

REGISTER = Endpoint(
    "POST", "/v1/account", RegisterRequest, CertificateChain, DIRECT, ACCOUNTS,
    "open an account with its first device", status=201,
)
CLOSE_ACCOUNT = Endpoint(
    "DELETE", "/v1/account/{user}", NoneType, NoneType, ACCOUNT, ACCOUNTS,
    "close the account; nobody can take its name again", limit=0,
)
ADD_DEVICE = Endpoint(
    "POST", "/v1/account/{user}/devices", AddDeviceRequest, CertificateChain, ACCOUNT, ACCOUNTS,
    "add a device", status=201,
)
LIST_DEVICES = Endpoint(
    "GET", "/v1/account/{user}/devices", NoneType, DeviceList, ACCOUNT, ACCOUNTS,
    "list the account's devices", limit=0,
)
REMOVE_DEVICE = Endpoint(
    "DELETE", "/v1/account/{user}/devices/{device}", NoneType, NoneType, ACCOUNT, ACCOUNTS,
    "remove a device; its token is void from then on", limit=0,
)
RENEW_CERTIFICATE = Endpoint(
    "POST", "/v1/account/{user}/certificate", NoneType, CertificateChain, ACCOUNT, ACCOUNTS,
    "renew the certificate of the calling device", limit=0,
)
PUBLISH_CONNECTION_PACKAGES = Endpoint(
    "POST", "/v1/account/{user}/packages", PublishRequest, NoneType, ACCOUNT, ACCOUNTS,
    "publish connection packages", limit=PublishRequest.LIMIT, status=201,
)
COUNT_CONNECTION_PACKAGES = Endpoint(
    "GET", "/v1/account/{user}/packages", NoneType, PackagesLeft, ACCOUNT, ACCOUNTS,
    "count the connection packages that are left", limit=0,
)
WITHDRAW_CONNECTION_PACKAGES = Endpoint(
    "DELETE", "/v1/account/{user}/packages", NoneType, NoneType, ACCOUNT, ACCOUNTS,
    "withdraw the connection packages of all the account's devices", limit=0,
)
LIST_CONNECTION_REQUESTS = Endpoint(
    "GET", "/v1/account/{user}/requests", NoneType, Inbox, ACCOUNT, ACCOUNTS,
    "list the connection requests that wait",
)
FORGET_CONNECTION_REQUEST = Endpoint(
    "DELETE", "/v1/account/{user}/requests/{number}", NoneType, NoneType, ACCOUNT, ACCOUNTS,
    "delete a connection request",
)

# --- providers ---------------------------------------------------------------------------------------

PROVIDER_KEYS = Endpoint(
    "GET", "/.well-known/mimi-mmr-provider", NoneType, ProviderKeys, DIRECT, ACCOUNTS,
    "this provider's signed keys",
)
PROVIDERS = Endpoint(
    "GET", "/v1/providers", NoneType, ProviderList, DIRECT, ACCOUNTS,
    "the signed keys of every provider that this one knows",
)
NOTIFY = Endpoint(
    "POST", "/v1/notify", NotifyRequest, NoneType, PEER, DELIVERIES,
    'fan-out of a hub (-06, "Fanout Messages and Room Events")',
    limit=MAX_NOTIFY, status=201,
)
CLAIM = Endpoint(
    "POST", "/v1/claim", KeyMaterialRequest, SealedBox, PEER, DELIVERIES,
    "a sealed claim for KeyPackages that a hub passes on",
)
DIRECTORY = Endpoint(
    "GET", "/.well-known/mimi-protocol-directory", NoneType, bytes, DIRECT, ACCOUNTS,
    'where the endpoints of MIMI are, in JSON (-06, "Directory")',
)
HEALTH = Endpoint(
    "GET", "/health", NoneType, bytes, DIRECT, ACCOUNTS,
    "whether the server takes requests, in JSON",
)
# fmt: on

# A row may hold any struct, so the two type arguments are `Any`, here only.
ENDPOINTS: tuple[Endpoint[Any, Any], ...] = (
    CREATE_ROOM,
    UPDATE_ROOM,
    SUBMIT_MESSAGE,
    REPORT_COMMIT,
    SNAPSHOT,
    ORDER_LINK,
    REQUEST_JOIN,
    KEY_MATERIAL,
    CREATE_QUEUE,
    DELETE_QUEUE,
    COLLECT,
    REPLY,
    UPLOAD_KEY_PACKAGES,
    ORDER_SHELF,
    TAKE_CONNECTION_PACKAGE,
    REQUEST_CONNECTION,
    PUT_ASSET,
    DOWNLOAD_ASSET,
    REGISTER,
    CLOSE_ACCOUNT,
    ADD_DEVICE,
    LIST_DEVICES,
    REMOVE_DEVICE,
    RENEW_CERTIFICATE,
    PUBLISH_CONNECTION_PACKAGES,
    COUNT_CONNECTION_PACKAGES,
    WITHDRAW_CONNECTION_PACKAGES,
    LIST_CONNECTION_REQUESTS,
    FORGET_CONNECTION_REQUEST,
    PROVIDER_KEYS,
    PROVIDERS,
    NOTIFY,
    CLAIM,
    DIRECTORY,
    HEALTH,
)


def endpoints_table() -> str:
    """Return the table as Markdown, for the documents: a section for each way, a line for each endpoint."""
    return "\n".join(line for way in Way for line in _section(way))


def _section(way: Way) -> Iterator[str]:
    yield f"**{way.name.capitalize()}**: {way.value}.\n"
    yield "| endpoint | request | answer | limit, bytes | status | answered by | what for |"
    yield "| --- | --- | --- | --- | --- | --- | --- |"
    for row in ENDPOINTS:
        if row.way is way:
            bodies = f"{_name(row.request)} | {_name(row.answer)}"
            facts = f"{row.limit} | {row.status} | {row.role} | {row.summary}"
            yield f"| `{row.method} {row.template}` | {bodies} | {facts} |"
    yield ""


def _name(kind: type) -> str:
    if kind is NoneType:
        return "-"
    return "bytes" if kind is bytes else f"`{kind.__name__}`"
