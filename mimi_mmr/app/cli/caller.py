"""What every command of an account has in common: its options, the agent it asks, how it fails."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from mimi_mmr.app.agent import launch
from mimi_mmr.app.agent.errors import HINTS, NoAccount
from mimi_mmr.app.agent.home import HOME_VARIABLE, Home
from mimi_mmr.app.agent.link import Link, NotRunning, Refused
from mimi_mmr.app.cli import passphrase, terminal
from mimi_mmr.errors import MmrError

FAILED, USAGE, UNKNOWN, STATE, NETWORK, NOTHING_YET, INTERRUPTED = 1, 2, 3, 4, 5, 6, 130
EXITS = {
    "config": USAGE,
    "invalid-uri": USAGE,
    "bad-request": USAGE,
    "not-found": UNKNOWN,
    "ambiguous": UNKNOWN,
    "state": STATE,
    "agent": STATE,
    "agent-running": STATE,
    "agent-not-running": STATE,
    "no-account": STATE,
    "peer": NETWORK,
    "private-path": NETWORK,
    "queue-full": NETWORK,
    "no-key-packages": NETWORK,
    "nothing-yet": NOTHING_YET,
}
TRIES = 3

HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home",
        help=f"Where the state is. Default: {HOME_VARIABLE}, or mimi-mmr in the XDG data directory.",
        file_okay=False,
        rich_help_panel="Common options",
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option(
        "--json", help="One JSON document on stdout, for programs.", rich_help_panel="Common options"
    ),
]
PassphraseOption = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help=f"Its first line opens the state, if no agent is running; or {launch.PASSPHRASE_VARIABLE}.",
        dir_okay=False,
        rich_help_panel="Common options",
    ),
]


@dataclass(slots=True)
class Caller:
    """One command's way to its agent, and its way to show what comes back."""

    home: Home
    json: bool = False
    passphrase_file: Path | None = None

    # --- asking --------------------------------------------------------------------------------------

    def ask(self, do: str, *, on_progress: Callable[[int, int], None] | None = None, **given: Any) -> Any:
        """Have the agent do something, started if need be; gives the result."""
        notes: list[str] = []
        with self.link() as link:
            on_notice = None if self.json else notes.append
            result = link.ask(do, on_progress=on_progress, on_notice=on_notice, **given)
        for text in notes:
            terminal.note(f"note: {text}")
        return result

    def items(self, do: str, **given: Any) -> Iterator[Any]:
        """Have the agent do something that has several things to say; gives those, and at last the result."""
        with self.link() as link:
            for kind, value in link.stream(do, **given):
                if kind in ("item", "result"):
                    yield value

    def link(self) -> Link:
        """A connection to the agent; asks for the passphrase if it has to be started."""
        try:
            return Link(self.home)
        except NotRunning:
            if not self.home.state.exists():
                raise NoAccount(f"there is no account in {self.home.path} yet") from None
        self.start()
        return Link(self.home)

    def start(self, *, idle: float | None = None) -> None:
        """Start the agent on a state that is there."""
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
        """Start an agent on a new state, under a new passphrase; or on one that has no account yet."""
        if self.home.state.exists() or launch.is_running(self.home):
            self.link().close()
            return
        given = passphrase.given_passphrase(self.passphrase_file)
        launch.start(self.home, given or passphrase.ask_new_passphrase(), create=True)

    # --- showing -------------------------------------------------------------------------------------

    def show(self, value: Any, human: Callable[[Any], None]) -> None:
        """As JSON, or for people."""
        if self.json:
            terminal.show_json(value, indent=2 if sys.stdout.isatty() else None)
        else:
            human(value)


def command(
    app: typer.Typer, name: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command: its first parameter is the `Caller`, the others are its own."""

    def register(run: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(run, eval_str=True)
        own = list(signature.parameters.values())[1:]
        common = [
            inspect.Parameter("home", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=HomeOption),
            inspect.Parameter(
                "as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=JsonOption
            ),
            inspect.Parameter(
                "passphrase_file", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=PassphraseOption
            ),
        ]

        def typed(home: Path | None, as_json: bool, passphrase_file: Path | None, **values: Any) -> None:
            with failing(as_json):
                run(Caller(Home.find(home), as_json, passphrase_file), **values)

        keyword_only = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
        typed.__signature__ = inspect.Signature([*keyword_only, *common])  # type: ignore[attr-defined]
        typed.__annotations__ = {}
        typed.__doc__, typed.__name__ = run.__doc__, run.__name__
        app.command(name)(typed)
        return run

    return register


@contextmanager
def failing(as_json: bool = False) -> Iterator[None]:
    """Errors as people want them: what, then what to do about it, on stderr; and the exit status."""
    try:
        yield
    except MmrError as error:
        code = error.answered if isinstance(error, Refused) else error.code
        hint = error.hint if isinstance(error, Refused) else HINTS.get(code, "")
        if as_json:
            failure = {"error": {"code": code, "message": str(error), "hint": hint}}
            typer.echo(json.dumps(failure), err=True)
        else:
            terminal.note(f"mimi-mmr: {error}")
            if hint:
                terminal.note(f"hint: {hint}")
        raise typer.Exit(EXITS.get(code, FAILED)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
