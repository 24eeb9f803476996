"""What people see: cleaned of all that would command a terminal; tables on one, plain lines elsewhere."""

from __future__ import annotations

import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from datetime import UTC, datetime

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

_USER = re.compile(r"mimi://([a-z0-9.-]+)/u/([a-z0-9](?:[a-z0-9._~-]*[a-z0-9])?)")
_SPACES = {"\n": "\n", "\t": " "}


def clean(text: str) -> str:
    """Text of others without control characters, escape sequences, and marks that turn the line's direction."""
    return "".join(_SPACES.get(letter) or (letter if _harmless(letter) else "\ufffd") for letter in text)


def _harmless(letter: str) -> bool:
    kind = unicodedata.category(letter)
    # Joiners make letters and emoji of some scripts; all other format characters hide or reorder.
    return kind not in ("Cc", "Cf", "Cs", "Co", "Zl", "Zp") or letter in "\u200c\u200d"


def one_line(text: str) -> str:
    """Cleaned, and on one line."""
    return clean(text).replace("\n", " ")


def say(text: str) -> None:
    """A line for people, on stdout."""
    typer.echo(clean(text))


def note(text: str) -> None:
    """A line beside the result, on stderr."""
    typer.echo(clean(with_addresses(text)), err=True)


def show_json(value: object, *, indent: int | None = None) -> None:
    """One JSON document on stdout, in ASCII, so that nothing in it means anything to a terminal."""
    typer.echo(json.dumps(value, indent=indent))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A table on a terminal; elsewhere lines with tabs between the values, and no heading."""
    cells = [[one_line(str(value)) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for row in cells:
            typer.echo("\t".join(row))
    elif not cells:
        typer.echo(empty)
    else:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in cells:
            table.add_row(*map(Text, row))
        Console().print(table)


def show_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values, one a line."""
    width = max(len(name) for name, _ in fields) + 2
    for name, value in fields:
        typer.echo(f"{name + ':':<{width}}{one_line(str(value))}")


def when(seconds: int) -> str:
    """A time, as this machine's clock tells it."""
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M")


def person(uri: str | None) -> str:
    """`bob@b.example` of a user's URI."""
    if uri is None:
        return "?"
    domain, _, name = uri.removeprefix("mimi://").partition("/u/")
    return f"{name}@{domain}"


def with_addresses(text: str) -> str:
    """Users' URIs in a sentence, as people write them."""
    return _USER.sub(r"\2@\1", text)


def show_message(message: dict[str, object]) -> None:
    """A message: when, from whom and how sure that is, and what; further lines are indented."""
    source = message["from"]
    assert isinstance(source, dict)  # noqa: S101  # as documented
    names = {
        "verified": person(source["user"]),
        "unverified": "UNVERIFIED",
        "hidden": f"hidden {str(source['pseudonym']).rpartition('/')[2][:8]}",
    }
    who = "me" if message["own"] else names.get(str(source["standing"]), "UNVERIFIED")
    asset = message.get("asset")
    if isinstance(asset, dict):
        text = f"[file {message['number']}: {one_line(str(asset['name']))}, {asset['size']} bytes]"
    else:
        text = clean(str(message["text"])).replace("\n", "\n    ")
    received = message["received"]
    stamp = when(received) if isinstance(received, int) else ""
    typer.echo(f"{stamp}  {one_line(who)}: {text}")
