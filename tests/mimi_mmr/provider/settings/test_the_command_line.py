"""`mimi-mmr` as a process: what it says, what it returns, how it starts and how it ends."""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import ssl
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization as s
from typer.testing import CliRunner

from mimi_mmr.app.cli import app
from mimi_mmr.client import Client
from mimi_mmr.client.transport.queues import Queues
from mimi_mmr.lab.demo.processes import Processes
from mimi_mmr.lab.demo.world import World, build_world
from mimi_mmr.provider.key_files import make_authority
from tests.mimi_mmr.provider.settings.settings_world import SECRET, Place, clean_environment

PATIENCE = 60.0


def spoil_tls(place: Place) -> None:
    other = place.world.providers["b.example"].directory / "tls-key.pem"
    place.rewrite(r"^key = .*$", f'key = "{other}"')


def spoil_ca(place: Place) -> None:
    (place.directory / "not.pem").write_text("no certificate")
    place.rewrite(r"^ca = .*$", 'ca = "not.pem"')


def encrypt_key(place: Place) -> None:
    path = place.directory / "tls-key.pem"
    key = s.load_pem_private_key(path.read_bytes(), None)
    locked = s.BestAvailableEncryption(SECRET.encode())
    path.write_bytes(key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, locked))


def take_port(place: Place) -> None:
    host, port = place.world.providers["b.example"].socket.getsockname()[:2]
    place.rewrite(r"^listen = .*$", f'listen = "{host}:{port}"')


def file_for_directory(name: str) -> str:
    return f'{name} = "config.toml"'


def loose_ca(place: Place) -> None:
    (place.directory / "data" / "ca.pem").chmod(0o644)


def loose_key(place: Place) -> None:
    path = place.directory / "data" / "provider.key"
    path.write_bytes(bytes(32))
    path.chmod(0o644)


def short_key(place: Place) -> None:
    path = place.directory / "data" / "queue.key"
    path.write_bytes(bytes(5))
    path.chmod(0o600)


def other_ca(place: Place) -> None:
    (place.directory / "data" / "ca.pem").unlink()
    trust = place.world.root / "elsewhere"
    trust.mkdir()
    make_authority("a.example", place.directory / "data" / "ca.pem", trust, 1e9)


def no_peers_ca(place: Place) -> None:
    (place.world.trust_dir / "c.example.pem").unlink()


def bad_anchor(place: Place) -> None:
    (place.world.trust_dir / "c.example.pem").write_text("nothing")


BAD_PLACES = {
    "a key of another certificate": (spoil_tls, "tls"),
    "an encrypted key": (encrypt_key, "tls"),
    "roots that are none": (spoil_ca, r"tls\.ca"),
    "a port in use": (take_port, "listen"),
    "a descriptor that is no socket": (
        lambda place: place.rewrite(r"^listen = .*$", 'listen = "fd:9999"'),
        "listen",
    ),
    "data where a file is": (
        lambda place: place.rewrite(r"^data_dir = .*$", file_for_directory("data_dir")),
        "data_dir",
    ),
    "records where a file is": (
        lambda place: place.put_first(file_for_directory("record_dir")),
        "record_dir",
    ),
    "a database that is no URL": (
        lambda place: place.put_first(f'database = {{hub = "{SECRET}"}}'),
        r"database\.hub",
    ),
    "a database of another kind": (
        lambda place: place.put_first(f'database = {{hub = "mysql://u:{SECRET}@h/d"}}'),
        r"database\.hub",
    ),
    "a database that is a directory": (
        lambda place: place.put_first(f'database = {{accounts = "sqlite:///{place.directory}"}}'),
        r"database\.accounts",
    ),
    "a CA that others may read": (loose_ca, r"ca\.pem"),
    "a key that others may read": (loose_key, r"provider\.key"),
    "a key of the wrong size": (short_key, r"queue\.key"),
    "a CA that is not the one that others trust": (other_ca, "trust_dir"),
    "a peer whose CA is not there": (no_peers_ca, r"peers\.c\.example: no .*c\.example\.pem; ask"),
    "a CA that is none": (bad_anchor, "trust_dir"),
    "an unknown setting": (lambda place: place.put_first("colour = 1"), "colour"),
}


