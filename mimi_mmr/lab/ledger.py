"""The ledger: which party saw what, read from the data that the parties hold and received.

A run plants facts. Each party's view, by role, is its database, its logs and every frame it received or sent, peer
address included. The ledger looks for every fact in every view (raw, hex, base64 at any alignment, URL-encoded),
and for values that tie one person's leaves together. A sighting that is not by design (README, "What each party
learns") fails the run.
"""

from __future__ import annotations

import base64
import enum
import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

from ahocorasick_rs import BytesAhoCorasick

WINDOW = 16
_SEPARATOR = b"\n\0\n"
_ESCAPE = re.compile("%[0-9A-F]{2}")


class FactKind(enum.StrEnum):
    """The kind of a planted fact."""

    NAME = "name"
    DEVICE = "device"
    ADDRESS = "address"
    REAL_KEY = "real key"
    PSEUDONYM = "pseudonym"
    ROOM = "room"
    LINK_KEY = "link key"
    CONNECTION_KEY = "connection"
    FETCH_TOKEN = "fetch token"  # noqa: S105  # a column's name
    QUEUE = "queue"
    CONTENT = "content"


class PartyRole(enum.StrEnum):
    """The role in which a party saw something; each role has its own database."""

    ACCOUNTS = "accounts"
    DELIVERIES = "deliveries"
    HUB = "hub"
    RELAY = "relay"
    GATEWAY = "gateway"
    ASSETS = "assets"


@dataclass(frozen=True, slots=True)
class Fact:
    """A planted fact: its kind, the person and their provider, and the value to search for."""

    kind: FactKind
    about: str
    provider: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class View:
    """All that one party saw in one role."""

    party: str
    role: PartyRole
    content: bytes = field(repr=False)


class Verdict(enum.StrEnum):
    """One cell of the matrix."""

    ABSENT = "-"
    BY_DESIGN = "by design"
    SEEN = "SEEN"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A fact that a view holds, and the encoding in which it was found."""

    view: View
    fact: Fact
    encoding: str
    by_design: bool

    def __str__(self) -> str:
        return f"{self.view.party} as {self.view.role} saw {self.fact.about}'s {self.fact.kind} ({self.encoding})"


# --- what may be learnt (README, "What each party learns") ---------------------------------------------


def by_design(view: View, fact: Fact) -> bool:
    """Say whether the role has to learn the fact for its work: the README's table as code."""
    own = view.party == fact.provider
    match view.role:
        case PartyRole.ACCOUNTS:
            return own and fact.kind in (FactKind.NAME, FactKind.DEVICE, FactKind.ADDRESS, FactKind.REAL_KEY)
        case PartyRole.RELAY:
            return fact.kind is FactKind.ADDRESS
        case PartyRole.HUB:
            return fact.kind in (FactKind.PSEUDONYM, FactKind.ROOM)
        case PartyRole.DELIVERIES:
            mine = own and fact.kind in (FactKind.QUEUE, FactKind.FETCH_TOKEN)
            return mine or fact.kind in (FactKind.PSEUDONYM, FactKind.ROOM)
        case PartyRole.GATEWAY:
            mine = own and fact.kind in (FactKind.NAME, FactKind.QUEUE)
            return mine or fact.kind in (FactKind.PSEUDONYM, FactKind.ROOM)
        case PartyRole.ASSETS:
            return False


# --- searching ---------------------------------------------------------------------------------------


