"""`mimi-mmr demo`: build the world, tell the story, open the ledger."""

from __future__ import annotations

import asyncio
import random
import secrets
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from mimi_mmr.errors import ConfigError, MmrError
from mimi_mmr.lab.demo.facts import all_views, facts_of, traces
from mimi_mmr.lab.demo.processes import Processes
from mimi_mmr.lab.demo.report import as_json, what_it_cost, who_saw_what
from mimi_mmr.lab.demo.story import Story, tell
from mimi_mmr.lab.demo.world import World, build_world
from mimi_mmr.lab.ledger import Fact, links, matrix, search
from mimi_mmr.provider.run import run
from ohttp_relay.errors import OhttpError
from treewrap import TreeWrapError

EXIT_SEEN = 1
EXIT_FAILED = 3
EXIT_STOPPED = 128 + signal.SIGTERM


Report = Callable[[dict[str, Any]], None]


def run_demo(
    members: int,
    keep: Path | None,
    seed: int | None,
    console: Console | None = None,
    *,
    report: Report | None = None,
    failed: Callable[[str], None] | None = None,
) -> int:
    """Return the exit status: 0 if all went well and nobody saw what they must not; raise `ConfigError`.

    `report` gets the tables as JSON values, `failed` why the run failed.
    """
    console = console or Console(highlight=False)
    seed = secrets.randbelow(1 << 32) if seed is None else seed
    directory = _directory(keep) if keep else None
    with tempfile.TemporaryDirectory(prefix="mimi-mmr-") as temporary:
        root = directory or Path(temporary)
        try:
            status = _run(root, members, seed, console, report)
        except (MmrError, OhttpError, TreeWrapError, OSError, ExceptionGroup) as error:
            why = f"{_explain(error)} (seed {seed})"
            console.print(f"[bold red]the demonstration failed:[/] {why}")
            if failed is not None:
                failed(f"the demonstration failed: {why}")
            status = EXIT_FAILED
        except asyncio.CancelledError:
            console.print("stopped by a signal; every process has ended")
            status = EXIT_STOPPED
    if keep:
        console.print(f"Databases, logs and frames: {root}")
    return status


def _run(root: Path, members: int, seed: int, console: Console, report: Report | None) -> int:
    console.print(f"[bold]Minimal metadata rooms[/]: three providers, four people, one room (seed {seed})")
    started = time.perf_counter()
    world = build_world(root)
    story = Story(world, random.Random(seed), lambda line: console.print(f" [green]✓[/] {line}"))  # noqa: S311
    try:
        run(_live(story, members, console))
    finally:
        world.close()
    console.print(f" [green]✓[/] all processes have stopped ({time.perf_counter() - started:.1f} s)")
    return _open_ledger(story, world, console, report)


async def _live(story: Story, members: int, console: Console) -> None:
    task = asyncio.current_task()
    if task is not None and threading.current_thread() is threading.main_thread():
        # ends the run like an interrupt: everything is cleaned up, and no process is left behind
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with console.status("three providers and an asset host"):
        async with Processes(story.world):
            try:
                await tell(story, members)
            finally:
                await story.close()


def _open_ledger(story: Story, world: World, console: Console, report: Report | None) -> int:
    people = list(story.people.values())
    facts: list[Fact] = [*story.planted, *(fact for someone in people for fact in facts_of(someone))]
    with console.status("looking for every planted fact in every view"):
        views = all_views(world)
        found = matrix(views, facts, search(views, facts))
        ties = links(traces(world, [*people, *story.fillers]))
    size = sum(len(view.content) for view in views)
    who_saw_what(console, found, ties)
    console.print(f"{len(facts)} planted facts, {len(views)} views, {size / 1e6:.1f} MB searched.")
    what_it_cost(console, story.costs.lines)
    if report is not None:
        report(as_json(found, ties, story.costs.lines))
    if found.violations or ties:
        console.print(f"[bold red]{len(found.violations) + len(ties)} findings that are not allowed.[/]")
        return EXIT_SEEN
    console.print("[bold green]Nobody saw what they must not see.[/]")
    return 0


def _directory(keep: Path) -> Path:
    keep = keep.resolve()
    try:
        keep.mkdir(parents=True, exist_ok=True)
        taken = any(keep.iterdir())
    except OSError as error:
        raise ConfigError(f"--keep {keep}: {error.strerror}") from None
    if taken:
        raise ConfigError(f"--keep {keep}: not empty; a run's views must be its own")
    return keep


def _explain(error: BaseException) -> str:
    if isinstance(error, ExceptionGroup):
        return "; ".join(_explain(inner) for inner in error.exceptions)
    return f"{type(error).__name__}: {error}"