@pytest.mark.parametrize("what", BAD_PLACES)
def test_serve_names_what_is_wrong_and_ends_with_2(place: Place, what: str) -> None:
    spoil, named = BAD_PLACES[what]
    spoil(place)
    done = CliRunner().invoke(app, ["serve", "--config", str(place.config)])
    assert done.exit_code == 2, done.stderr
    assert isinstance(done.exception, SystemExit)
    assert re.match(rf"mimi-mmr: (.*/)?{named}", done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert SECRET not in done.stderr
    assert done.stdout == ""


def test_a_process_that_can_not_start_says_why_and_ends_with_2(place: Place) -> None:
    take_port(place)
    done = place.run("--config", "config.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"mimi-mmr: listen: .*Address already in use\n", done.stderr)


def test_an_asset_host_names_what_is_wrong_and_ends_with_2(place: Place) -> None:
    for env, named in (
        ({}, "tls"),
        ({"MIMI_MMR_ASSETS_UPLOAD_TOKEN": "s3cret"}, "upload_token"),
        ({"MIMI_MMR_ASSETS_UPLAOD_TOKEN": SECRET}, "MIMI_MMR_ASSETS_UPLAOD_TOKEN"),
    ):
        done = CliRunner().invoke(app, ["asset-host"], env=env)
        assert done.exit_code == 2
        assert isinstance(done.exception, SystemExit)
        assert named in done.stderr
        assert "s3cret" not in done.stderr
        assert "Traceback" not in done.stderr


def test_ca_makes_one_and_does_not_replace_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def ca(domain: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["ca", domain])
        return done.exit_code, done.stdout.strip(), done.stderr

    assert ca("a.example") == (0, "trust/a.example.pem", "")
    made = (tmp_path / "data" / "ca.pem").read_bytes()
    assert (tmp_path / "data" / "ca.pem").stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE" not in (tmp_path / "trust" / "a.example.pem").read_bytes()
    root = (tmp_path / "trust" / "a.example.pem").read_bytes()
    status, _, said = ca("a.example")
    assert status == 2
    assert "ca.pem exists" in said
    for name in ("", "example", "A.example", "../x.example"):
        status, _, said = ca(name)
        assert status == 2
        assert "Traceback" not in said
    assert (tmp_path / "data" / "ca.pem").read_bytes() == made
    assert [path.name for path in (tmp_path / "trust").iterdir()] == ["a.example.pem"]
    assert (tmp_path / "trust" / "a.example.pem").read_bytes() == root


# --- as a server -------------------------------------------------------------------------------------


@asynccontextmanager
async def serving(
    world: World, *, environment: dict[str, str] | None = None, activated: socket.socket | None = None
) -> AsyncIterator[tuple[Process, str]]:
    """`mimi-mmr serve` of a.example; the process and the line that it announced itself with."""
    party = world.providers["a.example"]
    command = [sys.executable, "-m", "mimi_mmr", "serve", "--config", str(party.config)]
    if activated is not None:  # as systemd does it: the socket is number 3, and the variables say so
        script = "import os,sys;os.dup2(int(sys.argv[1]),3);os.environ.update(LISTEN_FDS='1',"
        script += "LISTEN_PID=str(os.getpid()));os.execv(sys.argv[2],sys.argv[2:])"
        command = [sys.executable, "-c", script, str(activated.fileno()), *command]
    descriptors = [party.socket.fileno()] + ([activated.fileno()] if activated is not None else [])
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=PIPE,
        stderr=PIPE,
        env=clean_environment() | (environment or {}),
        pass_fds=descriptors,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            line = await process.stdout.readline()
        yield process, line.decode().strip()
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def health(world: World, url: str, tls: ssl.SSLContext | None = None) -> int:
    connector = aiohttp.TCPConnector(ssl=tls or world.tls())
    async with aiohttp.ClientSession(connector=connector) as session, session.get(f"{url}/health") as answer:
        return answer.status


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_serve_announces_itself_is_healthy_and_ends_with_0(place: Place, number: int) -> None:
    party = place.world.providers["a.example"]
    async with serving(place.world) as (process, line):
        assert line == f"a.example serves on {party.url.removeprefix('https://')}"
        assert await health(place.world, party.url) == 200
        process.send_signal(number)
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
        assert (process.returncode, out, err) == (0, b"", b"")


async def test_a_socket_that_the_service_manager_opened_is_served_on(place: Place) -> None:
    place.rewrite(r"^listen = .*$", "")  # an address in the file would win
    address = place.world.providers["a.example"].url.removeprefix("https://").partition(":")[0]
    with socket.create_server((address, 0)) as opened:
        port = opened.getsockname()[1]
        async with serving(place.world, activated=opened) as (process, line):
            assert line.endswith(f":{port}")
            assert await health(place.world, f"https://{address}:{port}") == 200
            process.terminate()
            async with asyncio.timeout(PATIENCE):
                await process.communicate()
            assert process.returncode == 0


async def test_a_socket_that_is_passed_for_nothing_is_logged(place: Place) -> None:
    party = place.world.providers["a.example"]
    with socket.create_server(("127.0.0.1", 0)) as opened:
        async with serving(place.world, environment={"LISTEN_FDS": "1"}, activated=opened) as (process, line):
            assert (
                line == f"a.example serves on {party.url.removeprefix('https://')}"
            )  # as the file says: fd:N
            process.terminate()
            assert (await process.communicate())[1] == b""
        address = party.url.removeprefix("https://").partition(":")[0]
        with socket.create_server((address, 0)) as free:
            port = free.getsockname()[1]
        place.rewrite(r"^listen = .*$", f'listen = "{address}:{port}"')
        async with serving(place.world, activated=opened) as (process, line):
            assert line == f"a.example serves on {address}:{port}"
            process.terminate()
            said = (await process.communicate())[1]
    assert b"LISTEN_FDS" in said
    assert said.count(b"\n") == 1


async def test_the_environment_wins_over_the_file_for_a_server_too(place: Place) -> None:
    address = place.world.providers["a.example"].url.removeprefix("https://").partition(":")[0]
    with socket.create_server((address, 0)) as opened:
        port = opened.getsockname()[1]
    async with serving(place.world, environment={"MIMI_MMR_LISTEN": f"{address}:{port}"}) as (_, line):
        assert line == f"a.example serves on {address}:{port}"


async def test_a_request_in_flight_is_answered_before_the_process_ends(tmp_path: Path) -> None:
    world = build_world(tmp_path, record=True)
    try:
        async with Processes(world) as running:
            party = world.providers["a.example"]
            client = Client("alice", "phone", "a.example", party.url, world.trust(), ssl_context=world.tls())
            try:
                await client.register()
                leaf = await client.key_packages.maker.leaf()
                poll = asyncio.create_task(Queues(client.path).collect(leaf.queue, 0, 20.0))
                await seen(party.directory / "record" / "deliveries.frames.jsonl", b"/v1/queues/collect")
                async with asyncio.timeout(15):
                    process = running._running["a.example"]
                    process.terminate()
                    assert (await poll).messages == ()
                    assert await process.wait() == 0
            finally:
                await client.close()
    finally:
        world.close()


async def seen(frames: Path, what: bytes) -> None:
    """Until a party has recorded that a request came in; the file is all there is to watch from outside."""

    def there() -> bool:
        return frames.exists() and what in frames.read_bytes()

    async with asyncio.timeout(PATIENCE):
        while not await asyncio.to_thread(there):  # noqa: ASYNC110  # a process of its own: no event to await
            await asyncio.sleep(0.01)


def test_help_names_every_command() -> None:
    done = CliRunner().invoke(app, ["--help"])
    assert done.exit_code == 0
    for command in ("serve", "asset-host", "ca", "demo"):
        assert command in done.stdout
