"""The demonstration's processes end with it, however it ends; its tables are numbered when they are several."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from rich.console import Console

from mimi_mmr.errors import MmrError
from mimi_mmr.lab.demo import processes
from mimi_mmr.lab.demo.processes import Processes
from mimi_mmr.lab.demo.report import who_saw_what
from mimi_mmr.lab.demo.run import EXIT_STOPPED
from mimi_mmr.lab.demo.world import build_world
from mimi_mmr.lab.ledger import matrix

PATIENCE = 60.0


def children(parent: int) -> set[int]:
    """Linux says it of each thread."""
    found: set[int] = set()
    for path in Path(f"/proc/{parent}/task").glob("*/children"):
        found |= {int(number) for number in path.read_text().split()}
    return found


def runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.nightly
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
async def test_a_demonstration_that_is_told_to_end_leaves_no_process(tmp_path: Path) -> None:
    command = (
        sys.executable,
        "-m",
        "mimi_mmr",
        "demo",
        "--members",
        "2000",
        "--keep",
        str(tmp_path / "kept"),
    )
    process = await asyncio.create_subprocess_exec(*command, stdout=PIPE, stderr=PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while b"register" not in await process.stdout.readline():
                pass  # from then on the providers run
            started = children(process.pid)
            assert len(started) == 4
            process.send_signal(signal.SIGTERM)
            out, err = await process.communicate()
        assert process.returncode == EXIT_STOPPED, err
        assert b"every process has ended" in out
        assert b"Traceback" not in err
        assert not any(runs(child) for child in started)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_one_that_does_not_end_is_ended_and_so_are_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    world = build_world(tmp_path, record=False)
    running = Processes(world)
    deaf = "import signal;signal.signal(signal.SIGTERM, signal.SIG_IGN);print(1, flush=True);signal.pause()"
    willing = "print(1, flush=True);import signal;signal.pause()"
    for name, script in (("one", deaf), ("two", willing), ("three", deaf)):
        made = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=PIPE)
        assert made.stdout is not None
        await made.stdout.readline()
        running._running[name] = made
    every = list(running._running.values())
    with pytest.raises(MmrError, match="one, three did not stop"):
        await running.stop()
    assert all(made.returncode is not None for made in every)
    world.close()


@pytest.mark.parametrize(("width", "numbered"), [(60, True), (300, False)])
def test_tables_are_numbered_when_they_are_several(width: int, numbered: bool) -> None:
    output = io.StringIO()
    who_saw_what(Console(file=output, width=width), matrix([], [], []), [])
    said = " ".join(output.getvalue().split())
    assert ("received frames), 1 of " in said) == numbered
    assert "received frames)" in said
