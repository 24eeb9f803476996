"""Error messages for settings: the setting, its variable, and what was expected; never the value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings

from mimi_mmr.provider.settings.names import alike, every

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


def explain(error: ValidationError, kind: type[BaseSettings], prefix: str) -> str:
    """Return one line for each setting that is wrong."""
    known = [setting.name for setting in every(kind)]
    # a value may be a secret: only the place is named
    items = error.errors(include_input=False, include_url=False)
    return "\n".join(line for item in items for line in _lines(item, known, prefix))


def _lines(item: Any, known: list[str], prefix: str) -> Iterator[str]:
    parts = [str(part) for part in item["loc"] if part != "[key]"]
    place, top = ".".join(parts), parts[0] if parts else ""
    if item["type"] == "extra_forbidden":
        yield f"{place}: no such setting{alike(place, known)}"
    elif item["type"] == "missing" and place not in known:  # a whole table
        for name in known:
            if name in (f"{place}.certificate", f"{place}.key"):
                yield f"{name} (or {prefix}{name.replace('.', '__').upper()}): not set"
    else:
        inside = top == "peers" or any(part.isdecimal() for part in parts)  # it has no variable
        name = top if top == "peers" else ".".join(part for part in parts if not part.isdecimal())
        said = "not set" if item["type"] == "missing" else item["msg"].removeprefix("Value error, ")
        said = _WORDS.get(item["type"], said).format(**item.get("ctx", {}))
        known_as = f"{prefix}{name.replace('.', '__').upper()}"
        yield f"{place} (or {'in ' if inside else ''}{known_as}): {said}"
