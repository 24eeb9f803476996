"""An asset is stored whole or not at all, also on a full disk and by a process that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from mimi_mmr.errors import QueueFull
from mimi_mmr.provider.asset_files import AssetFiles
from mimi_mmr.provider.asset_host import AssetHost
from mimi_mmr.provider.assets import AssetService
from mimi_mmr.provider.http import Call
from mimi_mmr.provider.record import Recorder
from mimi_mmr.provider.settings import AssetStorage

TOKEN = "a-token-of-16-or-more"
FIRST, SECOND, THIRD = "1" * 32, "2" * 32, "3" * 32
ROOM = 256 * 1024


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 256 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs root that may mount a file system, to have one that is full")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[str]:
    """An asset host on this directory; where it is."""
    runner = web.AppRunner(AssetHost(directory, TOKEN, 1 << 20, Recorder(None)).app())
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def put(url: str, name: str, size: int) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.put(f"{url}/{name}", data=os.urandom(size)) as answer,
    ):
        return answer.status, await answer.text()


async def test_a_full_disk_is_said_and_keeps_nothing_of_the_asset_that_did_not_fit(small: Path) -> None:
    async with serving(small) as url:
        assert await put(url, FIRST, ROOM // 2) == (201, "")
        status, words = await put(url, SECOND, ROOM)
        assert (status, words) == (507, "the asset host's disk is full; nothing was stored")
        assert names(small) == [FIRST]
        assert await put(url, THIRD, ROOM // 4) == (201, "")


async def test_a_provider_passes_on_that_its_asset_host_is_full(small: Path) -> None:
    async with serving(small) as url:
        # the setting takes https alone; here the host is on this machine
        storage = AssetStorage.model_construct(origin=url, upload_token=TOKEN)
        service = AssetService(storage, None)
        try:
            with pytest.raises(QueueFull, match="asset host has no room left"):
                await service.put(Call(None, bytes(2 * ROOM)))
        finally:
            await service.close()


async def test_what_killed_uploads_left_is_gone_after_a_start_and_uploads_go_on(small: Path) -> None:
    """Also what version 0.1.0 left, which filled the disk for good."""
    for name in (f"{FIRST}.part", f"{FIRST}.12345678.part"):
        (small / name).write_bytes(bytes(ROOM // 3))
    async with serving(small) as url:
        assert await put(url, SECOND, ROOM // 2) == (201, "")
        assert names(small) == [SECOND]


WRITER = """
import sys, time
from pathlib import Path
from mimi_mmr.provider.asset_files import AssetFiles
descriptor, path = AssetFiles(Path(sys.argv[1]))._begin("1" * 32)
print(path.name, flush=True)
time.sleep(600)
"""


def test_a_partial_file_stays_while_its_writer_lives_and_goes_once_it_was_killed(tmp_path: Path) -> None:
    files = AssetFiles(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        partial = tmp_path / writer.stdout.readline().strip()
        assert (files.sweep(), partial.exists()) == (0, True)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert (files.sweep(), partial.exists()) == (1, False)
    files.store(FIRST, b"content")
    assert files.sweep() == 0
    found = files.find(FIRST)
    assert found is not None
    assert found.read_bytes() == b"content"
    assert found.stat().st_mode & 0o777 == 0o600


async def test_an_upload_that_is_cut_leaves_nothing(tmp_path: Path) -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield bytes(1000)
        raise ConnectionResetError

    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Length": "5000"}
    async with serving(tmp_path) as url, aiohttp.ClientSession(headers=headers) as session:
        with pytest.raises((aiohttp.ClientError, ConnectionError)):
            await session.put(f"{url}/{FIRST}", data=cut())
        assert names(tmp_path) == []
        assert await put(url, FIRST, 5000) == (201, "")
    assert names(tmp_path) == [FIRST]
