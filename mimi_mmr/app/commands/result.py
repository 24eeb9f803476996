"""The results of commands: pydantic models whose fields are the keys that `--json` prints."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mimi_mmr.app.commands.errors import BadRequest

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class Result(BaseModel):
    """What a command gives back. A field that was not set is left out of the JSON."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", defer_build=True, validate_by_name=True, validate_by_alias=True
    )


class NoResult(Result):
    """Nothing to tell."""


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def to_json(kind: Any, value: Any) -> Any:
    """Return a result of this type as JSON values."""
    return _adapter(kind).dump_python(value, mode="json", by_alias=True, exclude_unset=True)


def read(kind: Any, value: Any) -> Any:
    """Return the result of this type that JSON values hold. Raise `BadRequest` if they hold none."""
    try:
        return _adapter(kind).validate_python(value)
    except ValidationError as error:
        field, problem = next(problems(error))
        raise BadRequest(f"the agent's answer can't be read: {field}: {problem}") from None


def problems(error: ValidationError) -> Iterator[tuple[str, str]]:
    """Return (field, what is wrong with it) for each problem; values are not repeated, they may be secret."""
    for detail in error.errors(include_url=False, include_input=False):
        yield str(detail["loc"][0]) if detail["loc"] else "", _words(detail)


def _words(detail: ErrorDetails) -> str:
    cause = detail.get("ctx", {}).get("error")
    return str(cause) if cause is not None else detail["msg"][:1].lower() + detail["msg"][1:]