def encodings(value: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the forms in which a value may stand in a view; base64 in each of its three alignments."""
    yield "raw", value
    yield "hex", value.hex().encode()
    yield "hex", value.hex().upper().encode()
    for shift in range(3):
        # Only characters that don't depend on neighbouring bytes: whole groups of three bytes.
        inner = value[shift : len(value) - (len(value) - shift) % 3]
        if len(inner) >= 6:
            yield "base64", base64.b64encode(inner)
            yield "base64url", base64.urlsafe_b64encode(inner)
    for form in _url_encodings(value):
        if form != value:
            yield "url", form


def _url_encodings(value: bytes) -> Iterator[bytes]:
    """Percent-encoded: as little as must be, with "/" left alone, as a form, and every byte; either case of hex."""
    whole = "".join(f"%{byte:02X}" for byte in value)
    for text in (quote(value, safe=""), quote(value), quote_plus(value), whole):
        yield text.encode()
        yield _ESCAPE.sub(lambda escape: escape[0].lower(), text).encode()


def search(
    views: Sequence[View], facts: Sequence[Fact], allowed: Callable[[View, Fact], bool] = by_design
) -> list[Sighting]:
    """Find every fact in every view that holds it, once, with the first encoding it was found in."""
    meanings: dict[bytes, list[tuple[Fact, str]]] = {}
    for fact in facts:
        for encoding, form in encodings(fact.value):
            meanings.setdefault(form, []).append((fact, encoding))
    forms = list(meanings)
    automaton = BytesAhoCorasick(forms)  # searches for all forms in one pass
    found = []
    for view in views:
        matches = automaton.find_matches_as_indexes(view.content, overlapping=True)
        seen: dict[int, tuple[Fact, str]] = {}
        for index in dict.fromkeys(match[0] for match in matches):
            for fact, encoding in meanings[forms[index]]:
                seen.setdefault(id(fact), (fact, encoding))
        found += [Sighting(view, fact, encoding, allowed(view, fact)) for fact, encoding in seen.values()]
    return found


@dataclass(frozen=True, slots=True)
class Matrix:
    """Party and role by kind of fact."""

    cells: dict[tuple[str, PartyRole], dict[FactKind, Verdict]]
    violations: tuple[Sighting, ...]


def matrix(views: Sequence[View], facts: Sequence[Fact], sightings: Sequence[Sighting]) -> Matrix:
    """Sum up sightings; a cell is `SEEN` as soon as one of its facts was seen without being by design."""
    kinds = dict.fromkeys(fact.kind for fact in facts)
    cells = {(view.party, view.role): dict.fromkeys(kinds, Verdict.ABSENT) for view in views}
    for sighting in sightings:
        row = cells[sighting.view.party, sighting.view.role]
        if not sighting.by_design:
            row[sighting.fact.kind] = Verdict.SEEN
        elif row[sighting.fact.kind] is Verdict.ABSENT:
            row[sighting.fact.kind] = Verdict.BY_DESIGN
    return Matrix(cells, tuple(sighting for sighting in sightings if not sighting.by_design))


# --- joining -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trace:
    """Data in one place that belongs to one person, as the run knows and the party must not."""

    person: str
    place: str
    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class SharedValue:
    """Two traces of one person, in different places, that share a value which no other person's traces have."""

    person: str
    places: tuple[str, str]
    shared: bytes = field(repr=False)

    def __str__(self) -> str:
        return f"{self.person}'s traces in {self.places[0]} and {self.places[1]} share a value"


def windows(data: bytes, size: int = WINDOW) -> set[bytes]:
    """Return every run of `size` bytes."""
    return set(_runs(data, size))


def _runs(data: bytes, size: int) -> Iterator[bytes]:
    return (data[start : start + size] for start in range(len(data) - size + 1))


def links(traces: Sequence[Trace]) -> list[SharedValue]:
    """Find traces of one person in two places that an equal value of at least 16 bytes links.

    Values that traces of different persons share (domains, capabilities, lifetimes of one slot) link nobody. Nor
    does a run of bytes of which half a window or more is such a constant. Returns one link for each person and pair
    of places.
    """
    common = _common(traces, WINDOW // 2)
    places: dict[tuple[str, bytes], str] = {}
    found: dict[tuple[str, str, str], SharedValue] = {}
    for trace in traces:
        for run in _runs(trace.data, WINDOW):
            first = places.setdefault((trace.person, run), trace.place)
            if first != trace.place and windows(run, WINDOW // 2).isdisjoint(common):
                found.setdefault(
                    (trace.person, first, trace.place), SharedValue(trace.person, (first, trace.place), run)
                )
    return list(found.values())


def _common(traces: Sequence[Trace], size: int) -> set[bytes]:
    """Return the runs of bytes that traces of at least two persons hold."""
    owners: dict[bytes, str] = {}
    common: set[bytes] = set()
    for trace in traces:
        for run in _runs(trace.data, size):
            if owners.setdefault(run, trace.person) != trace.person:
                common.add(run)
    return common


# --- views -------------------------------------------------------------------------------------------


def database_content(path: Path) -> bytes:
    """Read a SQLite database: its files as they lie (free pages, log), and every value of every row whole."""
    parts = [file.read_bytes() for file in sorted(path.parent.glob(f"{path.name}*")) if file.is_file()]
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):  # noqa: S608  # names from the schema
                parts += [value if isinstance(value, bytes) else str(value).encode() for value in row]
    finally:
        connection.close()
    return _SEPARATOR.join(parts)


def frames_content(path: Path) -> bytes:
    """Recorded frames: peer, request line, headers, and bodies as they were."""
    parts: list[bytes] = []
    with path.open() as lines:
        for line in lines:
            frame = json.loads(line)
            head = (frame["peer"], frame["method"], frame["path"], str(frame["status"]))
            parts += [
                " ".join(head).encode(),
                *(f"{name}: {value}".encode() for name, value in frame["headers"]),
            ]
            parts.append(base64.b64decode(frame["body"]))
    return _SEPARATOR.join(parts)


def provider_views(party: str, data_dir: Path, record_dir: Path, logs: Iterable[Path]) -> list[View]:
    """Return a provider's views, one for each role; its logs count for every role."""
    logged = _SEPARATOR.join(path.read_bytes() for path in logs)
    views = []
    for role in PartyRole:
        parts = [logged]
        database = data_dir / f"{role}.sqlite"
        if database.exists():
            parts.append(database_content(database))
        frames = record_dir / f"{role}.frames.jsonl"
        if frames.exists():
            parts.append(frames_content(frames))
        views.append(View(party, role, _SEPARATOR.join(parts)))
    return views


def asset_host_view(party: str, data_dir: Path, record_dir: Path, logs: Iterable[Path]) -> View:
    """Return an asset host's view: what lies there, and what it received."""
    parts = [path.read_bytes() for path in (*logs, *sorted(data_dir.glob("*")))]
    frames = record_dir / "assets.frames.jsonl"
    if frames.exists():
        parts.append(frames_content(frames))
    return View(party, PartyRole.ASSETS, _SEPARATOR.join(parts))
