"""One run of `mimi-mmr`: the options that all commands have, the agent that it asks, how it shows the result."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mimi_mmr.app.agent import launch
from mimi_mmr.app.agent.connection import Connection, NotRunning, Refused
from mimi_mmr.app.agent.home import HOME_VARIABLE, Home
from mimi_mmr.app.cli import passphrase, terminal
from mimi_mmr.app.cli.options import PANEL
from mimi_mmr.app.commands.errors import NoAccount
from mimi_mmr.app.commands.model import Command
from mimi_mmr.app.commands.status import ShownNotices

TRIES = 3

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help=f"Where the state is. Default: {HOME_VARIABLE}, or mimi-mmr in the XDG data directory.",
        file_okay=False,
        rich_help_panel=PANEL,
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="File whose first line opens the state, if no agent is running;"
        f" or {launch.PASSPHRASE_VARIABLE}.",
        dir_okay=False,
        rich_help_panel=PANEL,
    ),
]


def _show_note(text: str) -> None:
    terminal.note(f"note: {text}")


@dataclass(slots=True)
class Invocation:
    """The values of the common options: which agent to ask, and how to show its answer."""

    home: Home
    json: bool = False
    passphrase_file: Path | None = None

    # --- asking --------------------------------------------------------------------------------------

    def ask(
        self,
        command: Command,
        *,
        content: bytes = b"",
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Have the agent run a command, with the bytes of a file; start the agent if need be.

        Returns the result as JSON values. Notes go to stderr, and new notices too, unless the output is JSON.
        """
        notices: list[dict[str, Any]] = []
        on: dict[str, Callable[[Any], None]] = {"note": _show_note}
        if on_progress is not None:
            on["progress"] = lambda progress: on_progress(*progress)
        if not self.json:
            on["notices"] = notices.extend
        with self.connect() as connection:
            result = connection.ask(
                command.about.name,
                command.to_request(),
                content=content,
                on=on,
                on_silence=self._on_silence(command),
            )
            for notice in notices:
                _show_note(notice["text"])
            self._confirm_notices(connection, notices)
        return result

    def stream(self, command: Command) -> Iterator[tuple[str, Any]]:
        """Have the agent run a command; yield (kind, value) of each item and file, and at last of the result."""
        with self.connect() as connection:
            answers = connection.stream(
                command.about.name, command.to_request(), on_silence=self._on_silence(command)
            )
            for kind, value in answers:
                if kind == "note":
                    _show_note(value)
                elif kind in ("item", "file", "result"):
                    yield kind, value

    def confirm(self, shown: Command) -> None:
        """Tell the agent what a person has seen, once it is written out."""
        with Connection(self.home) as connection:
            connection.ask(shown.about.name, shown.to_request())

    @staticmethod
    def _confirm_notices(connection: Connection, notices: Sequence[dict[str, Any]]) -> None:
        if notices and sys.stderr is not None:
            sys.stderr.flush()
            shown = ShownNotices(number=max(notice["number"] for notice in notices))
            connection.ask(shown.about.name, shown.to_request())

    def _on_silence(self, command: Command) -> Callable[[], None] | None:
        """Return what to say while the agent does not answer; nothing for a command that waits for something."""
        if command.about.only_waits:
            return None
        words = " ".join(command.about.words)
        return lambda: _show_note(
            f"the agent is still busy with {words}; Ctrl-C ends the waiting, and the agent goes on with it"
        )

    def connect(self) -> Connection:
        """Connect to the agent. Start it if it is not running, which may ask for the passphrase."""
        try:
            return Connection(self.home)
        except NotRunning:
            self.check_state()
        self.start()
        return Connection(self.home)

    # --- starting ------------------------------------------------------------------------------------

    def check_state(self) -> None:
        """Raise `NoAccount` if there is no state in this home."""
        if not self.home.state.exists():
            raise NoAccount(f"there is no account in {self.home.path} yet")

    def start(self, *, idle: float | None = None) -> None:
        """Start the agent on the state in this home."""
        given = passphrase.given_passphrase(self.passphrase_file)
        if given is not None:
            launch.start(self.home, given, idle=idle)
            return
        for left in reversed(range(TRIES)):
            try:
                launch.start(self.home, passphrase.ask_passphrase(), idle=idle)
            except Refused as error:
                if not left or error.answered != "state" or "passphrase" not in str(error):
                    raise
                terminal.note(f"mimi-mmr: {error}")
            else:
                return

    def start_new(self) -> None:
        """Start an agent on a new state, under a new passphrase; or on a state that has no account yet."""
        if self.home.state.exists() or launch.is_running(self.home):
            self.connect().close()
            return
        given = passphrase.given_new_passphrase(self.passphrase_file)
        launch.start(self.home, given or passphrase.ask_new_passphrase(), create=True)

    # --- showing -------------------------------------------------------------------------------------

    def show(self, command: Command, result: Any, human: Callable[[Any], None]) -> None:
        """Show a result, given as JSON values: as JSON, or by the function for people."""
        if self.json:
            terminal.show_json(result, indent=2 if sys.stdout.isatty() else None)
        else:
            human(command.about.result_from_json(result))
