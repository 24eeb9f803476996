"""Problem details (RFC 9457) of Oblivious HTTP (RFC 9458, sections 5.3 and 6.5.2)."""

from __future__ import annotations

import json
from typing import Final

MEDIA_TYPE: Final = "application/problem+json"
OHTTP_KEY: Final = "https://iana.org/assignments/http-problem-types#ohttp-key"
DATE: Final = "https://iana.org/assignments/http-problem-types#date"
BLANK: Final = "about:blank"


def encode_problem(kind: str, title: str) -> bytes:
    """Return problem details as JSON."""
    return json.dumps({"type": kind, "title": title}).encode()


def decode_problem(media_type: str | None, content: bytes) -> str | None:
    """Return the problem's type, or None if the content is not problem details."""
    if media_type is None or media_type.partition(";")[0].strip().lower() != MEDIA_TYPE:
        return None
    try:
        problem = json.loads(content)
    except ValueError:
        return None
    kind = problem.get("type") if isinstance(problem, dict) else None
    return kind if isinstance(kind, str) else None
