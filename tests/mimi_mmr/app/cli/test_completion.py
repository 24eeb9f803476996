"""What a shell is given to complete with."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import typer

from mimi_mmr.app.agent.home import Home
from mimi_mmr.app.agent.server import Server
from mimi_mmr.app.cli.completion import names_from_agent
from mimi_mmr.app.commands.completion import RoomNames

PLAIN = ["friends", "Grüße", "bob@b.example", "0f0e0d0c", "a.b-c_d", "你好"]
TAKEN_FOR_MORE = [
    *("friends$(touch x)", "friends`x`", "friends;x", "friends&x", "friends|x", "friends>x", "friends x"),
    *("friends'", 'friends"', "friends\\", "friends*", "friends?", "friends[a]", "friends{a,b}", "friends!x"),
    *(
        "--json",
        "-x",
        "~root",
        "#friends",
        "friends\nx",
        "friends\x1b[2J",
        "$HOME",
        "=ls",
        "friends^x",
        "(x)",
    ),
]


async def test_a_name_that_a_shell_would_run_or_change_is_not_completed(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.make()

    async def handle(_: Any, __: Any) -> Any:
        return {"result": sorted([*PLAIN, *TAKEN_FOR_MORE])}

    server = Server(home, handle, lambda _: True, os.geteuid())
    await server.start()
    try:
        context = cast(typer.Context, SimpleNamespace(params={"home": home.path}))
        complete = names_from_agent(RoomNames)
        assert await asyncio.to_thread(complete, context, "") == sorted(PLAIN)
        assert await asyncio.to_thread(complete, context, "fr") == ["friends"]
    finally:
        await server.stop()
