"""Names of settings: their environment variables, their table, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel
from pydantic_settings import BaseSettings

from mimi_mmr.provider.settings.model import PREFIX


class Setting(NamedTuple):
    """One setting as a row of a table, with its default or a description of it."""

    name: str
    default: str
    description: str


def every(kind: type[BaseModel], above: str = "", missing: str = "must be given") -> Iterator[Setting]:
    """Yield every setting; the settings of a table follow each other."""
    for name, field in kind.model_fields.items():
        table = _table(field.annotation)
        if table is not None:
            needed = missing if field.is_required() else f"must be given in `[{name}]`"
            yield from every(table, f"{above}{name}.", needed)
        else:
            default = missing if field.is_required() else _shown(field.default)
            yield Setting(above + name, default, field.description or "")


def _table(annotation: Any) -> type[BaseModel] | None:
    for part in (annotation, *get_args(annotation)):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part
    return None


def _shown(value: object) -> str:
    if value is None or value in ({}, ()):
        return "none"
    if isinstance(value, int) and value >= 1 << 20 and value % (1 << 20) == 0:
        return f"`{value}` ({value >> 20} MiB)"
    return f"`{value}`"


def variable(kind: type[BaseSettings], name: str) -> str:
    """Return the environment variable of a setting whose name is written with dots."""
    return kind.model_config.get("env_prefix", "") + name.replace(".", "__").upper()


def settings_table(kind: type[BaseSettings]) -> str:
    """Return every setting with its default, as a table in Markdown."""
    lines = ["| setting | default | what it is |", "| --- | --- | --- |"]
    for name, default, description in every(kind):
        lines.append(f"| `{name}` | {default} | {description} |")
    return "\n".join(lines)


def alike(name: str, known: list[str]) -> str:
    """Return a hint with the known name that is most similar to `name`; of equally similar names, the first."""
    bare = {_bare(one): one for one in reversed(known)}
    close = difflib.get_close_matches(_bare(name), bare, 1)
    return f"; did you mean {bare[close[0]]}?" if close else ""


def _bare(name: str) -> str:
    return name.removeprefix(PREFIX).replace("_", "").upper()
