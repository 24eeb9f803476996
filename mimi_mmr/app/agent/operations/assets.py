"""Files: put for a room, and fetched from it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimi_mmr.app.agent.errors import AgentError, NotFound
from mimi_mmr.app.agent.operations.registry import operation
from mimi_mmr.app.agent.operations.rooms import the_room
from mimi_mmr.app.agent.wire import Given
from mimi_mmr.protocol.content import AssetReference, ContentKind

if TYPE_CHECKING:
    from mimi_mmr.app.agent.agent import Agent
    from mimi_mmr.app.agent.server import Say

MAX_ASSET = 64 << 20
MAX_NAME = 200


@operation("asset.put")
async def put(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Encrypt a file, put it on one's provider's asset host, tell the room."""
    joined, path = the_room(agent, given), agent.given_path(given, "file")
    size = path.stat().st_size
    if size > MAX_ASSET or not path.is_file():
        raise AgentError(f"expected a file of at most {MAX_ASSET >> 20} MiB, got {size} bytes")
    reference = await agent.client.send_asset(joined, path.name[:MAX_NAME], path.read_bytes())
    agent.happened.ring()
    return {"room": str(joined.uri), "name": reference.name, "size": reference.size}


@operation("asset.get")
async def get(agent: Agent, given: Given, _: Say) -> dict[str, Any]:
    """Fetch a file by its message's number, into a new file: nothing is ever overwritten."""
    joined, number = the_room(agent, given), int(given.number("number"))
    message = joined.messages.get(number)
    if message is None or message.content.kind is not ContentKind.ASSET:
        raise NotFound(
            f"message {number} of this room is no file: mimi-mmr room read --all shows their numbers"
        )
    reference = AssetReference.from_bytes(message.content.body)
    out = agent.given_path(given, "out")
    target = out / safe_name(reference.name) if out.is_dir() else out
    if target.exists():
        raise AgentError(f"{target} exists; nothing is overwritten: --out says where else")
    _write_new(target, await agent.client.fetch_asset(joined, message))
    return {"room": str(joined.uri), "number": number, "file": str(target), "size": reference.size}


def safe_name(name: str) -> str:
    """A file's name as its sender gave it, without what leads elsewhere, hides, or can't be typed."""
    last = name.replace("\\", "/").rpartition("/")[2]
    safe = "".join(letter if letter.isprintable() else "_" for letter in last).strip().lstrip(".- ")
    return safe.encode()[:MAX_NAME].decode(errors="ignore") or "file"


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
