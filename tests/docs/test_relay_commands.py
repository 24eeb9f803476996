"""The commands on the page of `ohttp_relay` serve as they are printed."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, create_subprocess_exec
from pathlib import Path

import aiohttp
import pytest

from tests.docs.pages import run_by
from tests.docs.test_operations_page import free_port, tls_files

PATIENCE = 60.0
(BLOCK,) = run_by(
    "ohttp_relay/README.md", "tests/docs/test_relay_commands.py::test_each_command_serves_as_printed"
)
KEYS, *SERVING = (line.split(maxsplit=1)[1] for line in BLOCK.splitlines())


async def command(line: str, directory: Path, **environment: str) -> asyncio.subprocess.Process:
    """Run one, with the page's directories in this one."""
    arguments = shlex.split(
        line.replace("/var/lib/", f"{directory}/").replace("/var/cache/", f"{directory}/")
    )
    return await create_subprocess_exec(
        *(sys.executable, "-m", "ohttp_relay", *arguments),
        cwd=directory,
        env=os.environ | environment,
        stdout=DEVNULL,
        stderr=PIPE,
    )


async def healthy(port: int) -> dict[str, str]:
    """What the command's own health check says, once it answers."""
    end = time.monotonic() + PATIENCE
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{port}/health") as answer:
                    found: dict[str, str] = await answer.json()
                    return found
            except aiohttp.ClientConnectionError:
                assert time.monotonic() < end
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("line", SERVING, ids=lambda line: line.partition(" ")[0])
async def test_each_command_serves_as_printed(tmp_path: Path, line: str) -> None:
    tls_files(tmp_path, "relay.example", "cert.pem", "key.pem")
    (tmp_path / "tokens.txt").write_text("a-token\n")
    made = await command(KEYS, tmp_path)
    assert await made.wait() == 0, await made.communicate()
    admin = free_port()
    process = await command(
        line, tmp_path, OHTTP_HOST="127.0.0.1", OHTTP_PORT=str(free_port()), OHTTP_ADMIN_PORT=str(admin)
    )
    try:
        assert await healthy(admin) == {"status": "ok", "role": line.partition(" ")[0]}
        process.terminate()
        async with asyncio.timeout(PATIENCE):
            _, errors = await process.communicate()
        assert process.returncode == 0, errors
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
