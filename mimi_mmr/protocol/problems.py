"""Problem documents (RFC 9457): the wire form of this package's errors, with their stable codes."""

from __future__ import annotations

import json

from mimi_mmr.errors import MmrError, PeerError, from_code

PROBLEM = "application/problem+json"
PROBLEM_URN = "urn:mimi-mmr:error:"
MAX_PROBLEM = 1 << 16
MAX_TITLE = 512


def write_problem(code: str, message: str) -> bytes:
    """Return the document for an error's code and message."""
    return json.dumps({"type": PROBLEM_URN + code, "title": message}).encode()


def read_problem(content: bytes) -> MmrError:
    """Return the error that a document names; `PeerError` if the document is malformed or its code is unknown."""
    if len(content) > MAX_PROBLEM:
        return PeerError("answered with a problem document above its limit")
    try:
        document = json.loads(content)
        kind, title = document["type"], document["title"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return PeerError("answered with a malformed problem document")
    if not isinstance(kind, str) or not isinstance(title, str):
        return PeerError("answered with a malformed problem document")
    return from_code(kind.removeprefix(PROBLEM_URN), title[:MAX_TITLE])
