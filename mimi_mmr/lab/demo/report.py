"""The two tables at the end: who saw what, and what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from mimi_mmr.lab.demo.costs import Cost
from mimi_mmr.lab.ledger import FactKind, Matrix, SharedValue, Verdict

PARTY_WIDTH = 29
CELL_WIDTH = 12
SHOWN = 20
WHO_SAW_WHAT = "Who saw what (read from databases, logs and received frames)"
_STYLE = {Verdict.ABSENT: "dim", Verdict.BY_DESIGN: "yellow", Verdict.SEEN: "bold red"}


def who_saw_what(console: Console, matrix: Matrix, links: Sequence[SharedValue]) -> None:
    """Print the table of party and role by kind of fact, and then every violation."""
    kinds = list(FactKind)
    fit = max(1, (console.width - PARTY_WIDTH) // CELL_WIDTH)
    rounds = -(-len(kinds) // fit)
    share = -(-len(kinds) // rounds)  # the terminal's width, for all tables
    for number, start in enumerate(range(0, len(kinds), share), start=1):
        title = WHO_SAW_WHAT if rounds == 1 else f"{WHO_SAW_WHAT}, {number} of {rounds}"
        console.print(_table(title, matrix, kinds[start : start + share]))
    _listed(console, "not allowed", matrix.violations)
    _listed(console, "linked", links)
    if not links:
        console.print(
            "No value of 16 bytes or more ties a person's leaves in two rooms, or a leaf to an account."
        )


def _listed(console: Console, what: str, findings: Sequence[object]) -> None:
    for finding in findings[:SHOWN]:
        console.print(f"[bold red]{what}:[/] {finding}")
    if len(findings) > SHOWN:
        console.print(f"[bold red]{what}:[/] and {len(findings) - SHOWN} more")


def _table(title: str, matrix: Matrix, kinds: Sequence[FactKind]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("party, role", no_wrap=True)
    for kind in kinds:
        table.add_column(kind.value, justify="center")
    party = ""
    for (name, role), row in matrix.cells.items():
        if party and name != party:
            table.add_section()
        party = name
        table.add_row(f"{name}, {role}", *(_cell(row.get(kind, Verdict.ABSENT)) for kind in kinds))
    return table


def _cell(verdict: Verdict) -> str:
    return f"[{_STYLE[verdict]}]{verdict.value}[/]"


def as_json(matrix: Matrix, links: Sequence[SharedValue], costs: Sequence[Cost]) -> dict[str, Any]:
    """Return both tables as JSON values: who saw what, what they must not have seen, and what it cost."""
    return {
        "parties": [
            {
                "party": party,
                "role": role,
                "saw": {kind.value: verdict.value for kind, verdict in row.items()},
            }
            for (party, role), row in matrix.cells.items()
        ],
        "not_allowed": [str(sighting) for sighting in matrix.violations],
        "linked": [str(link) for link in links],
        "costs": [asdict(cost) for cost in merge(costs)],
    }


def what_it_cost(console: Console, lines: Sequence[Cost]) -> None:
    """Print time, requests and bytes of each operation; repeated ones are averaged."""
    table = Table(title="What it cost (people's side, for one operation)", title_justify="left")
    table.add_column("operation")
    for heading in ("times", "ms", "requests", "bytes up", "bytes down"):
        table.add_column(heading, justify="right")
    for cost in merge(lines):
        numbers = (cost.seconds * 1000, cost.requests, cost.sent, cost.received)
        table.add_row(
            cost.operation, f"{cost.times:,}", *(f"{number / cost.times:,.0f}" for number in numbers)
        )
    console.print(table)


def merge(lines: Sequence[Cost]) -> list[Cost]:
    """Make one line for each operation."""
    merged: dict[str, Cost] = {}
    for line in lines:
        total = merged.setdefault(line.operation, Cost(line.operation, 0))
        total.times += line.times
        total.seconds += line.seconds
        total.requests += line.requests
        total.sent += line.sent
        total.received += line.received
    return list(merged.values())
