"""`mimi-mmr demo`: it ends well, alone and in company; and it does not, when something was seen."""

from __future__ import annotations

import io
import json
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from mimi_mmr.app.cli import app
from mimi_mmr.client.key_packages import maker
from mimi_mmr.crypto.signing import SigningKey
from mimi_mmr.lab.demo.run import EXIT_FAILED, EXIT_SEEN, run_demo
from mimi_mmr.lab.demo.story import Story
from mimi_mmr.lab.demo.world import PROVIDERS
from mimi_mmr.lab.ledger import Fact, FactKind, PartyRole, View, database_content, search
from mimi_mmr.protocol.connections import ConnectionPackage
from mimi_mmr.protocol.credentials import DeviceIdentity

TABLES = ("Who saw what", "What it cost", "Nobody saw what they must not see.")


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "mimi_mmr", "demo", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()


def told(members: int = 0, keep: Path | None = None) -> tuple[int, str]:
    """Run the demonstration in this process; its status, and what it printed."""
    output = io.StringIO()
    reports: list[dict[str, Any]] = []
    console = Console(file=output, width=200, highlight=False)
    status = run_demo(members, keep, 1, console, report=reports.append)
    for report in reports:  # what a program gets says the same
        json.dumps(report)
        assert bool(report["not_allowed"] or report["linked"]) == (status == EXIT_SEEN)
        assert {"party", "role", "saw"} == set(report["parties"][0])
    assert len(reports) == (status != EXIT_FAILED)
    return status, output.getvalue()


def identities(root: Path) -> Iterator[Fact]:
    """Who there was, as their own providers hold it: names and identity keys."""
    for domain in PROVIDERS:
        with sqlite3.connect(root / domain / "data" / "accounts.sqlite") as database:
            for (uri,) in database.execute("SELECT uri FROM users"):
                yield Fact(FactKind.NAME, uri, domain, uri.rpartition("/")[2].encode())
            for (package,) in database.execute("SELECT package FROM connection_packages"):
                credential = ConnectionPackage.from_bytes(package).credential
                yield Fact(FactKind.REAL_KEY, "somebody", domain, credential.identity_key)
        database.close()


def assert_no_hub_knows_anybody(root: Path, people: int) -> None:
    facts = list(identities(root))
    assert len({fact.value for fact in facts if fact.kind is FactKind.NAME}) == people
    for domain in PROVIDERS:
        path = root / domain / "data" / "hub.sqlite"
        assert search([View(domain, PartyRole.HUB, database_content(path))], facts) == []
    accounts = View("all", PartyRole.HUB, database_content(root / "a.example" / "data" / "accounts.sqlite"))
    assert search([accounts], facts)  # they can be found where they are


@pytest.mark.nightly
def test_two_demonstrations_at_once_end_well_and_print_both_tables() -> None:
    with started("--seed", "1") as one, started("--seed", "1") as other:
        for process in (one, other):
            out, err = process.communicate(timeout=120)
            assert process.returncode == 0, out + err
            assert err == ""
            for words in TABLES:
                assert words in out
            assert "Dave's link stays shut" in " ".join(out.split())


@pytest.mark.nightly
def test_a_fuller_room_ends_as_well_and_no_hub_knows_anybody(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    status, printed = told(members=6, keep=kept)
    assert status == 0, printed
    assert "6 of 6 more members are in the room" in printed
    assert_no_hub_knows_anybody(kept, 4 + 6)


@pytest.mark.nightly
def test_a_room_of_two_hundred_more_ends_as_well(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    with started("--members", "200", "--keep", str(kept)) as process:
        out, err = process.communicate(timeout=900)
    assert process.returncode == 0, out + err
    assert_no_hub_knows_anybody(kept, 4 + 200)


def test_a_component_that_logs_a_name_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python loads this module at the start of each provider's process."""
    (tmp_path / "sitecustomize.py").write_text(
        "import logging\n"
        "from mimi_mmr.provider.accounts import AccountService\n"
        "register = AccountService.register\n"
        "async def leaky(self, call):\n"
        "    logging.getLogger('mimi_mmr').warning('hello %s', call.request.user)\n"
        "    return await register(self, call)\n"
        "AccountService.register = leaky\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    status, printed = told()
    assert status == EXIT_SEEN, printed
    assert "not allowed: a.example as hub saw Alice's name (raw)" in printed
    assert "findings that are not allowed" in printed
    assert TABLES[2] not in printed


@pytest.mark.nightly
def test_a_key_that_is_used_in_two_rooms_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    keys: dict[str, SigningKey] = {}
    prepare = maker.prepare_leaf

    def linkable(engine: object, me: DeviceIdentity, set_key: SigningKey, *rest: object) -> object:
        one = keys.setdefault(str(me.user), set_key)  # one pseudonym for all of a user's rooms
        return prepare(engine, me, one, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(maker, "prepare_leaf", linkable)
    status, printed = told()
    assert status == EXIT_SEEN, printed
    assert re.search(
        r"linked: \w+'s traces in room \S+ at a\.example and room \S+ at a\.example share", printed
    )
    assert TABLES[2] not in printed


@pytest.mark.nightly
def test_a_removed_member_who_resolves_a_later_one_fails_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    replace = Story.replace_bob

    async def leaky(self: Story, *rooms: object) -> object:
        at_dave = await replace(self, *rooms)  # type: ignore[arg-type]
        self.hoard.kept.append(at_dave.leaf.ilk.reveal())
        return at_dave

    monkeypatch.setattr(Story, "replace_bob", leaky)
    status, printed = told()
    assert status == EXIT_FAILED, printed
    assert "Bob resolves Dave" in printed
    assert "(seed 1)" in printed


def test_a_directory_that_is_not_empty_is_not_kept_in(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("of another run")
    for keep in (tmp_path, tmp_path / "something"):
        done = CliRunner().invoke(app, ["demo", "--keep", str(keep)])
        assert done.exit_code == 2
        assert isinstance(done.exception, SystemExit)
        assert f"--keep {keep}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["something"]
