"""`mimi-mmr asset` on the terminal."""

from __future__ import annotations

from mimi_mmr.app.cli import terminal
from mimi_mmr.app.cli.from_models import command_line, shown_by
from mimi_mmr.app.commands.asset import FetchedFileResult, GetAsset, PutAsset, SentFileResult


def _show_sent(sent: SentFileResult) -> None:
    terminal.say(f"Sent {sent.name}, {sent.size} bytes.")


def _show_fetched(fetched: FetchedFileResult) -> None:
    terminal.say(fetched.file)


app = command_line("asset", {PutAsset: shown_by(_show_sent), GetAsset: shown_by(_show_fetched)})
