"""Codes, links, URIs and names as people paste them."""

from __future__ import annotations

import re
import unicodedata

from mimi_mmr.errors import InvalidUri

_AROUND = "<>()[]`\"'\u2018\u2019\u201a\u201b\u201c\u201d\u201e\u201f\u2039\u203a\u00ab\u00bb"
MOST_QUOTED = 40
_SPACES = " \t\r\n\xa0"
_SCHEME = re.compile(r"mimi(?:-[a-z]+)*:", re.IGNORECASE)
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_SHORT_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f-]*)?", re.IGNORECASE)


def unwrapped(text: str) -> str:
    """Return a code, link, id or address without what mail programs, chats and people put into it and around it.

    These are brackets, quotation marks, spaces and invisible characters. A URI is also freed of spaces and line
    breaks inside, and its scheme may be in any case. All else stays, so that a parser refuses what was altered.
    """
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    joined = "".join(visible.split()).strip(_AROUND)
    scheme = _SCHEME.match(joined)
    if scheme:
        return scheme[0].lower() + joined[scheme.end() :]
    return visible.strip(_AROUND + _SPACES)


_KINDS = {
    "mimi-connect:": ("a contact code", "`mimi-mmr contact add CODE` takes it"),
    "mimi-join:": ("a join link", "`mimi-mmr room join LINK` takes it"),
}


def check_kind(text: str, scheme: str) -> None:
    """Refuse a code or link of another scheme than the wanted one. Raise `InvalidUri`, which says what it is.

    A text without any such scheme is for a parser to refuse.
    """
    for other, (what, taken_by) in _KINDS.items():
        if text.startswith(other) and other != scheme:
            raise InvalidUri(f"this is {what}, and {_KINDS[scheme][0]} was expected").with_hint(taken_by)


def plain_name(text: str) -> str:
    """Return a name in the form in which names are stored and compared.

    That is NFC, without spaces around it, and with one space for each run of spaces and line breaks: what is shown
    can be typed.
    """
    return " ".join(unicodedata.normalize("NFC", text).split())


def quoted(text: str) -> str:
    """Return what a person typed, for an error about it: at most its first 40 characters.

    The secret of a join link comes after these.
    """
    line = " ".join(text.split())
    return f'"{line}"' if len(line) <= MOST_QUOTED else f'"{line[:MOST_QUOTED]}…"'


def is_reference(text: str) -> bool:
    """Return whether a text has the form of a room's id, a URI, a code, a link or an address.

    Such a text never stands for a room whose name it is: any member can give a room any name.
    """
    whole = unwrapped(text)
    return bool(_SCHEME.match(whole) or _ADDRESS.fullmatch(whole) or _SHORT_ID.fullmatch(whole))
