"""Replies: an endpoint's answer, or an error of this package as a problem document with its status."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web

from mimi_mmr.errors import (
    BodyTooLarge,
    HubRefusal,
    IdentityError,
    InvalidUri,
    MmrError,
    NoKeyPackages,
    NotAllowed,
    ParseError,
    PeerError,
    QueueFull,
    RoomError,
    SealedBoxRejected,
    Unauthorized,
    UnknownQueue,
    UnknownRoom,
    WrongEpoch,
)
from mimi_mmr.protocol.problems import PROBLEM, write_problem

CONTENT_TYPE = "application/octet-stream"

_STATUS: tuple[tuple[type[MmrError], int], ...] = (
    (BodyTooLarge, 413),
    (ParseError, 400),
    (InvalidUri, 400),
    (Unauthorized, 401),
    (UnknownRoom, 404),
    (UnknownQueue, 404),
    (NoKeyPackages, 404),
    (WrongEpoch, 409),
    (NotAllowed, 403),
    (QueueFull, 507),
    (PeerError, 502),
    (SealedBoxRejected, 400),
    (IdentityError, 400),
    (HubRefusal, 400),
    (RoomError, 400),
)


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: status, body and content type."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    content_type: str = CONTENT_TYPE

    def to_aiohttp(self) -> web.Response:
        """Return the reply as aiohttp sends it."""
        return web.Response(status=self.status, body=self.body, content_type=self.content_type)


def problem(status: int, code: str, message: str) -> Reply:
    """Return a problem document (RFC 9457)."""
    return Reply(status, write_problem(code, message), PROBLEM)


def error_reply(error: MmrError) -> Reply:
    """Return the reply for an error of this package."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 400)
    return problem(status, error.code, str(error))
