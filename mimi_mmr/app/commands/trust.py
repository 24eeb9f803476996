"""Trust anchors as they come with a command: the command line reads the files, since the agent opens none."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from mimi_mmr.app.commands.context import Anchors
from mimi_mmr.app.commands.errors import BadRequest

MAX_ANCHORS = 1 << 22  # bytes

_Pem = Annotated[str, StringConstraints(max_length=MAX_ANCHORS)]


class _Content(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", hide_input_in_errors=True, defer_build=True)

    trust: dict[_Pem, _Pem]
    tls_ca: _Pem | None


def anchors(content: bytes) -> Anchors:
    """Return the trust anchors that came with a command. Raise `BadRequest`."""
    try:
        found = _Content.model_validate_json(content)
    except ValidationError:
        raise BadRequest("expected trust anchors with this command") from None
    return Anchors(found.trust, found.tls_ca)
